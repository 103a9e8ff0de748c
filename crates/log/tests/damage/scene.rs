//! A small data directory with something of everything in it, and what is done to its files.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use logmill_log::inspect::{CheckpointRow, list};
use logmill_log::sim::Sim;
use logmill_log::{CompactionOptions, Error, ErrorKind, Log, LogOptions, LogSet, SetOptions, Step};
use logmill_record::{Batch, BatchHeader, ControlRecord, ControlType, HEADER_LEN, Inflater, TimestampMs};

use crate::common::index_file::{FOOTER_LEN, PREFIX_LEN, ROW_LEN};
use crate::common::{batch, produced};
use crate::keyed;

pub(crate) const DIR: &str = "/data";
pub(crate) const LOGS: [&str; 4] = ["keys", "log", "paid", "rows"];
/// The part of a batch's header that its own checksum does not cover, with that checksum.
const OUTSIDE: u64 = 21;

/// The batches of a log, by their base offsets, byte for byte.
pub(crate) type Batches = BTreeMap<u64, Bytes>;

/// A data directory and its files, to be damaged again and again.
pub(crate) struct Scene {
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    /// What each log holds.
    pub(crate) logs: BTreeMap<&'static str, Batches>,
    /// What was promised of each, if it was killed: after a close nothing is torn.
    pub(crate) checkpoint: BTreeMap<&'static str, CheckpointRow>,
}

/// One thing done to one file.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Damage {
    Flip(u64, u8),
    Cut(u64),
}

impl Damage {
    pub(crate) fn position(self) -> u64 {
        match self {
            Self::Flip(at, _) | Self::Cut(at) => at,
        }
    }
}

/// A log of three segments, which the next program goes on with.
fn write_log(log: &Log, count: usize) {
    for _ in 0..count {
        let n = i32::try_from(log.written_end().get()).unwrap();
        let pair = [format!("first of {n}").into_bytes(), format!("second of {n}").into_bytes()];
        let batch = produced(7, 0, n, false, &[&pair[0], &pair[1]]);
        // On disk some time later.
        let Ok(Step::Done(_)) = log.try_append(&[batch]) else { panic!("there is room") };
    }
}

fn append(log: &Log, batch: Batch) {
    log.append(&[batch]).unwrap().wait().unwrap();
}

/// A transaction that was aborted, one that was committed, and one that is open, over two segments.
fn write_paid(log: &Log) {
    let marker =
        |kind, id| ControlRecord { kind, coordinator_epoch: 1 }.batch(id, 0, TimestampMs(5)).unwrap();
    append(log, produced(8, 0, 0, true, &[b"aborted", b"too"]));
    append(log, produced(9, 0, 0, true, &[b"committed"]));
    append(log, marker(ControlType::Abort, 8));
    log.roll().unwrap();
    append(log, marker(ControlType::Commit, 9));
    append(log, produced(8, 0, 2, true, &[b"open"]));
}

/// A sealed segment with several rows in its index.
fn write_rows(log: &Log, sim: &Sim) {
    for n in 0..3_u8 {
        append(log, batch(&[&[n; 20], &[n; 2_000]]));
        append(log, batch(&[&[n; 2_300]]));
        sim.clock.advance(Duration::from_secs(2));
    }
    log.roll().unwrap();
    append(log, batch(&[b"active"]));
}

/// A segment that was compacted, so that offsets are missing in it and batches are empty.
fn write_keys(log: &Log) {
    for n in 0..6 {
        append(log, keyed::batch(&[(Some(n % 2), Some(n.into())), (Some(2), Some(n.into()))]));
    }
    log.roll().unwrap();
    assert_eq!(log.compact().unwrap().segments, 1);
    append(log, keyed::batch(&[(Some(1), None)]));
}

impl Scene {
    /// Closed cleanly; or killed, with a second opening behind it and bytes that were not synced.
    pub(crate) fn new(clean: bool) -> Self {
        let mut sim = Sim::new(11);
        let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
        let create = |name| {
            let compacted = LogOptions::default().compaction(Some(CompactionOptions::default()));
            let options = if name == "keys" { compacted } else { LogOptions::default() };
            set.create(name, b"owner", options).unwrap()
        };
        let log = create("log");
        for _ in 0..2 {
            write_log(&log, 3);
            log.roll().unwrap();
        }
        write_log(&log, 3);
        write_paid(&create("paid"));
        write_rows(&create("rows"), &sim);
        write_keys(&create("keys"));
        set.close().unwrap();
        if !clean {
            let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
            let log = set.open_log("log", LogOptions::default()).unwrap();
            write_log(&log, 2);
            sim.scheduler.run_for(Duration::from_secs(2));
            write_log(&log, 2);
            sim.kill();
        }
        let files = sim.fs.files().into_iter().map(|path| (path.clone(), sim.fs.read_file(path).unwrap()));
        let files = files.filter(|(path, _)| !path.ends_with("lock")).collect();
        let mut scene = Self { files, logs: BTreeMap::new(), checkpoint: BTreeMap::new() };
        let whole = scene.machine();
        let listed = list(&whole.env(), DIR).unwrap().logs;
        let rows = LOGS.into_iter().zip(listed).filter_map(|(name, log)| Some((name, log.checkpoint?)));
        scene.checkpoint = rows.filter(|_| !clean).collect();
        let set = open(&whole).unwrap();
        scene.logs = LOGS.map(|name| (name, survivors(&open_log(&set, name).unwrap()))).into();
        scene
    }

    /// The directory as it was, on a machine of its own.
    pub(crate) fn machine(&self) -> Sim {
        let sim = Sim::new(1);
        for (path, bytes) in &self.files {
            sim.fs.write_file(path, bytes).unwrap();
        }
        sim
    }

    /// Each byte of a header or a footer, and every `step`th of the rest; of long values fewer.
    pub(crate) fn each_damage(&self, step: u64) -> Vec<(&Path, Damage)> {
        let of_file = |(path, bytes): (_, &Vec<u8>)| {
            let path: &PathBuf = path;
            let len = bytes.len() as u64;
            let begun = match ending(path) {
                "log" => stored(bytes).into_iter().map(|batch| batch.bytes.start).collect(),
                _ => vec![0, len.saturating_sub(HEADER_LEN as u64)],
            };
            let is_tried = |at: &u64| {
                let behind = begun.iter().rev().find(|begun| *begun <= at).map_or(0, |begun| at - begun);
                behind < HEADER_LEN as u64 || at.is_multiple_of(if behind < 200 { step } else { 89 })
            };
            let positions: Vec<u64> = (0..len).filter(is_tried).collect();
            let flips =
                positions.clone().into_iter().map(|at| Damage::Flip(at, u8::try_from(at % 8).unwrap()));
            flips.chain(positions.into_iter().map(Damage::Cut)).map(move |damage| (path.as_path(), damage))
        };
        self.files.iter().flat_map(of_file).collect()
    }

    pub(crate) fn damaged(&self, path: &Path, damage: Damage) -> Sim {
        let sim = self.machine();
        match damage {
            Damage::Flip(at, bit) => sim.fs.flip(path, at, bit).unwrap(),
            Damage::Cut(len) => sim.fs.truncate(path, len).unwrap(),
        }
        sim
    }

    /// Whether this is the segment that its log appended to.
    pub(crate) fn is_newest(&self, path: &Path) -> bool {
        let of_log = |other: &&PathBuf| other.parent() == path.parent() && ending(other) == "log";
        self.files.keys().rfind(of_log).is_some_and(|newest| newest == path)
    }

    /// The batch that a position in a segment lies in, or else the next one.
    pub(crate) fn batch_at(&self, path: &Path, position: u64) -> Stored {
        stored(&self.files[path])
            .into_iter()
            .find(|batch| batch.bytes.end > position)
            .expect("it is in the file")
    }

    /// What damage to a segment's data may cost at most.
    pub(crate) fn may_cost(&self, path: &Path, damage: Damage) -> Range<u64> {
        let hit = self.batch_at(path, damage.position());
        let all = stored(&self.files[path]);
        let end = all.last().expect("it holds batches").offsets.end;
        match damage {
            // Compaction may have left no batch at the segment's end.
            Damage::Cut(_) => hit.offsets.start..u64::MAX,
            // What was never promised is a torn write from there on.
            Damage::Flip(..) if self.is_behind_the_checkpoint(path, damage) => hit.offsets.start..end,
            // Only a checksum over all the headers of a row tells.
            Damage::Flip(at, _) if at - hit.bytes.start < OUTSIDE => self.row_of(path, &hit, end),
            // It may say of itself that it goes on for longer.
            Damage::Flip(at, _) if at - hit.bytes.start < HEADER_LEN as u64 => {
                hit.offsets.start..self.row_of(path, &hit, end).end
            }
            Damage::Flip(..) => hit.offsets,
        }
    }

    /// The offsets of the index's row that a batch belongs to.
    fn row_of(&self, path: &Path, batch: &Stored, end: u64) -> Range<u64> {
        let base: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        let index = &self.files[&path.with_extension("index")];
        let rows = index[PREFIX_LEN..index.len() - FOOTER_LEN].chunks(ROW_LEN);
        let mut starts: Vec<u64> =
            rows.map(|row| base + u64::from(u32::from_le_bytes(*row.first_chunk().unwrap()))).collect();
        starts.push(end);
        let row = starts.windows(2).find(|row| row[1] > batch.offsets.start).unwrap();
        row[0]..row[1]
    }
}

/// A batch in a file.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) bytes: Range<u64>,
    pub(crate) offsets: Range<u64>,
}

fn stored(file: &[u8]) -> Vec<Stored> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < file.len() {
        let header = BatchHeader::parse(&file[at..][..HEADER_LEN]).unwrap();
        let end = at + header.total_len;
        let offsets = header.base_offset.get()..header.next_offset().get();
        found.push(Stored { bytes: at as u64..end as u64, offsets });
        at = end;
    }
    found
}

pub(crate) fn ending(path: &Path) -> &str {
    path.extension().or(path.file_name()).unwrap().to_str().unwrap()
}

/// The log that a file belongs to; none if it is the set's.
pub(crate) fn log_of(path: &Path) -> Option<&'static str> {
    let name = path.parent()?.file_name()?;
    LOGS.into_iter().find(|log| *log == name)
}

pub(crate) fn open(sim: &Sim) -> Result<LogSet, Error> {
    LogSet::open(DIR, SetOptions::new(sim.env()))
}

pub(crate) fn open_log(set: &LogSet, name: &str) -> Result<Log, Error> {
    set.open_log(name, LogOptions::default())
}

/// Reads what can be read, batch by batch, going on behind what cannot.
pub(crate) fn survivors(log: &Log) -> Batches {
    let mut found = Batches::new();
    let mut next = log.start_offset();
    while next < log.end_offset() {
        match log.read(next, 1) {
            Ok(out) => {
                for chunk in &out.chunks {
                    let mut rest = chunk.batches.clone();
                    while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                        batch.check_stored_with(&mut Inflater::default()).unwrap();
                        found.insert(batch.header().base_offset.get(), batch.bytes().clone());
                    }
                }
                assert!(out.next_offset > next, "a read goes on");
                next = out.next_offset;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                let past = error.offsets().unwrap_or_else(|| panic!("{error} names no offsets")).end;
                assert!(past > next, "{error}");
                next = past;
            }
        }
    }
    found
}
