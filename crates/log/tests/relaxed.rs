//! Relaxed logs: what readers see, when it is synced, and what a crash takes back.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;

use std::time::Duration;

use common::{batch, texts};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{Durability, ErrorKind, Log, LogOptions, LogSet, LogState, Receipt, SetOptions, Step};
use logmill_record::Offset;

const FLUSH: Duration = Duration::from_millis(500);

fn relaxed() -> LogOptions {
    LogOptions::default().durability(Durability::Relaxed { flush_interval: FLUSH })
}

fn open(sim: &Sim) -> (LogSet, Log) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.create("a", b"", relaxed()).unwrap();
    (set, log)
}

fn append(log: &Log, text: &str) -> Receipt {
    match log.try_append(&[batch(&[text.as_bytes()])]).unwrap() {
        Step::Done(receipt) => receipt,
        Step::Wait(_) => panic!("there is room"),
    }
}

fn data_syncs(sim: &Sim) -> u64 {
    sim.fs.calls(Op::SyncData)
}

#[test]
fn readers_see_an_append_at_once_and_those_who_wait_for_it_are_woken() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    let waiting = log.beyond(Offset(0));
    let before = data_syncs(&sim);
    drop(append(&log, "one"));
    assert_eq!(texts(&log, 0), ["one"]);
    assert_eq!((log.end_offset(), log.durable_end()), (Offset(1), Offset(0)));
    logmill_log::env::block_on(&*sim.env().scheduler, waiting).unwrap();
    assert_eq!(data_syncs(&sim), before, "nobody asked for a sync");
}

#[test]
fn what_nobody_waits_for_is_synced_once_per_flush_interval() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    let before = data_syncs(&sim);
    for n in 0..10 {
        drop(append(&log, &n.to_string()));
        sim.scheduler.run_for(FLUSH / 20);
    }
    assert_eq!(data_syncs(&sim), before);
    sim.scheduler.run_for(FLUSH / 2);
    assert_eq!(log.durable_end(), Offset(10), "the interval began with the first of them");
    assert_eq!(log.stats().syncs, 1);
}

#[test]
fn a_receipt_asks_for_a_sync_when_it_is_waited_for() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    drop(append(&log, "nobody waits"));
    let receipt = append(&log, "somebody does");
    let before = log.env().clock.monotonic();
    receipt.wait().unwrap();
    assert_eq!(log.env().clock.monotonic(), before, "it did not wait for the interval");
    assert_eq!(log.durable_end(), Offset(2));
}

#[test]
fn whoever_waits_for_an_offset_on_disk_asks_for_a_sync_and_is_not_answered_before_it() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    let receipt = log.append(&[batch(&[b"first"]), batch(&[b"second"])]).unwrap();
    let before = (log.env().clock.monotonic(), data_syncs(&sim));
    logmill_log::env::block_on(&*sim.env().scheduler, receipt.on_disk(Offset(0))).unwrap();
    assert_eq!((log.durable_end(), log.env().clock.monotonic()), (Offset(2), before.0));
    drop(append(&log, "third"));
    logmill_log::env::block_on(&*sim.env().scheduler, log.on_disk(Offset(2))).unwrap();
    assert_eq!((log.durable_end(), log.env().clock.monotonic()), (Offset(3), before.0));
    assert_eq!(data_syncs(&sim), before.1 + 2, "and for one only");

    let receipt = append(&log, "lost");
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log"));
    let lost = [receipt.on_disk(Offset(3)), log.on_disk(Offset(3))];
    for on_disk in lost {
        let error = logmill_log::env::block_on(&*sim.env().scheduler, on_disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    }
}

#[test]
fn the_limit_of_unsynced_bytes_holds_and_syncs_early() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    log.set_options(relaxed().max_unsynced_bytes(4_000));
    let before = log.env().clock.monotonic();
    for _ in 0..20 {
        drop(log.append(&[batch(&[&[b'x'; 1_000]])]).unwrap());
        assert!(log.stats().unsynced_bytes <= 4_000);
    }
    assert_eq!(log.env().clock.monotonic(), before, "nobody waited for the interval");
}

#[test]
fn a_power_cut_takes_back_only_what_was_not_synced_and_the_epoch_tells() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..60 {
        let mut sim = Sim::new(seed);
        let (set, log) = open(&sim);
        append(&log, "synced").wait().unwrap();
        drop(append(&log, "seen"));
        assert_eq!(texts(&log, 0), ["synced", "seen"]);
        let epoch = log.stats().epoch;
        drop((log, set));
        let set = LogSet::open("/data", SetOptions::new(sim.crash())).unwrap();
        let log = set.open_log("a", relaxed()).unwrap();
        let found = texts(&log, 0);
        assert_eq!(found[0], "synced", "seed {seed}");
        assert!(log.stats().epoch > epoch);
        if found.len() == 1 {
            lost += 1;
            assert_eq!(append(&log, "other").first_offset(), Offset(1), "the offset is used again");
        } else {
            kept += 1;
            assert_eq!(found[1], "seen", "seed {seed}");
        }
    }
    assert!(lost > 0 && kept > 0, "{lost} lost, {kept} kept");
}

#[test]
fn a_kill_takes_nothing_back() {
    let mut sim = Sim::new(3);
    let (set, log) = open(&sim);
    drop(append(&log, "written"));
    drop((log, set));
    let set = LogSet::open("/data", SetOptions::new(sim.kill())).unwrap();
    assert_eq!(texts(&set.open_log("a", relaxed()).unwrap(), 0), ["written"]);
}

#[test]
fn a_close_syncs_what_waits_for_the_interval() {
    let mut sim = Sim::new(3);
    let (set, log) = open(&sim);
    drop(append(&log, "written"));
    set.close().unwrap();
    drop((log, set));
    let set = LogSet::open("/data", SetOptions::new(sim.crash())).unwrap();
    assert_eq!(texts(&set.open_log("a", relaxed()).unwrap(), 0), ["written"]);
}

#[test]
fn a_sync_that_fails_unseen_ends_the_log_and_opening_it_again_cuts_back() {
    let sim = Sim::new(3);
    let (set, log) = open(&sim);
    append(&log, "synced").wait().unwrap();
    let receipt = append(&log, "lost");
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log"));
    sim.scheduler.run_for(FLUSH);
    assert!(matches!(log.stats().state, LogState::Poisoned(_)));
    assert_eq!(receipt.wait().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    let log = set.open_log("a", relaxed()).unwrap();
    assert_eq!(texts(&log, 0), ["synced"]);
}

#[test]
fn a_relaxed_log_that_becomes_durable_never_takes_back_what_readers_saw() {
    let sim = Sim::new(3);
    let (_set, log) = open(&sim);
    drop(append(&log, "seen"));
    log.set_options(LogOptions::default());
    assert_eq!(texts(&log, 0), ["seen"]);
    let receipt = append(&log, "not yet");
    assert_eq!(texts(&log, 0), ["seen"]);
    receipt.wait().unwrap();
    assert_eq!(texts(&log, 0), ["seen", "not yet"]);
}

#[test]
fn relaxed_segments_roll_and_lose_nothing_that_was_waited_for() {
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        let (set, log) = open(&sim);
        log.set_options(relaxed().segment_bytes(1_000));
        let mut synced = 0;
        for n in 0..30 {
            let receipt = log.append(&[batch(&[format!("record {n:0>60}").as_bytes()])]).unwrap();
            if sim.random().below(4) == 0 {
                receipt.wait().unwrap();
                synced = n + 1;
            }
        }
        assert!(log.stats().segments > 2);
        drop((log, set));
        let set = LogSet::open("/data", SetOptions::new(sim.crash())).unwrap();
        let found = texts(&set.open_log("a", relaxed()).unwrap(), 0).len();
        assert!(found >= synced, "seed {seed}: {found} of {synced} that were waited for");
    }
}
