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

use common::{batch_at, texts};
use logmill_log::sim::Sim;
use logmill_log::{Log, LogOptions, LogSet, SetOptions};

const FILES: [&str; 7] = [
    "set",
    "checkpoint",
    "quakes/meta",
    "quakes/00000000000000000000.log",
    "quakes/00000000000000000000.index",
    "quakes/00000000000000000003.log",
    "quakes/00000000000000000003.index",
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
    set.close().unwrap();
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
    for name in FILES {
        fs::copy(golden(name), dir.path().join(name)).unwrap();
    }
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    assert_eq!(set.read_meta("quakes").unwrap().owner, "the owner's bytes");
    let log: Log = set.open_log("quakes", LogOptions::default()).unwrap();
    assert_eq!(texts(&log, 0), ["Castaic", "Hualien", "Anchorage", "Ridgecrest"]);
    assert_eq!(log.stats().segments, 2);
}
