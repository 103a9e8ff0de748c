//! Each byte of a small data directory turned over, and each file cut at each length, in turn: all
//! damage to data is noticed by `verify`, no wrong byte is served, and what is not hit is readable.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop where it fails"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::produced;
use logmill_log::inspect::{Report, Severity, verify};
use logmill_log::sim::Sim;
use logmill_log::{ErrorKind, LogOptions, LogSet, SetOptions};

const DIR: &str = "/data";

/// A data directory and its files, to be damaged again and again.
struct Scene {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// The value of each record.
    values: Vec<Vec<u8>>,
}

/// One thing done to one file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u64, u8),
    Cut(u64),
}

impl Scene {
    /// A log of three segments; closed cleanly, or killed with a second opening behind it.
    fn new(clean: bool) -> Self {
        let mut sim = Sim::new(11);
        let options = LogOptions::default();
        let mut values = Vec::new();
        let mut append = |log: &logmill_log::Log, count: usize| {
            for _ in 0..count {
                let n = values.len();
                let pair = [format!("first of {n}").into_bytes(), format!("second of {n}").into_bytes()];
                let sequence = n as i32;
                let batch = produced(7, 0, sequence, false, &[&pair[0], &pair[1]]);
                log.append(&[batch]).unwrap().wait().unwrap();
                values.extend(pair);
            }
        };
        let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
        let log = set.create("log", b"owner", options).unwrap();
        for _ in 0..2 {
            append(&log, 3);
            log.roll().unwrap();
        }
        append(&log, 3);
        set.close().unwrap();
        if !clean {
            let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
            let log = set.open_log("log", options).unwrap();
            append(&log, 2);
            sim.scheduler.run_for(std::time::Duration::from_secs(2));
            drop((set, log));
            sim.kill();
        }
        let files = sim.fs.files().into_iter().map(|path| (path.clone(), sim.fs.read_file(path).unwrap()));
        Self { files: files.filter(|(path, _)| !path.ends_with("lock")).collect(), values }
    }

    /// The directory as it was, on a machine of its own.
    fn machine(&self) -> Sim {
        let sim = Sim::new(1);
        for (path, bytes) in &self.files {
            sim.fs.write_file(path, bytes).unwrap();
        }
        sim
    }

    fn each_damage(&self) -> Vec<(&Path, Damage)> {
        let of_file = |(path, bytes): (_, &Vec<u8>)| {
            let len = bytes.len() as u64;
            let flips = (0..len).map(|at| Damage::Flip(at, (at % 8) as u8));
            let path: &PathBuf = path;
            flips.chain((0..len).map(Damage::Cut)).map(move |damage| (path.as_path(), damage))
        };
        self.files.iter().flat_map(of_file).collect()
    }

    fn damaged(&self, path: &Path, damage: Damage) -> Sim {
        let sim = self.machine();
        match damage {
            Damage::Flip(at, bit) => sim.fs.flip(path, at, bit).unwrap(),
            Damage::Cut(len) => sim.fs.truncate(path, len).unwrap(),
        }
        sim
    }
}

fn look(sim: &Sim) -> Report {
    verify(&sim.env(), DIR, &mut |_| ()).unwrap()
}

#[test]
fn verify_finds_nothing_in_a_whole_directory_and_changes_nothing() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let sim = scene.machine();
        let before = sim.fs.digest();
        let report = look(&sim);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert_eq!((report.clean, report.logs.len()), (clean, 1));
        assert_eq!(report.logs[0].records, scene.values.len() as u64);
        assert_eq!(sim.fs.digest(), before);
    }
}

#[test]
fn verify_notices_every_flipped_byte_and_every_cut() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let mut counts: BTreeMap<(Severity, &str), u32> = BTreeMap::new();
        for (path, damage) in scene.each_damage() {
            let sim = scene.damaged(path, damage);
            let severity = match verify(&sim.env(), DIR, &mut |_| ()) {
                Ok(report) => {
                    let worst = report.findings.iter().map(|finding| finding.severity).max();
                    worst.unwrap_or_else(|| panic!("{damage:?} of {} went unnoticed", path.display()))
                }
                // A flip in the version of a file.
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
                    Severity::Data
                }
            };
            let ending = path.extension().or(path.file_name()).unwrap().to_str().unwrap();
            if ending == "log" || ending == "meta" {
                assert_eq!(severity, Severity::Data, "{damage:?} of {}", path.display());
            } else {
                assert!(severity >= Severity::Sidecar, "{damage:?} of {}", path.display());
            }
            *counts.entry((severity, ending)).or_default() += 1;
        }
        println!("clean {clean}: {counts:?}");
    }
}
