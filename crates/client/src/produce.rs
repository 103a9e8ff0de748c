//! What both ways to produce share, and the simple one: one ready batch, one answer.

use logmill_proto::v1;
use logmill_proto::v1::produce_request::Payload;
use logmill_proto::v1::produce_result::Outcome;
use logmill_record::{Batch, Offset, TimestampMs};

use crate::convert::{offset_from, partition_to};
use crate::error::in_append_reply;
use crate::{Client, Error};

/// When a node answers that records were appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Acks {
    /// When they are on disk: an answered record survives a power cut.
    #[default]
    Durable,
    /// When they are written to the operating system: an answered record survives the end of the process, not
    /// a power cut.
    Written,
}

/// Where a record was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// The partition's number.
    pub partition: u32,
    /// The record's offset; of a whole batch, that of its first record.
    pub offset: Offset,
    /// When the node appended it.
    pub appended_at: TimestampMs,
}

impl Client {
    /// Appends one ready batch to a partition and waits for the answer; the offset is that of its first
    /// record.
    ///
    /// [`Producer`](crate::Producer) is for streams of records; this is for programs that make their own
    /// batches.
    ///
    /// # Errors
    /// After [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), whatever the reason (`OUTCOME_UNKNOWN`,
    /// `INTERNAL_FAULT`, `UNEXPECTED_ANSWER`), the records may be stored. After
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) (`SEQUENCE_FORGOTTEN`) they were stored the first time that
    /// the batch was sent. After every other error they are not.
    ///
    /// ```no_run
    /// use logmill_client::{Acks, Client};
    /// use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut builder = BatchBuilder::new();
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// let delivered = client.produce_batch("orders", 0, builder.build()?, Acks::Durable).await?;
    /// println!("at offset {}", delivered.offset);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn produce_batch(
        &self,
        topic: &str,
        partition: u32,
        batch: Batch,
        acks: Acks,
    ) -> Result<Delivered, Error> {
        let record_count = batch.header().record_count;
        let request = produce_request(topic, partition_to(partition)?, &batch, acks, self.clock().now());
        let reply = self.append_call(self.produce_rpc().produce(request)).await?;
        let first = appended(reply.results, record_count)?;
        Ok(first.delivered(partition, 0))
    }
}

/// What producers ask for by themselves.
impl Client {
    /// An id for an idempotent producer.
    pub(crate) async fn init_producer_id(&self) -> Result<i64, Error> {
        let mut rpc = self.produce_rpc();
        let asked = rpc.init_producer_id(v1::InitProducerIdRequest {});
        match self.call_within(self.connect_timeout(), "InitProducerId", asked).await?.producer_id {
            id if id >= 0 => Ok(id),
            id => Err(Error::nonsense(format!("a producer cannot have the id {id}"))),
        }
    }
}

/// The part of an answer that all records of a batch share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    first_offset: Offset,
    appended_at: TimestampMs,
}

impl Appended {
    pub(crate) fn delivered(&self, partition: u32, index: u32) -> Delivered {
        Delivered {
            partition,
            offset: self.first_offset.saturating_add(u64::from(index)),
            appended_at: self.appended_at,
        }
    }
}

pub(crate) fn produce_request(
    topic: &str,
    partition: i32,
    batch: &Batch,
    acks: Acks,
    sent_at: TimestampMs,
) -> v1::ProduceRequest {
    let acks = match acks {
        Acks::Durable => v1::Acks::Durable,
        Acks::Written => v1::Acks::Written,
    };
    v1::ProduceRequest {
        topic: topic.to_owned(),
        partition: Some(partition),
        payload: Some(Payload::Batch(batch.bytes().clone())),
        acks: acks.into(),
        sent_at_ms: Some(sent_at.get()),
        producer: None,
    }
}

/// What became of a request with one batch of `record_count` records.
///
/// An answer that makes no sense leaves open whether the batch was appended, and says so by its kind.
pub(crate) fn appended(results: Vec<v1::ProduceResult>, record_count: u32) -> Result<Appended, Error> {
    let Ok([result]) = <[v1::ProduceResult; 1]>::try_from(results) else {
        return Err(unclear("it has not one result for one batch"));
    };
    match result.outcome {
        Some(Outcome::Error(error)) => Err(in_append_reply(error)),
        Some(Outcome::Appended(found)) => {
            let first_offset = offset_from(found.first_offset).map_err(unclear)?;
            let last_offset = offset_from(found.last_offset).map_err(unclear)?;
            if last_offset.checked_sub(first_offset) != Some(u64::from(record_count.saturating_sub(1))) {
                let range = format!("offsets {first_offset} to {last_offset} for {record_count} records");
                return Err(unclear(range));
            }
            Ok(Appended { first_offset, appended_at: TimestampMs(found.appended_at_ms) })
        }
        None => Err(unclear("it says neither where the batch was appended nor why not")),
    }
}

fn unclear(what: impl std::fmt::Display) -> Error {
    let message = format!(
        "it is not known whether these records were appended, because the node's answer makes no sense: {what}"
    );
    Error::new(crate::ErrorKind::OutcomeUnknown, "UNEXPECTED_ANSWER", message)
}
