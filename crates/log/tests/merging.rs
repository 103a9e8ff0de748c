//! Small neighbours that compaction makes one segment of: the same records, producers and
//! transactions in fewer files, whatever comes in between.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

#[path = "common/keyed.rs"]
mod keyed;

use std::path::PathBuf;

use keyed::{Records, append, check, fill, least, records};
use logmill_log::inspect::{FindingKind, plan_repair, verify};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{CompactionOptions, ErrorKind, Log, LogOptions, LogState, SetOptions};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, ControlRecord, ControlType, NewRecord, Offset, TimestampMs,
};

fn options() -> LogOptions {
    LogOptions::default().segment_bytes(2_000).compaction(Some(CompactionOptions::default()))
}

fn open(sim: &Sim) -> Log {
    Log::open("/data", SetOptions::new(sim.env()), options()).unwrap()
}

/// A log of several segments that a compaction has much to do in.
fn filled(sim: &Sim, batches: u64, keys: u64) -> (Log, Records) {
    let log = open(sim);
    let mut model = Records::new();
    fill_segments(sim, &log, &mut model, batches, keys);
    (log, model)
}

/// A segment for every three batches.
fn fill_segments(sim: &Sim, log: &Log, model: &mut Records, batches: u64, keys: u64) {
    for _ in 0..batches / 3 {
        fill(log, model, &sim.random(), 3, keys);
        log.roll().unwrap();
    }
}

fn files(sim: &Sim, ending: &str) -> Vec<PathBuf> {
    let ends_so = |path: &PathBuf| path.to_string_lossy().ends_with(ending);
    sim.fs.files().into_iter().filter(ends_so).collect()
}

fn left_overs(sim: &Sim) -> Vec<PathBuf> {
    let left_over = |path: &PathBuf| ["cleaned", "merge"].iter().any(|e| path.to_string_lossy().ends_with(e));
    sim.fs.files().into_iter().filter(left_over).collect()
}

fn findings(sim: &Sim) -> logmill_log::inspect::Report {
    verify(&sim.env(), "/data", &mut |_| ()).unwrap()
}

#[test]
fn many_small_segments_become_few_with_the_same_records() {
    let sim = Sim::new(3);
    let (log, mut model) = filled(&sim, 200, 12);
    let before = log.stats().segments;
    let compacted = log.compact().unwrap();
    let after = log.stats().segments;
    assert!(before > 60 && after < before / 10, "{before} segments became {after}");
    assert_eq!(compacted.merged, (before - after) as u64);
    assert_eq!(check(&log, &model), least(&model));
    assert_eq!(
        log.find_time(TimestampMs(1_000)).unwrap().unwrap().0.get(),
        *least(&model).keys().next().unwrap()
    );
    for from in 0..model.len() as u64 {
        assert!(log.read(Offset(from), 1).unwrap().next_offset > Offset(from));
    }
    assert_eq!(left_overs(&sim), [] as [PathBuf; 0]);

    // It goes on so: the number of files does not follow the number of runs.
    for _ in 0..20 {
        fill_segments(&sim, &log, &mut model, 21, 12);
        log.compact().unwrap();
        assert_eq!(check(&log, &model), least(&model));
    }
    assert!(log.stats().segments < 20, "{:?}", log.stats());
    log.set().close().unwrap();
    assert_eq!(findings(&sim).findings, []);
    assert_eq!(check(&open(&sim), &model), least(&model));
}

#[test]
fn a_reader_holds_on_to_what_it_read_and_goes_on_in_the_merged_segment() {
    let sim = Sim::new(3);
    let (log, model) = filled(&sim, 60, 12);
    let held = log.read(Offset(0), 300).unwrap();
    let bytes: Vec<Vec<u8>> = held.chunks.iter().map(|chunk| chunk.batches.to_vec()).collect();
    assert!(log.compact().unwrap().merged > 0);
    assert_eq!(bytes, held.chunks.iter().map(|chunk| chunk.batches.to_vec()).collect::<Vec<_>>());
    let rest = log.read(held.next_offset, 1 << 20).unwrap();
    assert!(rest.next_offset > held.next_offset);
    check(&log, &model);
}

#[test]
fn a_crash_at_any_point_leaves_the_old_segments_or_the_new_one() {
    let (mut points, mut with_record) = (0, 0);
    for seed in 0..8 {
        for nth in 1.. {
            let mut sim = Sim::new(seed << 32 | nth);
            let (log, model) = filled(&sim, 30, 5);
            sim.fs.power_off_at(nth);
            let outcome = log.compact();
            if !sim.fs.is_off() {
                assert!(outcome.unwrap().merged > 0);
                break;
            }
            points += 1;
            drop(log);
            sim.crash();
            with_record += u32::from(!files(&sim, ".merge").is_empty());
            let report = findings(&sim);
            assert!(!report.is_damaged(), "seed {seed}, point {nth}: {:?}", report.findings);
            let again = nth % 3 == 0;
            if again {
                // The power goes while the open settles it, too.
                sim.fs.power_off_at(1 + nth % 7);
                let _ = Log::open("/data", SetOptions::new(sim.env()), options());
                sim.crash();
            }
            let log = open(&sim);
            check(&log, &model);
            assert_eq!(left_overs(&sim), [] as [PathBuf; 0], "seed {seed}, point {nth}");
            log.compact().unwrap();
            assert_eq!(check(&log, &model), least(&model), "seed {seed}, point {nth}");
        }
    }
    println!("crash points {points}, {with_record} of them with a replacement record, violations 0");
    assert!(points > 300 && with_record > 20);
}

#[test]
fn a_fault_at_any_call_leaves_a_log_that_works_and_opens() {
    for (fault, op, path) in [
        (Fault::NoSpace, Op::Write, "*.merge.tmp"),
        (Fault::Io, Op::SyncData, "*.merge.tmp"),
        (Fault::Io, Op::Rename, "*.merge*"),
        (Fault::Io, Op::RemoveFile, "*.merge"),
        (Fault::Io, Op::RemoveFile, "*.log"),
        (Fault::Io, Op::RemoveFile, "*.index"),
        (Fault::Io, Op::SyncDir, "*"),
        (Fault::Io, Op::Rename, "*.log.cleaned"),
        (Fault::Io, Op::Rename, "*.index.cleaned"),
    ] {
        let mut met = 0;
        for nth in 1..40 {
            let sim = Sim::new(nth);
            let (log, mut model) = filled(&sim, 40, 6);
            sim.fs.inject(Rule::new(fault).on(op).path(path).nth(nth));
            let outcome = log.compact();
            sim.fs.clear_rules();
            if sim.fs.faults() == 0 {
                break;
            }
            met += 1;
            let kind = outcome.unwrap_err().kind();
            assert!(matches!(kind, ErrorKind::Full | ErrorKind::Io), "{kind:?}");
            check(&log, &model);
            append(&log, &mut model, &[(Some(1), Some(5))]);
            // What retention may do then.
            if nth % 2 == 0 {
                log.set_start_offset(Offset(log.end_offset().get() / 2)).unwrap();
            }
            log.set().close().unwrap();
            assert!(!findings(&sim).is_damaged(), "{op:?} {path} {nth}: {:?}", findings(&sim).findings);
            let log = open(&sim);
            check(&log, &model);
            assert_eq!(left_overs(&sim), [] as [PathBuf; 0], "{op:?} {path} {nth}");
            log.compact().unwrap();
            check(&log, &model);
        }
        assert!(met > 0, "{op:?} {path} was never met");
    }
}

/// Ends a process between two steps of a merging: behind the commit point, `renamed` tells whether
/// the new segment has its name.
fn cut_off(sim: &Sim, renamed: bool) -> Records {
    let (log, model) = filled(sim, 30, 5);
    let (op, path) = if renamed { (Op::RemoveFile, "*.log") } else { (Op::Rename, "*.log.cleaned") };
    for nth in 1.. {
        // The first renamings are those of single segments.
        sim.fs.inject(Rule::new(Fault::Io).on(op).path(path).nth(nth));
        log.compact().unwrap_err();
        sim.fs.clear_rules();
        if !files(sim, ".merge").is_empty() {
            break;
        }
    }
    log.set().close().unwrap();
    model
}

#[test]
fn a_damaged_record_is_found_and_a_repair_loses_nothing() {
    for renamed in [false, true] {
        let sim = Sim::new(7);
        let model = cut_off(&sim, renamed);
        let record = files(&sim, ".merge").remove(0);
        sim.fs.flip(&record, 20, 1).unwrap();
        let found = |report: &logmill_log::inspect::Report| {
            report
                .findings
                .iter()
                .any(|finding| finding.kind == FindingKind::Replacement && finding.file == record)
        };
        let report = findings(&sim);
        assert!(found(&report));
        let of_record = report.findings.iter().filter(|finding| finding.file == record);
        assert_eq!(of_record.count(), 1, "it is told once: {:?}", report.findings);
        let error = Log::open("/data", SetOptions::new(sim.env()), options()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(record.as_path())));

        let plan = plan_repair(&sim.env(), "/data", &mut |_| ()).unwrap();
        assert!(plan.steps().iter().all(|step| step.gone.is_empty()), "{:?}", plan.steps());
        plan.execute().unwrap();
        assert!(!findings(&sim).is_damaged(), "renamed {renamed}: {:?}", findings(&sim).findings);
        check(&open(&sim), &model);
    }
}

#[test]
fn nothing_is_removed_while_the_new_segment_is_damaged() {
    let sim = Sim::new(7);
    cut_off(&sim, true);
    let merged = files(&sim, ".merge").remove(0).with_extension("log");
    sim.fs.flip(&merged, 16, 1).unwrap();
    let before = files(&sim, ".log");
    let error = Log::open("/data", SetOptions::new(sim.env()), options()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(merged.as_path())));
    assert_eq!(files(&sim, ".log"), before);
}

/// A bit of a record, and one that only a checksum of all headers would tell of without it.
const ROTTEN: [u64; 2] = [70, 18];

/// A batch of the new segment, where it lies in it, and an old segment that holds it too.
fn twice(sim: &Sim, new: &PathBuf) -> (u64, Batch, PathBuf) {
    let batches = |path: &PathBuf| {
        let mut rest = bytes::Bytes::from(sim.fs.read_file(path).unwrap());
        let len = rest.len();
        let mut found = Vec::new();
        loop {
            let at = (len - rest.len()) as u64;
            let Some(batch) = Batch::split_from(&mut rest).unwrap() else { return found };
            found.push((at, batch));
        }
    };
    let merged = batches(new);
    let in_both = |(_, batch): &(u64, Batch)| {
        let (at, _) = merged.iter().find(|(_, other)| other.bytes() == batch.bytes())?;
        (batch.header().record_count > 0).then(|| (*at, batch.clone()))
    };
    let old = files(sim, ".log").into_iter().filter(|path| path != new);
    old.filter_map(|path| batches(&path).iter().find_map(in_both).map(|(at, batch)| (at, batch, path)))
        .next()
        .expect("the old segments are there")
}

#[test]
fn a_rotten_new_segment_does_not_cost_the_whole_copies_in_the_old_ones() {
    for within in ROTTEN {
        let sim = Sim::new(7);
        let log = open(&sim);
        let mut model = Records::new();
        fill_segments(&sim, &log, &mut model, 30, 60);
        sim.fs.inject(Rule::new(Fault::Io).on(Op::RemoveFile).path("*.log").always());
        log.compact().unwrap_err();
        sim.fs.clear_rules();
        log.set().close().unwrap();
        let new = files(&sim, ".merge").remove(0).with_extension("log");
        let (at, batch, old) = twice(&sim, &new);
        sim.fs.flip(&new, at + within, 1).unwrap();
        let error = Log::open("/data", SetOptions::new(sim.env()), options()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(new.as_path())));
        plan_repair(&sim.env(), "/data", &mut |_| ()).unwrap().execute().unwrap();
        assert!(!findings(&sim).is_damaged(), "{:?}", findings(&sim).findings);
        let is_there = records(&open(&sim)).contains_key(&batch.header().base_offset.get());
        let is_kept = sim.fs.read_file(old.with_extension("log.replaced")).is_ok();
        assert!(is_there || is_kept, "byte {within} of the batch at {}", batch.header().base_offset);
    }
}

#[test]
fn what_rots_before_it_has_its_name_costs_nothing() {
    for within in ROTTEN {
        let sim = Sim::new(7);
        let model = cut_off(&sim, false);
        let base = files(&sim, ".merge").remove(0).with_extension("log");
        let old: Vec<_> = files(&sim, ".log").iter().map(|path| sim.fs.read_file(path).unwrap()).collect();
        sim.fs.flip(base.with_extension("log.cleaned"), within, 1).unwrap();
        let log = open(&sim);
        check(&log, &model);
        let kept: Vec<_> = files(&sim, ".log").iter().map(|path| sim.fs.read_file(path).unwrap()).collect();
        assert_eq!(old, kept);
        assert_eq!(left_overs(&sim), [] as [PathBuf; 0]);
        assert!(log.compact().unwrap().merged > 0);
        check(&log, &model);
    }
}

/// A record that lies behind a checksum that holds.
#[test]
fn no_record_makes_an_open_remove_what_it_should_not() {
    let (mut refused, mut opened) = (0, 0);
    for renamed in [false, true] {
        let sim = Sim::new(7);
        let model = cut_off(&sim, renamed);
        let record = files(&sim, ".merge").remove(0);
        let whole: Vec<_> =
            sim.fs.files().into_iter().map(|path| (sim.fs.read_file(&path).unwrap(), path)).collect();
        let len = sim.fs.read_file(&record).unwrap().len();
        for at in 0..len - 4 {
            for bit in [0, 3, 7] {
                let sim = Sim::new(7);
                sim.env().fs.create_dir("/data".as_ref()).unwrap();
                for (bytes, path) in &whole {
                    let mut bytes = bytes.clone();
                    if *path == record {
                        bytes[at] ^= 1 << bit;
                        let crc = crc32fast::hash(&bytes[..len - 4]);
                        bytes[len - 4..].copy_from_slice(&crc.to_le_bytes());
                    }
                    sim.fs.write_file(path, bytes).unwrap();
                }
                match Log::open("/data", SetOptions::new(sim.env()), options()) {
                    Ok(log) if matches!(log.stats().state, LogState::Open) => {
                        opened += 1;
                        check(&log, &model);
                    }
                    // Two segments with the same offsets: it is for a repair to decide.
                    Ok(_) | Err(_) => refused += 1,
                }
            }
        }
    }
    println!("records that lie: {refused} refused, {opened} without harm");
    assert!(refused > 100 && opened > 0);
}

#[test]
fn a_repair_of_other_damage_settles_a_merging_first() {
    for renamed in [false, true] {
        // What an open of the same directory finds without the damage.
        let undamaged = Sim::new(7);
        cut_off(&undamaged, renamed);
        let whole = records(&open(&undamaged));
        let sim = Sim::new(7);
        let model = cut_off(&sim, renamed);
        // In the merged segment, or in the first that was to be.
        let base = files(&sim, ".merge").remove(0).with_extension("log");
        sim.fs.flip(&base, 30, 1).unwrap();
        let plan = plan_repair(&sim.env(), "/data", &mut |_| ()).unwrap();
        let gone: Vec<_> = plan.steps().iter().flat_map(|step| step.gone.clone()).collect();
        assert_eq!(gone.len(), 1, "{:?}", plan.steps());
        plan.execute().unwrap();
        assert!(!findings(&sim).is_damaged(), "renamed {renamed}: {:?}", findings(&sim).findings);
        let log = open(&sim);
        for (offset, entry) in records(&log) {
            assert_eq!(model[&offset], entry);
        }
        let lost = whole.keys().filter(|offset| !records(&log).contains_key(offset));
        let named = |offset: &u64| gone.iter().any(|range| range.contains(&Offset(*offset)));
        assert!(
            lost.clone().all(named),
            "renamed {renamed}: lost {:?}, named {gone:?}",
            lost.collect::<Vec<_>>()
        );
    }
}

fn produce(log: &Log, options: BatchOptions, key: u8) {
    let mut batch = BatchBuilder::with_options(options, 0);
    let value = [key; 30];
    batch
        .push(&NewRecord { timestamp: TimestampMs(5), key: Some(&[key]), value: Some(&value), headers: &[] })
        .unwrap();
    log.append(&[batch.build().unwrap()]).unwrap().wait().unwrap();
}

fn end(log: &Log, id: i64, kind: ControlType) {
    let marker = ControlRecord { kind, coordinator_epoch: 1 }.batch(id, 0, TimestampMs(6)).unwrap();
    log.append(&[marker]).unwrap().wait().unwrap();
}

#[test]
fn producers_and_aborted_transactions_are_known_as_before() {
    let sim = Sim::new(3);
    let log = open(&sim);
    // Nothing is left of what it wrote.
    produce(&log, BatchOptions::new().producer(3, 0, 0), 99);
    produce(&log, BatchOptions::new(), 99);
    for n in 0..30_u8 {
        if n % 2 == 0 {
            log.roll().unwrap();
        }
        let id = i64::from(n % 3);
        let transactional = BatchOptions::new().producer(id, 0, i32::from(n / 3)).transactional();
        produce(&log, transactional, n % 5);
        end(&log, id, if n % 4 == 0 { ControlType::Abort } else { ControlType::Commit });
    }
    log.roll().unwrap();
    let known = |log: &Log| -> Vec<_> {
        (0..4)
            .map(|id| log.producer(id).map(|known| (known.epoch, known.last_sequence, known.last_offset)))
            .collect()
    };
    let (producers, aborted) = (known(&log), log.aborted(Offset(0)..log.end_offset()).unwrap());
    assert_eq!(aborted.len(), 8);
    assert!(log.compact().unwrap().merged > 2);
    assert_eq!(
        (known(&log), log.aborted(Offset(0)..log.end_offset()).unwrap()),
        (producers.clone(), aborted.clone())
    );
    for lost_states in [false, true] {
        log.set().close().unwrap();
        if lost_states {
            for state in files(&sim, ".state") {
                sim.env().fs.remove_file(&state).unwrap();
            }
        }
        let log = open(&sim);
        assert_eq!(known(&log), producers, "states lost: {lost_states}");
        let found = log.aborted(Offset(0)..log.end_offset()).unwrap();
        // Of a transaction without records nothing has to be left out.
        assert!(found.iter().all(|txn| aborted.contains(txn)), "{found:?}");
        assert!(lost_states || found == aborted);
        assert_eq!(log.last_stable_offset(), log.end_offset());
        log.set().close().unwrap();
    }
}
