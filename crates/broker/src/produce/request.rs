//! What a produce request is, and its answer.

use bytes::Bytes;
use logmill_record::{BatchHeader, Offset, TimestampMs};

use super::order::ProducerSequence;
use crate::error::Error;
use crate::transaction::ProducerEpoch;

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
    /// The same, as a part of the transaction that the producer has open, or of one that begins with it: see
    /// [`Broker::init_transactions`](crate::Broker::init_transactions). A batch says so itself.
    InTransaction(ProducerSequence, Vec<ProduceRecord>),
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
    /// When the request has been accepted. Offsets are not reported, and a failure to append is not either: the only
    /// results are those of partitions that refused their records at once, where others took theirs.
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

impl Payload {
    /// Whose batch it is, as far as can be seen before it is checked.
    pub(super) fn sequence(&self) -> Option<ProducerSequence> {
        match self {
            Self::Records(_) => None,
            Self::Numbered(sequence, _) | Self::InTransaction(sequence, _) => Some(*sequence),
            Self::Batch(bytes) => {
                let header = BatchHeader::parse(bytes).ok().filter(|header| header.producer_id >= 0)?;
                let BatchHeader { producer_id: id, producer_epoch: epoch, base_sequence, .. } = header;
                Some(ProducerSequence { id, epoch, base_sequence })
            }
        }
    }
}

impl Payload {
    /// Whose transaction it is part of, as far as can be seen before it is checked.
    pub(super) fn transaction(&self) -> Option<ProducerEpoch> {
        let ProducerSequence { id, epoch, .. } = match self {
            Self::Records(_) | Self::Numbered(..) => return None,
            Self::InTransaction(sequence, _) => *sequence,
            Self::Batch(bytes) => {
                BatchHeader::parse(bytes).ok().filter(|header| header.attributes.is_transactional())?;
                self.sequence()?
            }
        };
        Some(ProducerEpoch { id, epoch })
    }
}

impl ProducerSequence {
    pub(super) fn check(self) -> Result<(), Error> {
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
