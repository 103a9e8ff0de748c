//! What the logs of a set share: open files and unsynced bytes.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{batch, texts};
use logmill_log::env::{Env, block_on};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{Durability, ErrorKind, Log, LogOptions, LogSet, LogState, SetOptions, Step};

const LONG: Duration = Duration::from_hours(24);

fn relaxed() -> LogOptions {
    LogOptions::default().durability(Durability::Relaxed { flush_interval: LONG })
}

fn open(options: SetOptions, count: usize, log: LogOptions) -> (LogSet, Vec<Log>) {
    let set = LogSet::open("/data", options).unwrap();
    let logs = (0..count).map(|n| set.create(format!("log-{n}"), b"", log).unwrap()).collect();
    (set, logs)
}

/// The step, and whether it had to wait.
fn append(log: &Log, bytes: usize) -> Step<logmill_log::Receipt> {
    log.try_append(&[batch(&[&vec![b'x'; bytes]])]).unwrap()
}

#[test]
fn many_logs_take_turns_with_few_open_files() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let (set, logs) = open(SetOptions::new(sim.env()).max_open_files(3), 20, LogOptions::default());
        assert_eq!(set.stats().open_files.used, 0, "a log that is only opened has no file open");
        for round in 0..5 {
            for log in &logs {
                log.append(&[batch(&[format!("{round}").as_bytes()])]).unwrap().wait().unwrap();
                assert!(set.stats().open_files.used <= 3);
            }
        }
        for log in &logs {
            assert_eq!(texts(log, 0), ["0", "1", "2", "3", "4"], "seed {seed}");
        }
    }
}

#[test]
fn the_file_that_is_closed_is_the_one_used_longest_ago() {
    let sim = Sim::new(1);
    let (_set, logs) = open(SetOptions::new(sim.env()).max_open_files(2), 3, LogOptions::default());
    let opens = |log: &Log| {
        let before = sim.fs.calls(Op::Open);
        log.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
        sim.fs.calls(Op::Open) - before
    };
    assert_eq!([opens(&logs[0]), opens(&logs[1]), opens(&logs[0])], [1, 1, 0]);
    assert_eq!(opens(&logs[2]), 1, "closes that of 1");
    assert_eq!([opens(&logs[0]), opens(&logs[1])], [0, 1]);
}

#[test]
fn a_file_with_unsynced_bytes_is_synced_before_it_is_closed() {
    let mut sim = Sim::new(1);
    let (set, logs) = open(SetOptions::new(sim.env()).max_open_files(2), 3, relaxed());
    for log in &logs[..2] {
        assert!(matches!(append(log, 10), Step::Done(_)));
    }
    let before = logs[0].env().clock.monotonic();
    let Step::Wait(wait) = append(&logs[2], 10) else { panic!("both files have unsynced bytes") };
    block_on(&*sim.env().scheduler, wait);
    assert!(matches!(append(&logs[2], 10), Step::Done(_)));
    assert!(logs[0].env().clock.monotonic() - before < LONG, "nobody waited for the flush interval");
    assert_eq!(set.stats().open_files.used, 2);
    drop((logs, set));
    let set = LogSet::open("/data", SetOptions::new(sim.crash())).unwrap();
    let found = |n| texts(&set.open_log(format!("log-{n}"), relaxed()).unwrap(), 0).len();
    assert!(found(0) + found(1) >= 1, "one of them was closed, so it was synced");
}

#[test]
fn a_log_whose_sync_fails_gives_its_file_and_its_bytes_back() {
    let sim = Sim::new(1);
    let options = SetOptions::new(sim.env()).max_open_files(1).max_dirty_bytes(1_000);
    let (set, logs) = open(options, 2, relaxed());
    assert!(matches!(append(&logs[0], 500), Step::Done(_)));
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*log-0/*"));
    logs[1].append(&[batch(&[&[b'x'; 500]])]).unwrap().wait().unwrap();
    assert!(matches!(logs[0].stats().state, LogState::Poisoned(_)));
    assert_eq!((set.stats().open_files.used, set.stats().dirty_bytes.used), (1, 0));
    assert_eq!(logs[0].try_append(&[batch(&[b"x"])]).unwrap_err().kind(), ErrorKind::Poisoned);
}

#[test]
fn a_file_that_cannot_be_opened_fails_that_append_only() {
    let sim = Sim::new(1);
    let (set, logs) = open(SetOptions::new(sim.env()).max_open_files(1), 1, LogOptions::default());
    sim.fs.inject(Rule::new(Fault::Io).on(Op::Open).path("*.log"));
    assert_eq!(logs[0].append(&[batch(&[b"x"])]).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(set.stats().open_files.used, 0);
    logs[0].append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
}

#[test]
fn appends_wait_while_all_logs_together_have_too_much_unsynced() {
    let sim = Sim::new(1);
    let (set, logs) = open(SetOptions::new(sim.env()).max_dirty_bytes(10_000), 5, relaxed());
    let mut waits = 0;
    for round in 0..40 {
        let log = &logs[round % logs.len()];
        while let Step::Wait(wait) = append(log, 1_000) {
            waits += 1;
            block_on(&*sim.env().scheduler, wait);
        }
        let dirty = set.stats().dirty_bytes.used;
        assert!(dirty <= 10_000, "{dirty}");
        assert_eq!(dirty, set.stats().unsynced_bytes, "what is counted is what is unsynced");
    }
    assert!(waits > 0);
    assert!(sim.env().clock.monotonic() < LONG);
    logs[0].append(&[batch(&[&[b'x'; 50_000]])]).unwrap().wait().unwrap();
    set.close().unwrap();
    assert_eq!(set.stats().dirty_bytes.used, 0);
}

#[test]
fn an_append_that_fails_gives_its_bytes_back() {
    let sim = Sim::new(1);
    let (set, logs) = open(SetOptions::new(sim.env()), 1, relaxed());
    assert!(matches!(append(&logs[0], 100), Step::Done(_)));
    let used = set.stats().dirty_bytes.used;
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*.log"));
    logs[0].try_append(&[batch(&[b"too much"])]).unwrap_err();
    assert_eq!(set.stats().dirty_bytes.used, used);
}

/// Many threads, few files, few bytes, real disk: nobody is forgotten, nothing is lost.
#[test]
fn threads_that_compete_for_files_and_bytes_all_get_through() {
    let dir = tempfile::tempdir().unwrap();
    let options = SetOptions::new(Env::real()).max_open_files(4).max_dirty_bytes(2_000);
    let set = LogSet::open(dir.path(), options).unwrap();
    let logs: Vec<Log> = (0..24).map(|n| set.create(format!("{n}"), b"", relaxed()).unwrap()).collect();
    let appended = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (logs, appended) = (&logs, Arc::clone(&appended));
            scope.spawn(move || {
                for round in 0..60 {
                    let log = &logs[(round * 7 + thread * 3) % logs.len()];
                    let receipt = log.append(&[batch(&[&vec![b'x'; 100 + round]])]).unwrap();
                    if round % 5 == 0 {
                        receipt.wait().unwrap();
                    }
                    appended.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(appended.load(Ordering::Relaxed), 8 * 60);
    set.close().unwrap();
    drop((logs, set));
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let found = |n| texts(&set.open_log(format!("{n}"), relaxed()).unwrap(), 0).len();
    assert_eq!((0..24).map(found).sum::<usize>(), 8 * 60);
}

/// After an append that fails there is nothing to sync, and no sync to close the file that it opened.
#[test]
fn a_file_that_was_opened_for_nothing_goes_to_the_log_that_waits_for_it() {
    let sim = Sim::new(1);
    let (set, logs) = open(SetOptions::new(sim.env()).max_open_files(2), 5, LogOptions::default());
    for log in &logs[..2] {
        assert!(matches!(append(log, 10), Step::Done(_)));
    }
    let waits = logs[2..].iter().map(|log| match append(log, 10) {
        Step::Wait(wait) => wait,
        Step::Done(_) => panic!("both files have unsynced bytes"),
    });
    let waits: Vec<_> = waits.collect();
    for (log, wait) in logs[2..].iter().zip(waits) {
        block_on(&*sim.env().scheduler, wait);
        sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*.log"));
        let full = log.try_append(&[batch(&[b"x"])]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::Full);
    }
    assert_eq!(set.stats().open_files.waiting, 0);
}
