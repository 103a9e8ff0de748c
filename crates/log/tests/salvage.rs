//! Damage in the newest segment of a log, and segment files that are gone or not as they were: the
//! log opens, says so, and all that is whole can be read.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop where it fails"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use common::{batch, batch_at, produced};
use logmill_log::inspect::{plan_repair, verify};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{Error, ErrorKind, Log, LogOptions, LogSet, LogState, SetOptions};
use logmill_record::{Batch, HEADER_LEN, LEADER_EPOCH, Offset, TimestampMs};

const DIR: &str = "/data";
const DATA: &str = "/data/log/00000000000000000000.log";
const INDEX: &str = "/data/log/00000000000000000000.index";
const RECORDS: u64 = 10;

fn text(n: u64) -> String {
    format!("record {n}")
}

fn open_set(sim: &Sim) -> LogSet {
    LogSet::open(DIR, SetOptions::new(sim.env())).unwrap()
}

fn open(sim: &Sim) -> (LogSet, Log) {
    let set = open_set(sim);
    let log = set.open_log("log", LogOptions::default()).unwrap();
    (set, log)
}

fn fill(log: &Log, offsets: std::ops::Range<u64>) {
    for n in offsets {
        log.append(&[batch_at(n as i64, &[text(n).as_bytes()])]).unwrap().wait().unwrap();
    }
}

fn remove(sim: &Sim, path: &str) {
    sim.fs.mount().remove_file(Path::new(path)).unwrap();
}

/// How a log with ten batches of one record was left.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    /// Closed cleanly, so that its index is trusted.
    Closed,
    /// The same, and the index is lost.
    WithoutIndex,
    /// Killed with all of it in the checkpoint.
    Killed,
    /// Killed with the last four batches behind the checkpoint.
    KilledBehind,
}

const ALL: [Left; 4] = [Left::Closed, Left::WithoutIndex, Left::Killed, Left::KilledBehind];

fn left(how: Left) -> Sim {
    let mut sim = Sim::new(3);
    let set = open_set(&sim);
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    fill(&log, 0..6);
    set.close().unwrap();
    let (set, log) = open(&sim);
    let checkpoint = || sim.scheduler.run_for(Duration::from_secs(2));
    fill(&log, 6..RECORDS);
    // Else it is that of the close.
    if how != Left::KilledBehind {
        checkpoint();
    }
    if matches!(how, Left::Killed | Left::KilledBehind) {
        drop((set, log));
        sim.kill();
    } else {
        set.close().unwrap();
    }
    if how == Left::WithoutIndex {
        remove(&sim, INDEX);
    }
    sim
}

/// Where each batch begins.
fn positions(sim: &Sim) -> Vec<u64> {
    let bytes = sim.fs.read_file(DATA).unwrap();
    let mut rest = bytes::Bytes::from(bytes.clone());
    let mut found = Vec::new();
    while !rest.is_empty() {
        found.push((bytes.len() - rest.len()) as u64);
        Batch::split_from(&mut rest).unwrap().unwrap();
    }
    found
}

/// What a reader gets that goes on behind damage, and the errors on its way.
fn survivors(log: &Log) -> (BTreeMap<u64, String>, Vec<Error>) {
    let (mut found, mut errors) = (BTreeMap::new(), Vec::new());
    let mut next = log.start_offset();
    while next < log.end_offset() {
        match log.read(next, 1) {
            Ok(out) => {
                for chunk in &out.chunks {
                    let mut rest = chunk.batches.clone();
                    while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                        for record in batch.records().unwrap() {
                            let record = record.unwrap();
                            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                            found.insert(record.offset.get(), value);
                        }
                    }
                }
                assert!(out.next_offset > next, "a read goes on");
                next = out.next_offset;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(error.path().is_some() && error.position().is_some(), "{error}");
                let gone = error.offsets().unwrap();
                assert!(gone.end > next, "{error}");
                next = gone.end;
                errors.push(error);
            }
        }
    }
    // What is gone at the end.
    errors.extend(log.read(log.end_offset(), 1).err());
    (found, errors)
}

fn all_but(gone: &[u64]) -> BTreeMap<u64, String> {
    (0..RECORDS).filter(|n| !gone.contains(n)).map(|n| (n, text(n))).collect()
}

#[test]
fn damage_before_the_checkpoint_costs_its_batch_and_all_others_are_read() {
    for how in [Left::WithoutIndex, Left::Killed, Left::KilledBehind] {
        let at = positions(&left(how));
        for hit in [0, 3, 5_usize] {
            for byte in at[hit]..at[hit + 1] {
                let what = format!("{how:?}, byte {} of batch {hit}", byte - at[hit]);
                let sim = left(how);
                sim.fs.flip(DATA, byte, 1).unwrap();
                let damaged = sim.fs.read_file(DATA).unwrap();
                let (set, log) = open(&sim);
                assert_eq!(log.end_offset(), Offset(RECORDS), "{what}");
                let (found, errors) = survivors(&log);
                assert_eq!(found, all_but(&[hit as u64]), "{what}: {errors:?}");
                let gone: Vec<_> = errors.iter().map(|error| error.offsets().unwrap()).collect();
                assert_eq!(gone, [Offset(hit as u64)..Offset(hit as u64 + 1)], "{what}");
                if matches!(log.stats().state, LogState::ReadOnly(_)) {
                    let error = log.append(&[batch(&[b"x"])]).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
                    assert_eq!(log.stats().segments, 1);
                    let later = log.find_time(TimestampMs(hit as i64 + 1)).unwrap();
                    let next = (Offset(hit as u64 + 1), TimestampMs(hit as i64 + 1));
                    assert_eq!(later, Some(next), "{what}");
                }
                set.close().unwrap();
                assert_eq!(sim.fs.read_file(DATA).unwrap(), damaged, "{what}: nothing is cut");
                let report = verify(&sim.env(), DIR, &mut |_| ()).unwrap();
                assert!(report.is_damaged(), "{what}");
            }
        }
    }
}

#[test]
fn damage_under_a_trusted_index_costs_its_row_at_most() {
    let sim = left(Left::Closed);
    let at = positions(&sim);
    // The rows: what was there at the first close, and what came after.
    for byte in at[2]..at[2] + 61 {
        let sim = left(Left::Closed);
        sim.fs.flip(DATA, byte, 1).unwrap();
        let (_set, log) = open(&sim);
        fill(&log, RECORDS..RECORDS + 2);
        let (found, errors) = survivors(&log);
        let of_batch = byte - at[2];
        assert!(!errors.is_empty(), "byte {of_batch}");
        for (offset, value) in &found {
            assert_eq!(value, &text(*offset), "byte {of_batch}");
        }
        for offset in (6..RECORDS + 2).chain(0..2).filter(|offset| *offset != 2) {
            // A wrong epoch or CRC is noticed in the row's checksum, and not of which batch.
            let whole = offset >= 6 || !(12..21).contains(&of_batch) || of_batch == 16;
            assert!(!whole || found.contains_key(&offset), "byte {of_batch}: offset {offset}; {errors:?}");
        }
        assert!(!found.contains_key(&2), "byte {of_batch}");
    }
}

#[test]
fn a_leader_epoch_that_was_changed_is_never_served() {
    for how in ALL {
        let at = positions(&left(how));
        for hit in 0..RECORDS as usize {
            for byte in LEADER_EPOCH {
                for bit in 0..8 {
                    let sim = left(how);
                    let before = sim.fs.read_file(DATA).unwrap();
                    sim.fs.flip(DATA, at[hit] + byte as u64, bit).unwrap();
                    let (_set, log) = open(&sim);
                    let mut next = Offset::ZERO;
                    while next < log.end_offset() {
                        match log.read(next, 100_000) {
                            Ok(out) => {
                                for chunk in &out.chunks {
                                    check_epochs(
                                        &chunk.batches,
                                        &before,
                                        &at,
                                        &format!("{how:?} {hit} {byte} {bit}"),
                                    );
                                }
                                next = out.next_offset;
                            }
                            Err(error) => next = error.offsets().unwrap().end,
                        }
                    }
                }
            }
        }
    }
}

/// That these batches have the epochs that were written.
fn check_epochs(batches: &bytes::Bytes, written: &[u8], at: &[u64], what: &str) {
    let mut rest = batches.clone();
    while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
        let header = batch.header();
        let start = at[header.base_offset.get() as usize] as usize + 12;
        let epoch = i32::from_be_bytes(*written[start..].first_chunk().unwrap());
        // Where one rises in the last place, nothing that follows shows it.
        let is_last = [Offset(5), Offset(9)].contains(&header.base_offset);
        let last_of_its_epoch = header.leader_epoch == epoch + 1 && is_last;
        assert!(header.leader_epoch == epoch || last_of_its_epoch, "{what}: {header:?}");
    }
}

#[test]
fn an_epoch_changed_while_the_log_is_open_is_never_served() {
    for sealed_before in [false, true] {
        for hit in [1, RECORDS] {
            let sim = left(Left::Closed);
            let (_set, log) = open(&sim);
            fill(&log, RECORDS..RECORDS + 2);
            let at = positions(&sim);
            if sealed_before {
                log.roll().unwrap();
            }
            sim.fs.flip(DATA, at[hit as usize] + 15, 1).unwrap();
            let error = log.read(Offset(hit), 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.offsets().unwrap().contains(&Offset(hit)), "{error}");
        }
    }
}

#[test]
fn damage_in_what_was_appended_since_the_open_costs_its_batch() {
    let sim = left(Left::Closed);
    let (_set, log) = open(&sim);
    fill(&log, RECORDS..RECORDS + 4);
    let at = positions(&sim);
    for byte in at[11]..at[12] {
        sim.fs.flip(DATA, byte, 1).unwrap();
        let (found, errors) = survivors(&log);
        let lost: Vec<_> = (0..RECORDS + 4).filter(|offset| !found.contains_key(offset)).collect();
        assert_eq!(lost, [11], "byte {}: {errors:?}", byte - at[11]);
        sim.fs.flip(DATA, byte, 1).unwrap();
    }
}

#[test]
fn a_log_that_is_read_only_stays_so_and_can_be_repaired() {
    for how in [Left::WithoutIndex, Left::Killed, Left::KilledBehind] {
        let mut sim = left(how);
        let at = positions(&sim);
        sim.fs.flip(DATA, at[3] + 7, 0).unwrap();
        for killed in [true, false, true] {
            let (set, log) = open(&sim);
            assert!(matches!(log.stats().state, LogState::ReadOnly(_)), "{how:?}: {:?}", log.stats());
            let end = log.end_offset();
            assert!(log.read(end, 10).unwrap().chunks.is_empty(), "there is no damage at the end");
            assert!(log.wait_beyond(end, Duration::from_secs(1)).is_err(), "nothing will come");
            if killed {
                drop((set, log));
                sim.kill();
            } else {
                set.close().unwrap();
            }
        }
        plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
        let (_set, log) = open(&sim);
        assert!(matches!(log.stats().state, LogState::Open), "{how:?}: {:?}", log.stats());
        fill(&log, RECORDS..RECORDS + 1);
        let (found, errors) = survivors(&log);
        assert!(errors.is_empty(), "{how:?}: {errors:?}");
        assert_eq!(found.len() as u64, RECORDS + 1, "its header was put right");
    }
}

#[test]
fn what_aborted_transactions_were_is_known_of_a_damaged_segment() {
    let sim = Sim::new(3);
    let set = open_set(&sim);
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    fill(&log, 0..2);
    log.append(&[produced(7, 0, 0, true, &[b"paid"])]).unwrap().wait().unwrap();
    let abort =
        logmill_record::ControlRecord { kind: logmill_record::ControlType::Abort, coordinator_epoch: 1 };
    log.append(&[abort.batch(7, 0, TimestampMs(5)).unwrap()]).unwrap().wait().unwrap();
    set.close().unwrap();
    remove(&sim, INDEX);
    sim.fs.flip(DATA, 7, 0).unwrap();
    let (_set, log) = open(&sim);
    assert!(matches!(log.stats().state, LogState::ReadOnly(_)));
    let aborted = log.aborted(Offset(0)..Offset(4)).unwrap();
    assert_eq!((aborted[0].first_offset, aborted[0].last_offset), (Offset(2), Offset(3)));
    assert_eq!(log.last_stable_offset(), Offset(4));
}

/// Three segments of ten records each.
fn three_segments() -> Sim {
    let sim = Sim::new(3);
    let set = open_set(&sim);
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    for n in 0..3 {
        if n > 0 {
            log.roll().unwrap();
        }
        fill(&log, n * RECORDS..(n + 1) * RECORDS);
    }
    set.close().unwrap();
    sim
}

#[test]
fn a_log_whose_newest_segment_is_gone_is_read_up_to_there() {
    let sim = three_segments();
    remove(&sim, "/data/log/00000000000000000020.log");
    for _ in 0..2 {
        let (set, log) = open(&sim);
        assert!(matches!(log.stats().state, LogState::ReadOnly(_)), "{:?}", log.stats().state);
        assert_eq!(log.append(&[batch(&[b"x"])]).unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(log.end_offset(), Offset(20));
        let (found, errors) = survivors(&log);
        assert_eq!(found, (0..20).map(|n| (n, text(n))).collect());
        assert_eq!(errors[0].offsets(), Some(Offset(20)..Offset(30)), "{errors:?}");
        set.close().unwrap();
    }
    plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
    let (_set, log) = open(&sim);
    fill(&log, 30..31);
    assert_eq!(survivors(&log).0.len(), 21);
}

#[test]
fn a_log_without_any_segment_says_what_is_gone() {
    let sim = three_segments();
    for base in ["00", "10", "20"] {
        remove(&sim, &format!("/data/log/000000000000000000{base}.log"));
    }
    let (_set, log) = open(&sim);
    let LogState::ReadOnly(error) = log.stats().state else { panic!("{:?}", log.stats()) };
    assert_eq!(error.offsets(), Some(Offset(0)..Offset(30)), "{error}");
    let (found, errors) = survivors(&log);
    assert!(found.is_empty());
    assert_eq!(errors[0].offsets(), Some(Offset(0)..Offset(30)), "{errors:?}");
    assert!(sim.fs.files().iter().all(|file| !file.to_string_lossy().ends_with(".log")), "none is made");
}

#[test]
fn a_sealed_segment_that_overlaps_the_next_costs_its_batch_and_makes_the_log_read_only() {
    let sim = three_segments();
    remove(&sim, INDEX);
    // The last offset delta of its last batch.
    let at = positions(&sim);
    sim.fs.flip(DATA, at[9] + 26, 2).unwrap();
    let (set, log) = open(&sim);
    assert!(matches!(log.stats().state, LogState::ReadOnly(_)), "{:?}", log.stats().state);
    let (found, errors) = survivors(&log);
    assert_eq!(found, (0..30).filter(|n| *n != 9).map(|n| (n, text(n))).collect(), "{errors:?}");
    assert_eq!(errors[0].offsets(), Some(Offset(9)..Offset(10)), "{errors:?}");
    set.close().unwrap();
    plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
    let (_set, log) = open(&sim);
    fill(&log, 30..31);
}

#[test]
fn damage_in_a_sealed_segment_without_its_index_costs_its_batch() {
    for byte in 0..HEADER_LEN {
        let sim = three_segments();
        remove(&sim, INDEX);
        let at = positions(&sim);
        sim.fs.flip(DATA, at[4] + byte as u64, 2).unwrap();
        let (_set, log) = open(&sim);
        let (found, errors) = survivors(&log);
        // Nothing but the index tells what its epoch was.
        let gone = (!LEADER_EPOCH.contains(&byte)).then_some(4);
        assert_eq!(found, (0..30).filter(|n| Some(*n) != gone).map(|n| (n, text(n))).collect(), "{errors:?}");
    }
}

#[test]
fn a_log_whose_torn_end_could_not_be_saved_is_opened_again_when_there_is_room() {
    let sim = left(Left::Killed);
    let mut bytes = sim.fs.read_file(DATA).unwrap();
    let whole = bytes.clone();
    bytes.extend(b"half a batch");
    sim.fs.write_file(DATA, &bytes).unwrap();
    sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*torn*").always());
    let (set, log) = open(&sim);
    let error = log.append(&[batch(&[b"x"])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    // Still no room: its readers go on.
    let again = set.open_log("log", LogOptions::default()).unwrap();
    assert!(matches!(again.stats().state, LogState::ReadOnly(_)));
    assert_eq!(survivors(&log).0, all_but(&[]));

    sim.fs.clear_rules();
    let again = set.open_log("log", LogOptions::default()).unwrap();
    assert!(matches!(again.stats().state, LogState::Open), "{:?}", again.stats().state);
    assert_eq!(log.read(Offset(0), 1).unwrap_err().kind(), ErrorKind::Closed);
    fill(&again, RECORDS..RECORDS + 1);
    log.close().unwrap();
    assert_eq!(survivors(&again).0.len() as u64, RECORDS + 1);
    set.close().unwrap();
    assert!(sim.fs.read_file(DATA).unwrap().starts_with(&whole));
    let saved = sim.fs.files().into_iter().find(|file| file.to_string_lossy().contains(".torn-")).unwrap();
    assert_eq!(sim.fs.read_file(saved).unwrap(), b"half a batch");
    let (_set, log) = open(&sim);
    assert_eq!(survivors(&log).0.len() as u64, RECORDS + 1);
}

#[test]
fn a_log_that_ends_in_damage_ends_before_it_and_a_reader_at_its_end_is_told() {
    for how in [Left::WithoutIndex, Left::Killed] {
        let sim = left(how);
        let at = positions(&sim);
        // The byte says which format the last batch has; another batch is damaged too.
        sim.fs.flip(DATA, at[9] + 16, 0).unwrap();
        sim.fs.flip(DATA, at[2] + 7, 0).unwrap();
        let (_set, log) = open(&sim);
        assert_eq!((log.end_offset(), log.stats().written_end), (Offset(9), Offset(10)), "{how:?}");
        let (found, errors) = survivors(&log);
        assert_eq!(found, all_but(&[2, 9]));
        let gone: Vec<_> = errors.iter().map(|error| error.offsets().unwrap()).collect();
        assert_eq!(gone, [Offset(2)..Offset(3), Offset(9)..Offset(10)], "{how:?}");
    }
}

#[test]
fn a_damaged_segment_can_be_put_back_from_a_backup() {
    for how in [Left::WithoutIndex, Left::Killed, Left::KilledBehind] {
        let sim = left(how);
        let at = positions(&sim);
        let backup = sim.fs.read_file(DATA).unwrap();
        sim.fs.flip(DATA, at[3] + 7, 0).unwrap();
        let (set, log) = open(&sim);
        assert!(matches!(log.stats().state, LogState::ReadOnly(_)));
        set.close().unwrap();
        sim.fs.write_file(DATA, backup).unwrap();
        let (_set, log) = open(&sim);
        assert!(matches!(log.stats().state, LogState::Open), "{how:?}: {:?}", log.stats().state);
        fill(&log, RECORDS..RECORDS + 1);
        assert_eq!(survivors(&log).0.len() as u64, RECORDS + 1);
    }
}

/// A log that has just been rolled, killed; its fourth batch claims 64 offsets more than it has.
fn rolled_with_a_lie() -> Sim {
    let mut sim = Sim::new(1);
    let set = open_set(&sim);
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    fill(&log, 0..RECORDS);
    log.roll().unwrap();
    sim.scheduler.run_for(Duration::from_secs(2));
    drop((log, set));
    sim.kill();
    let len = sim.fs.read_file(DATA).unwrap().len() as u64 / RECORDS;
    sim.fs.flip(DATA, 3 * len + 26, 6).unwrap();
    sim
}

fn assert_not_given_out_again(sim: &Sim, what: &str) {
    let (_set, log) = open(sim);
    let (state, end) = (log.stats().state, log.end_offset());
    let safe = end == Offset(RECORDS) || !matches!(state, LogState::Open);
    assert!(safe, "{what}: acknowledged offsets from {end} on would be given out again");
}

#[test]
fn a_segment_that_was_begun_is_not_removed_because_the_one_before_claims_its_offsets() {
    let sim = rolled_with_a_lie();
    remove(&sim, INDEX);
    assert_not_given_out_again(&sim, "without an index");
}

#[test]
fn a_repair_that_loses_power_leaves_nothing_to_be_given_out_again() {
    for nth in 1.. {
        let mut sim = rolled_with_a_lie();
        let plan = plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap();
        sim.fs.power_off_at(nth);
        let done = plan.execute();
        if !sim.fs.is_off() {
            done.unwrap();
            break;
        }
        sim.crash();
        assert_not_given_out_again(&sim, &format!("power off at {nth}"));
    }
}
