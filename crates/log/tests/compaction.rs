//! Compaction by key: what stays, what goes, and that no crash, full disk or damage makes it take
//! more than it may.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop where it fails"
)]

#[path = "common/keyed.rs"]
mod keyed;

use std::collections::BTreeMap;
use std::time::Duration;

use keyed::{Records, append, check, fill, least, records};
use logmill_log::env::Clock as _;
use logmill_log::inspect::{Severity, plan_repair, verify};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{CompactionOptions, ErrorKind, Log, LogOptions, LogSet, SetOptions};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, ControlRecord, ControlType, NewRecord, Offset, TimestampMs,
};

const DAY: Duration = Duration::from_hours(24);

fn small() -> LogOptions {
    LogOptions::default().segment_bytes(600).compaction(Some(CompactionOptions::default()))
}

fn tiny_map() -> LogOptions {
    LogOptions::default()
        .segment_bytes(600)
        .compaction(Some(CompactionOptions::default().key_map_bytes(24 * 4)))
}

fn open(sim: &Sim, options: LogOptions) -> Log {
    Log::open("/data", SetOptions::new(sim.env()), options).unwrap()
}

#[test]
fn of_each_key_the_last_record_stays_where_it_was() {
    for (options, passes) in [(small(), 1), (tiny_map(), 4)] {
        let sim = Sim::new(3);
        let log = open(&sim, options);
        let mut model = Records::new();
        fill(&log, &mut model, &sim.random(), 60, 12);
        log.roll().unwrap();
        let before = log.stats().stored_bytes;
        let compacted = log.compact().unwrap();
        assert!(compacted.passes >= passes, "{compacted:?}");
        assert!(compacted.key_map_bytes <= 64 << 20 && compacted.segments > 3, "{compacted:?}");
        assert_eq!(before - log.stats().stored_bytes, compacted.bytes_before - compacted.bytes_after);
        let found = check(&log, &model);
        if passes == 1 {
            assert_eq!(found, least(&model));
        }
        assert_eq!(log.end_offset().get(), model.len() as u64);
        // From every offset, also from those that are gone.
        for from in 0..model.len() as u64 {
            let out = log.read(Offset(from), 1).unwrap();
            assert!(out.next_offset > Offset(from) && !out.chunks.is_empty());
        }
        assert_eq!(
            log.find_time(TimestampMs(1_000)).unwrap().unwrap().0.get(),
            *found.keys().next().unwrap()
        );
        // Nothing is left to do, and nothing is done.
        assert_eq!(log.compact().unwrap().segments, 0);
        log.set().close().unwrap();
        let report = verify(&sim.env(), "/data", &mut |_| ()).unwrap();
        assert!(report.findings.is_empty(), "{report:?}");
        let log = open(&sim, options);
        assert_eq!(check(&log, &model), found);
        assert!(!sim.fs.files().iter().any(|path| path.to_string_lossy().contains("cleaned")));
    }
}

#[test]
fn a_map_within_its_budget_leaves_the_same_records() {
    let sim = Sim::new(5);
    let log = open(&sim, tiny_map());
    let mut model = Records::new();
    fill(&log, &mut model, &sim.random(), 80, 30);
    log.roll().unwrap();
    let compacted = log.compact().unwrap();
    assert!(compacted.key_map_bytes <= 24 * 4, "{compacted:?}");
    assert!(compacted.passes > 10, "{compacted:?}");
    assert_eq!(check(&log, &model), least(&model));
}

#[test]
fn the_active_segment_and_young_ones_are_left_alone() {
    let sim = Sim::new(3);
    let options = small().compaction(Some(CompactionOptions::default().min_age(Duration::from_secs(100))));
    let log = open(&sim, options);
    let mut model = Records::new();
    fill(&log, &mut model, &sim.random(), 30, 4);
    assert_eq!(log.compact().unwrap().segments, 0);
    assert_eq!(records(&log), model);
    sim.clock.advance(Duration::from_secs(100));
    append(&log, &mut model, &[(Some(0), Some(1))]);
    assert!(log.compact().unwrap().segments > 0);
    let found = check(&log, &model);
    assert!(found.len() < model.len() && found.contains_key(&(model.len() as u64 - 1)));
}

#[test]
fn a_tombstone_goes_when_readers_have_had_time_to_see_it() {
    let sim = Sim::new(3);
    let log = open(&sim, small());
    let mut model = Records::new();
    append(&log, &mut model, &[(Some(1), Some(10)), (Some(2), Some(20))]);
    append(&log, &mut model, &[(Some(1), None), (Some(3), Some(30))]);
    // So that the tombstone does not lie in the segment's last batch.
    append(&log, &mut model, &[(Some(4), Some(40))]);
    log.roll().unwrap();
    log.compact().unwrap();
    assert_eq!(records(&log).keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
    sim.clock.advance(DAY - Duration::from_secs(1));
    log.compact().unwrap();
    assert_eq!(records(&log).keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4], "a second too early");
    sim.clock.advance(Duration::from_secs(1));
    log.compact().unwrap();
    assert_eq!(records(&log).keys().copied().collect::<Vec<_>>(), [1, 3, 4]);
    check(&log, &model);
}

#[test]
fn the_last_batch_of_a_segment_stays_without_records() {
    let sim = Sim::new(3);
    // Too small for the two to become one.
    let log = open(&sim, small().segment_bytes(100));
    let mut model = Records::new();
    append(&log, &mut model, &[(Some(1), Some(10)), (Some(1), Some(11))]);
    log.roll().unwrap();
    append(&log, &mut model, &[(Some(1), Some(12))]);
    log.roll().unwrap();
    log.compact().unwrap();
    assert_eq!(records(&log).keys().copied().collect::<Vec<_>>(), [2]);
    let out = log.read(Offset(0), 1).unwrap();
    let emptied = Batch::parse(out.chunks[0].batches.clone()).unwrap();
    assert_eq!((emptied.header().record_count, emptied.header().next_offset()), (0, Offset(2)));
    // Also without its index the next offset follows from the data.
    log.set().close().unwrap();
    for path in sim.fs.files() {
        if path.extension().is_some_and(|ending| ending == "index") {
            sim.fs.truncate(&path, 5).unwrap();
        }
    }
    let log = open(&sim, small());
    assert_eq!(check(&log, &model).len(), 1);
    assert_eq!(log.end_offset(), Offset(3));
}

#[test]
fn what_compaction_took_out_is_no_damage_when_the_index_is_lost() {
    let sim = Sim::new(3);
    let log = open(&sim, small());
    let mut model = Records::new();
    fill(&log, &mut model, &sim.random(), 60, 12);
    log.roll().unwrap();
    log.compact().unwrap();
    log.set().close().unwrap();
    for path in sim.fs.files().iter().filter(|path| path.extension().is_some_and(|e| e == "index")) {
        sim.fs.truncate(path, 5).unwrap();
    }
    assert_eq!(check(&open(&sim, small()), &model), least(&model));
}

/// A log that was closed, with a sealed and compacted segment in front of an empty one, and where that begins.
fn one_compacted_segment(sim: &Sim) -> (Records, Offset) {
    let log = open(sim, LogOptions::default().compaction(Some(CompactionOptions::default())));
    let mut model = Records::new();
    fill(&log, &mut model, &sim.random(), 60, 12);
    log.roll().unwrap();
    let end = log.end_offset();
    log.compact().unwrap();
    log.set().close().unwrap();
    (model, end)
}

/// A roll that failed left the file; what was in front of it has been compacted since, and lost its index.
#[test]
fn an_empty_segment_file_inside_a_compacted_segment_without_an_index_takes_no_record() {
    let sim = Sim::new(3);
    let (model, end) = one_compacted_segment(&sim);
    let stray = format!("/data/{:020}.log", end.0 / 2);
    sim.fs.write_file(&stray, b"").unwrap();
    sim.fs.mount().remove_file("/data/00000000000000000000.index".as_ref()).unwrap();
    let report = verify(&sim.env(), "/data", &mut |_| ()).unwrap();
    assert_eq!(report.count(Severity::Data), 0, "{:?}", report.findings);
    let log = open(&sim, small());
    assert_eq!(check(&log, &model), least(&model));
    assert_eq!(log.end_offset(), end);
    assert!(sim.fs.read_file(&stray).is_err(), "it is gone");
}

/// The last segment that is left was sealed and compacted: what compaction took out of it is no damage.
#[test]
fn a_compacted_segment_that_lost_the_one_behind_it_is_whole() {
    for lost in [&["meta"][..], &[]] {
        let sim = Sim::new(3);
        let (model, end) = one_compacted_segment(&sim);
        let newest = format!("{:020}.log", end.0);
        for file in lost.iter().copied().chain([newest.as_str()]) {
            sim.fs.mount().remove_file(format!("/data/{file}").as_ref()).unwrap();
        }
        plan_repair(&sim.env(), "/data", &mut |_| ()).unwrap().execute().unwrap();
        let report = verify(&sim.env(), "/data", &mut |_| ()).unwrap();
        assert!(!report.is_damaged(), "{:?}", report.findings);
        let log = open(&sim, small());
        assert_eq!(check(&log, &model), least(&model), "without {lost:?}");
        assert_eq!(log.end_offset(), end);
    }
}

#[test]
fn times_of_append_outlive_compaction() {
    let sim = Sim::new(3);
    let options = small().retention_age(Some(Duration::from_secs(1_000)));
    let log = open(&sim, options);
    let mut model = Records::new();
    let mut times = BTreeMap::new();
    for n in 0..40 {
        // The first stays, and is what retention is to take.
        append(&log, &mut model, &[(Some(if n == 0 { 200 } else { n % 7 }), Some(n.into()))]);
        let at = log.read(Offset(n.into()), 1).unwrap().chunks[0].appended_at;
        times.insert(u64::from(n), at);
        sim.clock.advance(Duration::from_secs(10));
    }
    log.roll().unwrap();
    let end = sim.clock.clone();
    log.compact().unwrap();
    for offset in records(&log).keys() {
        let chunk = &log.read(Offset(*offset), 1).unwrap().chunks[0];
        assert!(chunk.appended_at >= times[offset], "late, never early");
        assert!(chunk.appended_at.0 - times[offset].0 < 100_000, "and not by the time of compaction");
    }
    assert!(log.stats().compaction.merged > 0, "{:?}", log.stats());
    end.advance(Duration::from_secs(680));
    let start = log.apply_retention().unwrap();
    assert!(start > Offset(0), "compaction, and merging, make nothing younger");
    check(&log, &model);
}

#[test]
fn a_set_compacts_and_retains_by_itself() {
    let sim = Sim::new(6);
    let log = open(&sim, small());
    let mut model = Records::new();
    fill(&log, &mut model, &sim.random(), 40, 5);
    append(&log, &mut model, &[(Some(1), None)]);
    log.roll().unwrap();
    sim.scheduler.run_for(Duration::from_secs(11));
    let stats = log.stats().compaction;
    assert!(stats.runs == 1 && stats.segments > 3, "{stats:?}");
    assert!(stats.bytes_after < stats.bytes_before, "{stats:?}");
    check(&log, &model);
    // Nothing is new, until the tombstone's time has come.
    sim.scheduler.run_for(Duration::from_hours(23));
    assert_eq!(log.stats().compaction.runs, 1);
    sim.scheduler.run_for(Duration::from_hours(1));
    assert_eq!(log.stats().compaction.runs, 2);
    check(&log, &model);

    let log = {
        log.set().close().unwrap();
        open(&sim, small().retention_age(Some(Duration::from_hours(1))))
    };
    append(&log, &mut model, &[(Some(1), Some(1))]);
    sim.scheduler.run_for(Duration::from_secs(61 * 60));
    assert_eq!(log.stats().stored_bytes, 0, "the active segment was sealed for its age, and went");
}

#[test]
fn the_tables_of_keys_of_a_sets_logs_take_turns_with_what_the_set_has_for_them() {
    const LOGS: usize = 5;
    let sim = Sim::new(8);
    // Room for one table of this size, and not for two.
    let options = SetOptions::new(sim.env()).max_key_map_bytes(1_000);
    let set = LogSet::open("/data", options).unwrap();
    let options = small().compaction(Some(CompactionOptions::default().key_map_bytes(900)));
    let logs: Vec<Log> =
        (0..LOGS).map(|number| set.create(number.to_string(), b"", options).unwrap()).collect();
    for log in &logs {
        fill(log, &mut Records::new(), &sim.random(), 60, 12);
        log.roll().unwrap();
    }
    let runs = || logs.iter().map(|log| log.stats().compaction.runs).sum::<u64>();
    // All are due at the first look at them; one gets the room, the others wait for the next.
    sim.scheduler.run_for(Duration::from_secs(1));
    for turn in 1..=LOGS as u64 {
        sim.scheduler.run_for(Duration::from_secs(10));
        assert_eq!(runs(), turn);
    }
    assert_eq!(set.stats().key_map_bytes, 0);
    // Who waits for it gets it at once.
    for log in &logs {
        log.compact().unwrap();
    }
}

#[test]
fn a_run_ends_when_what_it_was_to_compact_is_gone() {
    for steps in 0..12 {
        let sim = Sim::new(steps);
        let log = open(&sim, small());
        fill(&log, &mut Records::new(), &sim.random(), 20, 5);
        log.roll().unwrap();
        // Somewhere in a run of the set's own.
        sim.clock.advance(Duration::from_secs(10));
        for _ in 0..steps {
            sim.scheduler.step();
        }
        log.set_start_offset(log.end_offset()).unwrap();
        log.compact().unwrap();
        assert_eq!(log.stats().segments, 1);
    }
}

#[test]
fn a_failure_is_told_and_not_tried_again_at_once() {
    let sim = Sim::new(6);
    let log = open(&sim, small());
    let mut model = Records::new();
    fill(&log, &mut model, &sim.random(), 40, 5);
    log.roll().unwrap();
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Create).path("*cleaned").times(2));
    sim.scheduler.run_for(Duration::from_mins(5));
    assert_eq!(sim.fs.faults(), 1);
    assert_eq!(log.stats().compaction.last_error.unwrap().kind(), ErrorKind::Full);
    sim.scheduler.run_for(Duration::from_mins(20));
    let stats = log.stats().compaction;
    assert!(sim.fs.faults() == 2 && stats.runs == 1 && stats.last_error.is_none(), "{stats:?}");
}

#[test]
fn an_aborted_record_takes_no_value_away() {
    let sim = Sim::new(3);
    let log = open(&sim, small());
    let in_transaction = |sequence, value: Option<u64>| {
        let options = BatchOptions::new().producer(7, 0, sequence).transactional();
        let mut builder = BatchBuilder::with_options(options, 0);
        let value = value.map(u64::to_be_bytes);
        let (key, value) = (Some(&[1_u8][..]), value.as_ref().map(<[u8; 8]>::as_slice));
        builder.push(&NewRecord { timestamp: TimestampMs(1_000), key, value, headers: &[] }).unwrap();
        builder.build().unwrap()
    };
    let abort = ControlRecord { kind: ControlType::Abort, coordinator_epoch: 0 };
    let mut model = Records::new();
    append(&log, &mut model, &[(Some(1), Some(10)), (Some(2), Some(20))]);
    for batch in [in_transaction(0, Some(11)), in_transaction(1, None)] {
        log.append(&[batch, abort.batch(7, 0, TimestampMs(1_000)).unwrap()]).unwrap().wait().unwrap();
    }
    log.roll().unwrap();
    append(&log, &mut model, &[(Some(2), Some(21))]);
    log.roll().unwrap();
    for _ in 0..3 {
        log.compact().unwrap();
        sim.clock.advance(DAY);
    }
    let value = |offset| {
        let mut bytes = log.read(Offset(offset), 1).unwrap().chunks[0].batches.clone();
        let batch = Batch::split_from(&mut bytes).unwrap().unwrap();
        let record = batch.records().unwrap().next().unwrap().unwrap();
        (record.offset.get(), record.value.map(<[u8]>::len))
    };
    assert_eq!(value(0), (0, Some(8)), "the value that the aborted transactions did not replace");
    assert_eq!((value(2), value(4)), ((2, Some(8)), (4, None)), "and what they wrote, with its ends");
}

#[test]
fn who_did_not_ask_for_compaction_gets_none() {
    let sim = Sim::new(3);
    let log = open(&sim, LogOptions::default());
    assert_eq!(log.compact().unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn what_cannot_be_written_leaves_the_log_as_it_was() {
    for (fault, op, path) in [
        (Fault::NoSpace, Op::Write, "*cleaned"),
        (Fault::NoSpace, Op::Create, "*cleaned"),
        (Fault::NoSpace, Op::Write, "*meta*"),
        (Fault::Io, Op::SyncData, "*cleaned"),
        (Fault::Io, Op::Read, "*.log"),
        (Fault::Io, Op::Open, "*.log"),
        (Fault::Io, Op::Rename, "*.log.cleaned"),
        (Fault::Io, Op::Rename, "*.index.cleaned"),
        (Fault::Io, Op::SyncDir, "*"),
    ] {
        for nth in 1..6 {
            let sim = Sim::new(nth);
            let log = open(&sim, small());
            let mut model = Records::new();
            fill(&log, &mut model, &sim.random(), 40, 6);
            sim.fs.inject(Rule::new(fault).on(op).path(path).nth(nth));
            let outcome = log.compact();
            sim.fs.clear_rules();
            if sim.fs.faults() > 0 {
                let kind = outcome.unwrap_err().kind();
                assert!(matches!(kind, ErrorKind::Full | ErrorKind::Io), "{kind:?}");
            }
            check(&log, &model);
            append(&log, &mut model, &[(Some(1), Some(5))]);
            let after_commit = matches!(op, Op::SyncDir) || path == "*.index.cleaned";
            if !after_commit {
                let left = |path: &std::path::PathBuf| path.to_string_lossy().contains("cleaned");
                assert!(!sim.fs.files().iter().any(left), "{:?}", sim.fs.files());
                log.compact().unwrap();
            }
            check(&log, &model);
            log.set().close().unwrap();
            let log = open(&sim, small());
            check(&log, &model);
            log.compact().unwrap();
            check(&log, &model);
        }
    }
}

#[test]
fn compaction_stops_at_damage_and_says_so() {
    // In a record, and in the leader epoch, which only the index can tell of.
    for position in [100, 14] {
        let sim = Sim::new(4);
        let log = open(&sim, small());
        let mut model = Records::new();
        fill(&log, &mut model, &sim.random(), 40, 6);
        log.roll().unwrap();
        let logs = sim.fs.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "log"));
        // The first, so that nothing before it is to be replaced.
        let damaged = logs.clone().next().unwrap();
        sim.fs.flip(&damaged, position, 3).unwrap();
        let before: Vec<_> = logs.clone().map(|path| sim.fs.read_file(path).unwrap()).collect();
        let error = log.compact().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.path(), Some(damaged.as_path()));
        let after: Vec<_> = logs.map(|path| sim.fs.read_file(path).unwrap()).collect();
        assert_eq!(before, after);
    }
}

#[test]
fn what_may_still_be_taken_back_is_left_alone() {
    let sim = Sim::new(3);
    let log = open(&sim, small());
    let mut model = Records::new();
    append(&log, &mut model, &[(Some(1), Some(10))]);
    let options = BatchOptions::new().producer(7, 0, 0).transactional();
    let mut undecided = BatchBuilder::with_options(options, 0);
    undecided
        .push(&NewRecord { timestamp: TimestampMs(1_000), key: Some(&[9]), value: Some(&[9]), headers: &[] })
        .unwrap();
    log.append(&[undecided.build().unwrap()]).unwrap().wait().unwrap();
    log.roll().unwrap();
    for value in [11, 12] {
        append(&log, &mut model, &[(Some(1), Some(value))]);
        log.roll().unwrap();
    }
    assert_eq!(log.compact().unwrap().segments, 0, "the transaction may be ended either way");
    let commit = ControlRecord { kind: ControlType::Commit, coordinator_epoch: 0 };
    log.append(&[commit.batch(7, 0, TimestampMs(1_000)).unwrap()]).unwrap().wait().unwrap();
    assert_eq!(log.compact().unwrap().segments, 2);
}

/// A delete horizon becomes the batch's base timestamp. Where one record is as far from the old one
/// as the other is from the new, the batch is as long as before.
#[test]
fn an_index_of_data_that_never_took_its_place_does_not_either() {
    let mut kills = 0;
    for nth in 1.. {
        let mut sim = Sim::new(nth);
        let log = open(&sim, small());
        let day_ms = i64::try_from(DAY.as_millis()).unwrap();
        let mut tombstones = BatchBuilder::new();
        for (key, timestamp) in [(1, 0), (2, sim.clock.now().0 + day_ms)] {
            let (timestamp, key) = (TimestampMs(timestamp), Some(&[key][..]));
            tombstones.push(&NewRecord { timestamp, key, value: None, headers: &[] }).unwrap();
        }
        log.append(&[tombstones.build().unwrap()]).unwrap().wait().unwrap();
        log.roll().unwrap();
        let before = log.stats().stored_bytes;
        sim.fs.die_at(nth);
        let outcome = log.compact();
        if !sim.fs.is_off() {
            assert_eq!((outcome.unwrap().segments, log.stats().stored_bytes), (1, before));
            break;
        }
        kills += 1;
        drop(log);
        sim.kill();
        let log = open(&sim, small());
        assert_eq!(log.read(Offset(0), 1).unwrap().next_offset, Offset(2));
        log.set().close().unwrap();
        let report = verify(&sim.env(), "/data", &mut |_| ()).unwrap();
        assert!(!report.is_damaged(), "kill {nth}: {:?}", report.findings);
    }
    assert!(kills > 5);
}

/// Whether all times of append are known: they are lost where an index was made anew.
fn has_times(log: &Log) -> bool {
    let mut next = log.start_offset();
    while next < log.end_offset() {
        let out = log.read(next, 700).unwrap();
        if out.chunks.iter().any(|chunk| chunk.appended_at_estimated) {
            return false;
        }
        next = out.next_offset;
    }
    true
}

/// Crashes at every change that a compaction makes to the disk.
#[test]
fn a_crash_at_any_point_of_a_compaction_leaves_each_key_its_last_value() {
    let mut points = 0;
    for seed in 0..8 {
        for nth in 1.. {
            // What a crash keeps is drawn anew for each point.
            let mut sim = Sim::new(seed << 32 | nth);
            let options = if seed % 2 == 0 { small() } else { tiny_map() };
            let log = open(&sim, options);
            let mut model = Records::new();
            fill(&log, &mut model, &sim.random(), 20, 5);
            log.roll().unwrap();
            sim.fs.power_off_at(nth);
            let outcome = log.compact();
            if !sim.fs.is_off() {
                outcome.unwrap();
                break;
            }
            points += 1;
            drop(log);
            sim.crash();
            let log = open(&sim, options);
            check(&log, &model);
            assert!(has_times(&log), "seed {seed}, point {nth}: an index does not belong to its data");
            let left = |path: &std::path::PathBuf| path.to_string_lossy().contains("cleaned");
            assert!(!sim.fs.files().iter().any(left), "seed {seed}, point {nth}");
            log.compact().unwrap();
            assert_eq!(check(&log, &model), least(&model), "seed {seed}, point {nth}");
        }
    }
    println!("crash points: {points}");
    assert!(points > 300);
}
