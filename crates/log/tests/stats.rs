//! What a log and a set say of themselves.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use std::io::IoSlice;
use std::path::Path;
use std::time::Duration;

use common::{batch, produced};
use logmill_log::env::{Clock, OpenMode};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{Log, LogOptions, LogSet, Recovered, SetOptions};
use logmill_record::{Offset, TimestampMs};

const SECOND: Duration = Duration::from_secs(1);

fn open(sim: &Sim) -> Log {
    Log::open("/data", SetOptions::new(sim.env()), LogOptions::default()).unwrap()
}

fn append(log: &Log) {
    log.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
}

/// Ten records a second apart, in segments of two; returns when the first was appended.
fn fill(sim: &Sim, log: &Log) -> TimestampMs {
    let begin = sim.clock.now();
    for n in 0..10 {
        append(log);
        if n % 2 == 1 && n < 9 {
            log.roll().unwrap();
        }
        sim.clock.advance(SECOND);
    }
    begin
}

fn after(begin: TimestampMs, seconds: i64) -> Option<TimestampMs> {
    Some(TimestampMs(begin.0 + seconds * 1_000))
}

#[test]
fn a_log_tells_when_the_oldest_record_that_it_keeps_was_appended() {
    let mut sim = Sim::new(1);
    let log = open(&sim);
    assert_eq!(log.stats().first_appended_at, None);
    let begin = fill(&sim, &log);
    assert_eq!(log.stats().first_appended_at, after(begin, 0));
    log.set_start_offset(Offset(4)).unwrap();
    assert_eq!(log.stats().first_appended_at, after(begin, 4));
    log.close().unwrap();
    let log = open(&sim);
    assert_eq!(log.stats().first_appended_at, after(begin, 4), "from the index of a sealed segment");
    log.set_start_offset(Offset(8)).unwrap();
    assert_eq!(log.stats().first_appended_at, after(begin, 8), "from the index of the active one");
    log.set_start_offset(Offset(10)).unwrap();
    assert_eq!(log.stats().first_appended_at, None);
    drop(log);
    sim.kill();
    assert_eq!(open(&sim).stats().first_appended_at, None);
}

#[test]
fn where_the_oldest_append_is_not_known_a_later_moment_is_told() {
    let sim = Sim::new(1);
    let log = open(&sim);
    let begin = fill(&sim, &log);
    log.set_start_offset(Offset(3)).unwrap();
    assert!(log.stats().first_appended_at >= after(begin, 3), "the start lies within a segment");
    log.close().unwrap();
    sim.env().fs.remove_file(Path::new("/data/00000000000000000002.index")).unwrap();
    let log = open(&sim);
    assert!(log.stats().first_appended_at >= after(begin, 3), "its index was made anew");
}

#[test]
fn each_log_has_histograms_of_its_own_appends_and_syncs() {
    let sim = Sim::new(1);
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let [slow, fast, idle] =
        ["slow", "fast", "idle"].map(|name| set.create(name, b"", LogOptions::default()).unwrap());
    sim.fs.inject(Rule::new(Fault::Stall(SECOND)).on(Op::SyncData).path("/data/slow/*").always());
    sim.fs.inject(Rule::new(Fault::Stall(SECOND / 4)).on(Op::Write).path("/data/slow/*").always());
    for log in [&slow, &fast] {
        (0..3).for_each(|_| append(log));
    }
    let (slow, fast, idle) = (slow.stats(), fast.stats(), idle.stats());
    assert_eq!((slow.append_time.count(), slow.sync_time.count()), (3, 3));
    assert!((SECOND..2 * SECOND).contains(&slow.sync_time.quantile(0.5).unwrap()));
    assert!((SECOND / 4..SECOND / 2).contains(&slow.append_time.quantile(0.5).unwrap()));
    assert_eq!((fast.append_time.count(), fast.sync_time.count()), (3, 3));
    assert!(fast.sync_time.quantile(1.0).unwrap() < SECOND / 100);
    assert_eq!((idle.append_time.count(), idle.sync_time.count()), (0, 0));
    assert_eq!(set.stats().sync_time.count(), 6);
}

fn mended(recovered: Recovered) -> (u64, u64, u64) {
    (recovered.torn_tails, recovered.torn_bytes, recovered.rebuilt_sidecars)
}

#[test]
fn torn_tails_are_counted_with_their_bytes() {
    let mut sim = Sim::new(1);
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    for name in ["a", "b", "whole"] {
        append(&set.create(name, b"", LogOptions::default()).unwrap());
    }
    drop(set);
    let env = sim.kill();
    for (name, len) in [("a", 100), ("b", 1_000)] {
        let data = format!("/data/{name}/00000000000000000000.log");
        let file = env.fs.open(Path::new(&data), OpenMode::ReadWrite).unwrap();
        let end = file.status().unwrap().len;
        file.write_at(&[IoSlice::new(&vec![1; len])], end).unwrap();
    }
    let set = LogSet::open("/data", SetOptions::new(env)).unwrap();
    let [a, b, whole] = ["a", "b", "whole"].map(|name| set.open_log(name, LogOptions::default()).unwrap());
    assert_eq!(mended(a.stats().recovered), (1, 100, 0));
    assert_eq!(mended(b.stats().recovered), (1, 1_000, 0));
    assert_eq!(mended(whole.stats().recovered), (0, 0, 0));
    a.close().unwrap();
    assert_eq!(mended(set.stats().recovered), (2, 1_100, 0), "also of logs closed since");
    let a = set.open_log("a", LogOptions::default()).unwrap();
    assert_eq!(mended(a.stats().recovered), (0, 0, 0), "this time nothing");
}

#[test]
fn sidecars_made_anew_are_counted() {
    let sim = Sim::new(1);
    let log = open(&sim);
    for sequence in 0..3 {
        log.append(&[produced(7, 0, sequence, false, &[b"x"])]).unwrap().wait().unwrap();
        if sequence < 2 {
            log.roll().unwrap();
        }
    }
    log.close().unwrap();
    let log = open(&sim);
    assert_eq!(mended(log.stats().recovered), (0, 0, 0));
    log.close().unwrap();
    for name in ["00000000000000000000.index", "00000000000000000001.state", "00000000000000000002.state"] {
        sim.env().fs.remove_file(&Path::new("/data").join(name)).unwrap();
    }
    let log = open(&sim);
    assert_eq!(mended(log.stats().recovered), (0, 0, 2));
    assert_eq!(mended(log.set().stats().recovered), (0, 0, 2));
    log.close().unwrap();
    assert_eq!(mended(open(&sim).stats().recovered), (0, 0, 0), "they are on disk again");
}
