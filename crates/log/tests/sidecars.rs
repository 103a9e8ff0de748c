//! The files beside a segment's data: those of a newer version, and what becomes of the times of
//! append when an index is lost.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;

use std::path::Path;

use common::{batch, produced, texts};
use logmill_log::inspect::{FindingKind, verify};
use logmill_log::sim::Sim;
use logmill_log::{ErrorKind, Log, LogOptions, LogSet, SetOptions};
use logmill_record::{Offset, TimestampMs};

const DIR: &str = "/data";

fn open_set(sim: &Sim) -> LogSet {
    LogSet::open(DIR, SetOptions::new(sim.env())).unwrap()
}

fn append(log: &Log, value: &str) {
    log.append(&[batch(&[value.as_bytes()])]).unwrap().wait().unwrap();
}

/// A sealed segment and an active one, both with producers.
fn closed_log() -> Sim {
    let sim = Sim::new(5);
    let set = open_set(&sim);
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    log.append(&[produced(7, 0, 0, false, &[b"one"])]).unwrap().wait().unwrap();
    log.roll().unwrap();
    log.append(&[produced(7, 0, 1, false, &[b"two"])]).unwrap().wait().unwrap();
    set.close().unwrap();
    sim
}

/// Makes a file say that it has a version, with a checksum that fits.
fn set_version(bytes: &mut [u8], version: u8, is_index: bool) {
    bytes[4] = version;
    let end = bytes.len() - 4;
    let mut hasher = crc32fast::Hasher::new();
    if is_index {
        hasher.update(&bytes[..8]);
        hasher.update(&bytes[end - 88..end]);
    } else {
        hasher.update(&bytes[..end]);
    }
    bytes[end..].copy_from_slice(&hasher.finalize().to_le_bytes());
}

#[test]
fn sidecars_of_a_newer_version_are_refused_and_left_alone() {
    for name in ["0.index", "1.index", "1.state"] {
        let sim = closed_log();
        let path = format!("/data/log/0000000000000000000{name}");
        let mut bytes = sim.fs.read_file(&path).unwrap();
        set_version(&mut bytes, 2, name.ends_with("index"));
        sim.fs.write_file(&path, &bytes).unwrap();
        let set = open_set(&sim);
        let error = set.open_log("log", LogOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{name}: {error}");
        assert_eq!(error.path(), Some(Path::new(&path)));
        assert!(error.to_string().contains("newer Logmill"), "{error}");
        set.close().unwrap();
        assert_eq!(sim.fs.read_file(&path).unwrap(), bytes, "{name}");
        let [finding] = &verify(&sim.env(), DIR, &mut |_| ()).unwrap().findings[..] else { panic!("{name}") };
        assert_eq!((finding.kind, finding.file.as_path()), (FindingKind::Unread, Path::new(&path)));
        assert!(finding.what.contains("newer Logmill"), "{finding}");
    }
}

#[test]
fn a_bit_flipped_in_the_version_of_a_sidecar_is_damage_and_mended() {
    for name in ["0.index", "1.index", "1.state"] {
        let sim = closed_log();
        let path = format!("/data/log/0000000000000000000{name}");
        let bytes = sim.fs.read_file(&path).unwrap();
        sim.fs.flip(&path, 4, 1).unwrap();
        let report = verify(&sim.env(), DIR, &mut |_| ()).unwrap();
        assert!(report.is_damaged(), "{name}");
        let set = open_set(&sim);
        let log = set.open_log("log", LogOptions::default()).unwrap();
        assert_eq!(texts(&log, 0), ["one", "two"], "{name}");
        set.close().unwrap();
        assert_eq!(sim.fs.read_file(&path).unwrap()[..8], bytes[..8], "{name}");
    }
}

/// The times of append that readers get, in the order of the records.
fn times(log: &Log) -> Vec<(TimestampMs, bool)> {
    let mut times = Vec::new();
    let mut next = Offset::ZERO;
    while next < log.end_offset() {
        let out = log.read(next, 1).unwrap();
        times.extend(out.chunks.iter().map(|chunk| (chunk.appended_at, chunk.appended_at_estimated)));
        next = out.next_offset;
    }
    times
}

#[test]
fn times_of_append_that_were_lost_do_not_go_back() {
    for (lost, killed) in [("1", false), ("2", false), ("2", true)] {
        let mut sim = Sim::new(5);
        let set = open_set(&sim);
        let log = set.create("log", b"", LogOptions::default()).unwrap();
        append(&log, "zero");
        log.roll().unwrap();
        // From here on the files are written at an earlier hour.
        sim.clock.jump(-3_600_000);
        append(&log, "one");
        log.roll().unwrap();
        append(&log, "two");
        if killed {
            drop((log, set));
            sim.kill();
        } else {
            set.close().unwrap();
        }
        let index = format!("/data/log/0000000000000000000{lost}.index");
        let _ = sim.fs.mount().remove_file(Path::new(&index));
        let set = open_set(&sim);
        let log = set.open_log("log", LogOptions::default()).unwrap();
        let times = times(&log);
        assert!(times.iter().any(|(_, estimated)| *estimated), "{times:?}");
        assert!(times.is_sorted_by_key(|(at, _)| *at), "{lost} {killed}: {times:?}");
    }
}

#[test]
fn what_was_known_of_producers_at_another_time_is_not_believed() {
    let sim = closed_log();
    let path = "/data/log/00000000000000000001.state";
    let old = sim.fs.read_file(path).unwrap();
    let set = open_set(&sim);
    let log = set.open_log("log", LogOptions::default()).unwrap();
    log.append(&[produced(7, 0, 2, false, &[b"three"])]).unwrap().wait().unwrap();
    set.close().unwrap();
    sim.fs.write_file(path, old).unwrap();
    let log = open_set(&sim).open_log("log", LogOptions::default()).unwrap();
    assert_eq!(log.producer(7).unwrap().last_sequence, Some(2));
}
