//! What a log keeps: by age, by size, and by its owner's word, over crashes at every point.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;

use std::time::Duration;

use common::{batch, read_all};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{Durability, ErrorKind, Log, LogOptions, SetOptions};
use logmill_record::Offset;

fn small() -> LogOptions {
    LogOptions::default().segment_bytes(400)
}

fn open(sim: &Sim, options: LogOptions) -> Log {
    Log::open("/data", SetOptions::new(sim.env()), options).unwrap()
}

fn append(log: &Log, n: u64) {
    log.append(&[batch(&[&n.to_be_bytes()])]).unwrap().wait().unwrap();
}

/// The record at each offset, which is its own number.
fn check(log: &Log, end: u64) {
    let start = log.start_offset();
    let records = read_all(log, start).unwrap();
    let offsets: Vec<u64> = records.iter().map(|(offset, _)| offset.get()).collect();
    assert_eq!(offsets, (start.get()..end).collect::<Vec<_>>());
    for (offset, value) in records {
        assert_eq!(value, offset.get().to_be_bytes());
    }
    for below in [0, start.get().saturating_sub(1)] {
        if below < start.get() {
            let error = log.read(Offset(below), 100).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfRange);
            assert!(error.to_string().contains(&format!("offsets {start} to {end}")), "{error}");
        }
    }
}

fn segment_files(sim: &Sim) -> Vec<String> {
    let names = sim.fs.files().into_iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
    names.filter(|name| name.starts_with('0')).collect()
}

/// Whenever the power goes, `meta` is whole: what the owner kept before or after, and the start that was set.
#[test]
fn what_the_owner_keeps_is_replaced_whole_and_moves_no_start() {
    for nth in 1.. {
        let mut sim = Sim::new(7);
        let log = open(&sim, small());
        (0..5).for_each(|n| append(&log, n));
        log.set_start_offset(Offset(3)).unwrap();
        let before = sim.fs.changes();
        sim.fs.power_off_at(nth);
        let replaced = log.set_owner(b"new");
        let went = sim.fs.is_off();
        assert!(went || sim.fs.changes() > before);
        drop(log);
        sim.crash();
        let log = open(&sim, small());
        let owner = log.set().read_meta("").unwrap().owner;
        assert!(owner == "new" || (owner.is_empty() && replaced.is_err()), "change {nth}: {owner:?}");
        assert_eq!(log.start_offset(), Offset(3));
        check(&log, 5);
        if !went {
            let error = log.set_owner(&vec![0; (1 << 20) + 1]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            log.close().unwrap();
            assert_eq!(log.set_owner(b"late").unwrap_err().kind(), ErrorKind::Closed);
            break;
        }
    }
}

#[test]
fn a_start_inside_a_segment_keeps_the_segment_and_hides_what_is_below() {
    let sim = Sim::new(1);
    let log = open(&sim, small());
    (0..20).for_each(|n| append(&log, n));
    let before = log.stats().segments;
    assert!(before > 3);
    assert_eq!(log.set_start_offset(Offset(7)).unwrap(), Offset(7));
    check(&log, 20);
    assert!(log.stats().segments < before);
    // Only forward.
    assert_eq!(log.set_start_offset(Offset(3)).unwrap(), Offset(7));
    assert_eq!(log.set_start_offset(Offset(7)).unwrap(), Offset(7));
    let error = log.set_start_offset(Offset(21)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    check(&log, 20);
    log.set().close().unwrap();
    let log = open(&sim, small());
    assert_eq!(log.start_offset(), Offset(7));
    check(&log, 20);
    assert_eq!(log.set_start_offset(Offset(20)).unwrap(), Offset(20));
    check(&log, 20);
    append(&log, 20);
    check(&log, 21);
}

#[test]
fn a_time_is_looked_for_from_the_start_on() {
    let sim = Sim::new(1);
    let log = open(&sim, small());
    (0..20).for_each(|n| append(&log, n));
    log.set_start_offset(Offset(9)).unwrap();
    let found = log.find_time(logmill_record::TimestampMs(0)).unwrap();
    assert_eq!(found.unwrap().0, Offset(9));
}

#[test]
fn segments_go_when_their_last_append_is_too_old_and_the_active_one_too() {
    let sim = Sim::new(1);
    let options = small().retention_age(Some(Duration::from_secs(100)));
    let log = open(&sim, options);
    for n in 0..20 {
        append(&log, n);
        sim.clock.advance(Duration::from_secs(10));
    }
    // Record n was appended at 10 n, and it is 200 now.
    let start = log.apply_retention().unwrap();
    assert!(start > Offset(5) && start <= Offset(10), "{start}");
    check(&log, 20);
    sim.clock.advance(Duration::from_secs(91));
    assert_eq!(log.apply_retention().unwrap(), Offset(20), "also what a quiet log has in its active segment");
    check(&log, 20);
    assert_eq!(segment_files(&sim), ["00000000000000000020.log"]);
}

#[test]
fn a_clock_that_goes_back_deletes_late_not_early() {
    let sim = Sim::new(1);
    let log = open(&sim, small().retention_age(Some(Duration::from_secs(100))));
    (0..10).for_each(|n| append(&log, n));
    sim.clock.jump(-1_000_000);
    (10..20).for_each(|n| append(&log, n));
    sim.clock.advance(Duration::from_secs(99));
    assert_eq!(log.apply_retention().unwrap(), Offset(0));
    // What came later is kept as long as what came before it.
    sim.clock.advance(Duration::from_secs(99));
    assert_eq!(log.apply_retention().unwrap(), Offset(0));
    sim.clock.advance(Duration::from_secs(1_000));
    assert_eq!(log.apply_retention().unwrap(), Offset(20));
}

#[test]
fn timestamps_of_the_client_expire_nothing() {
    let sim = Sim::new(1);
    let log = open(&sim, small().retention_age(Some(Duration::from_secs(100))));
    for _ in 0..20 {
        log.append(&[common::batch_at(-5, &[b"long ago"])]).unwrap().wait().unwrap();
    }
    assert_eq!(log.apply_retention().unwrap(), Offset(0));
}

#[test]
fn the_start_of_a_relaxed_log_lies_never_behind_what_is_on_disk() {
    let mut sim = Sim::new(1);
    let relaxed = Durability::Relaxed { flush_interval: Duration::from_secs(60) };
    let log = open(&sim, small().durability(relaxed));
    for n in 0..3_u64 {
        drop(log.append(&[batch(&[&n.to_be_bytes()])]).unwrap());
    }
    assert!(log.end_offset() > log.stats().durable_end);
    log.set_start_offset(Offset(2)).unwrap();
    sim.crash();
    let log = open(&sim, small());
    assert_eq!(log.start_offset(), Offset(2));
    assert!(log.end_offset() >= Offset(2));
    check(&log, log.end_offset().get());
}

#[test]
fn segments_go_while_enough_bytes_remain() {
    let sim = Sim::new(1);
    let log = open(&sim, small().retention_bytes(Some(900)));
    (0..40).for_each(|n| append(&log, n));
    let start = log.apply_retention().unwrap();
    assert!(start > Offset(0));
    check(&log, 40);
    let stored = log.stats().stored_bytes;
    assert!((900..900 + 400).contains(&stored), "{stored}");
    assert_eq!(log.apply_retention().unwrap(), start);
}

#[test]
fn an_index_lost_makes_expiry_late() {
    let sim = Sim::new(1);
    let options = small().retention_age(Some(Duration::from_secs(100)));
    let log = open(&sim, options);
    (0..6).for_each(|n| append(&log, n));
    log.roll().unwrap();
    log.set().close().unwrap();
    for path in sim.fs.files() {
        if path.extension().is_some_and(|ending| ending == "index") {
            sim.fs.truncate(&path, 3).unwrap();
        }
    }
    sim.clock.advance(Duration::from_secs(99));
    let log = open(&sim, options);
    assert_eq!(log.apply_retention().unwrap(), Offset(0));
    sim.clock.advance(Duration::from_secs(2));
    assert_eq!(log.apply_retention().unwrap(), Offset(6));
}

#[test]
fn a_reader_holds_what_it_was_given_and_is_told_the_range_after() {
    let sim = Sim::new(1);
    let log = open(&sim, small());
    (0..20).for_each(|n| append(&log, n));
    let held = log.read(Offset(0), 1_000).unwrap();
    let before = held.chunks[0].batches.to_vec();
    log.set_start_offset(Offset(20)).unwrap();
    assert_eq!(held.chunks[0].batches, before);
    assert_eq!(log.read(Offset(0), 100).unwrap_err().kind(), ErrorKind::OutOfRange);
}

#[test]
fn what_cannot_be_removed_is_removed_later() {
    let sim = Sim::new(1);
    let log = open(&sim, small());
    (0..20).for_each(|n| append(&log, n));
    sim.fs.inject(Rule::new(Fault::Io).on(Op::RemoveFile).path("*.log").always());
    let files = segment_files(&sim).len();
    assert_eq!(log.set_start_offset(Offset(20)).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(log.start_offset(), Offset(20));
    check(&log, 20);
    assert_eq!(segment_files(&sim).len(), files);
    sim.fs.clear_rules();
    assert_eq!(log.set_start_offset(Offset(20)).unwrap(), Offset(20));
    assert!(segment_files(&sim).len() <= 3, "{:?}", segment_files(&sim));
}

#[test]
fn a_start_that_cannot_be_written_stays_where_it_was() {
    let sim = Sim::new(1);
    let log = open(&sim, small());
    (0..20).for_each(|n| append(&log, n));
    for fault in [Fault::NoSpace, Fault::Io] {
        sim.fs.inject(Rule::new(fault).on(Op::Write).path("*meta*"));
        log.set_start_offset(Offset(20)).unwrap_err();
        check(&log, 20);
        assert_eq!(log.start_offset(), Offset(0));
    }
}

/// Crashes at every change that a removal makes to the disk, with several subsets of what was not
/// synced: nothing at or above the start is lost, nothing below it comes back.
#[test]
fn a_crash_at_any_point_of_a_removal_leaves_the_log_whole() {
    let mut points = 0;
    let mut kept = [0; 2];
    for seed in 0..20 {
        for nth in 1.. {
            // What a crash keeps is drawn anew for each point.
            let mut sim = Sim::new(seed << 32 | nth);
            let log = open(&sim, small());
            (0..20).for_each(|n| append(&log, n));
            sim.fs.power_off_at(nth);
            let outcome = log.set_start_offset(Offset(13));
            if !sim.fs.is_off() {
                outcome.unwrap();
                break;
            }
            points += 1;
            let moved = log.start_offset();
            drop(log);
            sim.crash();
            let log = open(&sim, small());
            assert!(log.start_offset() >= moved, "seed {seed}, point {nth}");
            assert!([Offset(0), Offset(13)].contains(&log.start_offset()), "seed {seed}, point {nth}");
            kept[usize::from(log.start_offset() > Offset(0))] += 1;
            check(&log, 20);
            if log.start_offset() > Offset(0) {
                let below = |name: &String| name.as_str() < "00000000000000000008";
                assert!(!segment_files(&sim).iter().any(below), "{:?}", segment_files(&sim));
            }
            append(&log, 20);
            check(&log, 21);
        }
    }
    println!("crash points: {points}; start not moved, moved: {kept:?}");
    assert!(points > 100 && kept[0] > 0 && kept[1] > 0);
}
