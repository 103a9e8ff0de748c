//! The machine, the broker on it, and what is told of them.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logmill_broker::{Broker, Config, Error, Reason, RequestContext, Uuid};
use logmill_log::env::{Env, block_on};
use logmill_log::sim::{Sim, SimRandom};

use crate::history::{Cut, History, Place};

/// A call that is under way. It is asked for its answer after each step, so it needs no waker.
pub(crate) type Call<T> = Pin<Box<dyn Future<Output = T>>>;

/// The answer, if it is there.
pub(crate) fn answer<T>(call: &mut Call<T>) -> Option<T> {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) env: Env,
    pub(crate) broker: Broker,
    pub(crate) context: RequestContext,
    pub(crate) random: SimRandom,
    pub(crate) history: History,
    pub(crate) topics: Vec<Topic>,
    /// Partitions of which files are about to fail, so that what is only written there may be lost.
    pub(crate) suspects: BTreeSet<Place>,
    /// Partitions of which files have failed since the broker was opened.
    failed: BTreeSet<Place>,
    /// How many faults had struck when that was told last.
    struck: u64,
    /// The disk has hardly more space than what is on it takes.
    is_tight: bool,
}

/// What is known of a topic.
pub(crate) struct Topic {
    pub(crate) name: &'static str,
    pub(crate) id: Uuid,
    pub(crate) partitions: u32,
    pub(crate) compacted: bool,
}

/// Appends are refused while the disk has less.
const LOW_SPACE_BYTES: u64 = 20_000;
/// A disk that nothing fills: what a simulated one has unless it is told otherwise.
const ALL_BYTES: u64 = 1 << 40;

/// No topic gets more partitions.
pub(crate) const MOST_PARTITIONS: u32 = 4;

fn config(env: &Env) -> Config {
    // Segments of a few batches, so that rolls and sealed segments are part of it.
    let without = Config { reserve_bytes: 0, low_space_bytes: LOW_SPACE_BYTES, ..Config::new("/data") };
    Config { env: env.clone(), segment_bytes: 3_000, ..without }
}

impl World {
    /// A broker without topics on an empty disk.
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let env = sim.env();
        let random = SimRandom::new(seed ^ 0x5eed);
        let broker = Broker::open(config(&env)).expect("a broker opens on an empty disk");
        Self {
            sim,
            env,
            broker,
            context: RequestContext::embedded(),
            random,
            history: History::new(),
            topics: Vec::new(),
            suspects: BTreeSet::new(),
            failed: BTreeSet::new(),
            struck: 0,
            is_tight: false,
        }
    }

    /// Opens the broker on what is there; `None` if it cannot, or not all of it.
    pub(crate) fn open(&self) -> Option<Broker> {
        let broker = Broker::open(config(&self.env)).ok()?;
        let failed = &broker.open_report().failed;
        if !failed.is_empty() {
            let fails = self.sim.fs.faults() > self.struck || self.sim.fs.is_off() || self.is_tight;
            assert!(fails, "{failed:?}");
            return None;
        }
        Some(broker)
    }

    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(crate) fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap()
    }

    pub(crate) fn one_in(&self, n: u64) -> bool {
        self.random.one_in(n)
    }

    pub(crate) fn any<'a, T>(&self, of: &'a mut [T]) -> &'a mut T {
        &mut of[self.index(of.len())]
    }

    pub(crate) fn topic(&self, name: &str) -> &Topic {
        self.topics.iter().find(|topic| topic.name == name).expect("it is used")
    }

    /// Counts what somebody was told, of which a run is to have some.
    pub(crate) fn note(&self, error: &Error) {
        match error.reason() {
            Reason::DiskFull => self.history.fault("told: disk full"),
            Reason::LogTruncated => self.history.fault("told: log truncated"),
            _ => {}
        }
    }

    /// Leaves the disk little space, often less than appends are taken with.
    pub(crate) fn take_space(&mut self) {
        let Ok(space) = self.env.fs.space("/data".as_ref()) else { return };
        let used = space.total_bytes - space.available_bytes;
        self.sim.fs.set_capacity_bytes(used + self.below(2 * LOW_SPACE_BYTES));
        self.is_tight = true;
        self.history.fault("little space");
    }

    pub(crate) fn give_space_back(&mut self) {
        self.sim.fs.set_capacity_bytes(ALL_BYTES);
        self.is_tight = false;
    }

    /// Any partition.
    pub(crate) fn place(&self) -> Place {
        let topic = &self.topics[self.index(self.topics.len())];
        Place::new(topic.name, u32::try_from(self.below(topic.partitions.into())).unwrap())
    }

    /// Every partition.
    pub(crate) fn places(&self) -> Vec<Place> {
        let of = |topic: &Topic| {
            let name = topic.name;
            (0..topic.partitions).map(move |partition| Place::new(name, partition))
        };
        self.topics.iter().flat_map(of).collect()
    }

    /// Where the files of a partition are.
    pub(crate) fn dir(&self, place: &Place) -> String {
        format!("/data/topics/{}/{}", self.topic(&place.topic).id, place.partition)
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        block_on(&*self.env.scheduler, future)
    }

    /// Runs a step of the broker's background work; false if there is none.
    pub(crate) fn step(&mut self) -> bool {
        let ran = self.sim.scheduler.step();
        self.tell_of_faults();
        ran
    }

    /// Runs everything that falls due within this time.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.sim.scheduler.run_for(time);
        self.tell_of_faults();
    }

    /// Tells of what faults may have taken, before anything else is sent.
    pub(crate) fn tell_of_faults(&mut self) {
        if self.sim.fs.faults() > self.struck {
            self.struck = self.sim.fs.faults();
            for place in &self.suspects {
                self.history.cut(&Cut::FailedSync(place.clone()));
            }
            self.failed.extend(self.suspects.iter().cloned());
        }
    }

    /// The broker ends: what has failed is not shown to readers any more.
    pub(crate) fn forget_what_failed(&mut self) {
        for place in std::mem::take(&mut self.failed) {
            self.history.cut(&Cut::FailedSync(place));
        }
    }
}
