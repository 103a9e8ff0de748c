//! Every file of a data directory, mutated, behind checksums that hold: the decoders are reached as
//! a program reaches them, by opening, reading, appending and closing. Nothing panics, nothing is
//! allocated for a length that a file only claims, and no read serves what was not written.
//!
//! The corpus is what a log writes, and the files in `tests/corpus/`, one directory for each
//! format. `LOGMILL_FUZZ_RUNS` sets how many mutations of each file are tried; a failure prints its
//! file and number.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and reads its corpus by hand"
)]

#[path = "../../record/tests/common/allocator.rs"]
#[allow(unreachable_pub, reason = "shared with the tests of the records")]
mod allocator;
mod common;
#[path = "../../record/tests/common/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use allocator::{Counting, LARGEST};
use common::index_file::{FOOTER_LEN, PREFIX_LEN, ROW_LEN};
use common::{batch_at, produced};
use logmill_log::env::OpenMode;
use logmill_log::sim::Sim;
use logmill_log::{Error, Log, LogOptions, LogSet, Receipt, SetOptions};
use logmill_record::{Batch, ControlRecord, ControlType, Offset, TimestampMs};
use mutate::Mutator;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Files are read in pieces of this size, whatever they claim to be.
const PIECE_BYTES: usize = 1 << 20;

/// The pair of records after which a transaction is aborted.
const MARKER_AFTER: i32 = 40;

type Files = BTreeMap<String, Vec<u8>>;

fn options() -> LogOptions {
    LogOptions::default().segment_bytes(50_000)
}

/// A set with two sealed segments and an active one, closed cleanly or killed.
fn write_set(clean: bool) -> (Files, Vec<Vec<u8>>) {
    let sim = Sim::new(1);
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.create("a", b"the owner's bytes", options()).unwrap();
    let mut values: Vec<Vec<u8>> =
        (0..120).map(|n| format!("{n} {}", "v".repeat(1_000)).into_bytes()).collect();
    for (n, pair) in (0..).zip(values.chunks(2)) {
        let pair = [&pair[0][..], &pair[1][..]];
        // Every third is of a producer, some of them in a transaction that stays open.
        let id = i64::from(n % 9);
        let batch = match id {
            0 | 3 => produced(id, 1, n / 9 * 2, id == 3, &pair),
            _ => batch_at(i64::from(n) * 100, &pair),
        };
        log.append(&[batch]).unwrap().wait().unwrap();
        if n == MARKER_AFTER {
            let abort = ControlRecord { kind: ControlType::Abort, coordinator_epoch: 1 };
            log.append(&[abort.batch(3, 1, TimestampMs(1)).unwrap()]).unwrap().wait().unwrap();
        }
        sim.scheduler.run_for(Duration::from_millis(90));
    }
    // The marker has an offset and no value.
    values.insert(2 * (usize::try_from(MARKER_AFTER).unwrap() + 1), Vec::new());
    if clean {
        set.close().unwrap();
    }
    let mut files = Files::new();
    for dir in ["/data", "/data/a"] {
        for entry in sim.env().fs.list(Path::new(dir)).unwrap() {
            let path = format!("{dir}/{}", entry.name);
            if !entry.is_dir && entry.name != "lock" {
                files.insert(path.clone(), sim.fs.read_file(&path).unwrap());
            }
        }
    }
    (files, values)
}

/// Which format a file has.
fn format(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap();
    name.rsplit('.').next().unwrap()
}

/// Makes the checksums hold again, so that what lies behind them is reached.
fn repair(format: &str, bytes: &mut [u8]) {
    let len = bytes.len();
    match format {
        "log" => {}
        "index" if len >= PREFIX_LEN + FOOTER_LEN => {
            let rows = crc32fast::hash(&bytes[PREFIX_LEN..len - FOOTER_LEN]);
            bytes[len - 8..len - 4].copy_from_slice(&rows.to_le_bytes());
            let covered = [&bytes[..PREFIX_LEN], &bytes[len - FOOTER_LEN..len - 4]].concat();
            bytes[len - 4..].copy_from_slice(&crc32fast::hash(&covered).to_le_bytes());
        }
        _ if len >= 4 => {
            let crc = crc32fast::hash(&bytes[..len - 4]);
            bytes[len - 4..].copy_from_slice(&crc.to_le_bytes());
        }
        _ => {}
    }
}

/// A number of a little-endian file becomes one that lies at the edge of something.
fn set_number(mutator: &mut Mutator, bytes: &mut [u8]) {
    const EDGES: [u64; 8] = [0, 1, u64::MAX, u64::MAX >> 1, 1 << 63, 1 << 31, (1 << 32) - 1, 1 << 62];
    let width = [1, 2, 4, 8][mutator.below(4)];
    if bytes.len() >= width {
        // Most numbers lie where their width divides the position.
        let at = mutator.below(bytes.len() / width) * width;
        let value = EDGES[mutator.below(EDGES.len())].to_le_bytes();
        bytes[at..at + width].copy_from_slice(&value[..width]);
    }
}

fn put(sim: &Sim, files: &Files) {
    let fs = sim.env().fs;
    for dir in ["/data", "/data/a"] {
        fs.create_dir(Path::new(dir)).unwrap();
    }
    for (path, bytes) in files {
        let file = fs.open(Path::new(path), OpenMode::CreateNew).unwrap();
        assert_eq!(file.write_at(&[IoSlice::new(bytes)], 0).unwrap(), bytes.len());
        file.sync_data().unwrap();
    }
}

/// What a program does with a directory that it knows nothing of; `values` are those of its records,
/// none if that is not known.
fn work(sim: &Sim, values: &[Vec<u8>]) -> Result<(), Error> {
    let set = LogSet::open("/data", SetOptions::new(sim.env()))?;
    let _ = set.read_meta("a")?;
    let log = set.open_log("a", options())?;
    read(&log, values);
    for at in [i64::MIN, 0, 1_234, 5_000, i64::MAX] {
        let _ = log.find_time(TimestampMs(at));
    }
    let (_, stable) = (log.stats(), log.last_stable_offset());
    let _ = log.aborted(log.start_offset()..stable);
    for id in [0, 3, 9] {
        if let Some(producer) = log.producer(id) {
            let sequence = producer.last_sequence.unwrap_or_default();
            for sequence in [sequence, sequence.wrapping_add(1)] {
                let _ = log.append(&[produced(id, producer.epoch, sequence, false, &[b"on"])]);
            }
        }
    }
    let _ = log.aborted(log.start_offset()..log.end_offset());
    if let [one, other, ..] = values.get(112..).unwrap_or_default() {
        let _ = log.append(&[produced(7, 0, 28, false, &[one, other])]).and_then(Receipt::wait);
    }
    let appended = log.append(&[batch_at(7, &[b"after"])]).and_then(Receipt::wait);
    let moved = log.set_start_offset(Offset(log.end_offset().get() / 2));
    let rolled = log.roll();
    set.close()?;
    drop((log, set));
    let set = LogSet::open("/data", SetOptions::new(sim.env()))?;
    let log = set.open_log("a", options())?;
    let _ = log.read(log.start_offset(), 1 << 20);
    appended.and(moved.map(drop)).and(rolled)
}

/// Reads on behind damage, as far as there is something; what is served is what was written.
fn read(log: &Log, values: &[Vec<u8>]) {
    let mut next = log.start_offset();
    while next < log.end_offset() {
        let out = match log.read(next, 20_000) {
            Ok(out) => out,
            Err(error) => match error.offsets() {
                Some(offsets) if offsets.end > next => {
                    next = offsets.end;
                    continue;
                }
                _ => return,
            },
        };
        for chunk in out.chunks {
            let mut rest = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut rest).expect("what is served is checked") {
                if batch.header().attributes.is_control() {
                    continue;
                }
                for record in batch.records().into_iter().flatten() {
                    let Ok(record) = record else {
                        assert!(values.is_empty(), "it was written");
                        break;
                    };
                    let written = usize::try_from(record.offset.get()).ok().and_then(|at| values.get(at));
                    let is_foreign = values.is_empty();
                    assert!(is_foreign || record.value == written.map(Vec::as_slice), "at {}", record.offset);
                }
            }
        }
        assert!(out.next_offset > next, "a read before the end goes on");
        next = out.next_offset;
    }
}

/// Puts `bytes` in the place of one file and works; says whether all went well.
fn execute(files: &Files, values: &[Vec<u8>], path: &str, bytes: &[u8], which: &str) -> bool {
    let sim = Sim::new(1);
    let total: usize = files.values().map(Vec::len).sum::<usize>() + bytes.len();
    let mut files = files.clone();
    files.insert(path.to_owned(), bytes.to_vec());
    put(&sim, &files);
    LARGEST.set(0);
    let outcome = catch_unwind(AssertUnwindSafe(|| work(&sim, values)));
    let largest = LARGEST.get();
    let worked = outcome.unwrap_or_else(|_| panic!("{which} panicked")).is_ok();
    assert!(largest <= 2 * PIECE_BYTES + 2 * total, "{which}: {largest} bytes for a directory of {total}");
    worked
}

/// The files of `tests/corpus/` for a format, with their names.
fn corpus(format: &str) -> Files {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(format);
    let Ok(entries) = std::fs::read_dir(dir) else { return Files::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn mutated_files_are_refused_or_worked_with_and_never_panic() {
    let runs = std::env::var("LOGMILL_FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(120);
    let mut executions: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for clean in [true, false] {
        let (files, values) = write_set(clean);
        for (path, original) in &files {
            let format = format(path);
            let (all, good) = executions.entry(format.to_owned()).or_default();
            let mut try_it = |bytes: &[u8], values: &[Vec<u8>], which: &str| {
                *all += 1;
                *good += u64::from(execute(&files, values, path, bytes, which));
            };
            for (name, bytes) in corpus(format) {
                // Whole batches of somebody else are served as they are.
                let values = if format == "log" { &[] } else { &values[..] };
                try_it(&bytes, values, &name);
            }
            for number in 0..runs {
                let mut mutator = Mutator::new(number);
                let mut bytes = if mutator.below(2) == 0 {
                    mutator.mutate(original, &files["/data/set"])
                } else {
                    original.clone()
                };
                if bytes == *original || mutator.below(3) == 0 {
                    set_number(&mut mutator, &mut bytes);
                }
                if mutator.below(4) > 0 {
                    repair(format, &mut bytes);
                }
                try_it(&bytes, &values, &format!("mutation {number} of {path}, closed cleanly: {clean}"));
            }
        }
    }
    for (format, (all, good)) in &executions {
        println!("{format}: {all} executions, {good} of them without any error");
    }
    for format in ["set", "meta", "checkpoint", "index", "state", "log"] {
        assert!(!corpus(format).is_empty(), "there is a corpus for {format}");
        assert!(executions.contains_key(format), "{format} was not among the files");
    }
}

/// The next append would count on from these numbers, past the largest there is.
#[test]
fn a_footer_that_describes_no_segment_is_refused() {
    let (files, values) = write_set(true);
    for path in files.keys().filter(|path| path.ends_with(".index")) {
        // Offsets, length, batches, records.
        for field in [0, 8, 16, 24, 32] {
            let mut bytes = files[path].clone();
            let at = bytes.len() - FOOTER_LEN + field;
            bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            repair("index", &mut bytes);
            assert!(execute(&files, &values, path, &bytes, path), "{path}, byte {at}");
        }
    }
}

/// Reads take differences of what rows say, which would go below zero.
#[test]
fn rows_that_describe_no_segment_are_refused() {
    let (files, values) = write_set(true);
    let indexes: Vec<_> = files.keys().filter(|path| path.ends_with(".index")).collect();
    assert_eq!(indexes.len(), 3);
    for path in indexes {
        let (relative_offset, position) = (PREFIX_LEN, PREFIX_LEN + 4);
        for at in [relative_offset, position, position + ROW_LEN] {
            let mut bytes = files[path].clone();
            bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            repair("index", &mut bytes);
            assert!(execute(&files, &values, path, &bytes, path), "{path}, byte {at}");
        }
    }
}
