//! Empty files with the name of a segment that was never begun: an open, a look and a repair agree on them, and
//! none costs a record or an offset.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{batch, read_all};
use logmill_log::inspect::{FindingKind, Severity, list, plan_repair, verify};
use logmill_log::sim::Sim;
use logmill_log::{Log, LogOptions, LogSet, LogState, SetOptions};
use logmill_record::Offset;

const DIR: &str = "/data";

fn segment(base: u64) -> String {
    format!("/data/log/{base:020}.log")
}

fn open(sim: &Sim) -> (LogSet, Log) {
    let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
    let log = set.open_log("log", LogOptions::default()).unwrap();
    (set, log)
}

fn append(log: &Log, records: u64) {
    for _ in 0..records {
        log.append(&[batch(&[b"record"])]).unwrap().wait().unwrap();
    }
}

/// A log with these numbers of records in its segments, closed cleanly or killed behind a checkpoint.
fn log_of(segments: &[u64], clean: bool) -> Sim {
    let mut sim = Sim::new(1);
    let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    for (nth, records) in segments.iter().enumerate() {
        if nth > 0 {
            log.roll().unwrap();
        }
        append(&log, *records);
    }
    sim.scheduler.run_for(Duration::from_secs(2));
    if clean {
        set.close().unwrap();
    }
    drop((log, set));
    sim.kill();
    sim
}

/// Nothing but the file is the matter, and a repair, or else the next open, removes it and nothing else.
fn assert_it_goes(sim: &Sim, stray: u64, end: u64, repaired: bool, what: &str) {
    let before: Vec<_> =
        sim.fs.files().into_iter().filter(|file| file != Path::new(&segment(stray))).collect();
    let data: Vec<_> = before.iter().map(|file| sim.fs.read_file(file).unwrap()).collect();
    let report = verify(&sim.env(), DIR, &mut |_| ()).unwrap();
    let found: Vec<_> = report.findings.iter().map(|it| (it.severity, it.kind)).collect();
    assert_eq!(found, [(Severity::Note, FindingKind::Stray)], "{what}: {:?}", report.findings);
    assert!(report.findings[0].to_string().contains("never begun"), "{what}: {}", report.findings[0]);
    assert_eq!(report.logs[0].end_offset, Offset(end), "{what}");
    assert_eq!(list(&sim.env(), DIR).unwrap().logs[0].end_offset, Offset(end), "{what}");
    if repaired {
        plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
        let left: Vec<_> = sim.fs.files().into_iter().filter(|file| !file.ends_with("lock")).collect();
        let expected: Vec<_> = before.iter().filter(|file| !file.ends_with("lock")).cloned().collect();
        assert_eq!(left, expected, "{what}");
        assert!(
            before.iter().zip(&data).all(|(file, bytes)| sim.fs.read_file(file).unwrap() == *bytes),
            "{what}"
        );
        assert!(verify(&sim.env(), DIR, &mut |_| ()).unwrap().findings.is_empty(), "{what}");
    }
    let (_set, log) = open(sim);
    assert!(matches!(log.stats().state, LogState::Open), "{what}: {:?}", log.stats().state);
    assert_eq!(log.end_offset(), Offset(end), "{what}");
    append(&log, 1);
    assert_eq!(read_all(&log, Offset(0)).unwrap().len() as u64, end + 1, "{what}");
    assert!(sim.fs.read_file(segment(stray)).is_err(), "{what}: it is gone");
}

#[test]
fn an_empty_segment_file_inside_another_segment_is_no_damage_and_is_removed() {
    for (clean, repaired) in [(true, true), (true, false), (false, true), (false, false)] {
        let sim = log_of(&[5], clean);
        sim.fs.write_file(segment(3), b"").unwrap();
        assert_it_goes(&sim, 3, 5, repaired, &format!("clean {clean}, repaired {repaired}"));
    }
}

#[test]
fn an_empty_segment_file_above_the_end_takes_no_offsets() {
    for (clean, repaired) in [(true, true), (true, false), (false, true), (false, false)] {
        for segments in [&[0][..], &[12], &[11, 1], &[12, 0]] {
            if segments == [0] && !clean {
                // Nothing was appended, so there is no checkpoint.
                continue;
            }
            let sim = log_of(segments, clean);
            sim.fs.write_file(segment(99), b"").unwrap();
            let what = format!("{segments:?}, clean {clean}, repaired {repaired}");
            assert_it_goes(&sim, 99, segments.iter().sum(), repaired, &what);
        }
    }
}

/// The segment behind it was begun, so the one before it lost its end, which a repair names.
#[test]
fn an_empty_segment_behind_one_that_lost_its_end_keeps_its_offset() {
    for without_index in [false, true] {
        let mut sim = Sim::new(1);
        let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
        let log = set.create("log", b"", LogOptions::default()).unwrap();
        append(&log, 3);
        sim.scheduler.run_for(Duration::from_secs(2));
        append(&log, 3);
        // The checkpoint is behind.
        log.roll().unwrap();
        drop((log, set));
        sim.kill();
        let bytes = sim.fs.read_file(segment(0)).unwrap();
        // The fifth batch does not end where it should.
        sim.fs.truncate(segment(0), bytes.len() as u64 / 6 * 5 - u64::from(without_index)).unwrap();
        if without_index {
            sim.fs.mount().remove_file(Path::new("/data/log/00000000000000000000.index")).unwrap();
        }
        let report = verify(&sim.env(), DIR, &mut |_| ()).unwrap();
        assert!(report.count(Severity::Data) > 0, "{:?}", report.findings);
        let (_set, log) = open(&sim);
        assert_eq!(log.end_offset(), Offset(6), "no offset is given out again");
        assert!(sim.fs.read_file(segment(6)).is_ok());
    }
}

/// A roll failed at offset 3, the log went on in the old segment, and its start was moved past that.
#[test]
fn a_start_behind_an_empty_segment_file_costs_no_record_of_the_segment_before() {
    let sim = log_of(&[6], true);
    let (set, log) = open(&sim);
    log.set_start_offset(Offset(4)).unwrap();
    set.close().unwrap();
    drop((log, set));
    sim.fs.write_file(segment(3), b"").unwrap();
    let report = verify(&sim.env(), DIR, &mut |_| ()).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let (_set, log) = open(&sim);
    assert_eq!(read_all(&log, Offset(4)).unwrap().len(), 2);
}

/// The checkpoint is made again from what is there, the empty file among it.
#[test]
fn an_empty_segment_file_is_not_the_newest_segment_of_a_checkpoint_that_is_made_again() {
    let sim = log_of(&[5], true);
    sim.fs.write_file(segment(3), b"").unwrap();
    sim.fs.mount().remove_file("/data/checkpoint".as_ref()).unwrap();
    let (_set, log) = open(&sim);
    assert!(matches!(log.stats().state, LogState::Open), "{:?}", log.stats().state);
    assert_eq!(log.end_offset(), Offset(5));
    assert_eq!(read_all(&log, Offset(0)).unwrap().len(), 5);
    assert!(sim.fs.read_file(segment(3)).is_err(), "it is gone");
}
