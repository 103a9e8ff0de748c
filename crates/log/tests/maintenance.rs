//! What a set does for its logs while nobody looks: here, rolling segments by age.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use std::time::Duration;

use common::{batch, texts};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{Log, LogOptions, LogSet, SetOptions};

const HOUR: Duration = Duration::from_hours(1);

fn hourly() -> LogOptions {
    LogOptions::default().segment_age(Some(HOUR))
}

fn open(sim: &Sim) -> (LogSet, Log) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.create("a", b"", hourly()).unwrap();
    (set, log)
}

fn append(log: &Log, text: &str) {
    log.append(&[batch(&[text.as_bytes()])]).unwrap().wait().unwrap();
}

fn minutes(count: u64) -> Duration {
    Duration::from_mins(count)
}

#[test]
fn a_segment_is_sealed_when_its_first_append_is_old_enough() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    sim.scheduler.run_for(HOUR * 5);
    assert_eq!(log.stats().segments, 1, "an empty segment has no age");
    append(&log, "first");
    sim.scheduler.run_for(minutes(50));
    append(&log, "later appends do not make it younger");
    sim.scheduler.run_for(minutes(9));
    assert_eq!(log.stats().segments, 1);
    sim.scheduler.run_for(minutes(2));
    assert_eq!(log.stats().segments, 2);
    append(&log, "third");
    assert_eq!(texts(&log, 0).len(), 3);
}

#[test]
fn a_clock_that_jumps_makes_no_segment_be_sealed_early_or_late() {
    for jump_ms in [-100 * 24 * 3_600_000, 100 * 24 * 3_600_000] {
        let sim = Sim::new(1);
        let (_set, log) = open(&sim);
        append(&log, "x");
        sim.clock.jump(jump_ms);
        sim.scheduler.run_for(minutes(30));
        append(&log, "y");
        assert_eq!(log.stats().segments, 1, "{jump_ms}");
        sim.scheduler.run_for(minutes(31));
        assert_eq!(log.stats().segments, 2, "{jump_ms}");
    }
}

#[test]
fn the_age_goes_on_counting_over_a_restart_also_when_the_clock_was_set_back() {
    for (jump_ms, after) in [(0, minutes(21)), (-48 * 3_600_000, minutes(61))] {
        let sim = Sim::new(1);
        let (set, log) = open(&sim);
        append(&log, "x");
        sim.scheduler.run_for(minutes(40));
        set.close().unwrap();
        drop((log, set));
        sim.clock.jump(jump_ms);
        let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
        let log = set.open_log("a", hourly()).unwrap();
        sim.scheduler.run_for(after - minutes(2));
        assert_eq!(log.stats().segments, 1, "{jump_ms}");
        sim.scheduler.run_for(minutes(2));
        assert_eq!(log.stats().segments, 2, "{jump_ms}");
    }
}

#[test]
fn a_roll_by_age_that_fails_fails_no_append_and_is_tried_again() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    append(&log, "x");
    sim.scheduler.run_for(minutes(2)); // an idle log has written its index
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*.index*"));
    sim.scheduler.run_for(HOUR - minutes(2) + Duration::from_secs(5));
    assert_eq!((sim.fs.faults(), log.stats().segments), (1, 1));
    append(&log, "y");
    sim.scheduler.run_for(minutes(1));
    assert_eq!(log.stats().segments, 2);
}

#[test]
fn a_set_without_open_logs_runs_no_task_and_seals_again_once_one_is_open() {
    let sim = Sim::new(1);
    let (set, log) = open(&sim);
    log.close().unwrap();
    sim.scheduler.run_for(HOUR);
    assert_eq!(sim.scheduler.waiting(), 0, "no task is left");
    let log = set.open_log("a", hourly()).unwrap();
    append(&log, "x");
    sim.scheduler.run_for(HOUR + minutes(1));
    assert_eq!(log.stats().segments, 2);
}
