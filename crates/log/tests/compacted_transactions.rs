//! Compaction of what transactions wrote: whoever reads committed records sees the same before and after, and of each
//! key no more than its last value stays.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

#[path = "common/keyed.rs"]
mod keyed;

use std::collections::BTreeMap;
use std::time::Duration;

use keyed::{Entry, Records, append, batch, view};
use logmill_log::sim::{Sim, SimRandom};
use logmill_log::{CompactionOptions, Log, LogOptions, SetOptions};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, ControlRecord, ControlType, Inflater, NewRecord, Offset, TimestampMs,
};

const DAY: Duration = Duration::from_hours(24);
const KEYS: u64 = 6;
const PRODUCERS: u64 = 3;

fn open(sim: &Sim, seed: u64) -> Log {
    // Every other log takes several passes.
    let compaction = match seed % 2 {
        0 => CompactionOptions::default(),
        _ => CompactionOptions::default().key_map_bytes(24 * 4),
    };
    let options = LogOptions::default().segment_bytes(600).compaction(Some(compaction));
    Log::open("/data", SetOptions::new(sim.env()), options).unwrap()
}

/// What was written, and who has an open transaction.
#[derive(Default)]
struct Model {
    /// What counts: plain records, and those of committed transactions.
    counts: Records,
    /// Of the open transactions, by producer.
    open: BTreeMap<u64, Records>,
    aborted: Records,
    sequences: BTreeMap<u64, i32>,
}

impl Model {
    fn write(&mut self, log: &Log, random: &SimRandom) {
        let entries: Vec<Entry> = (0..=random.below(3))
            .map(|_| {
                (u8::try_from(random.below(KEYS)).ok(), (!random.one_in(5)).then(|| random.below(1 << 40)))
            })
            .collect();
        if random.one_in(3) {
            return append(log, &mut self.counts, &entries);
        }
        let producer = random.below(PRODUCERS);
        let sequence = self.sequences.entry(producer).or_insert(0);
        let options = BatchOptions::new().producer(id(producer), 0, *sequence).transactional();
        *sequence += i32::try_from(entries.len()).unwrap();
        let mut builder = BatchBuilder::with_options(options, 0);
        for (key, value) in &entries {
            let (key, value) = (key.map(|key| [key]), value.map(u64::to_be_bytes));
            let (key, value) =
                (key.as_ref().map(<[u8; 1]>::as_slice), value.as_ref().map(<[u8; 8]>::as_slice));
            builder.push(&NewRecord { timestamp: TimestampMs(1_000), key, value, headers: &[] }).unwrap();
        }
        let receipt = log.append(&[builder.build().unwrap()]).unwrap();
        let first = receipt.first_offset().get();
        receipt.wait().unwrap();
        self.open.entry(producer).or_default().extend((first..).zip(entries));
    }

    fn end(&mut self, log: &Log, producer: u64, commits: bool) {
        let Some(records) = self.open.remove(&producer) else { return };
        let kind = if commits { ControlType::Commit } else { ControlType::Abort };
        let marker = ControlRecord { kind, coordinator_epoch: 0 };
        let marker = marker.batch(id(producer), 0, TimestampMs(1_000)).unwrap();
        log.append(&[marker]).unwrap().wait().unwrap();
        if commits { self.counts.extend(records) } else { self.aborted.extend(records) }
    }

    /// What readers of committed records see is what they would see of a log that nobody compacts.
    fn check(&self, log: &Log) -> Records {
        let stable = log.last_stable_offset().get();
        let found = committed(log);
        for (offset, entry) in &found {
            assert_eq!(
                self.counts.get(offset),
                Some(entry),
                "the record at {offset} counts, and is as it was"
            );
        }
        let counts: Records = self.counts.range(..stable).map(|(offset, entry)| (*offset, *entry)).collect();
        assert_eq!(view(&found), view(&counts));
        found
    }
}

fn id(producer: u64) -> i64 {
    100 + i64::try_from(producer).unwrap()
}

/// What a reader of committed records sees.
fn committed(log: &Log) -> Records {
    let mut found = Records::new();
    let mut next = log.start_offset();
    while next < log.last_stable_offset() {
        let out = log.read_committed(next, 700).unwrap();
        let aborted = log.aborted(next..out.next_offset).unwrap();
        for chunk in &out.chunks {
            let mut rest = chunk.batches.clone();
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                let header = batch.header();
                let is_aborted = aborted.iter().any(|txn| {
                    txn.producer_id == header.producer_id
                        && (txn.first_offset..=txn.last_offset).contains(&header.base_offset)
                });
                if header.attributes.is_control() || header.attributes.is_transactional() && is_aborted {
                    continue;
                }
                for record in batch.records_with(&mut Inflater::default()).unwrap() {
                    let record = record.unwrap();
                    if record.offset < next {
                        continue;
                    }
                    let value = record.value.map(|value| u64::from_be_bytes(value.try_into().unwrap()));
                    found.insert(record.offset.get(), (record.key.map(|key| key[0]), value));
                }
            }
        }
        next = out.next_offset;
    }
    found
}

#[test]
fn readers_of_committed_records_see_the_same_before_and_after() {
    let (mut ended, mut taken) = ([0, 0], 0);
    for seed in 0..150 {
        let mut sim = Sim::new(seed);
        let random = sim.random();
        let mut log = open(&sim, seed);
        let mut model = Model::default();
        for _ in 0..random.below(120) {
            match random.below(20) {
                0..10 => model.write(&log, &random),
                10..14 => {
                    let commits = !random.one_in(3);
                    ended[usize::from(commits)] += 1;
                    model.end(&log, random.below(PRODUCERS), commits);
                }
                14..16 => log.roll().unwrap(),
                16..18 => {
                    taken += log.compact().unwrap().segments;
                    model.check(&log);
                }
                18 => sim.clock.advance(DAY),
                _ => {
                    drop(log);
                    sim.crash();
                    log = open(&sim, seed);
                    model.check(&log);
                }
            }
        }
        for producer in 0..PRODUCERS {
            model.end(&log, producer, true);
        }
        append(&log, &mut model.counts, &[(None, Some(1))]);
        for _ in 0..4 {
            log.roll().unwrap();
            log.compact().unwrap();
            model.check(&log);
            sim.clock.advance(DAY);
        }
        // Tombstones have gone as well.
        let keyed =
            |records: Records| records.into_iter().filter(|(_, (key, _))| key.is_some()).collect::<Vec<_>>();
        let last =
            view(&model.counts).into_iter().map(|(key, (offset, value))| (offset, (Some(key), Some(value))));
        assert_eq!(keyed(committed(&log)), keyed(last.collect()), "seed {seed}");
    }
    println!("committed and aborted: {ended:?}; segments that were written anew: {taken}");
    assert!(ended[0] > 100 && ended[1] > 300 && taken > 300);
}

/// As the node's log of offsets is written by steps: of each key the last, however many there were.
#[test]
fn a_log_of_committed_transactions_alone_does_not_grow() {
    let sim = Sim::new(1);
    let log = open(&sim, 0);
    let mut sizes = Vec::new();
    for round in 0..6_i32 {
        for step in 0..100_i32 {
            let options = BatchOptions::new().producer(7, 0, round * 100 + step).transactional();
            let mut builder = BatchBuilder::with_options(options, 0);
            let (key, value) = ([1_u8], step.to_be_bytes());
            let record = NewRecord {
                timestamp: TimestampMs(1_000),
                key: Some(&key),
                value: Some(&value),
                headers: &[],
            };
            builder.push(&record).unwrap();
            let commit = ControlRecord { kind: ControlType::Commit, coordinator_epoch: 0 };
            let batches = [builder.build().unwrap(), commit.batch(7, 0, TimestampMs(1_000)).unwrap()];
            log.append(&batches).unwrap().wait().unwrap();
        }
        log.append(&[batch(&[(Some(9), None)])]).unwrap().wait().unwrap();
        log.roll().unwrap();
        for _ in 0..2 {
            log.compact().unwrap();
            sim.clock.advance(2 * DAY);
        }
        sizes.push(log.stats().stored_bytes);
    }
    assert!(sizes[5] <= sizes[1] + 200, "each round has 100 steps: {sizes:?}");
    assert_eq!(log.read(Offset(0), 1).unwrap().chunks.len(), 1);
}
