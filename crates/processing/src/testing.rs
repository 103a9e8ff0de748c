//! What the engine's tests run on: a broker in memory, and a clock that moves only when it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs, stamped_prefix};
use parking_lot::Mutex;

use crate::backend::{
    Backend, BackendError, BackendErrorKind, BoxFuture, Chunk, FetchFrom, Fetched, PartitionState,
    TopicDescription, TopicSpec,
};
use crate::clock::Clock;

/// A clock at which a fetch without records lets time pass.
#[derive(Debug, Default)]
pub(crate) struct VirtualClock {
    elapsed: Mutex<Duration>,
}

/// What the wall clock says when the virtual clock is at zero: 2018-02-07.
pub(crate) const EPOCH_MS: i64 = 1_517_961_600_000;

impl VirtualClock {
    pub(crate) fn pass(&self, duration: Duration) {
        *self.elapsed.lock() += duration;
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(EPOCH_MS + i64::try_from(self.monotonic().as_millis()).unwrap())
    }

    fn monotonic(&self) -> Duration {
        *self.elapsed.lock()
    }
}

/// A record as a test sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) offset: u64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

impl Stored {
    /// The last header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct Topic {
    id: String,
    /// Batches per partition.
    partitions: Vec<Vec<(Batch, TimestampMs)>>,
    start_offset: u64,
}

fn end_of(partition: &[(Batch, TimestampMs)]) -> Offset {
    partition.last().map_or(Offset::ZERO, |(batch, _)| batch.header().next_offset())
}

/// By how many ms the time of storing is off, of a batch of this partition.
type Misdate = Box<dyn Fn(u32, &Batch) -> i64 + Send>;

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) clock: Arc<VirtualClock>,
    topics: Mutex<BTreeMap<String, Topic>>,
    created: Mutex<u64>,
    /// Failures to give, first the last.
    pub(crate) failures: Mutex<Vec<BackendErrorKind>>,
    /// The largest batch that is taken, if there is a limit.
    pub(crate) max_batch_bytes: Mutex<Option<usize>>,
    /// At most this many batches of a partition per fetch.
    pub(crate) batches_per_fetch: Mutex<Option<usize>>,
    /// Called once, when a topic has been described.
    pub(crate) after_describe: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    /// Makes the times of storing as inexact as those of a node that has lost them.
    pub(crate) misdated: Mutex<Option<Misdate>>,
    /// Called by a fetch that finds nothing.
    pub(crate) on_empty: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Memory {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(crate) fn create(&self, name: &str, partitions: usize) {
        let mut created = self.created.lock();
        *created += 1;
        let topic =
            Topic { id: format!("id-{created}"), partitions: vec![Vec::new(); partitions], start_offset: 0 };
        self.topics.lock().insert(name.to_owned(), topic);
    }

    /// Appends one batch, as stored now.
    pub(crate) fn append(&self, topic: &str, partition: usize, records: &[NewRecord<'_>]) {
        let mut builder = BatchBuilder::new();
        for record in records {
            builder.push(record).unwrap();
        }
        self.append_batch(topic, partition, &builder.build().unwrap());
    }

    /// Appends a record with this value and time.
    pub(crate) fn put(&self, topic: &str, partition: usize, timestamp: i64, value: &str) {
        let value = Some(value.as_bytes());
        self.append(
            topic,
            partition,
            &[NewRecord { timestamp: TimestampMs(timestamp), key: None, value, headers: &[] }],
        );
    }

    fn append_batch(&self, topic: &str, partition: usize, batch: &Batch) -> Offset {
        let mut topics = self.topics.lock();
        let partition = &mut topics.get_mut(topic).unwrap().partitions[partition];
        let base = end_of(partition);
        let prefix = stamped_prefix(batch.header(), base, 1);
        let stamped = [&prefix[..], &batch.bytes()[prefix.len()..]].concat();
        partition.push((Batch::parse(stamped.into()).unwrap(), self.clock.now()));
        base
    }

    pub(crate) fn delete_before(&self, topic: &str, offset: u64) {
        self.topics.lock().get_mut(topic).unwrap().start_offset = offset;
    }

    /// Takes the batches away that start at this offset or later.
    pub(crate) fn truncate(&self, topic: &str, partition: usize, offset: u64) {
        let mut topics = self.topics.lock();
        topics.get_mut(topic).unwrap().partitions[partition]
            .retain(|(batch, _)| batch.header().base_offset.0 < offset);
    }

    /// Every record of a topic, partition after partition.
    pub(crate) fn all(&self, topic: &str) -> Vec<Stored> {
        let topics = self.topics.lock();
        let Some(topic) = topics.get(topic) else { return Vec::new() };
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let batches = topic.partitions.iter().flatten();
        batches
            .flat_map(|(batch, _)| batch.records().unwrap().map(Result::unwrap))
            .map(|record| Stored {
                offset: record.offset.0,
                timestamp: record.timestamp.0,
                key: text(record.key),
                value: text(record.value),
                headers: record
                    .headers()
                    .map(|header| (header.key.to_owned(), text(header.value).unwrap_or_default()))
                    .collect(),
            })
            .collect()
    }

    fn fail(&self) -> Result<(), BackendError> {
        match self.failures.lock().pop() {
            Some(kind) => Err(BackendError::new(kind, "made to fail")),
            None => Ok(()),
        }
    }

    fn fetch_now(&self, from: &[FetchFrom]) -> Result<Vec<Fetched>, BackendError> {
        let topics = self.topics.lock();
        let limit = self.batches_per_fetch.lock().unwrap_or(usize::MAX);
        let misdated = self.misdated.lock();
        let mut answers = Vec::new();
        for FetchFrom { topic, partition, offset } in from {
            let found = topics.get(topic).ok_or_else(|| not_found(topic))?;
            let batches = &found.partitions[*partition as usize];
            let wanted: Vec<_> = batches
                .iter()
                .filter(|(batch, _)| batch.header().last_offset() >= *offset)
                .take(limit)
                .collect();
            let next_offset = wanted.last().map_or(*offset, |(batch, _)| batch.header().next_offset());
            let chunks = wanted
                .into_iter()
                .map(|(batch, appended_at)| {
                    let off_ms = misdated.as_ref().map_or(0, |misdated| misdated(*partition, batch));
                    Chunk {
                        batches: batch.bytes().clone(),
                        appended_at: TimestampMs(appended_at.0 + off_ms),
                        appended_at_estimated: off_ms != 0,
                    }
                })
                .collect();
            let stable_end = end_of(batches);
            answers.push(Fetched {
                topic: topic.clone(),
                partition: *partition,
                chunks,
                next_offset,
                stable_end,
            });
        }
        Ok(answers)
    }
}

fn not_found(topic: &str) -> BackendError {
    BackendError::new(BackendErrorKind::NotFound, format!("there is no topic {topic:?}"))
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl Backend for Memory {
    fn ensure_topics(&self, topics: &[TopicSpec]) -> BoxFuture<'_, Result<(), BackendError>> {
        for spec in topics {
            if !self.topics.lock().contains_key(&spec.name) {
                self.create(&spec.name, spec.partitions.unwrap_or(3) as usize);
            }
        }
        ready(Ok(()))
    }

    fn describe(&self, topic: &str) -> BoxFuture<'_, Result<TopicDescription, BackendError>> {
        let topics = self.topics.lock();
        let Some(found) = topics.get(topic) else { return ready(Err(not_found(topic))) };
        let partitions = (0..).zip(&found.partitions);
        let description = TopicDescription {
            topic_id: found.id.clone(),
            partitions: partitions
                .map(|(partition, batches)| PartitionState {
                    partition,
                    start_offset: Offset(found.start_offset),
                    stable_end: end_of(batches),
                })
                .collect(),
        };
        drop(topics);
        if let Some(then) = self.after_describe.lock().take() {
            then();
        }
        ready(Ok(description))
    }

    fn fetch(
        &self,
        from: &[FetchFrom],
        _: usize,
        max_wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Fetched>, BackendError>> {
        let answer = self.fail().and_then(|()| self.fetch_now(from));
        if answer.as_ref().is_ok_and(|answer| answer.iter().all(|fetched| fetched.chunks.is_empty())) {
            self.clock.pass(max_wait);
            if let Some(on_empty) = &*self.on_empty.lock() {
                on_empty();
            }
        }
        ready(answer)
    }

    fn produce(
        &self,
        topic: &str,
        partition: u32,
        batch: Batch,
    ) -> BoxFuture<'_, Result<Offset, BackendError>> {
        let size = batch.bytes().len();
        if self.max_batch_bytes.lock().is_some_and(|limit| size > limit) {
            return ready(Err(BackendError::new(
                BackendErrorKind::TooLarge,
                format!("{size} bytes are too many"),
            )));
        }
        ready(self.fail().map(|()| self.append_batch(topic, partition as usize, &batch)))
    }
}
