//! Idempotent producers and transactions, through restarts, power cuts and lost sidecars.
//!
//! The oracle knows nothing but the batches that are read back.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may stop where it fails"
)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use common::{batch, produced};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{CompactionOptions, ErrorKind, Log, LogOptions, LogSet, Receipt, SetOptions, Step};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, ControlRecord, ControlType, NewRecord, Offset, TimestampMs,
};

const DATA: &str = "/data/a/00000000000000000000.log";

fn options() -> LogOptions {
    LogOptions::default().segment_bytes(1_500)
}

fn open(sim: &Sim) -> (LogSet, Log) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = if set.holds_log("a").unwrap() {
        set.open_log("a", options())
    } else {
        set.create("a", b"", options())
    };
    (set, log.unwrap())
}

fn marker(id: i64, epoch: i16, kind: ControlType) -> Batch {
    ControlRecord { kind, coordinator_epoch: 1 }.batch(id, epoch, TimestampMs(1)).unwrap()
}

fn append(log: &Log, batch: Batch) -> Result<Receipt, ErrorKind> {
    log.append(&[batch]).map_err(|error| error.kind())
}

fn written(log: &Log, batch: Batch) -> Receipt {
    let Step::Done(receipt) = log.try_append(&[batch]).unwrap() else { panic!("there is room") };
    receipt
}

/// Epoch, last sequence, last offset, first offset of the transaction, remembered batches.
type Producer = (i16, Option<i32>, u64, Option<u64>, usize);

/// What follows from the batches of a log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    producers: BTreeMap<i64, Producer>,
    aborted: Vec<(i64, u64, u64)>,
    stable: u64,
}

fn batches(log: &Log) -> Vec<Batch> {
    let mut found = Vec::new();
    let mut next = Offset(0);
    while next < log.end_offset() {
        let out = log.read(next, 5_000).unwrap();
        for chunk in &out.chunks {
            let mut rest = chunk.batches.clone();
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                if batch.header().base_offset >= next {
                    found.push(batch);
                }
            }
        }
        next = out.next_offset;
    }
    found
}

fn read_back(log: &Log) -> Known {
    let mut known = Known { stable: log.end_offset().get(), ..Known::default() };
    for batch in batches(log) {
        let header = batch.header();
        let (last, first) = (header.last_offset().get(), header.base_offset.get());
        let fresh = (header.producer_epoch, None, last, None, 0);
        let producer = known.producers.entry(header.producer_id).or_insert(fresh);
        if producer.0 != header.producer_epoch {
            (producer.0, producer.1, producer.4) = (header.producer_epoch, None, 0);
        }
        producer.2 = last;
        match batch.control_record().unwrap().map(|record| record.kind) {
            None => {
                producer.1 = Some(header.base_sequence + header.last_offset_delta as i32);
                producer.4 = (producer.4 + 1).min(64);
                if header.attributes.is_transactional() {
                    producer.3.get_or_insert(first);
                }
            }
            Some(kind) => {
                if let (Some(begun), ControlType::Abort) = (producer.3.take(), kind) {
                    known.aborted.push((header.producer_id, begun, last));
                }
            }
        }
    }
    known.producers.remove(&-1);
    known.stable = known.producers.values().filter_map(|producer| producer.3).min().unwrap_or(known.stable);
    known
}

fn answered(log: &Log, ids: impl Iterator<Item = i64>) -> Known {
    let producers = ids.filter_map(|id| {
        let view = log.producer(id)?;
        let transaction = view.transaction.map(Offset::get);
        Some((
            id,
            (view.epoch, view.last_sequence, view.last_offset.get(), transaction, view.remembered_batches),
        ))
    });
    let producers = producers.collect();
    let aborted = log.aborted(Offset(0)..log.end_offset()).unwrap();
    let aborted = aborted.iter().map(|txn| (txn.producer_id, txn.first_offset.get(), txn.last_offset.get()));
    Known { producers, aborted: aborted.collect(), stable: log.last_stable_offset().get() }
}

struct Run {
    sim: Sim,
    set: Option<LogSet>,
    log: Log,
    /// Of each producer: its epoch, next sequence, and whether it is in a transaction.
    next: BTreeMap<i64, (i16, i32, bool)>,
}

impl Run {
    fn below(&self, bound: u64) -> u64 {
        self.sim.random().below(bound)
    }

    fn append_something(&mut self) {
        let id = self.below(4) as i64;
        let Some((epoch, sequence, in_transaction)) = self.next.get(&id).copied() else {
            self.next.insert(id, (0, 0, false));
            return;
        };
        let text = vec![b'x'; self.below(200) as usize];
        let records = vec![&*text; 1 + self.below(3) as usize];
        let transactional = in_transaction || self.below(2) == 0;
        let (batch, after) = match self.below(10) {
            0 if in_transaction => {
                let epoch = epoch + self.below(2) as i16;
                let kind = if self.below(2) == 0 { ControlType::Abort } else { ControlType::Commit };
                let sequence = if self.next[&id].0 == epoch { sequence } else { 0 };
                (marker(id, epoch, kind), (epoch, sequence, false))
            }
            1 => {
                let known = self.log.producer(id).is_some_and(|view| view.last_sequence.is_some());
                let batch = produced(id, epoch, sequence + 1, transactional, &records);
                if known && self.takes_appends() {
                    let refused = self.log.try_append(&[batch]).map_err(|error| error.kind());
                    assert_eq!(refused.err(), Some(ErrorKind::OutOfSequence));
                }
                return;
            }
            2 => (
                produced(id, epoch + 1, 0, transactional, &records),
                (epoch + 1, records.len() as i32, transactional),
            ),
            _ => {
                let batch = produced(id, epoch, sequence, transactional, &records);
                (batch, (epoch, sequence + records.len() as i32, transactional))
            }
        };
        if let Ok(Step::Done(receipt)) = self.log.try_append(&[batch]) {
            assert!(!receipt.is_duplicate());
            self.next.insert(id, after);
        }
    }

    fn takes_appends(&self) -> bool {
        matches!(self.log.stats().state, logmill_log::LogState::Open)
    }

    /// One of the `.state` files is lost or damaged while nobody has the log open.
    fn harm_a_sidecar(&self) {
        let files = self.sim.fs.files();
        let states: Vec<&PathBuf> =
            files.iter().filter(|path| path.extension().is_some_and(|e| e == "state")).collect();
        let Some(path) = states.get(self.below(states.len().max(1) as u64) as usize) else { return };
        let len = self.sim.fs.read_file(path).unwrap().len() as u64;
        match self.below(4) {
            0 => self.sim.fs.truncate(path, self.below(len)).unwrap(),
            1 => self.sim.fs.flip(path, self.below(len), self.below(8) as u8).unwrap(),
            2 => self.sim.env().fs.remove_file(path).unwrap(),
            _ => {}
        }
    }

    fn end(&mut self) {
        let set = self.set.take().unwrap();
        match self.below(4) {
            0 => set.close().unwrap_or(()),
            1 => {
                self.sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log"));
                drop(self.log.try_append(&[batch(&[b"plain"])]));
                self.sim.scheduler.run_for(Duration::from_secs(2));
                self.sim.fs.clear_rules();
                let reopened = set.open_log("a", options()).unwrap();
                self.check(&reopened);
                set.close().unwrap();
            }
            2 => drop(self.sim.kill()),
            _ => drop(self.sim.crash()),
        }
        drop(set);
    }

    /// The log's answers are those that follow from its batches; and the last ones are recognised.
    fn check(&self, log: &Log) {
        self.sim.scheduler.run_for(Duration::from_secs(1));
        let known = read_back(log);
        assert_eq!(answered(log, 0..4), known);
        let end = log.end_offset();
        let newest: BTreeMap<i64, Batch> = batches(log)
            .into_iter()
            .filter(|batch| batch.header().producer_id >= 0 && !batch.header().attributes.is_control())
            .map(|batch| (batch.header().producer_id, batch))
            .collect();
        for (id, batch) in newest {
            if known.producers[&id].0 == batch.header().producer_epoch {
                let receipt = append(log, batch.clone()).unwrap();
                assert!(receipt.is_duplicate());
                assert_eq!(receipt.first_offset(), batch.header().base_offset);
            }
        }
        assert_eq!(log.written_end(), end, "duplicates were not written");
    }
}

fn run(seed: u64) {
    let sim = Sim::new(seed);
    let (set, log) = open(&sim);
    let mut run = Run { sim, set: Some(set), log, next: BTreeMap::new() };
    for _ in 0..4 {
        for _ in 0..run.below(120) {
            match run.below(20) {
                0 => drop(run.log.roll()),
                1 => run.sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*.log")),
                2 => run.sim.fs.inject(Rule::new(Fault::Short(70)).on(Op::Write).path("*.log")),
                3..6 => drop(run.sim.scheduler.step()),
                _ => run.append_something(),
            }
        }
        run.sim.fs.clear_rules();
        run.end();
        run.harm_a_sidecar();
        let (set, log) = open(&run.sim);
        run.check(&log);
        run.next = (0..4)
            .filter_map(|id| log.producer(id).map(|view| (id, view)))
            .map(|(id, view)| {
                (id, (view.epoch, view.last_sequence.map_or(0, |last| last + 1), view.transaction.is_some()))
            })
            .collect();
        (run.set, run.log) = (Some(set), log);
    }
}

#[test]
fn what_is_known_of_producers_follows_from_the_batches_whatever_happens() {
    let seeds =
        std::env::var("LOGMILL_PRODUCER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| run(seed));
        outcome.unwrap_or_else(|_| panic!("seed {seed} failed; run it alone to debug"));
    }
}

#[test]
fn a_duplicate_is_answered_only_when_the_first_is_on_disk() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    let first = written(&log, produced(1, 0, 0, false, &[b"a", b"b"]));
    let again = written(&log, produced(1, 0, 0, false, &[b"a", b"b"]));
    assert!(!first.is_duplicate() && again.is_duplicate());
    assert_eq!((again.first_offset(), again.last_offset()), (Offset(0), Offset(1)));
    assert_eq!(again.appended_at(), first.appended_at());
    let mut again = std::pin::pin!(again);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(again.as_mut().poll(&mut context).is_pending(), "nothing is synced yet");
    sim.scheduler.run_until_idle();
    assert!(again.as_mut().poll(&mut context).is_ready());
}

#[test]
fn a_duplicate_of_what_a_failed_sync_took_is_not_acknowledged() {
    let sim = Sim::new(1);
    let (set, log) = open(&sim);
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log"));
    let first = written(&log, produced(1, 0, 0, false, &[b"a"]));
    let again = written(&log, produced(1, 0, 0, false, &[b"a"]));
    for receipt in [first, again] {
        assert_eq!(receipt.wait().unwrap_err().kind(), ErrorKind::OutcomeUnknown);
    }
    let log = set.open_log("a", options()).unwrap();
    assert_eq!(log.producer(1), None, "its batch was cut");
    assert!(!append(&log, produced(1, 0, 0, false, &[b"a"])).unwrap().is_duplicate());
}

#[test]
fn a_failed_append_counts_for_nothing() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    append(&log, produced(1, 0, 0, true, &[b"a"])).unwrap().wait().unwrap();
    let before = log.producer(1);
    for fault in [Fault::NoSpace, Fault::Io] {
        sim.fs.inject(Rule::new(Fault::Short(70)).on(Op::Write).path(DATA));
        sim.fs.inject(Rule::new(fault).on(Op::Write).path(DATA));
        let group = [produced(1, 0, 1, true, &[b"b"]), marker(1, 1, ControlType::Abort)];
        assert!(log.append(&group).is_err());
        assert_eq!(log.producer(1), before);
        assert_eq!(log.aborted(Offset(0)..Offset(9)).unwrap(), []);
        sim.fs.clear_rules();
    }
    let receipt = append(&log, produced(1, 0, 1, true, &[b"b"])).unwrap();
    assert_eq!((receipt.is_duplicate(), receipt.first_offset()), (false, Offset(1)));
}

#[test]
fn what_is_stable_moves_with_the_marker_on_disk() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    append(&log, batch(&[b"plain"])).unwrap().wait().unwrap();
    append(&log, produced(1, 0, 0, true, &[b"a"])).unwrap().wait().unwrap();
    assert_eq!((log.last_stable_offset(), log.end_offset()), (Offset(1), Offset(2)));
    assert_eq!(log.open_transactions()[0].first_offset, Offset(1));
    let written = written(&log, marker(1, 0, ControlType::Abort));
    assert!(log.open_transactions().is_empty());
    assert_eq!(log.last_stable_offset(), Offset(1), "a power cut can still take the marker");
    assert_eq!(log.aborted(Offset(0)..Offset(3)).unwrap(), []);
    written.wait().unwrap();
    assert_eq!(log.last_stable_offset(), Offset(3));
    assert_eq!(log.aborted(Offset(0)..Offset(2)).unwrap().len(), 1);
    assert_eq!(log.aborted(Offset(0)..Offset(1)).unwrap(), []);
}

#[test]
fn an_abort_is_found_from_the_records_also_when_its_marker_is_segments_later() {
    let sim = Sim::new(1);
    let (set, log) = open(&sim);
    append(&log, produced(1, 0, 0, true, &[b"a"])).unwrap().wait().unwrap();
    for _ in 0..3 {
        log.roll().unwrap();
        append(&log, batch(&[b"plain"])).unwrap().wait().unwrap();
    }
    append(&log, marker(1, 0, ControlType::Abort)).unwrap().wait().unwrap();
    log.roll().unwrap();
    append(&log, batch(&[b"plain"])).unwrap().wait().unwrap();
    let aborted = log.aborted(Offset(0)..Offset(1)).unwrap();
    assert_eq!((aborted[0].first_offset, aborted[0].last_offset), (Offset(0), Offset(4)));
    assert_eq!(log.aborted(Offset(5)..Offset(6)).unwrap(), []);
    set.close().unwrap();
    for path in sim.fs.files().iter().filter(|path| path.extension().is_some_and(|e| e == "state")) {
        sim.env().fs.remove_file(path).unwrap();
    }
    let (_set, log) = open(&sim);
    assert_eq!(log.aborted(Offset(0)..Offset(1)).unwrap(), aborted);
}

#[test]
fn a_log_without_producers_has_no_state_files() {
    let sim = Sim::new(1);
    let (set, log) = open(&sim);
    for _ in 0..3 {
        append(&log, batch(&[b"plain"])).unwrap().wait().unwrap();
        log.roll().unwrap();
    }
    append(&log, batch(&[b"plain"])).unwrap().wait().unwrap();
    set.close().unwrap();
    assert!(sim.fs.files().iter().all(|path| path.extension().is_none_or(|ending| ending != "state")));
}

#[test]
fn a_producer_that_is_silent_for_too_long_is_forgotten() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim);
    log.set_options(options().producer_expiry(Duration::from_secs(60)));
    append(&log, produced(1, 0, 0, false, &[b"a"])).unwrap().wait().unwrap();
    append(&log, produced(2, 0, 0, true, &[b"a"])).unwrap().wait().unwrap();
    sim.scheduler.run_for(Duration::from_secs(50));
    assert!(log.producer(1).is_some());
    sim.scheduler.run_for(Duration::from_secs(30));
    assert_eq!(log.producer(1), None);
    assert!(log.producer(2).is_some(), "its transaction is open");
}

#[test]
fn a_lost_state_file_is_found_by_verify() {
    let sim = Sim::new(1);
    let (set, log) = open(&sim);
    append(&log, produced(1, 0, 0, false, &[b"a"])).unwrap().wait().unwrap();
    log.roll().unwrap();
    append(&log, batch(&[b"plain"])).unwrap().wait().unwrap();
    set.close().unwrap();
    drop((set, log));
    let verify = || logmill_log::inspect::verify(&sim.env(), "/data", &mut |_| ()).unwrap().findings;
    assert!(verify().is_empty(), "{:?}", verify());
    sim.env().fs.remove_file(std::path::Path::new("/data/a/00000000000000000000.state")).unwrap();
    assert_eq!(verify().len(), 1);
    drop(open(&sim));
}

#[test]
fn compaction_keeps_what_is_known_of_producers() {
    let compacted = options().compaction(Some(CompactionOptions::default()));
    for lose_state in [false, true] {
        let mut sim = Sim::new(1);
        let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
        let log = set.create("a", b"", compacted).unwrap();
        let keyed = |id, sequence| {
            let mut builder = BatchBuilder::with_options(BatchOptions::new().producer(id, 3, sequence), 0);
            let (key, value) = (Some(&b"k"[..]), Some(&[b'v'; 100][..]));
            builder.push(&NewRecord { timestamp: TimestampMs(1), key, value, headers: &[] }).unwrap();
            builder.build().unwrap()
        };
        let batches: Vec<Batch> =
            (0..20).flat_map(|sequence| [keyed(1, sequence), keyed(2, sequence)]).collect();
        for batch in batches {
            log.append(&[batch]).unwrap().wait().unwrap();
        }
        log.roll().unwrap();
        let before = log.producer(1);
        assert!(log.compact().unwrap().segments > 1);
        let left = sim.fs.files();
        let states = left.iter().filter(|path| path.extension().is_some_and(|ending| ending == "state"));
        for path in states.filter(|_| lose_state) {
            sim.env().fs.remove_file(path).unwrap();
        }
        drop((set, log));
        let set = LogSet::open("/data", SetOptions::new(sim.kill())).unwrap();
        let log = set.open_log("a", compacted).unwrap();
        if lose_state {
            assert_eq!(log.producer(1).unwrap().last_sequence, Some(19));
        } else {
            assert_eq!(log.producer(1), before);
        }
        for (id, offset) in [(1, 38), (2, 39)] {
            let receipt = append(&log, keyed(id, 19)).unwrap();
            assert_eq!((receipt.is_duplicate(), receipt.first_offset()), (true, Offset(offset)));
            assert_eq!(append(&log, keyed(id, 21)).err(), Some(ErrorKind::OutOfSequence));
        }
    }
}
