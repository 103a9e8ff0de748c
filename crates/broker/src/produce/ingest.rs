//! What comes in from outside becomes batches that may be stored, or is refused with a reason.

use bytes::Bytes;
use logmill_record::{
    Batch, BatchBuilder, BatchError, BatchErrorKind, BatchOptions, Inflater, NewRecord, RecordProblem,
    TimestampMs, TimestampType,
};

use super::lane::StepPart;
use super::{Payload, ProduceRecord, ProducerSequence};
use crate::error::{Error, Reason};
use crate::limits::{Bounds, Limit};
use crate::settings::{Rules, SettingName};

/// What a record takes in memory besides its key, value and headers.
const RECORD_BYTES: usize = size_of::<ProduceRecord>();
/// What a header takes in memory besides its key and value.
const HEADER_BYTES: usize = size_of::<(String, Option<Bytes>)>();

/// Whether a request may have so many plain records, and so many headers in them. What they take in memory is
/// bounded by that, and not by the size of the message: an empty record takes two bytes of it.
pub(crate) fn check_counts(records: usize, headers: usize, bounds: &Bounds) -> Result<(), Error> {
    let check = |limit, count, what| {
        bounds.check(limit, count, || format!("a request with {count} {what}"), "send several requests")
    };
    check(Limit::MaxRecordsPerRequest, records, "records")?;
    check(Limit::MaxHeadersPerRequest, headers, "headers")
}

/// Checks a batch that a producer made, whole: header, CRC, every record, as far as they may be inflated.
/// And by the rules of its topic.
///
/// One of a transaction has to be `admitted` by it.
pub(super) fn check(
    bytes: Bytes,
    rules: &Rules,
    admitted: bool,
    inflater: &mut Inflater,
) -> Result<Batch, Error> {
    check_size(bytes.len(), rules.max_message_bytes)?;
    let batch = Batch::parse(bytes).map_err(refuse)?;
    let header = batch.header();
    let attributes = header.attributes;
    if attributes.is_control() {
        return Err(invalid("it is a control batch, which only the node itself writes: send data batches"));
    }
    if attributes.is_transactional() != admitted {
        return Err(invalid(
            "its attributes say that it is part of a transaction, and it has no producer id, or is part of a step, \
             which is a transaction by itself: clear attribute bit 4, or set the producer's id, epoch and sequence",
        ));
    }
    let numbered = header.producer_id >= 0;
    if numbered != (header.producer_epoch >= 0) || numbered != (header.base_sequence >= 0) {
        return Err(invalid(
            "a producer id, an epoch and a first sequence belong together: set all three, or -1 for each",
        ));
    }
    if attributes.timestamp_type() == TimestampType::LogAppendTime {
        return Err(invalid(
            "its attributes say that the node set its timestamps, which the node does where the topic's \
             message.timestamp.type says so: clear attribute bit 3",
        ));
    }
    let codec = attributes.compression();
    if let Some(expected) = rules.compression.filter(|expected| *expected != codec) {
        let message = format!(
            "the record batch was refused: it is compressed with {codec}, and the topic's compression.type asks \
             for {expected}: compress with that, or send plain records, which the node compresses"
        );
        return Err(rule_broken(message, SettingName::CompressionType));
    }
    if rules.needs_key {
        batch.check_keyed_records_with(inflater).map_err(|error| match error {
            BatchError::Record { index, problem: RecordProblem::NoKey, .. } => keyless(index as usize),
            error => refuse(error),
        })?;
    } else {
        batch.check_records_with(inflater).map_err(refuse)?;
    }
    Ok(batch)
}

/// A compacted topic keeps the last record of each key.
fn keyless(index: usize) -> Error {
    let message = format!(
        "record {index} has no key, and the topic's cleanup.policy is compact, which keeps the last record of \
         each key: give it one"
    );
    rule_broken(message, SettingName::CleanupPolicy).with("record", index)
}

fn rule_broken(message: String, setting: SettingName) -> Error {
    Error::new(Reason::RecordRefused, message).with("setting", setting)
}

pub(super) fn check_size(bytes: usize, max_message_bytes: usize) -> Result<(), Error> {
    if bytes <= max_message_bytes {
        return Ok(());
    }
    let message = format!(
        "the batch has {bytes} bytes, and the topic's max.message.bytes is {max_message_bytes}: \
         send fewer records in a batch, or raise it for the topic"
    );
    Err(too_large(message, bytes, max_message_bytes))
}

/// Makes batches of plain records, in order, as few as the limit allows.
pub(super) fn build(records: &[ProduceRecord], now: TimestampMs, rules: &Rules) -> Result<Vec<Batch>, Error> {
    if rules.needs_key
        && let Some(index) = records.iter().position(|record| record.key.is_none())
    {
        return Err(keyless(index));
    }
    let mut batches = Vec::new();
    let mut start = 0;
    while start < records.len() {
        start = build_next(records, start, now, rules, &mut batches)?;
    }
    Ok(batches)
}

/// Makes one batch of all the records of an idempotent producer: it is one sequence that is known again.
pub(super) fn build_one(
    sequence: ProducerSequence,
    records: &[ProduceRecord],
    now: TimestampMs,
    rules: &Rules,
) -> Result<Batch, Error> {
    let ProducerSequence { id, epoch, base_sequence } = sequence;
    match <[Batch; 1]>::try_from(build(records, now, rules)?) {
        Ok([batch]) => Ok(batch.with_producer(id, epoch, base_sequence)),
        Err(several) => {
            let max_message_bytes = rules.max_message_bytes;
            let bytes = several.iter().map(|batch| batch.bytes().len()).sum();
            let message = format!(
                "the records of a request with a producer make one batch, of {bytes} bytes, and the topic's \
                 max.message.bytes is {max_message_bytes}: send fewer records in a request"
            );
            Err(too_large(message, bytes, max_message_bytes))
        }
    }
}

/// Makes the batches that a step appends to a partition: numbered one after the other, and in its transaction.
pub(super) fn build_step(
    parts: Vec<StepPart>,
    now: TimestampMs,
    rules: &Rules,
    inflater: &mut Inflater,
) -> Result<Vec<Batch>, Error> {
    let mut batches = Vec::with_capacity(parts.len());
    for part in parts {
        match part {
            StepPart::Records(records) => batches.extend(build(&records, now, rules)?),
            StepPart::Batch(bytes) => {
                let batch = check(bytes, rules, false, inflater)?;
                if batch.header().producer_id >= 0 {
                    return Err(invalid(
                        "it has a producer id, and the node numbers the batches of a step: set -1",
                    ));
                }
                batches.push(batch);
            }
        }
    }
    Ok(batches)
}

/// The batches as they follow on each other in a producer's transaction.
pub(super) fn number(batches: Vec<Batch>, sequence: ProducerSequence) -> Vec<Batch> {
    let ProducerSequence { id, epoch, mut base_sequence } = sequence;
    let number = |batch: Batch| {
        let records = batch.header().last_offset_delta + 1;
        let batch = batch.with_producer(id, epoch, base_sequence).into_transactional();
        base_sequence = sequence_after(base_sequence, records);
        batch
    };
    batches.into_iter().map(number).collect()
}

/// The sequence that comes so many records later: after 2³¹ − 1 comes 0.
pub(crate) fn sequence_after(sequence: i32, records: u32) -> i32 {
    let sum = i64::from(sequence) + i64::from(records);
    i32::try_from(sum & i64::from(i32::MAX)).expect("it has 31 bits")
}

/// Makes a batch of the records from `start` on, as many as fit; returns where the next one starts.
fn build_next(
    records: &[ProduceRecord],
    start: usize,
    now: TimestampMs,
    rules: &Rules,
    batches: &mut Vec<Batch>,
) -> Result<usize, Error> {
    let most = rules.max_message_bytes;
    let mut count = records.len() - start;
    loop {
        let taken = &records[start..start + count];
        let room = room_for(taken, most);
        let options = BatchOptions::new().compression(rules.compression.unwrap_or_default());
        let mut builder = BatchBuilder::with_options(options, room);
        for (index, record) in (start..).zip(taken) {
            let headers: Vec<(&str, Option<&[u8]>)> =
                record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            let new = NewRecord {
                timestamp: record.timestamp.unwrap_or(now),
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            };
            let with = builder.size_with(&new);
            if with > most && builder.is_empty() {
                return Err(record_too_large(index, record, with, most));
            }
            if with > most {
                break;
            }
            builder.push(&new).map_err(refuse)?;
        }
        let built = builder.len();
        let batch = builder.build().map_err(refuse)?;
        let bytes = batch.bytes().len();
        if bytes <= most {
            batches.push(batch);
            return Ok(start + built);
        }
        // Records that do not shrink are a little larger when they are compressed.
        if built == 1 {
            return Err(record_too_large(start, &records[start], bytes, most));
        }
        count = built / 2;
    }
}

/// What a batch of the first of these records takes about, before compression; at most `most`.
fn room_for(records: &[ProduceRecord], most: usize) -> usize {
    let mut room = 0;
    for record in records {
        room += record.size_bytes();
        if room >= most {
            return most;
        }
    }
    room
}

fn record_too_large(index: usize, record: &ProduceRecord, alone: usize, max_message_bytes: usize) -> Error {
    let size = if alone == usize::MAX { record.size_bytes() } else { alone };
    let message = format!(
        "record {index} of the request makes a batch of {size} bytes, and the topic's max.message.bytes is \
         {max_message_bytes}: send a smaller record, or raise it for the topic"
    );
    too_large(message, size, max_message_bytes).with("record", index)
}

fn too_large(message: String, bytes: usize, max_message_bytes: usize) -> Error {
    Error::new(Reason::MessageTooLarge, message)
        .with("bytes", bytes)
        .with("limit", "max.message.bytes")
        .with("value", max_message_bytes)
}

fn refuse(error: BatchError) -> Error {
    let reason = match error.kind() {
        BatchErrorKind::Unsupported => Reason::BatchUnsupported,
        BatchErrorKind::TooLarge => Reason::MessageTooLarge,
        _ => Reason::BatchInvalid,
    };
    Error::new(reason, format!("the record batch was refused: {error}")).because(error)
}

fn invalid(why: &str) -> Error {
    Error::new(Reason::BatchInvalid, format!("the record batch was refused: {why}"))
}

impl ProduceRecord {
    /// The bytes of key, value and headers.
    fn data_bytes(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + len(value)).sum();
        len(&self.key) + len(&self.value) + headers
    }

    /// What the record takes while it waits.
    pub(super) fn size_bytes(&self) -> usize {
        RECORD_BYTES + self.data_bytes() + self.headers.capacity() * HEADER_BYTES
    }
}

/// The same records, with all their bytes in one piece that nothing else lies in.
pub(super) fn detach(mut records: Vec<ProduceRecord>) -> Vec<ProduceRecord> {
    let mut all: Vec<&mut Bytes> = Vec::new();
    for ProduceRecord { key, value, headers, .. } in &mut records {
        all.extend(
            key.iter_mut().chain(value).chain(headers.iter_mut().filter_map(|(_, value)| value.as_mut())),
        );
    }
    let mut own = Bytes::from(all.iter().map(|slice| &slice[..]).collect::<Vec<_>>().concat());
    for slice in &mut all {
        **slice = own.split_to(slice.len());
    }
    records
}

/// What plain records take while they wait, with the room that their list has in reserve.
pub(super) fn size_of_records(records: &Vec<ProduceRecord>) -> usize {
    let reserve = (records.capacity() - records.len()) * RECORD_BYTES;
    reserve + records.iter().map(ProduceRecord::size_bytes).sum::<usize>()
}

impl Payload {
    /// The bytes of batches, or of keys, values and headers of plain records.
    pub(crate) fn data_bytes(&self) -> u64 {
        let bytes = match self {
            Self::Batch(bytes) => bytes.len(),
            Self::Records(records) | Self::Numbered(_, records) | Self::InTransaction(_, records) => {
                records.iter().map(ProduceRecord::data_bytes).sum()
            }
        };
        bytes as u64
    }

    /// What it takes in memory.
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Batch(bytes) => bytes.len(),
            Self::Records(records) | Self::Numbered(_, records) | Self::InTransaction(_, records) => {
                size_of_records(records)
            }
        }
    }
}
