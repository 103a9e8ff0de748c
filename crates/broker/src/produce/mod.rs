//! Records into partitions: a [`request`] is taken, and answered.
//!
//! A call decides and enqueues at once, so that calls made in order are appended in order; checking and
//! writing are the [`lane`]'s.

mod ingest;
mod lane;
mod order;
mod partitioning;
mod reopen;
mod request;
mod stream;

use std::future::Future;
use std::sync::Arc;

pub(crate) use ingest::check_counts;
pub(crate) use ingest::sequence_after as next_sequence;
use lane::Refused;
pub(crate) use lane::{Answer, Lane, Load, StepPart, Written};
use logmill_log::env::Clock;
use logmill_record::TimestampMs;
pub use order::ProducerSequence;
use partitioning::Share;
pub(crate) use partitioning::step_parts;
pub use request::{Acks, Appended, Payload, Produce, ProduceRecord, ProduceResult};
use stream::Sending;
pub use stream::{MAX_IN_FLIGHT_BATCHES, ProduceStream};

use crate::access::{Operation, authorize};
use crate::broker::Broker;
use crate::catalog::Partition;
use crate::context::RequestContext;
use crate::error::Error;
use crate::exec::Receiver;
use crate::topic::TopicPartition;

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
            let mut results = Vec::with_capacity(accepted.parts.len());
            for Part { partition, record_indexes, answer } in accepted.parts {
                let outcome = match answer {
                    Ok(_) if accepted.acks == Acks::None => continue,
                    Ok(answer) => answer.finish(accepted.acks).await,
                    Err(error) => Err(error),
                };
                results.push(ProduceResult { partition, record_indexes, outcome });
            }
            if let Some(sent_at) = accepted.sent_at.filter(|_| accepted.acks != Acks::None) {
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
        let transaction = payload.transaction();
        if transaction.is_some() && acks == Acks::None {
            let rule =
                "a transaction has answers: one whose record was refused would be committed without it";
            return Err(Error::field("acks", "NONE", rule));
        }
        let shares = partitioning::shares(core, &topic, partition, payload)?;
        let push = |Share { partition, record_indexes, load }| {
            let placed = named.take().map_or_else(|| place(partition), |place| Ok(Some(place)));
            let lane = topic.partition(partition).and_then(Partition::lane);
            let answer = placed.and_then(|place| {
                let lane = lane?.clone();
                let at = TopicPartition { topic: topic.id, partition };
                let admit = |producer| core.transactions.admit(core, producer, at, &lane);
                let admitted = transaction.map(admit).transpose()?;
                Ok(Waiting { answer: lane.push(load, place, admitted, &core.queued)?, lane })
            });
            Part { partition, record_indexes, answer }
        };
        let parts: Vec<Part> = shares.into_iter().map(push).collect();
        if acks == Acks::None
            && let Some(error) = parts.first().and_then(|part| part.answer.as_ref().err())
            && parts.iter().all(|part| part.answer.is_err())
        {
            return Err(error.clone());
        }
        let clock = Arc::clone(&core.config.env.clock);
        Ok(Accepted { topic: topic.identity.name.clone(), acks, parts, sent_at, clock })
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
        // Where a duplicate is, or was, must not be told while a power cut could take it from there.
        match answer {
            Ok(Written { first_offset, last_offset, appended_at, duplicate, durable }) => {
                if acks == Acks::Durable || duplicate {
                    durable.confirm(&self.lane).await?;
                }
                Ok(Appended { first_offset, last_offset, appended_at, duplicate })
            }
            Err(Refused { error, stored }) => {
                if let Some(durable) = stored {
                    durable.confirm(&self.lane).await?;
                }
                Err(error)
            }
        }
    }
}
