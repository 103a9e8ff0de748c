//! Power cuts, kills, full disks and failed syncs, simulated: one seed is one run.
//!
//! The oracle: acknowledged ⊆ recovered ⊆ written, contiguous, and what a reader once saw stays.
//! `LOGMILL_CRASH_SEEDS` sets how many seeds are run; a failure prints its seed.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop where it fails"
)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;

use common::{batch, read_all};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{ErrorKind, Log, LogOptions, LogSet, LogState, Receipt, SetOptions, Step};
use logmill_record::Offset;

const DIR: &str = "/data";

/// What is known of one log.
#[derive(Default)]
struct Model {
    /// What was written at each offset since the last recovery, and before it what was recovered.
    written: Vec<u64>,
    /// A group whose append failed while the power went: it may be there, in whole batches.
    maybe: Vec<u64>,
    acknowledged: u64,
    seen: u64,
}

struct Run {
    sim: Sim,
    set: LogSet,
    logs: Vec<(Log, Model)>,
    pending: Vec<(usize, Receipt)>,
    next_value: u64,
    counts: BTreeMap<&'static str, u64>,
}

fn options() -> LogOptions {
    LogOptions::default().segment_bytes(4_000).max_unsynced_bytes(3_000)
}

impl Run {
    fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
        let create = |n| (set.create(format!("log-{n}"), b"", options()).unwrap(), Model::default());
        let logs = (0..3).map(create).collect();
        Self { sim, set, logs, pending: Vec::new(), next_value: 0, counts: BTreeMap::new() }
    }

    fn below(&self, bound: u64) -> u64 {
        self.sim.random().below(bound)
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// One thing that a program might do; false once the machine is off.
    fn step(&mut self) -> bool {
        let which = self.below(self.logs.len() as u64) as usize;
        match self.below(100) {
            0..40 => self.append(which),
            40..75 => drop(self.sim.scheduler.step()),
            75..85 => self.look(which),
            85..88 => {
                let _ = self.logs[which].0.roll();
                self.count("rolls");
            }
            88..90 => {
                let _ = self.logs[which].0.close();
                self.count("closes");
                self.reopen(which);
            }
            90 => {
                self.sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*.log"));
                self.count("failed syncs");
            }
            91 => {
                self.sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*.log"));
                self.count("full disks");
            }
            92 => {
                self.sim.fs.inject(Rule::new(Fault::Short(100)).on(Op::Write).path("*.log"));
                self.count("short writes");
            }
            _ => self.sim.scheduler.run_for(std::time::Duration::from_millis(400)),
        }
        self.collect();
        !self.sim.fs.is_off()
    }

    fn append(&mut self, which: usize) {
        let mut groups = Vec::new();
        let mut values = Vec::new();
        for _ in 0..=self.below(2) {
            let records: Vec<Vec<u8>> = (0..=self.below(3))
                .map(|_| {
                    self.next_value += 1;
                    values.push(self.next_value);
                    let filler = self.below(400) as usize;
                    self.next_value.to_be_bytes().iter().copied().chain(vec![7; filler]).collect()
                })
                .collect();
            groups.push(batch(&records.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        }
        let (log, model) = &mut self.logs[which];
        match log.try_append(&groups) {
            Ok(Step::Done(receipt)) => {
                assert_eq!(receipt.first_offset().get(), model.written.len() as u64);
                model.written.extend(values);
                self.pending.push((which, receipt));
                self.count("appends");
            }
            Ok(Step::Wait(_)) => self.count("waits"),
            Err(error) => match error.kind() {
                // A fault may have kept it from being opened again.
                ErrorKind::Poisoned | ErrorKind::Closed => self.reopen(which),
                _ if self.sim.fs.is_off() => model.maybe = values,
                ErrorKind::OutcomeUnknown => {
                    model.maybe = values;
                    self.reopen(which);
                }
                ErrorKind::Full => self.count("refused: full"),
                kind => panic!("{kind:?}: {error}"),
            },
        }
    }

    /// Notes which receipts have resolved.
    fn collect(&mut self) {
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let logs = &mut self.logs;
        self.pending.retain_mut(|(which, receipt)| {
            match std::pin::Pin::new(&mut *receipt).poll(&mut context) {
                std::task::Poll::Pending => true,
                std::task::Poll::Ready(outcome) => {
                    if outcome.is_ok() {
                        let model = &mut logs[*which].1;
                        model.acknowledged = model.acknowledged.max(receipt.last_offset().get() + 1);
                    }
                    false
                }
            }
        });
    }

    /// A reader looks at everything there is.
    fn look(&mut self, which: usize) {
        let (log, model) = &mut self.logs[which];
        let records = match read_all(log, Offset(0)) {
            Ok(records) => records,
            Err(error) => {
                let dead = self.sim.fs.is_off() || matches!(log.stats().state, LogState::Closed);
                assert!(dead, "a healthy log reads: {error}");
                return;
            }
        };
        check(&records, &model.written, "a reader");
        model.seen = model.seen.max(records.len() as u64);
    }

    /// Opens a log that was closed or poisoned again, in the same process.
    fn reopen(&mut self, which: usize) {
        if self.sim.fs.is_off() {
            return;
        }
        self.collect();
        match self.set.open_log(format!("log-{which}"), options()) {
            Ok(log) => {
                self.pending.retain(|(owner, _)| *owner != which);
                self.logs[which].0 = log;
                self.recovered(which);
                self.count("reopened");
            }
            Err(_) => {
                assert!(self.sim.fs.is_off() || self.sim.fs.faults() > 0, "only a fault keeps a log shut");
            }
        }
    }

    /// Takes the power away, opens everything again, and holds it against the model.
    fn crash(&mut self, kill: bool) {
        self.collect();
        self.pending.clear();
        self.count(if kill { "kills" } else { "power cuts" });
        let mut env = if kill { self.sim.kill() } else { self.sim.crash() };
        // The power may go again in the middle of recovery.
        while let Err(error) = self.open_all(env) {
            assert!(self.sim.fs.is_off(), "recovery failed with the power on: {error}");
            self.count("off in recovery");
            env = self.sim.crash();
        }
        (0..self.logs.len()).for_each(|which| self.recovered(which));
    }

    fn open_all(&mut self, env: logmill_log::env::Env) -> Result<(), logmill_log::Error> {
        self.set = LogSet::open(DIR, SetOptions::new(env))?;
        for which in 0..self.logs.len() {
            self.logs[which].0 = self.set.open_log(PathBuf::from(format!("log-{which}")), options())?;
        }
        Ok(())
    }

    fn recovered(&mut self, which: usize) {
        let (log, model) = &mut self.logs[which];
        let state = log.stats().state;
        assert!(matches!(state, LogState::Open), "log {which}: {state:?}");
        let records = read_all(log, Offset(0)).unwrap();
        let len = records.len() as u64;
        assert!(len >= model.acknowledged, "log {which}: {len} of {} acknowledged", model.acknowledged);
        assert!(len >= model.seen, "log {which}: {len} of {} that a reader saw", model.seen);
        let mut written = std::mem::take(&mut model.written);
        written.append(&mut model.maybe);
        check(&records, &written, "recovery");
        written.truncate(records.len());
        model.written = written;
        model.acknowledged = len;
        model.seen = len;
    }
}

fn check(records: &[(Offset, Vec<u8>)], written: &[u64], who: &str) {
    assert!(records.len() <= written.len(), "{who} found {} of {} written", records.len(), written.len());
    for (n, (offset, value)) in records.iter().enumerate() {
        assert_eq!(offset.get(), n as u64, "{who}: contiguous");
        let id = u64::from_be_bytes(*value.first_chunk().unwrap());
        assert_eq!(id, written[n], "{who}: the record at {n} is the one that was written");
    }
}

/// Runs one seed; returns its counts and a fingerprint of all that happened to the disk.
fn run(seed: u64, prepare: impl Fn(&Sim)) -> (BTreeMap<&'static str, u64>, u64) {
    let mut run = Run::new(seed);
    prepare(&run.sim);
    for _round in 0..4 {
        let steps = 20 + run.below(120);
        if run.below(2) == 0 {
            let within = 1 + run.below(150);
            run.sim.fs.power_off_at(within);
        }
        for _ in 0..steps {
            if !run.step() {
                run.count("off in mid-call");
                break;
            }
        }
        run.sim.fs.clear_rules();
        let kill = !run.sim.fs.is_off() && run.below(3) == 0;
        run.crash(kill);
    }
    (run.counts, run.sim.fs.history())
}

fn seeds() -> u64 {
    std::env::var("LOGMILL_CRASH_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(400)
}

#[test]
fn nothing_acknowledged_or_seen_is_lost_by_power_cuts_kills_and_faults() {
    let mut total: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in 0..seeds() {
        let outcome = std::panic::catch_unwind(|| run(seed, |_| ()));
        let (counts, _) = outcome.unwrap_or_else(|_| panic!("seed {seed} failed; run it alone to debug"));
        for (what, count) in counts {
            *total.entry(what).or_default() += count;
        }
    }
    println!("seeds {}: {total:?}", seeds());
    for what in
        ["appends", "rolls", "power cuts", "kills", "off in mid-call", "failed syncs", "reopened", "waits"]
    {
        assert!(total.get(what).copied().unwrap_or(0) > 0, "the workload never had: {what}");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 77, 4242] {
        assert_eq!(run(seed, |_| ()), run(seed, |_| ()), "seed {seed}");
    }
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    let caught = (0..40)
        .filter(|seed| std::panic::catch_unwind(|| run(*seed, |sim| sim.fs.lie_about_sync(true))).is_err());
    let caught = caught.count();
    assert!(caught > 20, "only {caught} of 40 runs noticed that nothing was ever synced");
}
