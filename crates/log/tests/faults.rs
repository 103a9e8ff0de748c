//! Faults that crashes at random seldom meet, and that could lose or double something.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails"
)]

mod common;
#[path = "common/gate.rs"]
mod gate;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use common::{batch, read_all};
use gate::{Ctl, GateFs};
use logmill_log::env::{Env, OpenMode, StdFs};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{Error, ErrorKind, Log, LogOptions, LogSet, LogState, SetOptions, Step};
use logmill_record::Offset;

const DATA: &str = "/data/a/00000000000000000000.log";

fn open(env: Env) -> LogSet {
    LogSet::open("/data", SetOptions::new(env)).unwrap()
}

fn fill(log: &Log, count: usize) {
    for n in 0..count {
        log.append(&[batch(&[format!("record {n}").as_bytes()])]).unwrap().wait().unwrap();
    }
}

fn small() -> LogOptions {
    LogOptions::default().segment_bytes(300)
}

/// Time enough for a checkpoint.
fn checkpoint(sim: &Sim) {
    sim.scheduler.run_for(Duration::from_secs(2));
}

fn assert_holds(seed: u64, log: Result<Log, Error>, end: Offset) {
    let log = log.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    assert!(log.end_offset() >= end, "seed {seed}: {end} was reached, now {}", log.end_offset());
}

#[test]
fn damage_of_what_was_promised_stays_damage_however_often_the_log_is_opened() {
    let mut sim = Sim::new(1);
    let set = open(sim.env());
    fill(&set.create("a", b"", LogOptions::default()).unwrap(), 10);
    checkpoint(&sim);
    drop(set);
    let env = sim.kill();
    let len = sim.fs.read_file(DATA).unwrap().len() as u64;
    sim.fs.flip(DATA, len / 10 * 3 + 3, 0).unwrap(); // base offset of the fourth batch
    for env in [env.clone(), sim.env(), env] {
        let set = open(env);
        let log = set.open_log("a", LogOptions::default()).unwrap();
        assert!(matches!(log.stats().state, LogState::ReadOnly(_)), "{:?}", log.stats());
        assert!(log.append(&[batch(&[b"at an offset that was acknowledged"])]).is_err());
        fill(
            &set.create("b", b"", LogOptions::default())
                .unwrap_or_else(|_| set.open_log("b", small()).unwrap()),
            1,
        );
        checkpoint(&sim);
        set.close().unwrap();
    }
    assert_eq!(sim.fs.read_file(DATA).unwrap().len() as u64, len, "nothing was cut");
}

#[test]
fn a_torn_tail_that_cannot_be_saved_keeps_what_readers_see() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let set = open(sim.env());
        let log = set.create("a", b"", LogOptions::default()).unwrap();
        for _ in 0..3 {
            let _written_not_synced = log.try_append(&[batch(&[&[b'x'; 3000]])]).unwrap();
        }
        drop((log, set));
        let env = sim.kill();
        let file = env.fs.open(DATA.as_ref(), OpenMode::ReadWrite).unwrap();
        let len = file.status().unwrap().len;
        file.write_at(&[std::io::IoSlice::new(&[1; 40])], len).unwrap();
        sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*torn*"));
        let set = open(env);
        let log = set.open_log("a", LogOptions::default()).unwrap();
        assert!(matches!(log.stats().state, LogState::ReadOnly(_)), "{:?}", log.stats());
        assert_eq!(read_all(&log, Offset(0)).unwrap().len(), 3);
        fill(&set.create("b", b"", LogOptions::default()).unwrap(), 1);
        checkpoint(&sim);
        drop((log, set));
        let set = open(sim.crash());
        assert_holds(seed, set.open_log("a", LogOptions::default()), Offset(3));
    }
}

#[test]
fn a_directory_whose_sync_failed_in_a_roll_is_synced_before_the_log_goes_on() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let set = open(sim.env());
        let log = set.create("a", b"", small()).unwrap();
        fill(&log, 3);
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncDir).path("/data/a"));
        log.roll().unwrap_err();
        let log = set.open_log("a", LogOptions::default()).unwrap();
        fill(&log, 5);
        let acknowledged = log.end_offset();
        drop((log, set));
        assert_holds(seed, open(sim.crash()).open_log("a", small()), acknowledged);
    }
}

#[test]
fn a_log_whose_directory_could_not_be_synced_in_a_roll_takes_nothing_more() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let log = open(sim.env()).create("a", b"", small()).unwrap();
        fill(&log, 3);
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncDir).path("/data/a"));
        log.roll().unwrap_err();
        // A later sync of the directory may say that all is well, and the name of the new segment is not on disk.
        let mut acknowledged = Offset(3);
        while acknowledged < Offset(9)
            && let Ok(Step::Done(receipt)) = log.try_append(&[batch(&[&[b'x'; 100]])])
        {
            let next = receipt.last_offset().next();
            receipt.wait().unwrap();
            acknowledged = next;
        }
        assert!(matches!(log.stats().state, LogState::Poisoned(_)), "seed {seed}: {:?}", log.stats().state);
        assert_eq!(acknowledged, Offset(3), "seed {seed}");
        drop(log);
        assert_holds(seed, open(sim.crash()).open_log("a", small()), acknowledged);
    }
}

#[test]
fn a_kill_between_a_new_segment_and_its_directory_loses_nothing_later() {
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let set = open(sim.env());
        let log = set.create("a", b"", small()).unwrap();
        fill(&log, 3);
        checkpoint(&sim);
        // The kill comes before the sync: nobody learns that it failed.
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncDir).path("/data/a"));
        log.roll().unwrap_err();
        drop((log, set));
        let set = open(sim.kill());
        let log = set.open_log("a", LogOptions::default()).unwrap();
        fill(&log, 5);
        let acknowledged = log.end_offset();
        drop((log, set));
        assert_holds(seed, open(sim.crash()).open_log("a", small()), acknowledged);
    }
}

#[test]
fn work_that_was_queued_when_the_last_handle_went_touches_nothing() {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let set = open(sim.env());
        let log = set.create("a", b"", small()).unwrap();
        fill(&log, 2);
        while let Step::Done(receipt) = log.try_append(&[batch(&[&[b'y'; 100]])]).unwrap() {
            receipt.wait().unwrap();
        }
        drop((log, set)); // a roll is queued
        let set = open(sim.env());
        let log = set.open_log("a", LogOptions::default()).unwrap();
        fill(&log, 3);
        let acknowledged = log.end_offset();
        sim.scheduler.run_until_idle();
        set.close().unwrap();
        drop((log, set));
        assert_holds(seed, open(sim.env()).open_log("a", small()), acknowledged);
    }
}

#[test]
fn two_threads_that_open_one_log_get_one_log() {
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
        set.create("a", b"", LogOptions::default()).unwrap().close().unwrap();
        let barrier = Barrier::new(2);
        let append = || {
            barrier.wait();
            let log = set.open_log("a", LogOptions::default()).unwrap();
            let receipt = log.append(&[batch(&[b"x"])]).unwrap();
            let offset = receipt.first_offset();
            receipt.wait().unwrap();
            offset
        };
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(append);
            (append(), one.join().unwrap())
        });
        assert_ne!(one, other, "both were acknowledged at one offset");
    }
}

#[test]
fn a_sync_that_was_not_told_of_an_error_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let ctl = Arc::<Ctl>::default();
    let env = Env { fs: Arc::new(GateFs(StdFs, Arc::clone(&ctl))), ..Env::real() };
    let set = LogSet::open(dir.path(), SetOptions::new(env)).unwrap();
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    ctl.hold.store(true, SeqCst);
    let receipt = log.append(&[batch(&[b"its write-back failed"])]).unwrap();
    while !ctl.held.load(SeqCst) {
        std::thread::yield_now();
    }
    // The undo of a failed append is told of the error, which the kernel reports once.
    ctl.fail_write.store(true, SeqCst);
    ctl.fail_sync.store(true, SeqCst);
    log.append(&[batch(&[b"b"])]).unwrap_err();
    let fresh = std::thread::scope(|scope| {
        let reopening = scope.spawn(|| set.open_log("a", LogOptions::default()).unwrap());
        while !matches!(log.stats().state, LogState::Closed) {
            std::thread::yield_now();
        }
        ctl.held.store(false, SeqCst);
        reopening.join().unwrap()
    });
    assert!(receipt.wait().is_err());
    assert_eq!(fresh.end_offset(), Offset(0));
}

#[test]
fn reads_and_waits_may_have_no_limit() {
    let sim = Sim::new(1);
    let log = open(sim.env()).create("a", b"", LogOptions::default()).unwrap();
    fill(&log, 3);
    assert_eq!(log.read(Offset(0), usize::MAX).unwrap().next_offset, Offset(3));
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default()).unwrap();
    fill(&log, 1);
    assert!(log.wait_beyond(Offset(0), Duration::MAX).unwrap());
}

#[test]
fn the_time_of_append_of_a_slow_log_is_never_too_early_after_a_restart() {
    let sim = Sim::new(1);
    let set = open(sim.env());
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    for _ in 0..40 {
        sim.scheduler.run_for(Duration::from_secs(300));
        log.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
    }
    let chunk = |log: &Log| log.read(Offset(39), 10_000).unwrap().chunks.remove(0);
    let exact = chunk(&log);
    assert!(!exact.appended_at_estimated);
    set.close().unwrap();
    let set = open(sim.env());
    let log = set.open_log("a", LogOptions::default()).unwrap();
    for sealed in [false, true] {
        if sealed {
            log.roll().unwrap();
        }
        let later = chunk(&log);
        assert!(later.appended_at_estimated && later.appended_at >= exact.appended_at, "{later:?}");
    }
}

#[test]
fn an_empty_file_left_by_a_roll_that_failed_hides_nothing_written_since() {
    for (roll_again, kill) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut sim = Sim::new(1);
        let set = open(sim.env());
        let log = set.create("a", b"", LogOptions::default()).unwrap();
        fill(&log, 3);
        sim.fs.inject(Rule::new(Fault::Io).on(Op::Create).path("*3.log"));
        log.roll().unwrap_err();
        // The error came late: the file is there.
        sim.fs.write_file("/data/a/00000000000000000003.log", b"").unwrap();
        fill(&log, 4);
        if roll_again {
            log.roll().unwrap();
            fill(&log, 2);
        }
        let end = log.end_offset();
        if !kill {
            set.close().unwrap();
        }
        drop((log, set));
        let env = sim.kill();
        for _ in 0..2 {
            let set = open(env.clone());
            let log = set.open_log("a", LogOptions::default()).unwrap();
            assert!(matches!(log.stats().state, LogState::Open), "{:?}", log.stats().state);
            assert_eq!(read_all(&log, Offset(0)).unwrap().len() as u64, end.get());
        }
    }
}

#[test]
fn an_emptied_segment_is_damage_and_is_not_taken_for_one_never_begun() {
    let mut sim = Sim::new(1);
    let set = open(sim.env());
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    for _ in 0..3 {
        fill(&log, 3);
        log.roll().unwrap();
    }
    drop((log, set));
    let env = sim.kill();
    sim.fs.truncate("/data/a/00000000000000000003.log", 0).unwrap();
    let set = open(env);
    let log = set.open_log("a", LogOptions::default()).unwrap();
    assert_eq!(log.read(Offset(0), 1_000_000).unwrap().next_offset, Offset(3));
    let error = log.read(Offset(3), 1_000_000).unwrap_err();
    assert_eq!(error.offsets(), Some(Offset(3)..Offset(6)));
    assert_eq!(log.read(Offset(6), 1_000_000).unwrap().next_offset, Offset(9));
}

#[test]
fn a_close_does_not_wait_for_ever_for_a_disk_that_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let ctl = Arc::<Ctl>::default();
    let env = Env { fs: Arc::new(GateFs(StdFs, Arc::clone(&ctl))), ..Env::real() };
    let set = LogSet::open(dir.path(), SetOptions::new(env)).unwrap();
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    let other = set.create("b", b"", LogOptions::default()).unwrap();
    ctl.hold.store(true, SeqCst);
    let receipt = log.append(&[batch(&[b"x"])]).unwrap();
    while !ctl.held.load(SeqCst) {
        std::thread::yield_now();
    }
    let short = Duration::from_millis(50);
    other.close_within(Duration::from_secs(60)).unwrap();
    for error in [log.close_within(short).unwrap_err(), set.close_within(short).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
        assert!(error.to_string().contains("does not answer"), "{error}");
    }
    assert!(LogSet::open(dir.path(), SetOptions::default()).is_err(), "the directory is still ours");
    ctl.held.store(false, SeqCst);
    receipt.wait().unwrap();
    set.close().unwrap();
}

#[test]
fn a_start_that_a_reopened_log_goes_by_outlives_a_power_cut() {
    for seed in 0..10 {
        let mut sim = Sim::new(seed);
        let set = open(sim.env());
        let log = set.create("a", b"", LogOptions::default()).unwrap();
        fill(&log, 3);
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncDir).path("/data/a"));
        log.set_start_offset(Offset(2)).unwrap_err();
        log.close().unwrap();
        let start = set.open_log("a", LogOptions::default()).unwrap().start_offset();
        let env = sim.crash();
        let found = open(env).open_log("a", LogOptions::default()).unwrap().start_offset();
        assert!(found >= start, "seed {seed}: the log began at {start}, and now at {found}");
    }
}

/// The error of a roll is for the append that waits for it: one that a roll by age took away would
/// have the append begin the next roll, for ever.
#[test]
fn an_append_is_told_that_no_segment_can_be_begun_while_rolls_by_age_fail_too() {
    let sim = Sim::new(1);
    let set = LogSet::open("/data", SetOptions::new(sim.env()).maintenance_interval(Duration::from_secs(1)));
    let options = small().segment_age(Some(Duration::from_secs(2)));
    let log = set.unwrap().create("a", b"", options).unwrap();
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Create).path("*.index.tmp").always());
    let large = [batch(&[&[b'x'; 200]])];
    log.append(&large).unwrap().wait().unwrap();
    assert!(matches!(log.try_append(&large), Ok(Step::Wait(_))), "the segment is full");
    sim.scheduler.run_for(Duration::from_secs(10));
    assert_eq!(log.try_append(&large).unwrap_err().kind(), ErrorKind::Full);
    sim.fs.clear_rules();
    sim.scheduler.run_for(Duration::from_secs(10));
    log.append(&large).unwrap().wait().unwrap();
    assert_eq!((log.stats().segments, log.end_offset()), (2, Offset(2)));
}
