//! A set of logs of every kind on a simulated machine, and what a program might do with them.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_log::env::Env;
use logmill_log::sim::{Sim, SimRandom};
use logmill_log::{
    CompactionOptions, Durability, Error, ErrorKind, Log, LogOptions, LogSet, ReadMode, SetOptions,
};

use crate::model::{Kind, Model};
use crate::writing::{Awaited, Writer};

pub(crate) const DIR: &str = "/data";
pub(crate) const KINDS: [Kind; 5] =
    [Kind::Plain, Kind::Retained, Kind::Compacted, Kind::Relaxed, Kind::Transactional];
/// What retention keeps at least of the second log.
pub(crate) const RETAINED_BYTES: u64 = 9_000;
/// Writers of each log.
pub(crate) const WRITERS: usize = 3;

pub(crate) struct Run {
    pub(crate) sim: Sim,
    pub(crate) random: SimRandom,
    pub(crate) set: Option<LogSet>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) receipts: Vec<Awaited>,
    pub(crate) writers: Vec<Writer>,
    pub(crate) next_id: u64,
    pub(crate) budgets: Budgets,
    /// How many faults had struck when the program began.
    pub(crate) faults_before: u64,
    /// A file that can be made again from the data was harmed, or could perhaps not be written.
    pub(crate) is_sidecar_lost: bool,
    pub(crate) counts: BTreeMap<String, u64>,
}

/// A log, which may not be open, and what is known of it.
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) log: Option<Log>,
    pub(crate) model: Model,
}

/// What the logs share, and how they are read.
#[derive(Clone, Copy)]
pub(crate) struct Budgets {
    open_files: usize,
    dirty_bytes: u64,
    maps: usize,
    read_mode: ReadMode,
    pub(crate) reserve_bytes: u64,
    low_bytes: u64,
}

impl Budgets {
    fn draw(random: &SimRandom) -> Self {
        let one_in = |n| random.one_in(n);
        Self {
            open_files: if one_in(2) { 512 } else { 2 + usize::from(one_in(2)) },
            dirty_bytes: if one_in(2) { 256 << 20 } else { 2_500 + random.below(4_000) },
            maps: if one_in(2) { 8_192 } else { 1 },
            read_mode: if one_in(3) { ReadMode::Copy } else { ReadMode::Map },
            reserve_bytes: if one_in(3) { 6_000 } else { 0 },
            low_bytes: if one_in(3) { 3_000 } else { 0 },
        }
    }

    pub(crate) fn options(&self, env: Env) -> SetOptions {
        SetOptions::new(env)
            .maintenance_interval(Duration::from_secs(1))
            .max_open_files(self.open_files)
            .max_dirty_bytes(self.dirty_bytes)
            .max_maps(self.maps)
            .read_mode(self.read_mode)
            .reserve_bytes(self.reserve_bytes)
            .low_space_bytes(self.low_bytes)
    }
}

pub(crate) fn options(kind: Kind) -> LogOptions {
    // The clock jumps, and producers are to be known all the same.
    let expiry = Duration::from_secs(365 * 24 * 60 * 60);
    let options =
        LogOptions::default().segment_bytes(3_000).max_unsynced_bytes(3_000).producer_expiry(expiry);
    match kind {
        Kind::Plain => options,
        Kind::Retained => {
            options.retention_bytes(Some(RETAINED_BYTES)).segment_age(Some(Duration::from_secs(3)))
        }
        Kind::Compacted => options.compaction(Some(CompactionOptions::default())),
        Kind::Relaxed => {
            options.durability(Durability::Relaxed { flush_interval: Duration::from_millis(700) })
        }
        Kind::Transactional => options.segment_bytes(2_000),
    }
}

impl Run {
    /// A machine with an empty disk; `workload` decides what is done, the machine's own seed the
    /// rest.
    pub(crate) fn new(sim: Sim, workload: u64) -> Self {
        let random = SimRandom::new(workload ^ 0x5eed);
        let slot = |(n, kind): (usize, &Kind)| Slot {
            name: format!("log-{n}"),
            log: None,
            model: Model::new(*kind),
        };
        let writer = |n: usize| Writer { which: n / WRITERS, nth: n % WRITERS, waiting: None };
        Self {
            budgets: Budgets::draw(&random),
            slots: KINDS.iter().enumerate().map(slot).collect(),
            writers: (0..KINDS.len() * WRITERS).map(writer).collect(),
            sim,
            random,
            set: None,
            receipts: Vec::new(),
            next_id: 0,
            faults_before: 0,
            is_sidecar_lost: false,
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(crate) fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    pub(crate) fn log(&self, which: usize) -> Option<Log> {
        self.slots[which].log.clone()
    }

    /// Whether a fault has struck since the program began.
    pub(crate) fn is_struck(&self) -> bool {
        self.sim.fs.faults() > self.faults_before
    }

    /// Whether a call may fail like this, when so many faults had struck before it.
    pub(crate) fn excuses(&self, error: &Error, before: u64) -> bool {
        self.sim.fs.is_off()
            || self.sim.fs.faults() > before
            || (error.kind() == ErrorKind::Full && self.is_tight())
    }

    /// One thing that a program might do; false once the machine is off.
    pub(crate) fn step(&mut self, faults: bool) -> bool {
        let which = self.index(KINDS.len());
        match self.below(200) {
            0..72 => self.append(which),
            72..134 => drop(self.sim.scheduler.step()),
            134..148 => self.look(which),
            148..153 => self.roll(which),
            153..156 => self.trim(),
            156..160 => self.retain(),
            160..166 => self.compact(),
            166..170 => self.close_one(which),
            170..172 => self.open_twice(which),
            172..174 => self.settle(),
            174 => self.idle(),
            175..190 if faults => self.trouble(which),
            _ => self.sim.scheduler.run_for(Duration::from_millis(400)),
        }
        self.collect();
        self.resume();
        !self.sim.fs.is_off()
    }
}
