//! Files put back in the wrong place, or from another time: what is there says so, nothing is served twice and
//! no epoch is given out again.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;

use std::time::Duration;

use common::{batch_at, produced, read_all};
use logmill_log::inspect::{FindingKind, Report, Severity, plan_repair, verify};
use logmill_log::sim::Sim;
use logmill_log::{Log, LogOptions, LogSet, LogState, SetOptions};
use logmill_record::Offset;

const DIR: &str = "/data";

fn segment(log: &str, base: u64) -> String {
    format!("/data/{log}/{base:020}.log")
}

fn look(sim: &Sim) -> Report {
    verify(&sim.env(), DIR, &mut |_| ()).unwrap()
}

fn above_notes(report: &Report) -> Vec<String> {
    let bad = report.findings.iter().filter(|found| found.severity > Severity::Note);
    bad.map(ToString::to_string).collect()
}

fn open_set(sim: &Sim) -> LogSet {
    LogSet::open(DIR, SetOptions::new(sim.env())).unwrap()
}

fn append(log: &Log, n: u64) {
    let (timestamp, value) = (i64::try_from(n).unwrap(), format!("{} {n:02}", log.id()));
    log.append(&[batch_at(timestamp, &[value.as_bytes()])]).unwrap().wait().unwrap();
}

/// Two logs with a segment for each record or for every two, closed cleanly.
fn two_logs(per_segment: u64) -> Sim {
    let sim = Sim::new(1);
    let set = open_set(&sim);
    for (name, first) in [("a", 0), ("b", 100)] {
        let log = set.create(name, b"", LogOptions::default()).unwrap();
        for n in 0..6 {
            if n > 0 && n % per_segment == 0 {
                log.roll().unwrap();
            }
            append(&log, first + n);
        }
    }
    set.close().unwrap();
    sim
}

/// What a repair names as gone, and what is read after it.
fn repaired(sim: &Sim) -> (Vec<std::ops::Range<Offset>>, Vec<u64>) {
    let plan = plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap();
    let gone = plan.steps().iter().flat_map(|step| step.gone.clone()).collect();
    plan.execute().unwrap();
    assert_eq!(above_notes(&look(sim)), [""; 0]);
    let log = open_set(sim).open_log("a", LogOptions::default()).unwrap();
    assert!(matches!(log.stats().state, LogState::Open), "{:?}", log.stats());
    (gone, read_all(&log, Offset(0)).unwrap().into_iter().map(|(offset, _)| offset.get()).collect())
}

/// Where a batch belongs follows from those around it, but its index knows that it was another one.
#[test]
fn a_segment_file_put_in_the_place_of_another_is_taken_out_and_its_records_are_named_as_gone() {
    for (from, base, per_segment, gone) in [
        (("a", 3), 4, 1, 4..5),
        (("a", 3), 5, 1, 5..6),
        (("b", 4), 4, 1, 4..5),
        (("b", 2), 2, 2, 2..4),
        (("b", 4), 4, 2, 4..6),
        (("a", 0), 2, 2, 2..4),
    ] {
        let sim = two_logs(per_segment);
        let bytes = sim.fs.read_file(segment(from.0, from.1)).unwrap();
        sim.fs.write_file(segment("a", base), bytes).unwrap();
        let report = look(&sim);
        let found = report.findings.iter().find(|found| found.kind == FindingKind::Batch);
        let found = found.unwrap_or_else(|| panic!("{from:?} at {base}: {:?}", report.findings));
        // Offsets that do not fit say enough.
        let fits = found.to_string().contains("another segment's file?") || from == ("a", 0);
        assert!(fits, "{from:?} at {base}: {found}");
        assert_eq!(found.offsets, Some(Offset(gone.start)..Offset(gone.end)), "{from:?} at {base}");
        let (named, read) = repaired(&sim);
        assert_eq!(named, [Offset(gone.start)..Offset(gone.end)], "{from:?} at {base}");
        let expected: Vec<u64> = (0..6).filter(|offset| !gone.contains(offset)).collect();
        assert_eq!(read, expected, "{from:?} at {base}");
    }
}

/// A directory that was killed at its second opening, with `set` as the first one left it.
fn with_an_older_set(after_a_checkpoint: bool, producers: bool) -> Sim {
    let mut sim = Sim::new(1);
    let set = open_set(&sim);
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    (0..3).for_each(|n| append(&log, n));
    set.close().unwrap();
    let older = sim.fs.read_file("/data/set").unwrap();
    let set = open_set(&sim);
    let log = set.open_log("a", LogOptions::default()).unwrap();
    (3..6).for_each(|n| append(&log, n));
    if producers {
        log.append(&[produced(7, 0, 0, false, &[b"x"])]).unwrap().wait().unwrap();
    }
    if after_a_checkpoint {
        sim.scheduler.run_for(Duration::from_secs(2));
    }
    drop((log, set));
    sim.kill();
    sim.fs.write_file("/data/set", older).unwrap();
    sim
}

#[test]
fn an_older_set_is_no_damage_to_the_data_and_its_counter_is_moved_on() {
    for (after_a_checkpoint, producers) in [(true, true), (true, false), (false, true), (false, false)] {
        let sim = with_an_older_set(after_a_checkpoint, producers);
        let data = sim.fs.read_file(segment("a", 0)).unwrap();
        let report = look(&sim);
        let found = above_notes(&report);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("it was opened 1 times, and there are batches of opening 2"), "{found:?}");
        let plan = plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap();
        assert_eq!(plan.steps().len(), 1, "{:?}", plan.steps());
        plan.execute().unwrap();
        assert_eq!(sim.fs.read_file(segment("a", 0)).unwrap(), data);
        assert_eq!(above_notes(&look(&sim)), [""; 0]);
        let log = open_set(&sim).open_log("a", LogOptions::default()).unwrap();
        assert!(matches!(log.stats().state, LogState::Open), "{:?}", log.stats());
        append(&log, 6);
        assert_eq!(log.epoch_before(log.end_offset()).unwrap(), Some(3));
    }
}

/// One batch above the counter, with lower ones behind it, has a header that is wrong.
#[test]
fn a_lone_epoch_above_the_counter_is_a_damaged_header() {
    let mut sim = Sim::new(1);
    let set = open_set(&sim);
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    for n in 0..4 {
        log.append(&[produced(7, 0, n, false, &[b"x"])]).unwrap().wait().unwrap();
    }
    sim.scheduler.run_for(Duration::from_secs(2));
    drop((log, set));
    sim.kill();
    let len = sim.fs.read_file(segment("a", 0)).unwrap().len() as u64;
    sim.fs.flip(segment("a", 0), len / 4 + 15, 2).unwrap();
    let report = look(&sim);
    assert!(report.findings.iter().all(|found| found.kind != FindingKind::SetFile), "{:?}", report.findings);
    let (gone, read) = repaired(&sim);
    assert_eq!((gone, read), (vec![], vec![0, 1, 2, 3]));
}

/// What a producer sent is in a batch whose header alone is damaged: what is known of it is there after a repair.
#[test]
fn a_repair_of_the_only_batch_of_a_producer_writes_what_is_known_of_it() {
    let sim = Sim::new(1);
    let set = open_set(&sim);
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    log.append(&[produced(7, 0, 0, false, &[b"x"])]).unwrap().wait().unwrap();
    log.roll().unwrap();
    append(&log, 1);
    set.close().unwrap();
    sim.fs.mount().remove_file("/data/a/00000000000000000000.state".as_ref()).unwrap();
    sim.fs.flip(segment("a", 0), 7, 0).unwrap();
    let (gone, read) = repaired(&sim);
    assert_eq!((gone, read), (vec![], vec![0, 1]));
}
