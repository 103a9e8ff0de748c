//! What readers of committed records are given, and when they are woken.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test may stop where it fails"
)]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::{batch, produced};
use logmill_log::sim::{Sim, SimRandom};
use logmill_log::{Beyond, Durability, ErrorKind, Log, LogOptions, LogSet, Receipt, SetOptions, Step};
use logmill_record::{Batch, BatchHeader, ControlRecord, ControlType, Offset, TimestampMs};

const FLUSH: Duration = Duration::from_millis(500);

fn relaxed() -> LogOptions {
    LogOptions::default().durability(Durability::Relaxed { flush_interval: FLUSH })
}

fn open(sim: &Sim, options: LogOptions) -> (LogSet, Log) {
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.create("a", b"", options).unwrap();
    (set, log)
}

fn commit(id: i64) -> Batch {
    let kind = ControlType::Commit;
    ControlRecord { kind, coordinator_epoch: 1 }.batch(id, 0, TimestampMs(1)).unwrap()
}

fn written(log: &Log, batch: Batch) -> Receipt {
    let Step::Done(receipt) = log.try_append(&[batch]).unwrap() else { panic!("there is room") };
    receipt
}

/// Counts how often it was woken.
#[derive(Default)]
struct Counter(AtomicU64);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Somebody who waits for committed records.
struct Waiting {
    beyond: Pin<Box<Beyond>>,
    woken: Arc<Counter>,
}

impl Waiting {
    fn begin(log: &Log, offset: u64) -> Self {
        let mut waiting = Self { beyond: Box::pin(log.stable_beyond(Offset(offset))), woken: Arc::default() };
        assert!(waiting.poll().is_pending());
        waiting
    }

    fn poll(&mut self) -> Poll<Result<(), ErrorKind>> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let poll = self.beyond.as_mut().poll(&mut Context::from_waker(&waker));
        poll.map_err(|error| error.kind())
    }

    fn wakes(&self) -> u64 {
        self.woken.0.load(Ordering::Relaxed)
    }
}

/// The end has moved with the write: nothing else happens when the marker reaches the disk.
#[test]
fn a_reader_of_a_relaxed_log_is_woken_when_the_marker_is_on_disk() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim, relaxed());
    drop(written(&log, produced(1, 0, 0, true, &[b"a"])));
    let mut waiting = Waiting::begin(&log, 0);
    for _ in 0..5 {
        drop(written(&log, batch(&[b"behind it"])));
    }
    drop(written(&log, commit(1)));
    assert_eq!((log.end_offset(), log.last_stable_offset()), (Offset(7), Offset(0)));
    assert!(waiting.poll().is_pending());
    assert_eq!(waiting.wakes(), 0, "woken for nothing");
    sim.scheduler.run_for(FLUSH);
    assert_eq!((waiting.wakes(), waiting.poll()), (1, Poll::Ready(Ok(()))));
    assert_eq!(log.last_stable_offset(), Offset(7));
}

#[test]
fn a_reader_of_a_relaxed_log_without_transactions_is_woken_by_the_write() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim, relaxed());
    let mut waiting = Waiting::begin(&log, 0);
    drop(written(&log, batch(&[b"a"])));
    assert_eq!((waiting.wakes(), waiting.poll()), (1, Poll::Ready(Ok(()))));
    assert_eq!(log.durable_end(), Offset(0));
}

#[test]
fn a_reader_of_a_durable_log_is_woken_once_when_the_earliest_transaction_has_ended() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim, LogOptions::default());
    written(&log, produced(1, 0, 0, true, &[b"a"])).wait().unwrap();
    written(&log, produced(2, 0, 0, true, &[b"b"])).wait().unwrap();
    let (mut first, mut second) = (Waiting::begin(&log, 0), Waiting::begin(&log, 1));
    written(&log, commit(2)).wait().unwrap();
    assert!(first.poll().is_pending() && second.poll().is_pending());
    written(&log, commit(1)).wait().unwrap();
    assert_eq!((first.wakes(), first.poll()), (1, Poll::Ready(Ok(()))));
    assert_eq!((second.wakes(), second.poll()), (1, Poll::Ready(Ok(()))));
}

#[test]
fn a_log_that_was_opened_with_a_transaction_holds_its_readers_back() {
    let mut sim = Sim::new(1);
    let (set, log) = open(&sim, LogOptions::default());
    written(&log, produced(1, 0, 0, true, &[b"a"])).wait().unwrap();
    drop((set, log));
    sim.crash();
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.open_log("a", LogOptions::default()).unwrap();
    let mut waiting = Waiting::begin(&log, 0);
    written(&log, commit(1)).wait().unwrap();
    assert_eq!(waiting.poll(), Poll::Ready(Ok(())));
}

/// Else it would wait for the end of a transaction that nobody can read any more.
#[test]
fn a_reader_is_woken_when_the_start_passes_what_holds_it_back() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim, LogOptions::default());
    written(&log, produced(1, 0, 0, true, &[b"a"])).wait().unwrap();
    written(&log, batch(&[b"b"])).wait().unwrap();
    let mut waiting = Waiting::begin(&log, 0);
    log.set_start_offset(Offset(1)).unwrap();
    assert_eq!((waiting.wakes(), waiting.poll()), (1, Poll::Ready(Ok(()))));
    assert_eq!(log.read_committed(Offset(0), 100).unwrap_err().kind(), ErrorKind::OutOfRange);
    let out = log.read_committed(Offset(1), 100).unwrap();
    assert!(out.chunks.is_empty(), "what is left is behind a transaction that is open");
    assert_eq!((out.last_stable_offset, out.end_offset), (Offset(1), Offset(2)));
}

#[test]
fn whoever_waits_for_a_log_that_ends_is_told() {
    let sim = Sim::new(1);
    let (_set, log) = open(&sim, LogOptions::default());
    written(&log, produced(1, 0, 0, true, &[b"a"])).wait().unwrap();
    let mut waiting = Waiting::begin(&log, 0);
    log.close().unwrap();
    assert_eq!(waiting.poll(), Poll::Ready(Err(ErrorKind::Closed)));
    assert_eq!(log.read_committed(Offset(0), 100).unwrap_err().kind(), ErrorKind::Closed);
}

/// The headers that a reader is given from `from` on, with what every chunk must say of them.
fn headers(log: &Log, from: Offset, max_bytes: usize, committed: bool) -> Vec<BatchHeader> {
    let (mut next, mut all) = (from, Vec::new());
    loop {
        let read = if committed { log.read_committed(next, max_bytes) } else { log.read(next, max_bytes) };
        let out = read.unwrap();
        if out.chunks.is_empty() {
            let end = if committed { out.last_stable_offset } else { out.end_offset };
            assert_eq!((next, out.next_offset), (end.max(from), next), "an empty read is the end");
            return all;
        }
        for chunk in &out.chunks {
            let (mut rest, mut last, mut transactional) = (chunk.batches.clone(), None, false);
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                transactional |= batch.header().attributes.is_transactional();
                last = Some(batch.header().clone());
                all.push(batch.header().clone());
            }
            let last = last.expect("a chunk has batches");
            assert_eq!((chunk.next_offset, chunk.last_epoch), (last.next_offset(), last.leader_epoch));
            assert_eq!(chunk.transactional, transactional);
        }
        next = out.next_offset;
    }
}

/// Random batches of three producers and of none, over several segments, some of them from before the log was
/// opened again: which of these reads an offset comes from must make no difference.
#[test]
fn a_read_of_committed_records_is_any_read_up_to_the_last_stable_offset() {
    for seed in 0..60 {
        let random = SimRandom::new(seed);
        let sim = Sim::new(seed);
        let options = LogOptions::default().segment_bytes(1_000 + random.below(20_000));
        let (mut set, mut log) = open(&sim, options);
        let mut sequences = [0; 3];
        for _ in 0..100 {
            let (id, values) = (random.below(3), vec![&b"value"[..]; 1 + random.below(3) as usize]);
            let holds = log.open_transactions().iter().any(|open| open.producer_id == id.cast_signed());
            let next = match random.below(8) {
                0..4 => batch(&values),
                4 if holds => commit(id.cast_signed()),
                5 if random.below(10) == 0 => {
                    set.close().unwrap();
                    set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
                    log = set.open_log("a", options).unwrap();
                    continue;
                }
                _ => {
                    let sequence = &mut sequences[id as usize];
                    let batch = produced(id.cast_signed(), 0, *sequence, true, &values);
                    *sequence += values.len() as i32;
                    batch
                }
            };
            log.append(&[next]).unwrap().wait().unwrap();
        }
        let stable = log.last_stable_offset();
        let all = headers(&log, Offset(0), 1 << 20, false);
        assert!(stable == log.end_offset() || all.iter().any(|header| header.base_offset == stable));
        for _ in 0..20 {
            let from = Offset(random.below(log.end_offset().get() + 1));
            let max_bytes = 1 + random.below(5_000) as usize;
            let given = headers(&log, from, max_bytes, true);
            let expected =
                all.iter().filter(|header| header.last_offset() >= from && header.base_offset < stable);
            let expected: Vec<_> = if from < stable { expected.cloned().collect() } else { Vec::new() };
            assert_eq!(given, expected, "seed {seed}, from {from}, {max_bytes} bytes");
        }
    }
}
