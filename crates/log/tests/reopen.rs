//! A log whose sync failed, opened again in the same process; and what a new log has to have on disk
//! before anything in it is acknowledged.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use common::{batch, texts};
use logmill_log::sim::{Fault, Op, Rule, Sim, SimRandom};
use logmill_log::{Log, LogOptions, LogSet, LogState, SetOptions};
use logmill_record::Offset;

fn open_set(sim: &Sim) -> LogSet {
    LogSet::open("/data", SetOptions::new(sim.env())).unwrap()
}

fn append(log: &Log, model: &mut Vec<String>, text: &str) {
    log.append(&[batch(&[text.as_bytes()])]).unwrap().wait().unwrap();
    model.push(text.to_owned());
}

/// Opens a poisoned log again, on a disk that goes on failing for a while.
fn open_again(sim: &Sim, random: &SimRandom, set: &LogSet) -> Log {
    for attempt in 0.. {
        if attempt < 4 && random.one_in(2) {
            let nth = 1 + random.below(3);
            sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log").nth(nth));
        }
        let opened = set.open_log("a", LogOptions::default());
        sim.fs.clear_rules();
        match opened {
            Ok(log) if matches!(log.stats().state, LogState::Open) => return log,
            _ => {}
        }
    }
    unreachable!("only the first attempts meet a fault")
}

#[test]
fn a_log_whose_sync_failed_goes_on_behind_what_is_on_disk() {
    for seed in 0..600 {
        let mut sim = Sim::new(seed);
        let random = sim.random();
        let set = open_set(&sim);
        let log = set.create("a", b"", LogOptions::default()).unwrap();
        let mut model = Vec::new();
        for n in 0..random.below(4) {
            append(&log, &mut model, &format!("{n}"));
        }
        let epoch = log.stats().epoch;
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log"));
        for n in 0..=random.below(2) {
            // The second is refused, or its outcome is unknown too.
            if let Ok(lost) = log.append(&[batch(&[format!("lost {n}").as_bytes()])]) {
                lost.wait().unwrap_err();
            }
        }
        let log = open_again(&sim, &random, &set);
        let durable = model.len() as u64;
        assert_eq!(log.end_offset(), Offset(durable), "seed {seed}: what was not synced is not shown");
        assert!(log.stats().epoch > epoch, "seed {seed}: offsets are used again, so the epoch moves on");
        if random.one_in(2) {
            append(&log, &mut model, "after");
        }
        drop((log, set));
        sim.crash();
        let log = open_set(&sim).open_log("a", LogOptions::default()).unwrap();
        assert_eq!(texts(&log, 0), model, "seed {seed}");
    }
}

#[test]
fn a_log_is_on_disk_before_what_is_appended_to_it() {
    for seed in 0..100 {
        for path in ["a", "topics/0000/0"] {
            let mut sim = Sim::new(seed);
            let mut model = Vec::new();
            append(&open_set(&sim).create(path, b"", LogOptions::default()).unwrap(), &mut model, "first");
            sim.crash();
            let log = open_set(&sim).open_log(path, LogOptions::default()).unwrap();
            assert_eq!(texts(&log, 0), model, "seed {seed}, {path}");
        }
    }
}
