//! The machine, the broker on it, and what everyone was told.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logmill_broker::{Broker, Config, Reason, RequestContext, Uuid};
use logmill_log::env::{Env, block_on};
use logmill_log::sim::{Sim, SimRandom};

use crate::Tally;
use crate::ledger::Ledger;

/// A call that is under way. It is asked for its answer after each step, so it needs no waker.
pub(crate) type Call<T> = Pin<Box<dyn Future<Output = T>>>;

/// The answer, if it is there.
pub(crate) fn answer<T>(call: &mut Call<T>) -> Option<T> {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

/// A partition by its topic's name.
pub(crate) type Place = (&'static str, u32);

/// What is read, and by groups.
pub(crate) const IN: &str = "in";
/// What is made of it.
pub(crate) const OUT: &str = "out";
/// A topic that comes and goes.
pub(crate) const SIDE: &str = "side";
/// Of the first two, at first.
pub(crate) const PARTITIONS: u32 = 2;
/// What is read grows up to so many.
pub(crate) const MOST_PARTITIONS: u32 = 4;

/// Appends are refused while the disk has less.
const LOW_SPACE_BYTES: u64 = 20_000;
/// A disk that nothing fills: what a simulated one has unless it is told otherwise.
const ALL_BYTES: u64 = 1 << 40;

pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) env: Env,
    pub(crate) broker: Broker,
    pub(crate) context: RequestContext,
    pub(crate) random: SimRandom,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
    pub(crate) lines: Vec<String>,
    /// The topic that is read.
    pub(crate) in_id: Uuid,
    /// How many partitions it has, as far as anybody was told.
    pub(crate) in_partitions: u32,
    /// How many somebody has asked for.
    pub(crate) in_asked: u32,
    /// A group whose members have been told to stop.
    pub(crate) stopped: Option<&'static str>,
    /// The disk has hardly more space than what is on it takes.
    is_tight: bool,
}

fn config(env: &Env) -> Config {
    // Segments of a few batches, so that rolls and sealed segments are part of it.
    let without = Config { reserve_bytes: 0, low_space_bytes: LOW_SPACE_BYTES, ..Config::new("/data") };
    Config { env: env.clone(), segment_bytes: 3_000, ..without }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let sim = Sim::new(seed);
        let env = sim.env();
        let broker = Broker::open(config(&env)).expect("a broker opens on an empty disk");
        Self {
            sim,
            env,
            broker,
            context: RequestContext::embedded(),
            random: SimRandom::new(seed ^ 0x5eed),
            ledger: Ledger::default(),
            tally: Tally::new(),
            lines: Vec::new(),
            in_id: Uuid::nil(),
            in_partitions: PARTITIONS,
            in_asked: PARTITIONS,
            stopped: None,
            is_tight: false,
        }
    }

    /// Opens the broker on what is there; `None` if it cannot, or not all of it.
    pub(crate) fn open(&mut self, faults_before: u64) -> Option<Broker> {
        let opened = Broker::open(config(&self.env));
        let fails = self.sim.fs.faults() > faults_before || self.sim.fs.is_off() || self.is_tight;
        match opened {
            Ok(broker) if broker.open_report().failed.is_empty() => Some(broker),
            Ok(broker) => {
                assert!(fails, "{:?}", broker.open_report().failed);
                self.line(format!("-- not all opens: {:?}", broker.open_report().failed));
                None
            }
            Err(error) => {
                assert!(fails, "{error}");
                self.count("starts that failed");
                self.line(format!("-- it does not start: {error}"));
                None
            }
        }
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

    /// Any partition that transactions write to; most are not of the topic that comes and goes.
    pub(crate) fn place(&self) -> Place {
        match self.below(8) {
            0 => (SIDE, 0),
            1..4 => self.in_place(),
            _ => self.out_place(),
        }
    }

    pub(crate) fn in_place(&self) -> Place {
        (IN, u32::try_from(self.below(self.in_partitions.into())).unwrap())
    }

    pub(crate) fn out_place(&self) -> Place {
        (OUT, u32::try_from(self.below(PARTITIONS.into())).unwrap())
    }

    pub(crate) fn is_stopped(&self, group: &str) -> bool {
        self.stopped == Some(group)
    }

    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.tally.entry(what.into()).or_default() += 1;
    }

    /// Remembers what happened, for whoever looks at a run that failed.
    pub(crate) fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Counts and remembers what somebody was told.
    pub(crate) fn told(&mut self, who: &str, what: &str, outcome: Result<String, Reason>) {
        match outcome {
            Ok(answer) => {
                self.count(format!("{what}: answered"));
                self.line(format!("{who}: {what} answered {answer}"));
            }
            Err(reason) => {
                self.count(format!("{what}: {reason}"));
                self.line(format!("{who}: {what} refused: {reason}"));
            }
        }
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        block_on(&*self.env.scheduler, future)
    }

    /// Runs a step of the broker's background work.
    pub(crate) fn step(&mut self) {
        self.sim.scheduler.step();
    }

    /// Runs everything that falls due within this time.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.sim.scheduler.run_for(time);
    }

    /// Leaves the disk little space, often less than appends are taken with.
    pub(crate) fn take_space(&mut self) {
        let Ok(space) = self.env.fs.space("/data".as_ref()) else { return };
        let used = space.total_bytes - space.available_bytes;
        self.sim.fs.set_capacity_bytes(used + self.below(2 * LOW_SPACE_BYTES));
        self.is_tight = true;
    }

    /// Nothing fails any more, and the power stays on.
    pub(crate) fn calm(&mut self) {
        self.sim.fs.power_off_at(u64::MAX);
        self.sim.fs.clear_rules();
        self.sim.fs.set_capacity_bytes(ALL_BYTES);
        self.is_tight = false;
    }
}
