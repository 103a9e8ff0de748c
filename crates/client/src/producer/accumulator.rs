//! Which records wait, which are under way, and what may go out next: the decisions of a producer, without
//! any I/O.
//!
//! A batch goes out when it is full, or when nothing of its partition is under way: a lone record leaves at
//! once, and under load batches fill while the one before is being synced. No timer delays anything.
//!
//! Invariants: batches of a partition leave in the order in which they were begun, and a record joins only the
//! last one; a batch is in `queues` until it is taken, then in `in_flight` until it is answered, fails or runs
//! out of time, and is handed to the caller for completion exactly once; `bytes_in_flight` is the sum over
//! `in_flight`; a queue is in `ready` if and only if its first batch may go.

mod queue;
#[cfg(test)]
mod tests;
mod topics;

pub(super) use queue::{Tracked, WaitingBatch};

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use logmill_record::{BatchBuilder, BatchError, NewRecord};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::delivery::{Completion, Delivery};
use queue::Queue;
use topics::Topics;

/// How much may go into a batch, and how much may be under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What a batch is filled up to; a larger record has one of its own.
    pub(super) batch_bytes: usize,
    pub(super) bytes_in_flight: usize,
}

#[derive(Debug)]
pub(super) struct Accumulator {
    configured: Limits,
    /// Those configured, and not above the node's.
    limits: Limits,
    /// The largest batch that the node takes, once it has said so.
    node_batch_bytes: Option<usize>,
    pub(super) topics: Topics,
    queues: Vec<Queue>,
    ready: VecDeque<usize>,
    in_flight: HashMap<u64, InFlight>,
    bytes_in_flight: usize,
    last_correlation: u64,
    waiting: usize,
}

#[derive(Debug)]
struct InFlight {
    queue: usize,
    size_bytes: usize,
    tracked: Tracked,
}

/// Why a record was not accepted.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The topic's partitions are not known, or not any more.
    UnknownTopic,
    /// The topic has only so many partitions.
    NoPartition { count: u32 },
    /// Alone in a batch, the record is larger than the node takes.
    TooLarge { size_bytes: usize, limit_bytes: usize },
    /// The record cannot be in a batch at all.
    Batch(BatchError),
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send this batch.
    Send(Outgoing),
    /// This batch is larger than the node takes, so it is not sent.
    Refused { tracked: Tracked, size_bytes: usize, limit_bytes: usize },
    /// Nothing may go out now.
    Nothing,
}

/// A batch that is under way from now on.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) correlation_id: u64,
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    pub(super) builder: BatchBuilder,
}

/// Where a record of the caller goes, and what is needed to keep track of it.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) topic: &'a Arc<str>,
    pub(super) partition: Option<u32>,
    /// The record's share of the buffer.
    pub(super) charge: OwnedSemaphorePermit,
    pub(super) deadline: Instant,
}

impl Accumulator {
    pub(super) fn new(configured: Limits) -> Accumulator {
        Accumulator {
            configured,
            limits: configured,
            node_batch_bytes: None,
            topics: Topics::default(),
            queues: Vec::new(),
            ready: VecDeque::new(),
            in_flight: HashMap::new(),
            bytes_in_flight: 0,
            last_correlation: 0,
            waiting: 0,
        }
    }

    /// The node has said what it takes.
    pub(super) fn set_node_limits(&mut self, node: Limits) {
        self.node_batch_bytes = Some(node.batch_bytes);
        self.limits = Limits {
            batch_bytes: self.configured.batch_bytes.min(node.batch_bytes),
            bytes_in_flight: self.configured.bytes_in_flight.min(node.bytes_in_flight),
        };
    }

    /// Adds a record to the last batch of its partition, or to a new one.
    pub(super) fn push(&mut self, record: &NewRecord<'_>, entry: Entry<'_>) -> Result<Delivery, Refusal> {
        let alone_bytes = BatchBuilder::new().size_with(record);
        if let Some(limit_bytes) = self.node_batch_bytes.filter(|&limit| alone_bytes > limit) {
            return Err(Refusal::TooLarge { size_bytes: alone_bytes, limit_bytes });
        }
        let topic = self.topics.get_mut(entry.topic).ok_or(Refusal::UnknownTopic)?;
        let partition = match entry.partition {
            Some(partition) if partition >= topic.partitioner.count() => {
                return Err(Refusal::NoPartition { count: topic.partitioner.count() });
            }
            Some(partition) => partition,
            None => topic.partitioner.choose(record.key, alone_bytes),
        };
        let index = *topic.queues.entry(partition).or_insert_with(|| {
            self.queues.push(Queue::new(Arc::clone(entry.topic), partition));
            self.queues.len() - 1
        });
        let queue = &mut self.queues[index];
        let waiting_before = queue.len();
        let delivery = queue.push(record, self.limits.batch_bytes, entry).map_err(Refusal::Batch)?;
        self.waiting += queue.len() - waiting_before;
        self.make_ready(index);
        Ok(delivery)
    }

    /// The next batch to send, of one partition after the other.
    pub(super) fn take(&mut self) -> Next {
        let Some((index, size_bytes)) = self.first_ready() else { return Next::Nothing };
        self.ready.pop_front();
        let queue = &mut self.queues[index];
        queue.ready = false;
        let (topic, partition) = (Arc::clone(&queue.topic), queue.partition);
        let Some(WaitingBatch { builder, tracked, .. }) = queue.pop() else { return Next::Nothing };
        self.waiting -= 1;
        if let Some(limit_bytes) = self.node_batch_bytes.filter(|&limit| size_bytes > limit) {
            self.make_ready(index);
            return Next::Refused { tracked, size_bytes, limit_bytes };
        }
        queue.in_flight += 1;
        self.bytes_in_flight += size_bytes;
        self.last_correlation += 1;
        let correlation_id = self.last_correlation;
        self.in_flight.insert(correlation_id, InFlight { queue: index, size_bytes, tracked });
        self.make_ready(index);
        Next::Send(Outgoing { correlation_id, topic, partition, builder })
    }

    /// Whether [`take`](Accumulator::take) would give something.
    pub(super) fn may_take(&self) -> bool {
        self.first_ready().is_some()
    }

    /// The queue whose turn it is, and the size of its first batch, if there is room for that one.
    fn first_ready(&self) -> Option<(usize, usize)> {
        let &index = self.ready.front()?;
        let size_bytes = self.queues[index].first_size_bytes();
        // One batch may always go, also one that is larger than all that may be under way.
        let room =
            self.bytes_in_flight == 0 || self.bytes_in_flight + size_bytes <= self.limits.bytes_in_flight;
        room.then_some((index, size_bytes))
    }

    /// A batch under way has come to its end; `None` if its time ran out before.
    pub(super) fn finish(&mut self, correlation_id: u64) -> Option<Tracked> {
        let InFlight { queue, size_bytes, tracked } = self.in_flight.remove(&correlation_id)?;
        self.bytes_in_flight -= size_bytes;
        self.queues[queue].in_flight -= 1;
        self.make_ready(queue);
        Some(tracked)
    }

    /// All batches under way come to their end at once: their stream broke.
    pub(super) fn finish_all(&mut self) -> Vec<Tracked> {
        let ids: Vec<u64> = self.in_flight.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.finish(id)).collect()
    }

    /// Takes back every batch that has not been sent.
    pub(super) fn drain_waiting(&mut self) -> Vec<Tracked> {
        self.drain_where(|_| true)
    }

    /// The batches whose time has run out: those not sent, and those sent but not answered.
    pub(super) fn expire(&mut self, now: Instant) -> (Vec<Tracked>, Vec<Tracked>) {
        let unsent = self.drain_where(|tracked| tracked.deadline <= now);
        let late: Vec<u64> =
            self.in_flight.iter().filter(|(_, it)| it.tracked.deadline <= now).map(|(&id, _)| id).collect();
        let unanswered = late.into_iter().filter_map(|id| self.finish(id)).collect();
        (unsent, unanswered)
    }

    /// Closes the batches that could still take records, so that they go out without waiting for those before
    /// them, and gives what all batches come to.
    pub(super) fn seal(&mut self) -> Vec<Arc<Completion>> {
        for index in 0..self.queues.len() {
            self.queues[index].seal();
            self.make_ready(index);
        }
        let waiting = self.queues.iter().flat_map(|queue| queue.iter().map(|batch| &batch.tracked));
        let under_way = self.in_flight.values().map(|it| &it.tracked);
        waiting.chain(under_way).map(|tracked| Arc::clone(&tracked.completion)).collect()
    }

    /// Whether batches wait to be sent.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Whether everything was answered.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting == 0 && self.in_flight.is_empty()
    }

    fn make_ready(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        if !queue.ready && queue.may_send() {
            queue.ready = true;
            self.ready.push_back(index);
        }
    }

    fn drain_where(&mut self, which: impl Fn(&Tracked) -> bool) -> Vec<Tracked> {
        let mut drained = Vec::new();
        for queue in &mut self.queues {
            queue.drain_where(&which, &mut drained);
        }
        self.waiting -= drained.len();
        let Accumulator { ready, queues, .. } = self;
        ready.retain(|&index| {
            queues[index].ready = queues[index].may_send();
            queues[index].ready
        });
        drained
    }
}
