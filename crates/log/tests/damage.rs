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

use common::{batch, produced};
use logmill_log::inspect::{FindingKind, Plan, Report, Severity, plan_repair, verify};
use logmill_log::sim::Sim;
use logmill_log::{Error, ErrorKind, Log, LogOptions, LogSet, LogState, SetOptions};
use logmill_record::{Batch, Offset};

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
        let mut append = |log: &Log, count: usize| {
            for _ in 0..count {
                let n = values.len();
                let pair = [format!("first of {n}").into_bytes(), format!("second of {n}").into_bytes()];
                let batch = produced(7, 0, n as i32, false, &[&pair[0], &pair[1]]);
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

/// Opens the log and reads what can be read, going on behind what cannot.
fn survivors(log: &Log) -> BTreeMap<u64, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut next = log.start_offset();
    while next < log.end_offset() {
        match log.read(next, 1) {
            Ok(out) => {
                for chunk in &out.chunks {
                    let mut rest = chunk.batches.clone();
                    while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                        for record in batch.records().unwrap() {
                            let record = record.unwrap();
                            found.insert(record.offset.get(), record.value.unwrap().to_vec());
                        }
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

fn open(sim: &Sim) -> Result<(LogSet, Log), Error> {
    let set = LogSet::open(DIR, SetOptions::new(sim.env()))?;
    let log = set.open_log("log", LogOptions::default())?;
    Ok((set, log))
}

/// What is read of a damaged directory is what was written, and most of it.
#[test]
fn no_wrong_byte_is_served_and_what_is_not_hit_is_readable() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let (mut refused, mut read_only, mut most_lost) = (0, 0, BTreeMap::<&str, usize>::new());
        for (path, damage) in scene.each_damage() {
            let sim = scene.damaged(path, damage);
            let ending = path.extension().or(path.file_name()).unwrap().to_str().unwrap();
            let (_set, log) = match open(&sim) {
                Ok(open) => open,
                Err(error) => {
                    // Nothing is served without the small files; the data is not touched.
                    assert!(["set", "meta", "checkpoint"].contains(&ending), "{damage:?} {path:?}: {error}");
                    refused += 1;
                    continue;
                }
            };
            read_only += usize::from(matches!(log.stats().state, LogState::ReadOnly(_)));
            let found = survivors(&log);
            for (offset, value) in &found {
                assert_eq!(value, &scene.values[*offset as usize], "{damage:?} {path:?}: offset {offset}");
            }
            let lost = scene.values.len() - found.len();
            if ending != "log" {
                assert_eq!(lost, 0, "{damage:?} {path:?}");
            }
            let most = most_lost.entry(ending).or_default();
            *most = lost.max(*most);
        }
        println!("clean {clean}: refused {refused}, read-only {read_only}, most records lost {most_lost:?}");
    }
}

/// The values that a repaired directory serves, having checked that it is whole.
fn served_after_repair(sim: &Sim, what: &str) -> BTreeMap<u64, Vec<u8>> {
    let report = look(sim);
    // A wrong leader epoch without an index to tell the right one is left as it is.
    let damaged = report
        .findings
        .iter()
        .any(|finding| finding.severity > Severity::Note && finding.kind != FindingKind::Headers);
    assert!(!damaged, "{what}: {:?}", report.findings);
    let (_set, log) = open(sim).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(matches!(log.stats().state, LogState::Open), "{what}: {:?}", log.stats());
    let found = survivors(&log);
    log.append(&[batch(&[b"after the repair"])]).unwrap().wait().unwrap();
    found
}

#[test]
fn a_repair_loses_exactly_the_offsets_that_it_names() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let (mut repaired, mut restored, mut lost_records) = (0, 0, 0);
        for (path, damage) in scene.each_damage() {
            let what = format!("{damage:?} of {}", path.display());
            let sim = scene.damaged(path, damage);
            let before = sim.fs.digest();
            let plan = match plan_repair(&sim.env(), DIR, &mut |_| ()) {
                Ok(plan) => plan,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NewerFormat, "{what}: {error}");
                    continue;
                }
            };
            assert_eq!(sim.fs.digest(), before, "{what}: a plan changes nothing");
            let torn = !plan.report().is_damaged();
            let gone: Vec<_> = plan.steps().iter().flat_map(|step| step.gone.clone()).collect();
            plan.execute().unwrap_or_else(|error| panic!("{what}: {error}"));
            repaired += usize::from(sim.fs.digest() != before);
            restored += usize::from(gone.is_empty() && path.extension().is_some_and(|end| end == "log"));
            let found = served_after_repair(&sim, &what);
            let is_gone = |offset: u64| gone.iter().any(|gone| gone.contains(&Offset(offset)));
            let end = found.keys().last().map_or(0, |last| last + 1);
            for (offset, value) in scene.values.iter().enumerate() {
                let offset = offset as u64;
                let expected = (!is_gone(offset) && (!torn || offset < end)).then_some(value);
                assert_eq!(found.get(&offset), expected, "{what}: offset {offset}; gone {gone:?}");
            }
            lost_records += scene.values.len() - found.len();
            if matches!(damage, Damage::Flip(..)) && !gone.is_empty() {
                let kept = sim.fs.files().iter().any(|file| file.to_string_lossy().contains(".log.damaged-"));
                assert!(kept, "{what}: what was taken out is saved");
            }
        }
        println!(
            "clean {clean}: repaired {repaired}, without a loss {restored}, records gone {lost_records}"
        );
    }
}

#[test]
fn a_repair_that_loses_power_at_any_call_can_be_done_again() {
    let scene = Scene::new(true);
    let logs: Vec<&PathBuf> =
        scene.files.keys().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    let small: Vec<&PathBuf> = scene.files.keys().filter(|path| path.extension().is_none()).collect();
    let mut cuts = 0;
    for path in logs.into_iter().chain(small) {
        // In the second batch of a segment, so that there are others in front of it and behind.
        let damage = Damage::Flip(scene.files[path].len() as u64 / 2, 3);
        let whole = scene.damaged(path, damage);
        let before = whole.fs.changes();
        let gone = {
            let plan = plan_repair(&whole.env(), DIR, &mut |_| ()).unwrap();
            let gone: Vec<_> = plan.steps().iter().flat_map(|step| step.gone.clone()).collect();
            plan.execute().unwrap();
            gone
        };
        let changes = whole.fs.changes() - before;
        let expected = served_after_repair(&whole, "without a cut");
        for nth in 1..=changes {
            let mut sim = scene.damaged(path, damage);
            sim.fs.power_off_at(nth);
            let cut = plan_repair(&sim.env(), DIR, &mut |_| ()).and_then(Plan::execute);
            assert!(cut.is_err(), "{damage:?} of {}: the power went at call {nth}", path.display());
            sim.crash();
            plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
            let what = format!("{damage:?} of {} cut at {nth} of {changes}", path.display());
            assert_eq!(served_after_repair(&sim, &what), expected, "{what}; gone {gone:?}");
            cuts += 1;
        }
    }
    println!("power cuts in repairs: {cuts}");
    assert!(cuts > 20);
}
