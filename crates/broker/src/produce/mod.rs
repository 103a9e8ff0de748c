//! Records into partitions: what a request is, which partition each record goes to, and when it is answered.
//!
//! A call decides and enqueues at once, so that calls made in order are appended in order; checking and
//! writing are the [`lane`]'s.

mod ingest;
mod lane;
mod order;
mod reopen;
mod stream;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
pub(crate) use ingest::check_counts;
pub(crate) use lane::Lane;
use lane::{Answer, Load, Written};
use logmill_log::env::Clock;
use logmill_record::{BatchHeader, Offset, TimestampMs, murmur2_partition};
pub use order::ProducerSequence;
use stream::Sending;
pub use stream::{MAX_IN_FLIGHT_BATCHES, ProduceStream};

use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::catalog::{Partition, TopicState};
use crate::context::RequestContext;
use crate::error::Error;
use crate::exec::Receiver;

/// Records for a topic.
#[derive(Clone, Debug)]
pub struct Produce {
    /// The topic's name.
    pub topic: String,
    /// The partition for all records. `None`: by each record's key as Kafka's clients do, and for records
    /// without a key one partition that the node chooses per request. Needed with a batch.
    pub partition: Option<u32>,
    /// What to append.
    pub payload: Payload,
    /// When to answer.
    pub acks: Acks,
    /// When the sender sent it, by its clock: for the delay from produced to stored, which this version only
    /// logs.
    pub sent_at: Option<TimestampMs>,
}

/// What to append.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One record batch v2, stored as it is but for its base offset and leader epoch.
    Batch(Bytes),
    /// Plain records, of which the node makes batches. At least one, and no more than the
    /// [`Limits`](crate::Limits) say.
    Records(Vec<ProduceRecord>),
    /// Plain records of an idempotent producer, of which the node makes one batch: as many as fit in one. Their
    /// partition has to be named.
    Numbered(ProducerSequence, Vec<ProduceRecord>),
}

/// A record to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProduceRecord {
    /// The key; `None` is null, which is not the same as empty.
    pub key: Option<Bytes>,
    /// The value; `None` is null, which is not the same as empty.
    pub value: Option<Bytes>,
    /// The record's own time; `None` is the node's time now.
    pub timestamp: Option<TimestampMs>,
    /// Headers, in order; names may come twice, values may be null.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// When a produce request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// When the records are on disk.
    #[default]
    Durable,
    /// When they are written to the operating system. A power cut can take them back.
    Written,
    /// When the request has been accepted. Offsets are not reported, and a failure to append is not either.
    None,
}

/// What became of the records for one partition.
#[derive(Clone, Debug)]
pub struct ProduceResult {
    /// The partition's number.
    pub partition: u32,
    /// Which records of the request went to this partition, in the order of their offsets. Empty: all of
    /// them, in order.
    pub record_indexes: Vec<u32>,
    /// Appended or not.
    pub outcome: Result<Appended, Error>,
}

/// Where records were appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record; the others follow one by one.
    pub first_offset: Offset,
    /// The offset of the last record.
    pub last_offset: Offset,
    /// When the node appended them, as readers are told it too. Where a topic's records have that time for their
    /// own timestamp, they were given it when their turn to be written came: before the write, which may take long.
    pub appended_at: TimestampMs,
    /// Their idempotent producer had sent them before, and they were appended then: offsets and time are those
    /// of the first time. They are on disk, whatever was asked for.
    pub duplicate: bool,
}

impl Broker {
    /// Appends records to a topic's partitions.
    ///
    /// The records are accepted, or refused, during the call itself: calls made one after another are
    /// appended one after another in each partition. The future only waits for the answer, which the
    /// records do not need: dropping it takes nothing back.
    ///
    /// # Errors
    /// For the request as a whole, such as [`TopicNotFound`](crate::Reason::TopicNotFound); what went wrong
    /// with one partition's records stands in its result. After
    /// [`OutcomeUnknown`](crate::Reason::OutcomeUnknown) the records may be stored, after every other error
    /// they are not.
    ///
    /// ```
    /// use logmill_broker::{
    ///     Acks, Broker, Config, CreateTopic, Payload, Produce, ProduceRecord, RequestContext,
    /// };
    /// use logmill_log::env::block_on;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, broker.create_topic(&context, CreateTopic::new("readings")))?;
    ///
    /// let record = ProduceRecord { value: Some("21.5".into()), ..ProduceRecord::default() };
    /// let produce = Produce {
    ///     topic: "readings".into(),
    ///     partition: None,
    ///     payload: Payload::Records(vec![record]),
    ///     acks: Acks::Durable,
    ///     sent_at: None,
    /// };
    /// let results = block_on(&*scheduler, broker.produce(&context, produce))?;
    /// assert_eq!(results[0].outcome.as_ref().unwrap().first_offset.get(), 0);
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn produce(
        &self,
        context: &RequestContext,
        request: Produce,
    ) -> impl Future<Output = Result<Vec<ProduceResult>, Error>> + Send + 'static + use<> {
        self.produce_on(context, request, None)
    }

    /// Appends records, on a stream or by themselves.
    fn produce_on(
        &self,
        context: &RequestContext,
        request: Produce,
        sending: Option<&Sending<'_>>,
    ) -> impl Future<Output = Result<Vec<ProduceResult>, Error>> + Send + 'static + use<> {
        let accepted = self.accept(context, request, sending);
        async move {
            let accepted = accepted?;
            if accepted.acks == Acks::None {
                return Ok(Vec::new());
            }
            let mut results = Vec::with_capacity(accepted.parts.len());
            for Part { partition, record_indexes, answer } in accepted.parts {
                let outcome = match answer {
                    Ok(answer) => answer.finish(accepted.acks).await,
                    Err(error) => Err(error),
                };
                results.push(ProduceResult { partition, record_indexes, outcome });
            }
            if let Some(sent_at) = accepted.sent_at {
                let delay_ms = accepted.clock.now().get().saturating_sub(sent_at.get());
                tracing::trace!(topic = %accepted.topic, acks = ?accepted.acks, delay_ms, "produced");
            }
            Ok(results)
        }
    }

    fn accept(
        &self,
        context: &RequestContext,
        request: Produce,
        sending: Option<&Sending<'_>>,
    ) -> Result<Accepted, Error> {
        let core = self.core();
        core.check_open()?;
        let Produce { topic: name, partition, payload, acks, sent_at } = request;
        let sequence = payload.sequence();
        let place = |partition| sending.map(|sending| sending.place(&name, partition, sequence)).transpose();
        // Whatever refuses the request from here on, those behind it are to know.
        let mut named = partition.map(place).transpose()?.flatten();
        authorize(context, &Operation::Produce { topic: &name })?;
        let topic = core.catalog.topic(&name)?;
        let groups = self.groups(&topic, partition, payload)?;
        let push = |Group { partition, record_indexes, load }| {
            let placed = named.take().map_or_else(|| place(partition), |place| Ok(Some(place)));
            let lane = topic.partition(partition).and_then(Partition::lane);
            let answer = placed.and_then(|place| {
                let lane = lane?.clone();
                Ok(Waiting { answer: lane.push(load, place, &core.queued)?, lane })
            });
            Part { partition, record_indexes, answer }
        };
        let parts: Vec<Part> = groups.into_iter().map(push).collect();
        if acks == Acks::None
            && let Some(error) = parts.iter().find_map(|part| part.answer.as_ref().err())
        {
            // Nobody would hear of it later.
            return Err(error.clone());
        }
        let clock = Arc::clone(&core.config.env.clock);
        Ok(Accepted { topic: topic.identity.name.clone(), acks, parts, sent_at, clock })
    }

    /// What goes to which partition.
    fn groups(
        &self,
        topic: &TopicState,
        partition: Option<u32>,
        payload: Payload,
    ) -> Result<Vec<Group>, Error> {
        let Core { config, bounds, .. } = &**self.core();
        let check = |records: &[ProduceRecord]| {
            if records.is_empty() {
                return Err(Error::missing("records", "a request has at least one record"));
            }
            let headers = records.iter().map(|record| record.headers.len()).sum();
            check_counts(records.len(), headers, bounds)
        };
        match payload {
            Payload::Batch(bytes) => {
                let partition = named(topic, partition)?;
                ingest::check_size(bytes.len(), topic.rules.max_message_bytes)?;
                Ok(vec![Group { partition, record_indexes: Vec::new(), load: Load::Batch(bytes) }])
            }
            Payload::Records(records) => {
                check(&records)?;
                group(topic, partition, records, config.env.clock.now())
            }
            Payload::Numbered(sequence, records) => {
                let partition = named(topic, partition)?;
                check(&records)?;
                sequence.check()?;
                let load = Load::Numbered(sequence, records, config.env.clock.now());
                Ok(vec![Group { partition, record_indexes: Vec::new(), load }])
            }
        }
    }
}

/// The partition that the request names, as it has to for what goes whole into one.
fn named(topic: &TopicState, partition: Option<u32>) -> Result<u32, Error> {
    let Some(partition) = partition else {
        return Err(Error::missing("partition", "a batch goes whole into one partition"));
    };
    topic.partition(partition).map(|_| partition)
}

impl Payload {
    /// Whose batch it is, as far as can be seen before it is checked.
    fn sequence(&self) -> Option<ProducerSequence> {
        match self {
            Self::Records(_) => None,
            Self::Numbered(sequence, _) => Some(*sequence),
            Self::Batch(bytes) => {
                let header = BatchHeader::parse(bytes).ok().filter(|header| header.producer_id >= 0)?;
                let BatchHeader { producer_id: id, producer_epoch: epoch, base_sequence, .. } = header;
                Some(ProducerSequence { id, epoch, base_sequence })
            }
        }
    }
}

impl ProducerSequence {
    fn check(self) -> Result<(), Error> {
        let fields = [
            ("producer.id", self.id),
            ("producer.epoch", self.epoch.into()),
            ("producer.base_sequence", self.base_sequence.into()),
        ];
        match fields.into_iter().find(|(_, value)| *value < 0) {
            Some((field, value)) => Err(Error::field(field, value, "it cannot be negative")),
            None => Ok(()),
        }
    }
}

/// A request whose records wait in their lanes.
struct Accepted {
    topic: String,
    acks: Acks,
    parts: Vec<Part>,
    sent_at: Option<TimestampMs>,
    clock: Arc<dyn Clock>,
}

struct Part {
    partition: u32,
    record_indexes: Vec<u32>,
    answer: Result<Waiting, Error>,
}

/// Records that wait in a lane.
struct Waiting {
    answer: Receiver<Answer>,
    lane: Lane,
}

impl Waiting {
    async fn finish(self, acks: Acks) -> Result<Appended, Error> {
        let Ok(answer) = self.answer.await else {
            return Err(self.lane.refusal().unwrap_or_else(|| Error::fault("an append")));
        };
        let Written { first_offset, last_offset, appended_at, duplicate, durable, generation } = answer?;
        // Where a duplicate is must not be told while a power cut could take it from there.
        if acks == Acks::Durable || duplicate {
            durable.await.map_err(|error| self.lane.not_confirmed(generation, &error))?;
        }
        Ok(Appended { first_offset, last_offset, appended_at, duplicate })
    }
}

/// Records of a request that go to one partition.
struct Group {
    partition: u32,
    record_indexes: Vec<u32>,
    load: Load,
}

/// Which records go to which partition, in order of the partitions.
fn group(
    topic: &TopicState,
    partition: Option<u32>,
    records: Vec<ProduceRecord>,
    now: TimestampMs,
) -> Result<Vec<Group>, Error> {
    let one = |partition, records| Group {
        partition,
        record_indexes: Vec::new(),
        load: Load::Records(records, now),
    };
    if let Some(partition) = partition {
        topic.partition(partition)?;
        return Ok(vec![one(partition, records)]);
    }
    let count = topic.identity.partition_count;
    let mut keyless = None;
    let mut groups: BTreeMap<u32, (Vec<u32>, Vec<ProduceRecord>)> = BTreeMap::new();
    for (index, record) in (0..).zip(records) {
        let partition = match &record.key {
            Some(key) => murmur2_partition(key, count),
            None => *keyless.get_or_insert_with(|| choose(topic)),
        };
        let (indexes, records) = groups.entry(partition).or_default();
        indexes.push(index);
        records.push(record);
    }
    if groups.len() == 1 {
        return Ok(groups.into_iter().map(|(partition, (_, records))| one(partition, records)).collect());
    }
    let group = |(partition, (record_indexes, records))| Group {
        partition,
        record_indexes,
        load: Load::Records(records, now),
    };
    Ok(groups.into_iter().map(group).collect())
}

/// The partition for records without a key: each in turn, of those that take records.
fn choose(topic: &TopicState) -> u32 {
    let count = topic.identity.partition_count;
    let turn = topic.next_keyless.fetch_add(1, Ordering::Relaxed);
    (0..count)
        .map(|step| turn.wrapping_add(step) % count)
        .find(|partition| topic.partition(*partition).is_ok_and(Partition::takes_records))
        .unwrap_or(turn % count)
}
