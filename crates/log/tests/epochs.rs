//! Leader epochs, against a walk of all batches; and readers that come back, against what they have read.
//!
//! `LOGMILL_EPOCH_CASES` sets how many cases are run; a failure prints its seed.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;
#[path = "common/keyed.rs"]
mod keyed;

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_log::env::Env;
use logmill_log::sim::{Fault, Op, Rule, Sim, SimRandom};
use logmill_log::{
    CompactionOptions, Durability, ErrorKind, Log, LogOptions, LogSet, LogState, Receipt, SetOptions,
};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

/// What somebody has read: the values by their offsets, where it goes on, and in which epoch it was.
#[derive(Default)]
struct Reader {
    seen: BTreeMap<u64, u64>,
    next: Offset,
    epoch: Option<i32>,
}

struct Case {
    sim: Sim,
    random: SimRandom,
    options: LogOptions,
    set: LogSet,
    log: Log,
    readers: Vec<Reader>,
    values: u64,
    counts: BTreeMap<&'static str, u64>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let (sim, random) = (Sim::new(seed), SimRandom::new(seed));
        let flush_interval = Duration::from_secs(random.below(20));
        let durability =
            if random.one_in(4) { Durability::Durable } else { Durability::Relaxed { flush_interval } };
        let compaction = random.one_in(2).then(CompactionOptions::default);
        let options = LogOptions::default().segment_bytes(300 + random.below(2_000));
        let options = options.durability(durability).compaction(compaction);
        let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
        let log = set.create("a", b"", options).unwrap();
        Self { sim, random, options, set, log, readers: Vec::new(), values: 0, counts: BTreeMap::new() }
    }

    fn step(&mut self) {
        let (what, step): (_, fn(&mut Self)) = match self.random.below(100) {
            0..12 => ("appends", |case| drop(case.append().map(Receipt::wait))),
            12..40 => ("appends that are not waited for", |case| drop(case.append())),
            40..65 => ("reads", Self::read),
            65..70 => ("rolls", |case| case.log.roll().unwrap()),
            70..74 => ("starts moved", Self::set_start),
            74..80 => ("compactions", Self::compact),
            80..84 => ("clean closes", |case| {
                case.set.close().unwrap();
                let env = case.sim.env();
                case.open(env);
            }),
            84..88 => ("kills", |case| {
                let env = case.sim.kill();
                case.open(env);
            }),
            88..93 => ("power cuts", |case| {
                case.show_something();
                let env = case.sim.crash();
                case.open(env);
            }),
            93..97 => ("syncs that fail", Self::fail_a_sync),
            _ => ("pauses", |case| case.sim.scheduler.run_for(Duration::from_mins(3))),
        };
        step(self);
        *self.counts.entry(what).or_default() += 1;
        self.check_epochs();
        self.check_readers();
    }

    fn append(&mut self) -> Result<Receipt, logmill_log::Error> {
        let batches: Vec<Batch> = (0..=self.random.below(3)).map(|_| self.batch()).collect();
        self.log.append(&batches)
    }

    /// Each value comes once, under one of a few keys.
    fn batch(&mut self) -> Batch {
        let mut builder = BatchBuilder::new();
        for _ in 0..=self.random.below(3) {
            self.values += 1;
            let (key, value) = ([u8::try_from(self.random.below(4)).unwrap()], self.values.to_be_bytes());
            let (key, value) = (Some(&key[..]), Some(&value[..]));
            builder.push(&NewRecord { timestamp: TimestampMs(7), key, value, headers: &[] }).unwrap();
        }
        builder.build().unwrap()
    }

    fn set_start(&mut self) {
        let (start, end) = (self.log.start_offset().get(), self.log.durable_end().get());
        if end > start {
            let to = start + self.random.below((end - start).min(12) + 1);
            self.log.set_start_offset(Offset(to)).unwrap();
        }
    }

    fn compact(&mut self) {
        if let Err(error) = self.log.compact() {
            assert_eq!(error.kind(), ErrorKind::Invalid, "it is not compacted: {error}");
        }
    }

    /// What may be lost is read before that.
    fn show_something(&mut self) {
        drop(self.append());
        for _ in 0..self.random.below(6) {
            self.read();
        }
    }

    /// The log is opened again in the same process, at what is on disk.
    fn fail_a_sync(&mut self) {
        self.show_something();
        self.sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/a/*.log"));
        let failed = self.append().and_then(Receipt::wait);
        self.sim.fs.clear_rules();
        if failed.is_err() {
            self.log = self.set.open_log("a", self.options).unwrap();
        }
    }

    fn open(&mut self, env: Env) {
        let set = LogSet::open("/data", SetOptions::new(env)).unwrap();
        self.log = set.open_log("a", self.options).unwrap();
        self.set = set;
        assert!(matches!(self.log.stats().state, LogState::Open), "{:?}", self.log.stats().state);
    }

    /// One reads on, or comes new.
    fn read(&mut self) {
        if self.readers.len() < 4 {
            self.readers.push(Reader { next: self.log.start_offset(), ..Reader::default() });
        }
        let index = usize::try_from(self.random.below(self.readers.len() as u64)).unwrap();
        let most = usize::try_from(self.random.below(2_000)).unwrap();
        let out = match self.log.read(self.readers[index].next, most) {
            Ok(out) => out,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
                self.readers.remove(index);
                return;
            }
        };
        let reader = &mut self.readers[index];
        for chunk in out.chunks {
            let mut rest = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                reader.epoch = Some(batch.header().leader_epoch);
                for (offset, value) in records(&batch) {
                    if offset >= reader.next.get() {
                        reader.seen.insert(offset, value);
                    }
                }
            }
            assert_eq!(reader.epoch, Some(chunk.last_epoch), "a chunk tells its last epoch");
        }
        reader.next = out.next_offset;
    }

    /// All batches that readers see.
    fn batches(&self) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut next = self.log.start_offset();
        while next < self.log.end_offset() {
            let out = self.log.read(next, 10_000).unwrap();
            for mut chunk in out.chunks.into_iter().map(|chunk| chunk.batches) {
                while let Some(batch) = Batch::split_from(&mut chunk).unwrap() {
                    batches.push(batch);
                }
            }
            next = out.next_offset;
        }
        batches
    }

    fn check_epochs(&self) {
        let batches = self.batches();
        let epochs: Vec<(Offset, i32)> =
            batches.iter().map(|batch| (batch.header().base_offset, batch.header().leader_epoch)).collect();
        let (start, end) = (self.log.start_offset(), self.log.end_offset());
        let first_is_at_start = epochs.first().is_none_or(|(base, _)| *base <= start);
        for offset in (start.get().saturating_sub(2)..=end.get() + 2).map(Offset) {
            let last = epochs.iter().rfind(|(base, _)| *base < offset);
            let expected = last.filter(|_| offset > start).map(|(_, epoch)| *epoch);
            let found = self.log.epoch_before(offset).unwrap();
            // Of a batch below the start there can still be something, if compaction took what followed.
            let left_over = expected.is_none() && !first_is_at_start && offset > start;
            assert!(found == expected || left_over, "before {offset}: {found:?}, not {expected:?}");
        }
        for epoch in 0..self.log.stats().epoch + 2 {
            let rise = epochs.iter().find(|(_, found)| *found > epoch);
            let expected = rise.map_or(end, |(base, _)| (*base).max(start));
            let found = self.log.end_of_epoch(epoch).unwrap();
            let left_over = found == start && !first_is_at_start && rise == epochs.first();
            assert!(found == expected || left_over, "end of {epoch}: {found}, not {expected}");
        }
    }

    /// What a reader has is there, or it is told from where on it is not.
    fn check_readers(&mut self) {
        let stored: BTreeMap<u64, u64> = self.batches().iter().flat_map(records).collect();
        let mut truncated = 0;
        for reader in &mut self.readers {
            let Some(epoch) = reader.epoch else { continue };
            let before = self.log.epoch_before(reader.next).unwrap();
            if reader.next > self.log.end_offset() || before.is_some_and(|before| before > epoch) {
                let diverging = self.log.end_of_epoch(epoch).unwrap().min(reader.next);
                reader.seen.retain(|offset, _| *offset < diverging.get());
                reader.next = diverging;
                reader.epoch = self.log.epoch_before(diverging).unwrap();
                truncated += 1;
            }
            let first = reader.seen.keys().next().copied().unwrap_or(u64::MAX);
            for (offset, value) in stored.range(first..reader.next.get().max(first)) {
                assert_eq!(reader.seen.get(offset), Some(value), "the record at {offset} that was read");
            }
        }
        *self.counts.entry("readers told of a truncation").or_default() += truncated;
    }
}

fn records(batch: &Batch) -> Vec<(u64, u64)> {
    let value = |value: Option<&[u8]>| u64::from_be_bytes(value.unwrap().try_into().unwrap());
    batch
        .records()
        .unwrap()
        .map(|record| record.unwrap())
        .map(|it| (it.offset.get(), value(it.value)))
        .collect()
}

#[test]
fn epochs_are_those_of_the_batches_and_readers_learn_of_what_was_lost() {
    let cases = std::env::var("LOGMILL_EPOCH_CASES").ok().and_then(|cases| cases.parse().ok());
    let mut total: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..cases.unwrap_or(200) {
        let outcome = std::panic::catch_unwind(|| {
            let mut case = Case::new(seed);
            (0..60).for_each(|_| case.step());
            case.counts
        });
        let counts = outcome.unwrap_or_else(|_| panic!("seed {seed} failed"));
        counts.into_iter().for_each(|(what, count)| *total.entry(what).or_default() += count);
    }
    println!("{total:?}");
    assert_eq!(total.len(), 12, "every kind of step was taken");
    assert!(total["readers told of a truncation"] > 20, "{total:?}");
}

/// A power cut takes back what a reader has, other records come in its place, and compaction takes most of
/// those out, or merges what is left of several segments.
#[test]
fn a_reader_of_lost_records_is_found_out_also_where_little_is_left_of_what_replaced_them() {
    let mut lost = 0;
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let options = LogOptions::default()
            .durability(Durability::Relaxed { flush_interval: Duration::from_hours(1) })
            .compaction(Some(CompactionOptions::default()));
        let open = |env| Log::open("/data", SetOptions::new(env), options).unwrap();
        let log = open(sim.env());
        let fill = |log: &Log, key, count| {
            (0..count).for_each(|n| drop(log.append(&[keyed::batch(&[(Some(key), Some(n))])]).unwrap()));
        };
        fill(&log, 0, 10);
        log.roll().unwrap();
        fill(&log, 1, 10);
        let (next, epoch) = (log.end_offset(), log.epoch_before(log.end_offset()).unwrap().unwrap());

        let env = sim.crash();
        drop(log);
        let log = open(env);
        let lost_from = log.end_offset();
        if lost_from >= next {
            continue;
        }
        lost += 1;
        fill(&log, 0, 30);
        for _ in 0..3 {
            log.roll().unwrap();
            fill(&log, 0, 1);
        }
        for _ in 0..2 {
            log.compact().unwrap();
            assert!(
                log.epoch_before(next).unwrap() > Some(epoch),
                "seed {seed}: what the reader has is gone"
            );
            let good = log.end_of_epoch(epoch).unwrap();
            assert_eq!(good, lost_from, "seed {seed}: what it may keep ends where other records begin");
        }
    }
    assert!(lost > 5, "{lost} of the power cuts took something back");
}
