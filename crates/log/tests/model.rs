//! A log against a `Vec`: appends, reads from anywhere, lookups by time, rolls, moved starts, clean
//! closes and kills, in random order, on the machine's file system and on the simulated one.
//!
//! `LOGMILL_MODEL_CASES` sets how many cases are run; a failure prints its seed.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::read_all;
use logmill_log::env::Env;
use logmill_log::sim::{Sim, SimRandom};
use logmill_log::{ErrorKind, Log, LogOptions, LogState, Receipt, SetOptions};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

/// The machine that a case runs on.
enum Machine {
    Real,
    Simulated(Box<Sim>),
}

impl Machine {
    fn env(&self) -> Env {
        match self {
            Self::Real => Env::real(),
            Self::Simulated(sim) => sim.env(),
        }
    }

    /// Nothing of the program is left but what it wrote.
    fn kill(&mut self) {
        match self {
            // Dropping the last handle is documented to leave what a kill leaves.
            Self::Real => {}
            Self::Simulated(sim) => drop(sim.kill()),
        }
    }
}

struct Case {
    machine: Machine,
    dir: PathBuf,
    random: SimRandom,
    options: LogOptions,
    log: Log,
    /// Every record ever appended, by its offset: its time and its value.
    records: Vec<(TimestampMs, Vec<u8>)>,
    start: u64,
    pending: Vec<Receipt>,
    counts: BTreeMap<&'static str, u64>,
}

impl Case {
    fn new(seed: u64, machine: Machine, dir: &Path) -> Self {
        let random = SimRandom::new(seed);
        let options = LogOptions::default().segment_bytes(300 + random.below(5_000));
        let log = Log::open(dir, SetOptions::new(machine.env()), options).unwrap();
        let (records, pending, counts) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { machine, dir: dir.to_owned(), random, options, log, records, start: 0, pending, counts }
    }

    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    fn step(&mut self) {
        let (what, step): (_, fn(&mut Self)) = match self.random.below(100) {
            0..45 => ("appends", Self::append),
            45..65 => ("reads", Self::read),
            65..75 => ("lookups by time", Self::find_time),
            75..80 => ("rolls", |case| case.log.roll().unwrap()),
            80..86 => ("starts moved", Self::set_start),
            86..92 => ("clean closes", |case| case.reopen(true)),
            92..97 => ("kills", |case| case.reopen(false)),
            _ => ("whole reads", Self::read_all),
        };
        step(self);
        *self.counts.entry(what).or_default() += 1;
    }

    fn append(&mut self) {
        let batches: Vec<Batch> = (0..=self.random.below(3)).map(|_| self.batch()).collect();
        let before = self.log.written_end();
        let receipt = self.log.append(&batches).unwrap();
        assert_eq!(receipt.first_offset(), before);
        assert_eq!(receipt.last_offset().next().get(), self.end());
        if self.random.one_in(2) {
            receipt.wait().unwrap();
            self.pending.clear();
        } else {
            self.pending.push(receipt);
        }
    }

    /// A batch of a few records, whose times go back and forth.
    fn batch(&mut self) -> Batch {
        let mut builder = BatchBuilder::new();
        for _ in 0..=self.random.below(4) {
            let timestamp = TimestampMs(i64::try_from(self.end() * 10 + self.random.below(60)).unwrap());
            let len = usize::try_from(self.random.below(120)).unwrap();
            let value = format!("{} {}", self.end(), "v".repeat(len)).into_bytes();
            builder.push(&NewRecord { timestamp, key: None, value: Some(&value), headers: &[] }).unwrap();
            self.records.push((timestamp, value));
        }
        builder.build().unwrap()
    }

    /// All that was appended is on disk and visible.
    fn settle(&mut self) {
        self.pending.drain(..).for_each(|receipt| receipt.wait().unwrap());
        assert_eq!(self.log.end_offset().get(), self.end());
    }

    fn read(&mut self) {
        self.settle();
        let from = self.random.below(self.end() + 3);
        let most = usize::try_from(self.random.below(3_000)).unwrap();
        let out = match self.log.read(Offset(from), most) {
            Ok(out) => out,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
                assert!(from < self.start || from > self.end(), "{from} is in range: {error}");
                return;
            }
        };
        assert!((self.start..=self.end()).contains(&from), "{from} is out of range");
        assert_eq!((out.start_offset.get(), out.end_offset.get()), (self.start, self.end()));
        let mut next = from;
        for chunk in out.chunks {
            let mut rest = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                for record in batch.records().unwrap().map(Result::unwrap) {
                    if record.offset.get() >= from {
                        assert_eq!(record.offset.get(), next);
                        let (timestamp, value) = &self.records[usize::try_from(next).unwrap()];
                        assert_eq!((record.timestamp, record.value), (*timestamp, Some(&value[..])));
                        next += 1;
                    }
                }
            }
            assert_eq!(chunk.next_offset.get(), next);
        }
        assert_eq!(out.next_offset.get(), next);
        assert!(next > from || from == self.end(), "a read before the end goes on");
    }

    fn find_time(&mut self) {
        self.settle();
        let at = TimestampMs(i64::try_from(self.random.below(self.end() * 10 + 100)).unwrap());
        let kept = (0..).zip(&self.records).skip(usize::try_from(self.start).unwrap());
        let expected = kept.map(|(offset, (time, _))| (Offset(offset), *time)).find(|(_, time)| *time >= at);
        assert_eq!(self.log.find_time(at).unwrap(), expected, "the first at or after {at:?}");
    }

    fn set_start(&mut self) {
        self.settle();
        let to = self.random.below(self.end() + 1).min(self.start + 10);
        self.start = self.start.max(to);
        assert_eq!(self.log.set_start_offset(Offset(to)).unwrap().get(), self.start);
    }

    fn read_all(&mut self) {
        self.settle();
        let found = read_all(&self.log, Offset(self.start)).unwrap();
        let kept = (0..).zip(&self.records).skip(usize::try_from(self.start).unwrap());
        assert!(found.into_iter().eq(kept.map(|(offset, (_, value))| (Offset(offset), value.clone()))));
    }

    /// Closes the log, or ends the program without; what was written is there again.
    fn reopen(&mut self, cleanly: bool) {
        if cleanly {
            self.log.set().close().unwrap();
        }
        self.pending.clear();
        // The old handles go before the directory's lock is taken anew.
        let elsewhere = Sim::new(0);
        let other = Log::open("/x", SetOptions::new(elsewhere.env()), LogOptions::default()).unwrap();
        drop(std::mem::replace(&mut self.log, other));
        self.machine.kill();
        self.log = Log::open(&self.dir, SetOptions::new(self.machine.env()), self.options).unwrap();
        assert!(matches!(self.log.stats().state, LogState::Open), "{:?}", self.log.stats().state);
        assert_eq!(self.log.start_offset().get(), self.start);
        assert_eq!(
            self.log.end_offset().get(),
            self.end(),
            "neither a close nor a kill loses what is written"
        );
        self.read_all();
    }
}

fn run(seed: u64, machine: Machine, dir: &Path) -> BTreeMap<&'static str, u64> {
    let mut case = Case::new(seed, machine, dir);
    for _ in 0..30 + case.random.below(60) {
        case.step();
    }
    case.reopen(true);
    case.counts
}

fn cases(default: u64, mut run: impl FnMut(u64) -> BTreeMap<&'static str, u64>) {
    let cases = std::env::var("LOGMILL_MODEL_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = cases.unwrap_or(default);
    let mut total: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..cases {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        let counts = outcome.unwrap_or_else(|_| panic!("seed {seed} failed; run it alone to debug"));
        counts.into_iter().for_each(|(what, count)| *total.entry(what).or_default() += count);
    }
    println!("{cases} cases: {total:?}");
    assert_eq!(total.len(), 8, "every kind of step was taken");
}

#[test]
fn on_a_simulated_disk_a_log_is_what_a_vec_would_be() {
    cases(300, |seed| run(seed, Machine::Simulated(Box::new(Sim::new(seed))), Path::new("/data")));
}

#[test]
fn on_the_machines_disk_a_log_is_what_a_vec_would_be() {
    cases(20, |seed| run(seed, Machine::Real, &tempfile::tempdir().unwrap().path().join("data")));
}
