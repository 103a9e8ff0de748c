//! The bytes of every file of this format version: a data directory that was written once is
//! opened by every later version, and the same calls write the same bytes.
//!
//! To make the files anew after a deliberate change of the format: `LOGMILL_BLESS=1`.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and writes files by hand"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{batch_at, produced, texts};
use logmill_log::sim::Sim;
use logmill_log::{Log, LogOptions, LogSet, SetOptions};
use logmill_record::{ControlRecord, ControlType, Offset, TimestampMs};

const FILES: [&str; 14] = [
    "set",
    "checkpoint",
    "quakes/meta",
    "quakes/00000000000000000000.log",
    "quakes/00000000000000000000.index",
    "quakes/00000000000000000003.log",
    "quakes/00000000000000000003.index",
    "payments/meta",
    "payments/00000000000000000000.log",
    "payments/00000000000000000000.index",
    "payments/00000000000000000000.state",
    "payments/00000000000000000003.log",
    "payments/00000000000000000003.index",
    "payments/00000000000000000003.state",
];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

/// A small set, closed cleanly: one log with a sealed segment and an active one.
fn write_set(sim: &Sim) {
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
    let sim = Sim::new(1);
    write_set(&sim);
    for name in FILES {
        let bytes = sim.fs.read_file(Path::new("/data").join(name)).unwrap();
        let path = golden(name);
        if std::env::var_os("LOGMILL_BLESS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(bytes, fs::read(&path).unwrap(), "{name} is not what format version 1 says");
    }
}

#[test]
fn a_directory_of_version_1_opens() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("quakes")).unwrap();
    fs::create_dir(dir.path().join("payments")).unwrap();
    for name in FILES {
        fs::copy(golden(name), dir.path().join(name)).unwrap();
    }
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
