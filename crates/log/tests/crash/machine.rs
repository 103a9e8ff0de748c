//! A set of logs of every kind on a simulated machine, what is done to them, and how it ends.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logmill_log::env::Env;
use logmill_log::sim::{Fault, Op, Rule, Sim, SimRandom};
use logmill_log::{
    CompactionOptions, Durability, Error, ErrorKind, Log, LogOptions, LogSet, LogState, Receipt, SetOptions,
    Step,
};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

use crate::model::{End, Entry, Kind, Model};

pub(crate) const DIR: &str = "/data";
const KINDS: [Kind; 4] = [Kind::Plain, Kind::Retained, Kind::Compacted, Kind::Relaxed];
/// What retention keeps at least of the second log.
const RETAINED_BYTES: u64 = 9_000;

pub(crate) struct Run {
    pub(crate) sim: Sim,
    pub(crate) random: SimRandom,
    set: LogSet,
    logs: Vec<(Log, Model)>,
    pending: Vec<(usize, Receipt)>,
    next_id: u64,
    pub(crate) counts: BTreeMap<String, u64>,
}

fn options(which: usize) -> LogOptions {
    let options = LogOptions::default().segment_bytes(3_000).max_unsynced_bytes(3_000);
    match which {
        0 => options,
        1 => options.retention_bytes(Some(RETAINED_BYTES)).segment_age(Some(Duration::from_secs(3))),
        2 => options.compaction(Some(CompactionOptions::default())),
        _ => options.durability(Durability::Relaxed { flush_interval: Duration::from_millis(700) }),
    }
}

fn set_options(env: Env) -> SetOptions {
    SetOptions::new(env).maintenance_interval(Duration::from_secs(1))
}

fn name(which: usize) -> String {
    format!("log-{which}")
}

impl Run {
    /// A machine with empty logs; `workload` decides what is done, the machine's own seed the rest.
    pub(crate) fn new(sim: Sim, workload: u64) -> Self {
        let set = LogSet::open(DIR, set_options(sim.env())).unwrap();
        let create =
            |(n, kind): (usize, &Kind)| (set.create(name(n), b"", options(n)).unwrap(), Model::new(*kind));
        let logs = KINDS.iter().enumerate().map(create).collect();
        let random = SimRandom::new(workload ^ 0x5eed);
        Self { sim, random, set, logs, pending: Vec::new(), next_id: 0, counts: BTreeMap::new() }
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// One thing that a program might do; false once the machine is off.
    pub(crate) fn step(&mut self, faults: bool) -> bool {
        let which = usize::try_from(self.below(KINDS.len() as u64)).unwrap();
        match self.below(100) {
            0..36 => self.append(which),
            36..68 => drop(self.sim.scheduler.step()),
            68..76 => self.look(which),
            76..79 => {
                let _ = self.logs[which].0.roll();
                self.count("rolls");
            }
            79..81 => self.trim(which),
            81..83 => self.retain(),
            83..86 => self.compact(),
            86..88 => {
                let _ = self.logs[which].0.close();
                self.count("closes");
                self.reopen(which);
            }
            88 => self.open_twice(which),
            89..95 if faults => self.fault(which),
            _ => self.sim.scheduler.run_for(Duration::from_millis(400)),
        }
        self.collect();
        !self.sim.fs.is_off()
    }

    fn append(&mut self, which: usize) {
        let epoch = self.logs[which].0.stats().epoch;
        let mut entries = Vec::new();
        let groups: Vec<Batch> = (0..=self.below(2)).map(|_| self.batch(epoch, &mut entries)).collect();
        let (log, model) = &mut self.logs[which];
        match log.try_append(&groups) {
            Ok(Step::Done(receipt)) => {
                assert_eq!(receipt.first_offset().get(), model.written.len() as u64);
                model.written.extend(entries);
                self.pending.push((which, receipt));
                self.count("appends");
            }
            Ok(Step::Wait(_)) => self.count("waits"),
            Err(error) => match error.kind() {
                // A fault may have kept it from being opened again.
                ErrorKind::Poisoned | ErrorKind::Closed => self.reopen(which),
                _ if self.sim.fs.is_off() => model.maybe = entries,
                ErrorKind::OutcomeUnknown => {
                    model.maybe = entries;
                    self.reopen(which);
                }
                ErrorKind::Full => self.count("refused: full"),
                kind => panic!("{kind:?}: {error}"),
            },
        }
    }

    fn batch(&mut self, epoch: i32, entries: &mut Vec<Entry>) -> Batch {
        let mut batch = BatchBuilder::new();
        for _ in 0..=self.below(3) {
            self.next_id += 1;
            let entry = Entry { id: self.next_id, key: u8::try_from(self.below(5)).unwrap(), epoch };
            entries.push(entry);
            let filler = usize::try_from(self.below(350)).unwrap();
            let value: Vec<u8> = entry.id.to_be_bytes().iter().copied().chain(vec![7; filler]).collect();
            let (timestamp, key) = (TimestampMs(1_000), [entry.key]);
            batch.push(&NewRecord { timestamp, key: Some(&key), value: Some(&value), headers: &[] }).unwrap();
        }
        batch.build().unwrap()
    }

    /// Notes which receipts have resolved.
    pub(crate) fn collect(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let logs = &mut self.logs;
        self.pending.retain_mut(|(which, receipt)| match Pin::new(&mut *receipt).poll(&mut context) {
            Poll::Pending => true,
            Poll::Ready(outcome) => {
                let model = &mut logs[*which].1;
                match outcome {
                    Ok(_) => {
                        model.acknowledged = model.acknowledged.max(receipt.last_offset().get() + 1);
                    }
                    Err(_) => model.failed = true,
                }
                false
            }
        });
    }

    /// A reader looks at everything there is.
    fn look(&mut self, which: usize) {
        let (log, model) = &mut self.logs[which];
        if let Err(error) = model.look(log) {
            let dead = self.sim.fs.is_off() || !matches!(log.stats().state, LogState::Open);
            assert!(dead, "a healthy log reads: {error}");
        }
        self.count("looks");
    }

    /// Moves the start of the first log to somewhere in the half that readers have seen.
    fn trim(&mut self, which: usize) {
        let half = |log: &Log| log.start_offset().get().midpoint(log.end_offset().get());
        let (log, model) = &mut self.logs[which];
        let to = half(log);
        model.most_start = model.most_start.max(to);
        if let Ok(start) = log.set_start_offset(Offset(to)) {
            model.start = model.start.max(start.get());
            self.count("trims");
        }
    }

    /// Applies retention to the log that has some.
    fn retain(&mut self) {
        let (log, model) = &mut self.logs[1];
        let before = log.stats().stored_bytes;
        if let Ok(start) = log.apply_retention() {
            model.start = model.start.max(start.get());
            let kept = log.stats().stored_bytes;
            assert!(kept == before || kept >= RETAINED_BYTES, "{kept} of {before} bytes are kept");
            self.count("retentions");
        }
    }

    fn compact(&mut self) {
        match self.logs[2].0.compact() {
            Ok(done) if done.segments > 0 => self.count("compactions"),
            Ok(_) => self.count("nothing to compact"),
            Err(error) => {
                let alive = !self.sim.fs.is_off() && self.sim.fs.faults() == 0;
                assert!(!alive || error.kind() == ErrorKind::Closed, "compaction fails: {error}");
            }
        }
    }

    /// Who opens what is open gets the same log, and nobody else the directory.
    fn open_twice(&mut self, which: usize) {
        let locked = LogSet::open(DIR, set_options(self.sim.env())).map(drop).unwrap_err();
        assert!(self.sim.fs.is_off() || locked.kind() == ErrorKind::Locked, "{locked}");
        if let Ok(log) = self.set.open_log(name(which), options(which))
            && matches!(self.logs[which].0.stats().state, LogState::Open)
        {
            assert_eq!(log.written_end(), self.logs[which].0.written_end(), "one log, two handles");
        }
        self.count("second opens");
    }

    fn fault(&mut self, which: usize) {
        let (what, rule) = match self.below(6) {
            0 => ("failed syncs", Rule::new(Fault::Io).on(Op::SyncData).path("*.log")),
            1 => {
                ("failed directory syncs", Rule::new(Fault::Io).on(Op::SyncDir).path(format!("*log-{which}")))
            }
            2 => ("full disks", Rule::new(Fault::NoSpace).on(Op::Write).on(Op::Create).path("*/log-*")),
            3 => ("short writes", Rule::new(Fault::Short(100)).on(Op::Write).path("*.log")),
            4 => {
                self.sim.fs.inject(Rule::new(Fault::Short(150)).on(Op::Write).path("*.log"));
                ("writes cut off by a full disk", Rule::new(Fault::NoSpace).on(Op::Write).path("*.log"))
            }
            _ => {
                self.sim.fs.drop_caches();
                self.count("dropped caches");
                return;
            }
        };
        self.sim.fs.inject(rule);
        self.count(what);
    }

    /// Opens a log that was closed or poisoned again, in the same process.
    fn reopen(&mut self, which: usize) {
        if self.sim.fs.is_off() {
            return;
        }
        self.collect();
        match self.set.open_log(name(which), options(which)) {
            Ok(log) => {
                self.pending.retain(|(owner, _)| *owner != which);
                self.logs[which].0 = log;
                let (log, model) = &mut self.logs[which];
                model.recovered(log, &name(which), End::Reopen);
                self.count("reopened");
            }
            Err(error) => {
                let excused = self.sim.fs.is_off() || self.sim.fs.faults() > 0;
                assert!(excused, "only a fault keeps a log shut: {error}");
            }
        }
    }

    /// Ends the program, by power or by a kill, opens everything again, and holds it against the
    /// model.
    pub(crate) fn end(&mut self, how: End, hard: bool) {
        self.collect();
        self.pending.clear();
        self.sim.fs.clear_rules();
        for (_, model) in &mut self.logs {
            model.failed |= self.sim.fs.faults() > 0;
        }
        let mut how = how;
        let mut env = self.sim.kill();
        if how == End::Power || self.sim.fs.is_off() {
            how = End::Power;
            env = self.sim.crash();
        }
        if hard {
            self.damage_a_sidecar();
            self.fail_in_recovery();
        }
        for attempt in 0.. {
            let Err(error) = self.open_all(env) else { break };
            assert!(attempt < 3, "recovery goes on failing: {error}");
            if self.sim.fs.is_off() {
                self.count("ends in recovery");
                how = End::Power;
                env = self.sim.crash();
            } else {
                assert!(self.sim.fs.faults() > 0, "recovery failed: {error}");
                self.count("faults in recovery");
                self.sim.fs.clear_rules();
                env = self.sim.kill();
            }
        }
        self.sim.fs.clear_rules();
        for (which, (log, model)) in self.logs.iter_mut().enumerate() {
            model.recovered(log, &name(which), how);
        }
    }

    /// What is rebuilt from the data may be missing or wrong.
    fn damage_a_sidecar(&mut self) {
        let sidecars: Vec<PathBuf> = self
            .sim
            .fs
            .files()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|e| e == "index" || e == "state"))
            .collect();
        if sidecars.is_empty() || self.below(3) > 0 {
            return;
        }
        let path = &sidecars[usize::try_from(self.below(sidecars.len() as u64)).unwrap()];
        let len = self.sim.fs.read_file(path).unwrap().len() as u64;
        match self.below(3) {
            0 => {
                // Refused if this is where the power goes.
                let _ = self.sim.env().fs.remove_file(path);
                self.count("sidecars deleted");
            }
            1 => {
                self.sim.fs.truncate(path, self.below(len.max(1))).unwrap();
                self.count("sidecars cut");
            }
            _ => {
                let (at, bit) = (self.below(len.max(1)), u8::try_from(self.below(8)).unwrap());
                if len > 0 {
                    self.sim.fs.flip(path, at, bit).unwrap();
                }
                self.count("sidecars flipped");
            }
        }
    }

    /// Recovery may meet the end of the power again, a full disk, or a broken one.
    fn fail_in_recovery(&mut self) {
        let nth = 1 + self.below(30);
        match self.below(8) {
            0 | 1 => self.sim.fs.power_off_at(nth),
            2 => self.sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).on(Op::Create).nth(nth).times(2)),
            3 => self.sim.fs.inject(Rule::new(Fault::Io).on(Op::Read).nth(nth)),
            4 => self.sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).on(Op::SyncDir).nth(nth)),
            _ => {}
        }
    }

    /// Opens all. A log that a fault has made read-only is opened once more in the same process.
    fn open_all(&mut self, env: Env) -> Result<(), Error> {
        self.set = LogSet::open(DIR, set_options(env))?;
        for which in 0..self.logs.len() {
            let log = self.set.open_log(Path::new(&name(which)), options(which))?;
            self.logs[which].0 = log;
            if let LogState::ReadOnly(error) = self.logs[which].0.stats().state {
                assert_eq!(error.kind(), ErrorKind::ReadOnly, "only a fault makes it so: {error}");
                self.sim.fs.clear_rules();
                let _ = self.logs[which].0.close();
                self.logs[which].0 = self.set.open_log(name(which), options(which))?;
                self.count("read-only, then opened again");
            }
        }
        Ok(())
    }
}
