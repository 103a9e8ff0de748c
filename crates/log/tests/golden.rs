//! The bytes of every file of this format version: a data directory that was written once is
//! opened by every later version, and the same calls write the same bytes.
//!
//! Version 1 is frozen: files that are here are never changed. `LOGMILL_BLESS=1` writes those of a
//! directory that was added.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and writes files by hand"
)]

mod common;
#[path = "common/keyed.rs"]
mod keyed;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{batch_at, produced, read_all, texts};
use keyed::{batch as keyed_batch, records};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{CompactionOptions, Log, LogOptions, LogSet, SetOptions};
use logmill_record::{Batch, Compression, ControlRecord, ControlType, Offset, TimestampMs};

/// A program that leaves a directory.
type Write = fn(&mut Sim);

/// Who writes each directory.
const DIRECTORIES: [(&str, Write); 4] = [
    ("v1", write_set),
    ("v1-kinds", write_kinds),
    ("v1-killed", write_killed),
    ("v1-merging", write_merging),
];
/// Files of Kafka's own client, each a batch of one codec.
const CODECS: [&str; 4] = ["gzip", "snappy", "lz4", "zstd"];

fn golden(directory: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(directory).join(name)
}

/// The files that a simulated program leaves, by their names below its directory.
fn written(write: Write) -> BTreeMap<String, Vec<u8>> {
    let mut sim = Sim::new(1);
    write(&mut sim);
    let paths = sim.fs.files().into_iter().filter(|path| !path.ends_with("lock"));
    let name = |path: &Path| path.strip_prefix("/data").unwrap().to_str().unwrap().to_owned();
    paths.map(|path| (name(&path), sim.fs.read_file(path).unwrap())).collect()
}

/// The names of the files below a directory.
fn names_in(directory: &Path, below: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = Path::new(below).join(entry.file_name()).to_str().unwrap().to_owned();
        if entry.file_type().unwrap().is_dir() {
            names_in(directory, &name, found);
        } else {
            found.push(name);
        }
    }
}

/// A small set, closed cleanly: one log with a sealed segment and an active one, one of producers.
fn write_set(sim: &mut Sim) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.create("quakes", b"the owner's bytes", LogOptions::default()).unwrap();
    log.append(&[batch_at(1_517_966_773_840, &[b"Castaic", b"Hualien"])]).unwrap().wait().unwrap();
    sim.clock.advance(Duration::from_secs(3));
    log.append(&[batch_at(-1, &[b"Anchorage"])]).unwrap().wait().unwrap();
    log.roll().unwrap();
    log.append(&[batch_at(7, &[b"Ridgecrest"])]).unwrap().wait().unwrap();
    write_payments(&set);
    set.close().unwrap();
}

/// Logs with several rows, with gaps, and with batches of each codec, closed cleanly.
fn write_kinds(sim: &mut Sim) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    write_rows(&set, sim);
    // A program that is killed, and an index that is lost: the next one makes it again.
    sim.kill();
    sim.env().fs.remove_file(Path::new("/data/rows/00000000000000000000.index")).unwrap();
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    set.open_log("rows", LogOptions::default()).unwrap();
    write_keys(&set);
    let log = set.create("codecs", b"", LogOptions::default()).unwrap();
    for codec in CODECS {
        log.append(&[of_kafka(codec)]).unwrap().wait().unwrap();
    }
    set.close().unwrap();
}

fn of_kafka(codec: &str) -> Batch {
    let file = format!("../record/tests/golden/{codec}.bin");
    let bytes = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    Batch::split_from(&mut bytes.into()).unwrap().unwrap()
}

/// Two segments with several rows each.
fn write_rows(set: &LogSet, sim: &Sim) {
    let log = set.create("rows", b"", LogOptions::default()).unwrap();
    for n in 0..6 {
        log.append(&[batch_at(n, &[&[b'r'; 2_100], &[b's'; 2_100]])]).unwrap().wait().unwrap();
        sim.clock.advance(Duration::from_secs(2));
        if n == 2 {
            log.roll().unwrap();
        }
    }
    log.roll().unwrap();
}

/// A compacted segment: offsets are missing, a batch is empty, and `meta` says up to where.
fn write_keys(set: &LogSet) {
    let options = LogOptions::default().compaction(Some(CompactionOptions::default()));
    let log = set.create("keys", b"", options).unwrap();
    for n in 0..5 {
        let entries = [(Some(n % 2), Some(n.into())), (Some(7), Some(n.into()))];
        log.append(&[keyed_batch(&entries)]).unwrap().wait().unwrap();
    }
    log.roll().unwrap();
    assert_eq!(log.compact().unwrap().segments, 1);
    log.append(&[keyed_batch(&[(Some(7), None)])]).unwrap().wait().unwrap();
}

/// A log of which the checkpoint knows the first half.
fn write_killed(sim: &mut Sim) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    log.append(&[batch_at(1, &[b"before"])]).unwrap().wait().unwrap();
    sim.scheduler.run_for(Duration::from_secs(2));
    log.append(&[batch_at(2, &[b"behind"])]).unwrap().wait().unwrap();
    sim.kill();
}

/// Three segments that were becoming one when the process ended: the new one has its name, and none
/// of the others has gone.
fn write_merging(sim: &mut Sim) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let options = LogOptions::default().compaction(Some(CompactionOptions::default()));
    let log = set.create("keys", b"", options).unwrap();
    for n in 0..3 {
        log.append(&[keyed_batch(&[(Some(n), Some(n.into())), (Some(9), Some(n.into()))])])
            .unwrap()
            .wait()
            .unwrap();
        log.roll().unwrap();
    }
    sim.fs.inject(Rule::new(Fault::Io).on(Op::RemoveFile).path("*.log").always());
    log.compact().unwrap_err();
    sim.fs.clear_rules();
    sim.kill();
}

/// Two producers, one of which aborts a transaction; the segment behind them has a `.state` too.
fn write_payments(set: &LogSet) {
    let log = set.create("payments", b"", LogOptions::default()).unwrap();
    let abort = ControlRecord { kind: ControlType::Abort, coordinator_epoch: 1 };
    for batch in [
        produced(7, 1, 0, true, &[b"paid"]),
        produced(9, 0, i32::MAX, false, &[b"seen"]),
        abort.batch(7, 2, TimestampMs(5)).unwrap(),
    ] {
        log.append(&[batch]).unwrap().wait().unwrap();
    }
    log.roll().unwrap();
    log.append(&[produced(7, 2, 0, true, &[b"paid"])]).unwrap().wait().unwrap();
}

#[test]
fn the_same_calls_write_the_same_bytes() {
    for (directory, write) in DIRECTORIES {
        let files = written(write);
        let bless = std::env::var_os("LOGMILL_BLESS").is_some();
        for (name, bytes) in &files {
            let path = golden(directory, name);
            if bless && !path.exists() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, bytes).unwrap();
            }
            assert_eq!(*bytes, fs::read(&path).unwrap(), "{name} is not what format version 1 says");
        }
        let mut names = Vec::new();
        names_in(&golden(directory, ""), "", &mut names);
        names.sort();
        assert_eq!(names, files.into_keys().collect::<Vec<_>>(), "{directory} has these files");
    }
}

/// A copy of a directory that was written by this version or an earlier one.
fn copied(directory: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut names = Vec::new();
    names_in(&golden(directory, ""), "", &mut names);
    for name in names {
        let path = dir.path().join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(golden(directory, &name), path).unwrap();
    }
    dir
}

#[test]
fn a_directory_of_version_1_opens() {
    let dir = copied("v1");
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    assert_eq!(set.read_meta("quakes").unwrap().owner, "the owner's bytes");
    let log: Log = set.open_log("quakes", LogOptions::default()).unwrap();
    assert_eq!(texts(&log, 0), ["Castaic", "Hualien", "Anchorage", "Ridgecrest"]);
    assert_eq!(log.stats().segments, 2);
    let log = set.open_log("payments", LogOptions::default()).unwrap();
    assert!(log.append(&[produced(7, 2, 0, true, &[b"paid"])]).unwrap().is_duplicate());
    assert_eq!(log.last_stable_offset(), Offset(3));
    assert_eq!(log.aborted(Offset(0)..Offset(4)).unwrap().len(), 1);
    assert_eq!(log.producer(9).unwrap().last_sequence, Some(i32::MAX));
}

#[test]
fn rows_lost_and_kept_of_version_1_are_read() {
    let dir = copied("v1-kinds");
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.open_log("rows", LogOptions::default()).unwrap();
    assert_eq!(read_all(&log, Offset(0)).unwrap().len(), 12);
    let estimated = |from| log.read(Offset(from), 1).unwrap().chunks[0].appended_at_estimated;
    assert!(estimated(4) && !estimated(10), "of the last row of each: the first index was made again");
    assert_eq!(log.find_time(TimestampMs(4)).unwrap(), Some((Offset(8), TimestampMs(4))));
}

#[test]
fn a_compacted_log_of_version_1_opens() {
    let dir = copied("v1-kinds");
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let meta = set.read_meta("keys").unwrap();
    assert_eq!((meta.gaps_below, meta.clean_below), (Offset(10), Offset(10)));
    let log = set.open_log("keys", LogOptions::default()).unwrap();
    let found = records(&log);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [6, 8, 9, 10]);
}

#[test]
fn a_merging_of_version_1_that_was_cut_off_is_finished() {
    let dir = copied("v1-merging");
    assert!(golden("v1-merging", "keys/00000000000000000000.merge").exists());
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.open_log("keys", LogOptions::default()).unwrap();
    assert_eq!(records(&log).keys().copied().collect::<Vec<_>>(), [0, 2, 4, 5]);
    assert_eq!(log.stats().segments, 2);
    assert!(!dir.path().join("keys/00000000000000000000.merge").exists());
}

#[test]
fn compressed_batches_of_version_1_are_served_as_they_are() {
    let dir = copied("v1-kinds");
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.open_log("codecs", LogOptions::default()).unwrap();
    let mut next = Offset(0);
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let batch = Batch::parse(log.read(next, 1).unwrap().chunks[0].batches.clone()).unwrap();
        let header = batch.header();
        assert_eq!((header.base_offset, header.attributes.compression()), (next, codec));
        assert_eq!(batch.bytes()[21..], of_kafka(&codec.to_string()).bytes()[21..]);
        next = header.next_offset();
    }
    assert_eq!(next, log.end_offset());
}

#[test]
fn a_directory_of_version_1_that_was_not_closed_opens() {
    let dir = copied("v1-killed");
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.open_log("log", LogOptions::default()).unwrap();
    assert_eq!(texts(&log, 0), ["before", "behind"]);
    assert_eq!((log.durable_end(), log.stats().epoch), (Offset(2), 2));
}
