//! Requests one after another, with the promise that none is stored if one before it is not.
//!
//! Lock order: a stream's partitions, then the catalog's lock or a lane's.

use std::collections::HashMap;
use std::future::Future;

use parking_lot::Mutex;

use super::order::{Order, Place, ProducerSequence, preceding_failed};
use super::{Produce, ProduceResult};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::context::RequestContext;
use crate::error::{Error, PartitionName};
use crate::limits::Limit;
use crate::names::MAX_TOPIC_NAME_BYTES;

/// So many batches of a producer may be under way for a partition: of as many the node knows one again that was
/// sent before.
pub const MAX_IN_FLIGHT_BATCHES: usize = logmill_log::REMEMBERED_BATCHES;

/// Produce requests one after another: when one fails, those behind it for the same partition fail too.
///
/// They fail with [`PrecedingFailed`](crate::Reason::PrecedingFailed), until a request is sent
/// [after the failure](ProduceStream::send_after_failure), so that records are never stored in another order
/// than they were sent in. Of a request that names no partition, the partitions are known only when it is
/// accepted: one that is refused as a whole holds up nobody.
///
/// ```
/// use logmill_broker::{Acks, Broker, Config, CreateTopic, Payload, Produce, Reason, RequestContext};
/// use logmill_log::env::block_on;
/// use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
///
/// # let dir = tempfile::tempdir()?;
/// let config = Config { max_message_bytes: 1_000, ..Config::new(dir.path()) };
/// let scheduler = config.env.scheduler.clone();
/// let broker = Broker::open(config)?;
/// let context = RequestContext::embedded();
/// block_on(&*scheduler, broker.create_topic(&context, CreateTopic::new("readings")))?;
///
/// let request = |value: &[u8]| {
///     let mut batch = BatchBuilder::new();
///     batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(value), headers: &[] })?;
///     let payload = Payload::Batch(batch.build()?.bytes().clone());
///     let (topic, acks) = ("readings".into(), Acks::Durable);
///     Ok::<_, logmill_record::BatchError>(Produce { topic, partition: Some(0), payload, acks, sent_at: None })
/// };
/// let stream = broker.produce_stream();
/// let too_large = stream.send(&context, request(&[b'x'; 2_000])?);
/// let behind = stream.send(&context, request(b"21.5")?);
/// assert!(block_on(&*scheduler, too_large).is_err());
/// let error = block_on(&*scheduler, behind)?.remove(0).outcome.unwrap_err();
/// assert_eq!(error.reason(), Reason::PrecedingFailed);
///
/// let again = stream.send_after_failure(&context, request(b"21.5")?);
/// block_on(&*scheduler, again)?.remove(0).outcome?;
/// broker.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ProduceStream {
    broker: Broker,
    orders: Mutex<Orders>,
}

/// The partitions that a stream has in mind.
#[derive(Debug, Default)]
struct Orders {
    of: HashMap<(String, u32), Order>,
    /// There was no room for one more, and its request was refused. Which one that was is not known: any that is
    /// not in mind may have failed.
    has_turned_away: bool,
}

impl Orders {
    /// Forgets the partitions in which nothing is under way and nothing has failed.
    fn forget_idle(&mut self, core: &Core) {
        self.of.retain(|(topic, partition), order| {
            let topic = core.catalog.topic(topic);
            let lane = topic.as_ref().ok().and_then(|topic| topic.partition(*partition).ok()?.lane().ok());
            !lane.map_or_else(|| order.is_idle(None), |lane| lane.look(|log| order.is_idle(Some(log))))
        });
    }
}

impl Broker {
    /// A stream of produce requests. It costs nothing until it is used, and ends when it is dropped; what was
    /// sent on it is appended all the same.
    #[must_use]
    pub fn produce_stream(&self) -> ProduceStream {
        ProduceStream { broker: self.clone(), orders: Mutex::default() }
    }

    /// An id for an idempotent producer, which nobody else has. Its epoch is 0, and the producer itself moves it
    /// on, in each partition by itself.
    ///
    /// # Errors
    /// [`NodeClosing`](crate::Reason::NodeClosing).
    pub fn init_producer_id(
        &self,
        context: &RequestContext,
    ) -> impl Future<Output = Result<i64, Error>> + Send + 'static + use<> {
        let core = self.core();
        let allowed = authorize(context, &Operation::InitProducerId).and_then(|()| core.check_open());
        std::future::ready(allowed.map(|()| core.fresh_producer_id()))
    }
}

impl Core {
    /// An id for a producer that nobody has. By chance and not counted, so that nothing has to be on disk before it is
    /// used: of the 10,000 producers that a partition remembers, two are the same with a chance of 1 in 10^11.
    pub(crate) fn fresh_producer_id(&self) -> i64 {
        let mut bytes = [0; 8];
        self.config.env.random.fill(&mut bytes);
        i64::from_le_bytes(bytes) & i64::MAX
    }
}

impl ProduceStream {
    /// As [`Broker::produce`], unless a request before it failed.
    ///
    /// # Errors
    /// As there, and [`PrecedingFailed`](crate::Reason::PrecedingFailed) in the result of a partition.
    pub fn send(
        &self,
        context: &RequestContext,
        request: Produce,
    ) -> impl Future<Output = Result<Vec<ProduceResult>, Error>> + Send + 'static + use<> {
        self.produce(context, request, false)
    }

    /// As [`send`](ProduceStream::send), by someone who knows that a request before it failed. A batch of an
    /// idempotent producer is the first one that failed, or the first one of a newer epoch.
    ///
    /// # Errors
    /// As there.
    pub fn send_after_failure(
        &self,
        context: &RequestContext,
        request: Produce,
    ) -> impl Future<Output = Result<Vec<ProduceResult>, Error>> + Send + 'static + use<> {
        self.produce(context, request, true)
    }

    pub(crate) fn produce(
        &self,
        context: &RequestContext,
        request: Produce,
        after_failure: bool,
    ) -> impl Future<Output = Result<Vec<ProduceResult>, Error>> + Send + 'static + use<> {
        self.broker.produce_on(context, request, Some(&Sending { stream: self, after_failure }))
    }

    /// A request for the partition could not be understood: it has failed, and those behind it fail too.
    #[cfg(feature = "grpc")]
    pub(crate) fn note_refused(&self, topic: &str, partition: u32, after_failure: bool) {
        let sending = Sending { stream: self, after_failure };
        drop(sending.place(topic, partition, None));
    }
}

/// A request on its way into a stream.
pub(super) struct Sending<'a> {
    stream: &'a ProduceStream,
    after_failure: bool,
}

impl Sending<'_> {
    /// Its place among the requests for the partition.
    pub(super) fn place(
        &self,
        topic: &str,
        partition: u32,
        sequence: Option<ProducerSequence>,
    ) -> Result<Place, Error> {
        if topic.len() > MAX_TOPIC_NAME_BYTES {
            return Err(Error::topic_not_found(topic));
        }
        let mut orders = self.stream.orders.lock();
        let core = self.stream.broker.core();
        let key = (topic.to_owned(), partition);
        if !orders.of.contains_key(&key) {
            if orders.has_turned_away && !self.after_failure {
                let name = PartitionName { topic: topic.into(), partition };
                return Err(preceding_failed(&name, None));
            }
            if orders.of.len() >= core.config.limits.max_stream_partitions {
                orders.forget_idle(core);
            }
            let doing = || "one partition more on a stream".to_owned();
            let room = core.bounds.check(
                Limit::MaxStreamPartitions,
                orders.of.len() + 1,
                doing,
                "use several streams",
            );
            orders.has_turned_away |= room.is_err();
            room?;
        }
        Ok(orders.of.entry(key).or_default().next(sequence, self.after_failure))
    }
}
