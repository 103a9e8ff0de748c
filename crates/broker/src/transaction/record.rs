//! The bytes of `internal/transactions`: what was decided last under each transactional id.
//!
//! Keys and values are those of Kafka's `__transaction_state`
//! ([`TransactionLogKey`](https://github.com/apache/kafka/blob/trunk/transaction-coordinator/src/main/resources/common/message/TransactionLogKey.json)
//! version 0,
//! [`TransactionLogValue`](https://github.com/apache/kafka/blob/trunk/transaction-coordinator/src/main/resources/common/message/TransactionLogValue.json)
//! version 1), so that a listener for Kafka's clients can go by the same records. What Kafka has no field for are
//! tagged fields of its own, from 4096 on. Bytes: `docs/formats.md`, *The log of decisions: `internal/transactions`*.
//!
//! A transaction that is going on is not written: one that is not decided when the node starts is aborted. The
//! node's log of offsets counts as partition 0 of a topic `__offsets` without a UUID.

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};
use uuid::Uuid;

use super::step::StepAppended;
use super::{Outcome, ProducerEpoch};
use crate::internal::codec::{DecodeError, Reader, Writer};
use crate::topic::TopicPartition;

const KEY_VERSION: i16 = 0;
const VERSION: i16 = 1;
const TAG_NEXT: u32 = 1;
const TAG_TOPIC_IDS: u32 = 4096;
const TAG_STEP: u32 = 4097;
const TAG_LAST_OFFSETS: u32 = 4098;

/// How a transactional id stood when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nothing was decided under the epoch.
    Empty,
    /// It was decided, and the markers may be missing.
    Decided(Outcome),
    /// It was decided, and every partition has its marker.
    Complete(Outcome),
}

/// What is known of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionRecord {
    /// Of a decision, the one that its markers have.
    pub(crate) producer: ProducerEpoch,
    /// The id that comes after this transaction, once the epochs of this one are used up.
    pub(crate) next_id: Option<i64>,
    pub(crate) timeout_ms: i32,
    pub(crate) status: Status,
    /// What a decision is about.
    pub(crate) touched: Vec<TouchedName>,
    pub(crate) updated_at: TimestampMs,
    pub(crate) started_at: TimestampMs,
    /// Of a step, whose, and what it is answered with if it comes again.
    pub(crate) step: Option<StepRecord>,
}

/// A partition that a transaction has written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TouchedName {
    pub(crate) topic: String,
    pub(crate) id: TopicPartition,
    /// The last of its records there. By it a restart knows them from those of the transaction after it.
    pub(crate) last: Option<Offset>,
}

/// The last step of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StepRecord {
    pub(crate) group: String,
    pub(crate) unit: String,
    pub(crate) unit_epoch: i32,
    pub(crate) sequence: i64,
    /// A checksum of how far it has read: what comes under its number and has read something else is another.
    pub(crate) input_checksum: u32,
    pub(crate) appended: Vec<StepAppended>,
}

pub(crate) fn encode_key(name: &str) -> Bytes {
    let mut out = Writer::default();
    out.i16(KEY_VERSION);
    out.string(name);
    out.finish()
}

pub(crate) fn decode_key(key: &[u8]) -> Result<String, DecodeError> {
    let mut key = Reader::new(key);
    key.version(KEY_VERSION)?;
    let name = key.string("transactional id")?.to_owned();
    key.end()?;
    Ok(name)
}

impl Status {
    const fn code(self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Decided(Outcome::Commit) => 2,
            Self::Decided(Outcome::Abort) => 3,
            Self::Complete(Outcome::Commit) => 4,
            Self::Complete(Outcome::Abort) => 5,
        }
    }

    fn of(code: i8) -> Result<Self, DecodeError> {
        Ok(match code {
            0 => Self::Empty,
            2 => Self::Decided(Outcome::Commit),
            3 => Self::Decided(Outcome::Abort),
            4 => Self::Complete(Outcome::Commit),
            5 => Self::Complete(Outcome::Abort),
            _ => return Err(DecodeError::Value { what: "status", value: code.into() }),
        })
    }
}

pub(crate) fn encode(known: &TransactionRecord) -> Bytes {
    let mut out = Writer::default();
    out.i16(VERSION);
    out.i64(known.producer.id);
    out.i16(known.producer.epoch);
    out.i32(known.timeout_ms);
    out.i8(known.status.code());
    let topics = by_topic(&known.touched);
    let partitions = topics.iter().flat_map(|(_, partitions)| partitions);
    let mut last_offsets = Writer::default();
    for (_, last) in partitions {
        last_offsets.i64(last.map_or(-1, signed));
    }
    out.compact_len(topics.len());
    for (name, partitions) in &topics {
        out.compact_string(name.0);
        out.compact_len(partitions.len());
        partitions.iter().for_each(|(partition, _)| out.i32(*partition));
        out.tagged(&[]);
    }
    out.i64(known.updated_at.get());
    out.i64(known.started_at.get());
    let mut tagged = Vec::new();
    tagged.extend(known.next_id.map(|id| (TAG_NEXT, Bytes::copy_from_slice(&id.to_be_bytes()))));
    if !topics.is_empty() {
        let mut ids = Writer::default();
        topics.iter().for_each(|((_, id), _)| ids.uuid(*id));
        tagged.push((TAG_TOPIC_IDS, ids.finish()));
    }
    tagged.extend(known.step.as_ref().map(|step| (TAG_STEP, encode_step(step))));
    if !topics.is_empty() {
        tagged.push((TAG_LAST_OFFSETS, last_offsets.finish()));
    }
    out.tagged(&tagged);
    out.finish()
}

/// Topics with their ids, in the order in which they come first, and their partitions with the last offset in each.
type Topics<'a> = Vec<((&'a str, Uuid), Vec<(i32, Option<Offset>)>)>;

fn by_topic(touched: &[TouchedName]) -> Topics<'_> {
    let mut topics: Topics<'_> = Vec::new();
    for TouchedName { topic, id, last } in touched {
        let partition = (i32::try_from(id.partition).expect("a topic has far fewer partitions"), *last);
        match topics.iter_mut().find(|(of, _)| of.1 == id.topic) {
            Some((_, partitions)) => partitions.push(partition),
            None => topics.push(((topic, id.topic), vec![partition])),
        }
    }
    topics
}

fn encode_step(step: &StepRecord) -> Bytes {
    let mut out = Writer::default();
    out.string(&step.group);
    out.string(&step.unit);
    out.i32(step.unit_epoch);
    out.i64(step.sequence);
    out.i32(i32::try_from(step.appended.len()).expect("a step has a limit of partitions"));
    for append in &step.appended {
        out.string(&append.topic);
        out.i32(i32::try_from(append.partition).expect("a topic has far fewer partitions"));
        out.i64(signed(append.first_offset));
        out.i64(signed(append.last_offset));
        out.i64(append.appended_at.get());
    }
    out.i32(step.input_checksum.cast_signed());
    out.finish()
}

fn signed(offset: Offset) -> i64 {
    i64::try_from(offset.get()).expect("an offset has 63 bits")
}

pub(crate) fn decode(value: &[u8]) -> Result<TransactionRecord, DecodeError> {
    let mut value = Reader::new(value);
    let version = value.version(VERSION)?;
    if version != VERSION {
        return Err(DecodeError::Value { what: "version", value: version.into() });
    }
    let producer = ProducerEpoch { id: value.i64("producer id")?, epoch: value.i16("producer epoch")? };
    if producer.id < 0 || producer.epoch < 0 {
        return Err(DecodeError::Value { what: "producer", value: producer.id });
    }
    let timeout_ms = value.i32("timeout")?;
    let status = Status::of(value.i8("status")?)?;
    let mut topics = Vec::new();
    for _ in 0..value.compact_len("topics")? {
        topics.push(decode_topic(&mut value)?);
    }
    let updated_at = TimestampMs(value.i64("time of the update")?);
    let started_at = TimestampMs(value.i64("time of the start")?);
    let (mut next_id, mut step) = (None, None);
    let (mut ids, mut last_offsets) = (Vec::new(), Vec::new());
    let partitions: usize = topics.iter().map(|(_, partitions)| partitions.len()).sum();
    value.tagged(|tag, mut field| {
        match tag {
            TAG_NEXT => next_id = Some(field.i64("next producer id")?),
            TAG_TOPIC_IDS => {
                for _ in 0..topics.len() {
                    ids.push(field.uuid("id of a topic")?);
                }
            }
            TAG_STEP => step = Some(decode_step(&mut field)?),
            TAG_LAST_OFFSETS => {
                for _ in 0..partitions {
                    let last = field.i64("last offset of a partition")?;
                    last_offsets.push(u64::try_from(last).ok().map(Offset));
                }
            }
            _ => return Ok(()),
        }
        field.end()
    })?;
    value.end()?;
    if ids.len() != topics.len() || last_offsets.len() != partitions {
        return Err(DecodeError::Short("ids of the topics, and last offsets"));
    }
    let named = topics.into_iter().zip(ids).flat_map(|((topic, partitions), id)| {
        partitions.into_iter().map(move |partition| (topic.clone(), TopicPartition { topic: id, partition }))
    });
    let touched =
        named.zip(last_offsets).map(|((topic, id), last)| TouchedName { topic, id, last }).collect();
    Ok(TransactionRecord { producer, next_id, timeout_ms, status, touched, updated_at, started_at, step })
}

fn decode_topic(value: &mut Reader<'_>) -> Result<(String, Vec<u32>), DecodeError> {
    let name = value.compact_string("topic")?.to_owned();
    let mut partitions = Vec::new();
    for _ in 0..value.compact_len("partitions")? {
        partitions.push(value.u32("partition")?);
    }
    value.tagged(|_, _| Ok(()))?;
    Ok((name, partitions))
}

fn decode_step(field: &mut Reader<'_>) -> Result<StepRecord, DecodeError> {
    let (group, unit) = (field.string("group")?.to_owned(), field.string("unit")?.to_owned());
    let (unit_epoch, sequence) = (field.i32("epoch of the unit")?, field.i64("sequence of the step")?);
    let mut appended = Vec::new();
    for _ in 0..field.u32("number of appends")? {
        appended.push(StepAppended {
            topic: field.string("topic")?.to_owned(),
            partition: field.u32("partition")?,
            first_offset: offset(field, "first offset")?,
            last_offset: offset(field, "last offset")?,
            appended_at: TimestampMs(field.i64("time of the append")?),
        });
    }
    let input_checksum = field.i32("checksum of what was read")?.cast_unsigned();
    Ok(StepRecord { group, unit, unit_epoch, sequence, input_checksum, appended })
}

fn offset(field: &mut Reader<'_>, what: &'static str) -> Result<Offset, DecodeError> {
    field.u64(what).map(Offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF);

    fn committed() -> TransactionRecord {
        let touched = |topic: &str, id, partition, last| TouchedName {
            topic: topic.into(),
            id: TopicPartition { topic: id, partition },
            last,
        };
        TransactionRecord {
            producer: ProducerEpoch { id: 4711, epoch: 3 },
            next_id: None,
            timeout_ms: 60_000,
            status: Status::Decided(Outcome::Commit),
            touched: vec![
                touched("t", ID, 2, Some(Offset(9))),
                touched("t", ID, 5, None),
                touched("__offsets", Uuid::nil(), 0, Some(Offset(1))),
            ],
            updated_at: TimestampMs(1_700_000_000_001),
            started_at: TimestampMs(1_700_000_000_000),
            step: None,
        }
    }

    fn step() -> TransactionRecord {
        let append = StepAppended {
            topic: "out".into(),
            partition: 1,
            first_offset: Offset(10),
            last_offset: Offset(12),
            appended_at: TimestampMs(9),
        };
        let step = StepRecord {
            group: "g".into(),
            unit: "u".into(),
            unit_epoch: 7,
            sequence: 8,
            input_checksum: 0x89AB_CDEF,
            appended: vec![append],
        };
        TransactionRecord { next_id: Some(5), step: Some(step), ..committed() }
    }

    /// The formats as they are on disks: they change with a version and a migration, never like this.
    #[test]
    fn golden_bytes() {
        assert_eq!(encode_key("pay"), &b"\0\0\0\x03pay"[..]);
        let head = b"\0\x01\0\0\0\0\0\0\x12\x67\0\x03\0\0\xEA\x60\x02";
        let topics = b"\x03\x02t\x03\0\0\0\x02\0\0\0\x05\0\x0A__offsets\x02\0\0\0\0\0";
        let times = b"\0\0\x01\x8B\xCF\xE5\x68\x01\0\0\x01\x8B\xCF\xE5\x68\0";
        let ids = [&b"\x02\x80\x20\x20"[..], ID.as_bytes(), &[0; 16]].concat();
        let last =
            [&b"\x82\x20\x18"[..], &[0, 0, 0, 0, 0, 0, 0, 9], &[0xFF; 8], &[0, 0, 0, 0, 0, 0, 0, 1]].concat();
        let expected = [&head[..], topics, times, &ids, &last].concat();
        assert_eq!(encode(&committed()), expected);
        assert_eq!(decode(&expected), Ok(committed()));

        let step = step().step.expect("it is one of a step");
        let unit = b"\0\x01g\0\x01u\0\0\0\x07\0\0\0\0\0\0\0\x08";
        let append = b"\0\x03out\0\0\0\x01\0\0\0\0\0\0\0\x0A\0\0\0\0\0\0\0\x0C\0\0\0\0\0\0\0\x09";
        let expected = [&unit[..], &[0, 0, 0, 1], append, &[0x89, 0xAB, 0xCD, 0xEF]].concat();
        assert_eq!(encode_step(&step), expected);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for status in [Status::Empty, Status::Decided(Outcome::Abort), Status::Complete(Outcome::Commit)] {
            let known = TransactionRecord { status, ..step() };
            assert_eq!(decode(&encode(&known)), Ok(known));
        }
        let empty = TransactionRecord { status: Status::Empty, touched: Vec::new(), ..committed() };
        assert_eq!(decode(&encode(&empty)), Ok(empty));
        assert_eq!(decode_key(&encode_key("pay")), Ok("pay".into()));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let (whole, key) = (encode(&step()), encode_key("pay"));
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "{len} bytes");
        }
        for len in 0..key.len() {
            assert!(decode_key(&key[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(decode(&[&whole[..], &[0]].concat()), Err(DecodeError::Trailing(1)));
        let newer = DecodeError::NewerVersion { what: "its value", found: 2, known: 1 };
        assert_eq!(decode(&[&[0, 2], &whole[2..]].concat()), Err(newer));
    }
}
