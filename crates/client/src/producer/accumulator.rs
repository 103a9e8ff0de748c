//! Which records wait, which are under way, and what may go out next: the decisions of a producer, without
//! any I/O.
//!
//! A batch goes out when it is full, or when nothing of its partition is under way: a lone record leaves at
//! once, and under load batches fill while the one before is being synced. No timer delays anything.
//!
//! A batch that was sent and did not come through goes back to the front of its queue, as [numbering] says.
//! One that is to be compressed is so when its turn comes, outside of the lock, as [compress] says.
//!
//! Invariants: batches of a partition leave in the order in which they were begun, and a record joins only the
//! last one; a batch is in `queues` until it is taken, then in `in_flight` until it is answered, fails, runs
//! out of time or goes back, and is handed to the caller for completion exactly once; `bytes_in_flight` is the sum
//! over `in_flight`; a queue is in `ready` if and only if its first batch may go.

mod compress;
mod giving_up;
mod numbering;
mod queue;
mod refusal;
mod room;
#[cfg(test)]
mod tests;
mod topics;
mod transaction;

pub(super) use compress::ToCompress;
pub(super) use queue::{Drained, Tracked};
pub(super) use refusal::{Fate, Refused};
pub(super) use room::MostBytes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use logmill_record::{Batch, BatchBuilder, BatchError, Compression, NewRecord};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::delivery::{Completion, Delivery};
use numbering::{HasId, Number, Rules};
use queue::{Body, Queue, WaitingBatch};
use room::Room;
use topics::Topics;

/// How much may go into a batch, and how much may be under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What a batch is filled up to; a larger record has one of its own.
    pub(super) batch_bytes: usize,
    pub(super) bytes_in_flight: usize,
    /// How many batches of a partition may be under way.
    pub(super) batches_in_flight: usize,
}

/// Whose batches they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// Nobody's: a batch that may be stored is not sent again.
    None,
    /// A producer's that numbers them, and has to ask the node for an id.
    Wanted,
    Known(i64),
    /// A producer's of transactions, whose batches belong to the one that has this epoch.
    Transaction(i64, i16),
}

impl Identity {
    /// The id, and the epoch to begin with, of a partition that has neither; `None` where batches are not numbered.
    fn new_producer(self) -> Option<(i64, i16)> {
        match self {
            Identity::None => None,
            // Only what has its number already may go without an id.
            Identity::Wanted => Some((-1, 0)),
            Identity::Known(id) => Some((id, 0)),
            Identity::Transaction(id, epoch) => Some((id, epoch)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Accumulator {
    configured: Limits,
    /// Those configured, and not above the node's.
    limits: Limits,
    /// The largest batch that the node takes, once it has said so.
    node_batch_bytes: Option<usize>,
    /// How batches are compressed where a topic leaves it to the producer.
    compression: Compression,
    pub(super) topics: Topics,
    identity: Identity,
    queues: Vec<Queue>,
    ready: VecDeque<usize>,
    /// In the order in which they were sent.
    in_flight: BTreeMap<u64, InFlight>,
    bytes_in_flight: usize,
    last_correlation: u64,
    waiting: usize,
}

#[derive(Debug)]
struct InFlight {
    queue: usize,
    size_bytes: usize,
    tracked: Tracked,
    batch: Batch,
    /// Under which sequence it was sent, if batches are numbered.
    sequence: Option<i32>,
    /// It was sent before, and may be stored from then.
    may_be_stored: bool,
    /// One before it failed, so the node does not store it this time.
    doomed: bool,
    /// Its request said that it knows of a failure.
    after_failure: bool,
}

/// Why a record was not accepted.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The topic's partitions are not known, or not any more, or were asked for long ago.
    UnknownTopic,
    /// The topic has only so many partitions.
    NoPartition { count: u32 },
    /// Alone in a batch that is not compressed, the record is larger than node or topic take.
    TooLarge { size_bytes: usize, most: MostBytes },
    /// The record cannot be in a batch at all.
    Batch(BatchError),
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Compress this one without the lock, and give it [back](Accumulator::compressed).
    Compress(ToCompress),
    /// Send this batch.
    Send(Outgoing),
    /// This batch is larger than the node takes, so it is not sent.
    Refused { tracked: Tracked, size_bytes: usize, most: MostBytes },
    /// This batch cannot be built.
    Unbuildable { tracked: Tracked, error: BatchError },
    /// Nothing may go out now.
    Nothing,
}

/// A batch that is under way from now on.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) correlation_id: u64,
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    pub(super) batch: Batch,
    /// The request says that it knows of a failure before it.
    pub(super) after_failure: bool,
}

/// Where a record of the caller goes, and what is needed to keep track of it.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) topic: &'a Arc<str>,
    pub(super) partition: Option<u32>,
    /// The record's share of the buffer.
    pub(super) charge: OwnedSemaphorePermit,
    pub(super) now: Instant,
    pub(super) deadline: Instant,
}

impl Accumulator {
    pub(super) fn new(configured: Limits, identity: Identity, compression: Compression) -> Accumulator {
        Accumulator {
            configured,
            limits: configured,
            node_batch_bytes: None,
            compression,
            topics: Topics::default(),
            identity,
            queues: Vec::new(),
            ready: VecDeque::new(),
            in_flight: BTreeMap::new(),
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
            batches_in_flight: self.configured.batches_in_flight.min(node.batches_in_flight),
        };
    }

    /// Whether the node has to be asked for an id before anything else can be sent.
    pub(super) fn wants_id(&self) -> bool {
        self.identity == Identity::Wanted
    }

    /// The node has given an id.
    pub(super) fn set_id(&mut self, id: i64) {
        self.identity = Identity::Known(id);
        for index in 0..self.queues.len() {
            self.make_ready(index);
        }
    }

    /// Adds a record to the last batch of its partition, or to a new one.
    pub(super) fn push(&mut self, record: &NewRecord<'_>, entry: Entry<'_>) -> Result<Delivery, Refusal> {
        let topic = self.topics.get_fresh(entry.topic, entry.now).ok_or(Refusal::UnknownTopic)?;
        let alone_bytes = BatchBuilder::new().size_with(record);
        let most = MostBytes::of(self.node_batch_bytes, topic.rules.max_message_bytes);
        let compression = topic.rules.compression.unwrap_or(self.compression);
        // What a codec makes of a record is known when it is compressed.
        if let (Compression::None, Some(most)) = (compression, most)
            && alone_bytes > most.bytes()
        {
            return Err(Refusal::TooLarge { size_bytes: alone_bytes, most });
        }
        let partition = match entry.partition {
            Some(partition) if partition >= topic.partitioner.count() => {
                return Err(Refusal::NoPartition { count: topic.partitioner.count() });
            }
            Some(partition) => partition,
            None => topic.partitioner.choose(record.key, alone_bytes),
        };
        let index = *topic.queue_of(partition).get_or_insert_with(|| {
            self.queues.push(Queue::new(Arc::clone(entry.topic), partition));
            self.queues.len() - 1
        });
        let queue = &mut self.queues[index];
        let waiting_before = queue.len();
        let room = Room::new(self.limits.batch_bytes, most, compression);
        let is_transactional = matches!(self.identity, Identity::Transaction(..));
        let delivery = queue.push(record, room, is_transactional, entry).map_err(Refusal::Batch)?;
        self.waiting += queue.len() - waiting_before;
        self.make_ready(index);
        Ok(delivery)
    }

    /// The next batch to send, of one partition after the other.
    pub(super) fn take(&mut self) -> Next {
        let Some((index, size_bytes)) = self.first_ready() else { return Next::Nothing };
        self.ready.pop_front();
        self.queues[index].ready = false;
        if let Some(work) = self.take_to_compress(index) {
            return Next::Compress(work);
        }
        let queue = &mut self.queues[index];
        let (topic, partition) = (Arc::clone(&queue.topic), queue.partition);
        let Some(WaitingBatch { body, tracked, sequence, .. }) = queue.pop() else { return Next::Nothing };
        self.waiting -= 1;
        let next = match self.node_batch_bytes.filter(|&limit| size_bytes > limit && sequence.is_none()) {
            Some(limit) => Next::Refused { tracked, size_bytes, most: MostBytes::Node(limit) },
            None => match self.build(index, body, &tracked, sequence) {
                Ok((batch, number)) => {
                    let queue = &mut self.queues[index];
                    let after_failure = queue.numbering.take_after_failure();
                    queue.in_flight += 1;
                    self.bytes_in_flight += size_bytes;
                    self.last_correlation += 1;
                    let correlation_id = self.last_correlation;
                    self.in_flight.insert(
                        correlation_id,
                        InFlight {
                            queue: index,
                            size_bytes,
                            tracked,
                            batch: batch.clone(),
                            sequence: number.map(|number| number.sequence),
                            may_be_stored: sequence.is_some(),
                            doomed: false,
                            after_failure,
                        },
                    );
                    Next::Send(Outgoing { correlation_id, topic, partition, batch, after_failure })
                }
                Err(error) => Next::Unbuildable { tracked, error },
            },
        };
        self.make_ready(index);
        next
    }

    /// The batch under the number that it goes out with. Built here, so that it can go back if its stream breaks
    /// while it is on its way out; what that takes is the checksum, since one to be compressed was before.
    fn build(
        &mut self,
        index: usize,
        body: Body,
        tracked: &Tracked,
        sequence: Option<i32>,
    ) -> Result<(Batch, Option<Number>), BatchError> {
        let numbering = &mut self.queues[index].numbering;
        // A batch that cannot be built uses up no number.
        let batch = match body {
            Body::Filling(builder, _) => {
                let number = self.identity.new_producer();
                let number = number.map(|new| numbering.number(sequence, tracked.record_count, new));
                return numbered(builder, number).inspect_err(|_| {
                    if let Some(number) = number {
                        numbering.rewind(number.sequence);
                    }
                });
            }
            Body::Built(batch) => batch,
        };
        let Some(new) = self.identity.new_producer() else { return Ok((batch, None)) };
        let number = numbering.number(sequence, tracked.record_count, new);
        let header = batch.header();
        let same = (header.producer_id, header.producer_epoch, header.base_sequence)
            == (number.id, number.epoch, number.sequence);
        let batch = if same { batch } else { batch.with_producer(number.id, number.epoch, number.sequence) };
        Ok((batch, Some(number)))
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

    /// How many records are in a batch under way; `None` if its time ran out.
    pub(super) fn record_count(&self, correlation_id: u64) -> Option<u32> {
        self.in_flight.get(&correlation_id).map(|it| it.tracked.record_count)
    }

    /// A batch under way is stored; `None` if its time ran out before.
    pub(super) fn finish(&mut self, correlation_id: u64) -> Option<Tracked> {
        let InFlight { queue, size_bytes, tracked, .. } = self.in_flight.remove(&correlation_id)?;
        self.bytes_in_flight -= size_bytes;
        self.queues[queue].in_flight -= 1;
        self.queues[queue].numbering.succeeded();
        self.make_ready(queue);
        Some(tracked)
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

    /// When the next partition may send again of which the node asked for patience.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.numbering.paused_until()).min()
    }

    /// Lets those send again that have waited long enough; whether there are any.
    pub(super) fn resume(&mut self, now: Instant) -> bool {
        let mut any = false;
        for index in 0..self.queues.len() {
            if self.queues[index].numbering.paused_until().is_some_and(|until| until <= now) {
                self.queues[index].numbering.resume();
                self.make_ready(index);
                any = true;
            }
        }
        any
    }

    fn rules(&self) -> Rules {
        let numbered = match self.identity {
            Identity::None => None,
            Identity::Wanted => Some(HasId::NotYet),
            Identity::Known(_) | Identity::Transaction(..) => Some(HasId::Yes),
        };
        let one_epoch = matches!(self.identity, Identity::Transaction(..));
        Rules { numbered, most_in_flight: self.limits.batches_in_flight, one_epoch }
    }

    fn make_ready(&mut self, index: usize) {
        let rules = self.rules();
        let queue = &mut self.queues[index];
        if !queue.ready && queue.may_send(rules) {
            queue.ready = true;
            self.ready.push_back(index);
        }
    }

    /// Takes out of the line who may not send any more.
    fn check_ready(&mut self) {
        let rules = self.rules();
        let Accumulator { ready, queues, .. } = self;
        ready.retain(|&index| {
            queues[index].ready = queues[index].may_send(rules);
            queues[index].ready
        });
    }
}

fn numbered(
    mut builder: BatchBuilder,
    number: Option<Number>,
) -> Result<(Batch, Option<Number>), BatchError> {
    if let Some(Number { id, epoch, sequence }) = number {
        builder.set_producer(id, epoch, sequence);
    }
    builder.build().map(|batch| (batch, number))
}
