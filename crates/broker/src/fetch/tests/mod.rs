//! Readers and transactions. Batches go straight to the partition's log, so that a test decides what is on disk when.

mod committed;
mod model;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use logmill_log::env::{Clock, Scheduler, block_on};
use logmill_log::sim::Sim;
use logmill_log::{Log, Receipt, Step};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, ControlRecord, ControlType, NewRecord, Offset, TimestampMs,
};

use super::{Fetch, FetchFrom, Isolation, PartitionData};
use crate::broker::Broker;
use crate::config::Config;
use crate::context::RequestContext;
use crate::settings::TopicSettings;
use crate::topic::{CreateTopic, Position};

const LONG: Duration = Duration::from_secs(30);
const FLUSH: Duration = Duration::from_secs(1);

/// A broker on a simulated machine, with topic `t` of one partition.
struct Node {
    sim: Sim,
    broker: Broker,
    context: RequestContext,
}

impl Node {
    fn durable(seed: u64) -> Self {
        Self::new(seed, "durable")
    }

    fn relaxed(seed: u64) -> Self {
        Self::new(seed, "relaxed")
    }

    fn new(seed: u64, durability: &str) -> Self {
        let sim = Sim::new(seed);
        let node = Self { broker: open(&sim), sim, context: RequestContext::embedded() };
        let settings = TopicSettings::new([("durability", durability)]).unwrap();
        let create = CreateTopic::new("t").settings(settings);
        node.wait(node.broker.create_topic(&node.context, create)).unwrap();
        node
    }

    fn open_again(&mut self) {
        self.broker.close().unwrap();
        self.broker = open(&self.sim);
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        block_on(&*self.scheduler(), future)
    }

    fn scheduler(&self) -> Arc<dyn Scheduler> {
        Arc::clone(&self.broker.config().env.scheduler)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.broker.config().env.clock)
    }

    fn log(&self) -> Log {
        self.broker.core().catalog.topic("t").unwrap().partition(0).unwrap().log().unwrap()
    }

    /// Written, and not on disk before somebody waits for it.
    fn write(&self, batch: Batch) -> Receipt {
        match self.log().try_append(&[batch]).unwrap() {
            Step::Done(receipt) => receipt,
            Step::Wait(_) => panic!("there is room"),
        }
    }

    fn append(&self, batch: Batch) -> Offset {
        let receipt = self.write(batch);
        let first = receipt.first_offset();
        receipt.wait().unwrap();
        first
    }

    fn fetch(&self, fetch: Fetch) -> PartitionData {
        self.wait(self.broker.fetch(&self.context, fetch)).unwrap().remove(0)
    }

    fn read(&self, from: u64, isolation: Isolation) -> PartitionData {
        self.fetch(Fetch::new(vec![at(from)]).isolation(isolation))
    }

    fn committed(&self, from: u64) -> PartitionData {
        self.read(from, Isolation::ReadCommitted)
    }
}

fn open(sim: &Sim) -> Broker {
    let config = Config { env: sim.env(), reserve_bytes: 0, low_space_bytes: 0, ..Config::new("/data") };
    Broker::open(config).unwrap_or_else(|error| panic!("{error}"))
}

fn at(offset: u64) -> FetchFrom {
    FetchFrom::new("t", 0, Position::Offset(Offset(offset)))
}

fn with(options: BatchOptions, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::with_options(options, 0);
    for value in values {
        let value = Some(value.as_bytes());
        builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value, headers: &[] }).unwrap();
    }
    builder.build().unwrap()
}

/// A batch of no producer.
fn plain(values: &[&str]) -> Batch {
    with(BatchOptions::new(), values)
}

/// A batch in a transaction of this producer, with its first sequence.
fn in_transaction(producer: i64, sequence: i32, values: &[&str]) -> Batch {
    with(BatchOptions::new().producer(producer, 0, sequence).transactional(), values)
}

fn marker(producer: i64, kind: ControlType) -> Batch {
    ControlRecord { kind, coordinator_epoch: 1 }.batch(producer, 0, TimestampMs(6)).unwrap()
}

fn commit(producer: i64) -> Batch {
    marker(producer, ControlType::Commit)
}

fn abort(producer: i64) -> Batch {
    marker(producer, ControlType::Abort)
}

/// Offset and value of each record for the reader.
fn seen(data: &PartitionData) -> Vec<(u64, String)> {
    assert!(data.error.is_none(), "{:?}", data.error);
    let record = |record: Result<super::DecodedRecord, _>| {
        let record = record.unwrap();
        (record.offset.get(), String::from_utf8(record.value.unwrap().to_vec()).unwrap())
    };
    data.records().map(record).collect()
}

fn texts(data: &PartitionData) -> Vec<String> {
    seen(data).into_iter().map(|(_, text)| text).collect()
}

/// Counts how often a future asked to be polled again.
#[derive(Default)]
struct Counter(AtomicU64);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A future that a test polls when it likes.
struct Polled<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    wakes: Arc<Counter>,
}

impl<'a, T> Polled<'a, T> {
    fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self { future: Box::pin(future), wakes: Arc::default() }
    }

    /// Polls it as often as it wants to be, with all that it has asked others to do done, and no time passed.
    fn run(&mut self, sim: &Sim) -> Poll<T> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        let mut context = Context::from_waker(&waker);
        for _ in 0..100 {
            let before = self.wakes();
            if let Poll::Ready(came) = self.future.as_mut().poll(&mut context) {
                return Poll::Ready(came);
            }
            sim.scheduler.run_until_idle();
            if self.wakes() == before {
                return Poll::Pending;
            }
        }
        panic!("it is busy with waiting");
    }

    fn wakes(&self) -> u64 {
        self.wakes.0.load(Ordering::Relaxed)
    }
}
