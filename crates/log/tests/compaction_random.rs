//! Compaction, retention, rolls, faults, kills and power cuts together: one seed is one run.
//!
//! The oracle: what is acknowledged is found again unless a later record of its key, its tombstone's
//! age or the log's start allows it to be gone; what is found was written, at its offset; a reader
//! in the middle only gets on. `LOGMILL_COMPACTION_SEEDS` sets how many seeds are run.
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

use keyed::{Entry, Records, check, compressed};
use logmill_log::sim::{Fault, Op, Rule, Sim, SimRandom};
use logmill_log::{CompactionOptions, ErrorKind, Log, LogOptions, LogState, Receipt, SetOptions};
use logmill_record::{Compression, Offset};

/// Tombstones are kept for so long.
const DELETE_RETENTION: Duration = Duration::from_secs(40);

struct Run {
    sim: Sim,
    random: SimRandom,
    options: LogOptions,
    log: Log,
    /// What was acknowledged, at its offset.
    model: Records,
    /// When each offset was appended, at the earliest.
    appended: BTreeMap<u64, i64>,
    /// What the append was to write during which the power went.
    maybe: Vec<Entry>,
    /// The largest start that was asked for.
    start: u64,
    reader: Offset,
    counts: BTreeMap<&'static str, u64>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let random = sim.random();
        let compaction = CompactionOptions::default()
            .min_dirty_ratio(if random.one_in(2) { 0.0 } else { 0.4 })
            .delete_retention(DELETE_RETENTION)
            .key_map_bytes(if random.one_in(2) { 24 * 8 } else { 1 << 20 });
        let options = LogOptions::default().segment_bytes(500).compaction(Some(compaction));
        let log = Log::open("/data", SetOptions::new(sim.env()), options).unwrap();
        Self {
            sim,
            random,
            options,
            log,
            model: Records::new(),
            appended: BTreeMap::new(),
            maybe: Vec::new(),
            start: 0,
            reader: Offset(0),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..45 => self.append(),
            45..55 => self.read(),
            55..65 => {
                if let Ok(compacted) = self.log.compact() {
                    self.count("compactions");
                    if compacted.segments > 0 {
                        self.count("compactions that replaced segments");
                    }
                    if compacted.passes > 1 {
                        self.count("compactions of several passes");
                    }
                }
            }
            65..70 => drop(self.log.roll()),
            70..72 => {
                let end = self.log.end_offset().get();
                let start = self.start + self.random.below(1 + (end - self.start.min(end)) / 4);
                if let Ok(start) = self.log.set_start_offset(Offset(start)) {
                    self.count("starts moved");
                    self.start = start.get();
                }
            }
            72..82 => self.sim.scheduler.run_for(Duration::from_secs(self.random.below(20))),
            82..84 => self.reopen(),
            84..87 => self.inject(),
            _ => drop(self.sim.scheduler.step()),
        }
    }

    fn inject(&mut self) {
        let op = [
            Op::Write,
            Op::SyncData,
            Op::SyncDir,
            Op::Rename,
            Op::Read,
            Op::Open,
            Op::Create,
            Op::RemoveFile,
        ];
        let fault = if self.random.one_in(2) { Fault::Io } else { Fault::NoSpace };
        let op = op[self.random.below(op.len() as u64) as usize];
        let path = ["*cleaned", "*.log", "*meta*", "/data"][self.random.below(4) as usize];
        self.sim.fs.inject(Rule::new(fault).on(op).path(path).nth(1 + self.random.below(4)));
        self.count("faults armed");
    }

    fn append(&mut self) {
        let keys = 9;
        let entries: Vec<Entry> = (0..=self.random.below(3))
            .map(|_| {
                let key = (!self.random.one_in(20)).then(|| self.random.below(keys) as u8);
                (key, (!self.random.one_in(5)).then(|| self.random.below(1 << 40)))
            })
            .collect();
        let codec =
            if cfg!(feature = "lz4") && self.random.one_in(3) { Compression::Lz4 } else { Compression::None };
        let now = logmill_log::env::Clock::now(&self.sim.clock).0;
        let end = self.log.written_end().get();
        let outcome = self.log.append(&[compressed(&entries, codec)]).and_then(Receipt::wait);
        match outcome {
            Ok(()) => {
                self.appended.extend((end..).zip(entries.iter().map(|_| now)));
                self.model.extend((end..).zip(entries));
            }
            Err(error) => {
                self.appended.extend((end..).zip(entries.iter().map(|_| now)));
                self.maybe = entries;
                if !self.sim.fs.is_off() && error.kind() != ErrorKind::Full {
                    self.reopen();
                }
            }
        }
    }

    /// A reader that goes through the log while all this happens.
    fn read(&mut self) {
        let from = self.reader.max(self.log.start_offset());
        match self.log.read(from, 300) {
            Ok(out) if out.chunks.is_empty() => self.reader = Offset(0),
            Ok(out) => {
                assert!(out.next_offset > from, "a reader gets on from {from}");
                self.reader = out.next_offset;
            }
            Err(error) => {
                let excused = self.sim.fs.is_off()
                    || matches!(error.kind(), ErrorKind::Io | ErrorKind::Full)
                    || !matches!(self.log.stats().state, LogState::Open);
                assert!(excused, "{error}");
            }
        }
    }

    /// Closes the log and opens it again in the same process.
    fn reopen(&mut self) {
        let _ = self.log.set().close();
        if self.sim.fs.is_off() {
            return;
        }
        self.sim.fs.clear_rules();
        match Log::open("/data", SetOptions::new(self.sim.env()), self.options) {
            Ok(log) => self.log = log,
            Err(error) => assert!(self.sim.fs.is_off(), "opening failed with the power on: {error}"),
        }
        if !self.sim.fs.is_off() {
            self.count("reopened");
            self.recovered();
        }
    }

    fn crash(&mut self) {
        let kill = !self.sim.fs.is_off() && self.random.one_in(3);
        self.count(if kill { "kills" } else { "power cuts" });
        let mut env = if kill { self.sim.kill() } else { self.sim.crash() };
        loop {
            if self.random.one_in(3) {
                self.sim.fs.power_off_at(1 + self.random.below(30));
            }
            match Log::open("/data", SetOptions::new(env), self.options) {
                Ok(log) => {
                    self.log = log;
                    break;
                }
                Err(error) => assert!(self.sim.fs.is_off(), "recovery failed with the power on: {error}"),
            }
            self.count("off in recovery");
            env = self.sim.crash();
        }
        if self.sim.fs.is_off() {
            self.sim.crash();
            let env = self.sim.env();
            self.log = Log::open("/data", SetOptions::new(env), self.options).unwrap();
        }
        self.recovered();
    }

    /// Holds what was recovered against the model.
    fn recovered(&mut self) {
        let state = self.log.stats().state;
        assert!(matches!(state, LogState::Open), "{state:?}");
        let acknowledged = self.model.len() as u64;
        let end = self.log.end_offset().get();
        let maybe = std::mem::take(&mut self.maybe);
        assert!(end == acknowledged || end == acknowledged + maybe.len() as u64, "{end} of {acknowledged}");
        if end > acknowledged {
            self.model.extend((acknowledged..).zip(maybe));
        }
        assert!(self.log.start_offset().get() >= self.start, "the start does not go back");
        self.start = self.log.start_offset().get();
        self.check();
    }

    fn check(&mut self) {
        let found = check(&self.log, &self.model);
        let now = logmill_log::env::Clock::now(&self.sim.clock).0;
        let mut last = BTreeMap::new();
        for (offset, (key, value)) in self.model.range(self.start..) {
            if let Some(key) = key {
                last.insert(*key, (*offset, value.is_none()));
            }
        }
        for (offset, tombstone) in last.into_values() {
            if tombstone && !found.contains_key(&offset) {
                let age_ms = now - self.appended[&offset];
                assert!(age_ms >= DELETE_RETENTION.as_millis() as i64, "a tombstone went after {age_ms} ms");
                self.count("tombstones seen gone");
            }
        }
        let gone = self.model.range(self.start..).count() - found.len();
        *self.counts.entry("records compacted away").or_default() += gone as u64;
    }
}

fn run(seed: u64) -> (BTreeMap<&'static str, u64>, u64) {
    let mut run = Run::new(seed);
    for _round in 0..3 {
        if run.random.one_in(2) {
            run.sim.fs.power_off_at(1 + run.random.below(400));
        }
        for _ in 0..100 {
            run.step();
            if run.sim.fs.is_off() {
                run.count("off in mid-call");
                break;
            }
        }
        run.sim.fs.clear_rules();
        run.crash();
    }
    (run.counts, run.sim.fs.history())
}

fn seeds() -> u64 {
    std::env::var("LOGMILL_COMPACTION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(300)
}

#[test]
fn each_key_keeps_its_last_value_over_crashes_and_faults() {
    let mut total: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..seeds() {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let (counts, _) = outcome.unwrap_or_else(|_| panic!("seed {seed} failed; run it alone to debug"));
        for (what, count) in counts {
            *total.entry(what).or_default() += count;
        }
    }
    println!("seeds {}: {total:?}", seeds());
    for what in [
        "compactions that replaced segments",
        "compactions of several passes",
        "starts moved",
        "off in mid-call",
        "off in recovery",
        "kills",
        "records compacted away",
        "tombstones seen gone",
    ] {
        assert!(total.get(what).copied().unwrap_or(0) > 0, "the workload never had: {what}");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [2, 33] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
