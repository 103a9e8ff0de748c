//! Idle logs: what they let go of, and that nobody notices.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{batch, batch_at, texts};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{Log, LogOptions, LogSet, SetOptions};
use logmill_record::{Offset, TimestampMs};

const INDEX: &str = "/data/a/00000000000000000000.index";
const IDLE: Duration = Duration::from_secs(80);

fn open(sim: &Sim) -> (LogSet, Log) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    (set, log)
}

fn append(log: &Log, text: &str) {
    log.append(&[batch(&[text.as_bytes()])]).unwrap().wait().unwrap();
}

fn is_written(sim: &Sim) -> bool {
    sim.fs.files().iter().any(|path| path == Path::new(INDEX))
}

#[test]
fn an_idle_log_writes_its_index_closes_its_file_and_goes_on_as_if_it_had_not() {
    let sim = Sim::new(1);
    let (set, log) = open(&sim);
    append(&log, "one");
    sim.scheduler.run_for(Duration::from_secs(40));
    assert!(!is_written(&sim));
    assert_eq!(set.stats().open_files.used, 1);
    sim.scheduler.run_for(IDLE);
    assert!(is_written(&sim));
    assert_eq!(set.stats().open_files.used, 0);
    assert_eq!(texts(&log, 0), ["one"]);
    append(&log, "two");
    assert_eq!(texts(&log, 0), ["one", "two"]);
    sim.scheduler.run_for(IDLE);
    append(&log, "three");
    assert_eq!(texts(&log, 1), ["two", "three"]);
    sim.scheduler.run_for(IDLE);
    log.roll().unwrap();
    append(&log, "four");
    assert_eq!(texts(&log, 0).len(), 4);
    assert_eq!(log.stats().segments, 2);
}

#[test]
fn an_idle_log_is_searched_by_time_and_sealed_by_age() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    log.set_options(LogOptions::default().segment_age(Some(Duration::from_mins(30))));
    for (timestamp, value) in [(10, b"a"), (20, b"b")] {
        log.append(&[batch_at(timestamp, &[value])]).unwrap().wait().unwrap();
    }
    sim.scheduler.run_for(IDLE);
    assert_eq!(log.find_time(TimestampMs(15)).unwrap(), Some((Offset(1), TimestampMs(20))));
    sim.scheduler.run_for(Duration::from_mins(40));
    assert_eq!(log.stats().segments, 2);
    assert_eq!(log.find_time(TimestampMs(15)).unwrap(), Some((Offset(1), TimestampMs(20))));
}

#[test]
fn after_a_kill_an_idle_log_is_opened_without_reading_its_data() {
    let mut sim = Sim::new(1);
    let (set, log) = open(&sim);
    (0..20).for_each(|n| append(&log, &n.to_string()));
    sim.scheduler.run_for(IDLE);
    drop((log, set));
    let env = sim.kill();
    sim.fs.inject(Rule::new(Fault::Io).on(Op::Read).path("*.log"));
    let set = LogSet::open("/data", SetOptions::new(env)).unwrap();
    let log = set.open_log("a", LogOptions::default()).unwrap();
    assert_eq!(sim.fs.faults(), 0);
    sim.fs.clear_rules();
    assert_eq!(texts(&log, 0).len(), 20);
}

#[test]
fn a_log_just_recovered_writes_its_index_at_the_next_look() {
    let mut sim = Sim::new(1);
    let (set, log) = open(&sim);
    append(&log, "x");
    drop((log, set));
    let set = LogSet::open("/data", SetOptions::new(sim.kill())).unwrap();
    let log = set.open_log("a", LogOptions::default()).unwrap();
    assert!(!is_written(&sim));
    sim.scheduler.run_for(Duration::from_secs(11));
    assert!(is_written(&sim));
    assert_eq!(texts(&log, 0), ["x"]);
}

#[test]
fn the_index_of_an_idle_log_is_not_believed_when_it_is_damaged_stale_or_gone() {
    for damage in 0..3 {
        let sim = Sim::new(1);
        let (_set, log) = open(&sim);
        append(&log, "one");
        sim.scheduler.run_for(IDLE);
        let earlier = sim.fs.read_file(INDEX).unwrap();
        append(&log, "two");
        sim.scheduler.run_for(IDLE);
        match damage {
            0 => sim.fs.flip(INDEX, 20, 3).unwrap(),
            1 => sim.fs.write_file(INDEX, earlier).unwrap(),
            _ => sim.env().fs.remove_file(Path::new(INDEX)).unwrap(),
        }
        assert_eq!(texts(&log, 0), ["one", "two"], "{damage}");
        append(&log, "three");
        log.roll().unwrap();
        assert_eq!(texts(&log, 0), ["one", "two", "three"], "{damage}");
    }
}

#[test]
fn an_index_that_cannot_be_written_keeps_the_log_as_it_is() {
    let sim = Sim::new(1);
    let (set, log) = open(&sim);
    append(&log, "one");
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*.index*"));
    sim.scheduler.run_for(Duration::from_secs(65));
    assert_eq!((sim.fs.faults(), is_written(&sim)), (1, false));
    sim.scheduler.run_for(Duration::from_secs(11));
    assert!(is_written(&sim));
    assert_eq!(texts(&log, 0), ["one"]);
    set.close().unwrap();
}

#[test]
fn a_crash_at_any_moment_of_parking_loses_nothing() {
    for at in 1..40 {
        let mut sim = Sim::new(at);
        let (set, log) = open(&sim);
        append(&log, "one");
        sim.fs.power_off_at(at);
        sim.scheduler.run_for(IDLE);
        drop((log, set));
        let set = LogSet::open("/data", SetOptions::new(sim.crash())).unwrap();
        let log = set.open_log("a", LogOptions::default()).unwrap();
        assert_eq!(texts(&log, 0), ["one"], "power off at {at}");
        append(&log, "two");
        sim.scheduler.run_for(IDLE);
        assert_eq!(texts(&log, 0), ["one", "two"]);
    }
}
