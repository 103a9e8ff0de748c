//! What the tests of the broker share.

pub(crate) mod hook_fs;
pub(crate) mod members;

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use logmill_broker::{
    Acks, Appended, Broker, Config, CreateTopic, Error, Fetch, FetchFrom, PartitionData, Payload, Position,
    Produce, ProduceRecord, ProduceResult, RequestContext, Topic,
};
use logmill_log::env::{Env, Scheduler, block_on};
use logmill_log::sim::Sim;
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

/// A broker and the means to wait for it.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) broker: Broker,
    scheduler: Arc<dyn Scheduler>,
    pub(crate) context: RequestContext,
}

impl Node {
    pub(crate) fn open(config: Config) -> Self {
        Self::of(Broker::open(config).unwrap_or_else(|error| panic!("{error}")))
    }

    pub(crate) fn of(broker: Broker) -> Self {
        let scheduler = Arc::clone(&broker.config().env.scheduler);
        Self { broker, scheduler, context: RequestContext::embedded() }
    }

    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        block_on(&*self.scheduler, future)
    }

    pub(crate) fn create(&self, name: &str, partitions: u32) -> Result<Topic, Error> {
        self.wait(self.broker.create_topic(&self.context, CreateTopic::new(name).partitions(partitions)))
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), Error> {
        self.wait(self.broker.delete_topic(&self.context, name))
    }

    pub(crate) fn produce(&self, produce: Produce) -> Result<Vec<ProduceResult>, Error> {
        self.wait(self.broker.produce(&self.context, produce))
    }

    /// Appends one record to a partition, durably.
    pub(crate) fn say(&self, topic: &str, partition: u32, value: &str) -> Result<Appended, Error> {
        self.produce(records(topic, Some(partition), [value]))?.remove(0).outcome
    }

    pub(crate) fn fetch(&self, fetch: Fetch) -> Result<Vec<PartitionData>, Error> {
        self.wait(self.broker.fetch(&self.context, fetch))
    }

    /// Everything in a partition that is committed, as text.
    pub(crate) fn read_all(&self, topic: &str, partition: u32) -> Result<Vec<String>, Error> {
        let mut position = Position::Earliest;
        let mut values = Vec::new();
        loop {
            let data = self.fetch(Fetch::new(vec![FetchFrom::new(topic, partition, position)]))?.remove(0);
            if let Some(error) = data.error {
                return Err(error);
            }
            values.extend(text(&data));
            if data.next_offset == data.last_stable_offset {
                return Ok(values);
            }
            position = Position::Offset(data.next_offset);
        }
    }

    pub(crate) fn end(&self, topic: &str, partition: u32) -> Offset {
        let described = self.wait(self.broker.describe_topic(&self.context, topic)).unwrap();
        described.partitions[partition as usize].end_offset
    }
}

/// The batches of a partition, as they are stored.
pub(crate) fn read_batches(node: &Node, topic: &str, partition: u32) -> Vec<Batch> {
    let from = FetchFrom::new(topic, partition, Position::Earliest);
    let data = node.fetch(Fetch::new(vec![from])).unwrap().remove(0);
    let mut batches = Vec::new();
    for mut chunk in data.chunks.into_iter().map(|chunk| chunk.batches) {
        while let Some(batch) = Batch::split_from(&mut chunk).unwrap() {
            batches.push(batch);
        }
    }
    batches
}

/// The values of what was read, as text, from the offset asked for.
pub(crate) fn text(data: &PartitionData) -> Vec<String> {
    data.records()
        .map(|record| String::from_utf8_lossy(&record.unwrap().value.unwrap_or_default()).into_owned())
        .collect()
}

/// The defaults, but for what is held back of the disk: 16 MiB are written for each node that has it.
pub(crate) fn small(dir: impl Into<PathBuf>) -> Config {
    Config { reserve_bytes: 0, low_space_bytes: 0, ..Config::new(dir) }
}

/// Of a node on a simulated machine.
pub(crate) fn on(sim: &Sim) -> Config {
    Config { env: sim.env(), ..small("/data") }
}

/// A node on a simulated machine.
pub(crate) fn simulated(sim: &Sim) -> Node {
    Node::open(on(sim))
}

/// What comes of it, unless the power goes before.
pub(crate) fn until_off<T>(sim: &Sim, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    while !sim.fs.is_off() {
        if let Poll::Ready(came) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(came);
        }
        sim.scheduler.run_for(Duration::from_millis(1));
    }
    None
}

pub(crate) fn config(dir: &tempfile::TempDir) -> Config {
    small(dir.path())
}

pub(crate) fn with_env(dir: &tempfile::TempDir, env: Env) -> Config {
    Config { env, ..small(dir.path()) }
}

pub(crate) fn record(value: impl AsRef<[u8]>) -> ProduceRecord {
    ProduceRecord { value: Some(Bytes::copy_from_slice(value.as_ref())), ..ProduceRecord::default() }
}

pub(crate) fn keyed(key: &str, value: &str) -> ProduceRecord {
    ProduceRecord { key: Some(Bytes::copy_from_slice(key.as_bytes())), ..record(value) }
}

pub(crate) fn records<V: AsRef<[u8]>>(
    topic: &str,
    partition: Option<u32>,
    values: impl IntoIterator<Item = V>,
) -> Produce {
    Produce {
        topic: topic.into(),
        partition,
        payload: Payload::Records(values.into_iter().map(record).collect()),
        acks: Acks::Durable,
        sent_at: None,
    }
}

pub(crate) fn batch<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Batch {
    let mut builder = BatchBuilder::new();
    for value in values {
        let record =
            NewRecord { timestamp: TimestampMs(1_000), key: None, value: Some(value.as_ref()), headers: &[] };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

pub(crate) fn produce_batch(topic: &str, partition: u32, bytes: Bytes) -> Produce {
    Produce {
        topic: topic.into(),
        partition: Some(partition),
        payload: Payload::Batch(bytes),
        acks: Acks::Durable,
        sent_at: None,
    }
}

/// The failure of the only partition of a request, or of the request.
pub(crate) fn failure(node: &Node, produce: Produce) -> Error {
    match node.produce(produce) {
        Ok(mut results) => results.remove(0).outcome.unwrap_err(),
        Err(error) => error,
    }
}
