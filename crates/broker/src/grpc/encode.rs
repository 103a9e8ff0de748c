//! What was read as messages, within what a client accepts.
//!
//! gRPC clients take messages of up to 4 MB unless told otherwise. Plain records can take more in a message
//! than in a batch, so a reply is measured as it is made, and cut where it is full: `next_offset` says where
//! to go on.

use bytes::Bytes;
use logmill_log::AbortedTxn;
use logmill_proto::v1;
use logmill_record::{BatchHeader, Offset};
use prost::Message;

use super::convert::{number, timestamp_type};
use crate::error::Error;
use crate::fetch::{Aborted, DecodedRecord, DecodedRecords, PartitionData, decode};

/// The most that an encoded reply takes, unless a single record or batch is larger, which goes alone.
pub(super) const MAX_REPLY_BYTES: usize = 3_900_000;

/// What the tag and length of a part take at most.
const FRAMING_BYTES: usize = 12;

/// How records are returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Records,
    Batches,
}

/// What a reply may still take.
#[derive(Debug)]
pub(super) struct Room {
    /// Encoded bytes.
    encoded: usize,
    /// Bytes of records, as the request counts them.
    payload: usize,
    /// No record is in the reply yet, so that one may be of any size.
    first: bool,
}

impl Room {
    pub(super) fn new(max_payload_bytes: usize) -> Self {
        Self { encoded: MAX_REPLY_BYTES, payload: max_payload_bytes, first: true }
    }

    /// Takes room for records, or none and leaves nothing for others.
    fn take(&mut self, encoded: usize, payload: usize) -> bool {
        let encoded = encoded + FRAMING_BYTES;
        let fits = encoded <= self.encoded && payload <= self.payload;
        if !fits && !self.first {
            (self.encoded, self.payload) = (0, 0);
            return false;
        }
        self.first = false;
        self.encoded = self.encoded.saturating_sub(encoded);
        self.payload = self.payload.saturating_sub(payload);
        true
    }
}

/// A partition's part of a reply, and the bytes of records in it.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) data: v1::PartitionData,
    pub(super) payload: usize,
    /// Not all that had been read is in it: the reply was full, or the next batch cannot be decoded.
    pub(super) cut: bool,
    /// The offset after the last decoded record in it.
    behind: Option<Offset>,
    /// A batch cannot be decoded, and nothing before it is in the reply.
    pub(super) failed: Option<Error>,
}

/// The message without records: it is in every reply, so its room is taken first.
pub(super) fn frame(data: &PartitionData, room: &mut Room) -> v1::PartitionData {
    let framed = v1::PartitionData {
        topic: data.topic.clone(),
        partition: number(data.partition),
        start_offset: data.start_offset.into(),
        end_offset: data.end_offset.into(),
        next_offset: data.next_offset.into(),
        chunks: Vec::new(),
        error: data.error.clone().map(Into::into),
        last_epoch: data.last_epoch,
        last_stable_offset: data.last_stable_offset.into(),
        aborted: Vec::new(),
        topic_id: data.topic_id.map(|id| id.to_string()),
    };
    room.encoded = room.encoded.saturating_sub(framed.encoded_len() + FRAMING_BYTES);
    framed
}

/// Puts what was read of a partition into its message, as far as there is room. What lies before a batch that cannot
/// be decoded is good: the error comes with the next reply.
pub(super) fn fill(
    data: &PartitionData,
    framed: v1::PartitionData,
    format: Format,
    room: &mut Room,
) -> Encoded {
    let mut encoded = Encoded { data: framed, payload: 0, cut: false, behind: None, failed: None };
    let aborted = Aborted::new(&data.aborted);
    if format == Format::Batches {
        // Their room is taken as if all were in the reply, before it is known how far that goes.
        room.encoded = room.encoded.saturating_sub(aborted_len(data));
    }
    for chunk in &data.chunks {
        let made = match format {
            Format::Records => {
                let decoded = decode(chunk.batches.clone(), data.from_offset).without(aborted.clone());
                records(decoded, room, &mut encoded)
            }
            Format::Batches => Ok(batches(&chunk.batches, data.from_offset, room, &mut encoded)),
        };
        match made {
            Ok(Some(content)) => encoded.data.chunks.push(v1::Chunk {
                appended_at_ms: chunk.appended_at.get(),
                appended_at_estimated: chunk.appended_at_estimated,
                data: Some(content),
            }),
            Ok(None) => {}
            Err(error) => {
                encoded.data.error = Some(error.clone().into());
                encoded.data.next_offset = data.from_offset.into();
                encoded.data.last_epoch = data.from_epoch;
                encoded.failed = Some(error);
                return encoded;
            }
        }
        if encoded.cut {
            break;
        }
    }
    if let (true, Ok(next)) = (encoded.cut, Offset::try_from(encoded.data.next_offset)) {
        encoded.data.last_epoch = epoch_before(data, next);
    }
    if format == Format::Batches {
        encoded.data.aborted = aborted_before(data, encoded.data.next_offset);
    }
    encoded
}

fn records(
    decoded: DecodedRecords,
    room: &mut Room,
    encoded: &mut Encoded,
) -> Result<Option<v1::chunk::Data>, Error> {
    let mut records = Vec::new();
    for record in decoded {
        let record = match (record, encoded.behind) {
            (Ok(record), _) => record,
            (Err(error), None) => return Err(error),
            (Err(_), Some(behind)) => {
                encoded.cut_at(behind);
                break;
            }
        };
        let (offset, payload) = (record.offset, record.size_bytes());
        let record = v1::FetchedRecord::from(record);
        if !room.take(record.encoded_len(), payload) {
            encoded.cut_at(offset);
            break;
        }
        encoded.payload += payload;
        encoded.behind = Some(offset.next());
        records.push(record);
    }
    Ok((!records.is_empty()).then_some(v1::chunk::Data::Records(v1::FetchedRecords { records })))
}

fn batches(batches: &Bytes, from: Offset, room: &mut Room, encoded: &mut Encoded) -> Option<v1::chunk::Data> {
    let (mut start, mut end) = (0, 0);
    for (next, header) in headers(batches) {
        if header.next_offset() <= from {
            start = next;
        } else if !room.take(header.total_len, header.total_len) {
            // Not back to where the batch starts, if the records asked for start inside it.
            encoded.cut_at(header.base_offset.max(from));
            break;
        }
        end = next;
    }
    encoded.payload += end - start;
    (end > start).then(|| v1::chunk::Data::Batches(batches.slice(start..end)))
}

/// The headers of batches that were read, each with where its batch ends.
fn headers(batches: &Bytes) -> impl Iterator<Item = (usize, BatchHeader)> {
    let mut end = 0;
    std::iter::from_fn(move || {
        // The log has checked them.
        let header = BatchHeader::parse(batches.get(end..)?).ok()?;
        end = (end + header.total_len).min(batches.len());
        Some((end, header))
    })
}

/// The leader epoch of the last batch that begins below `offset`, of those that were read.
fn epoch_before(data: &PartitionData, offset: Offset) -> Option<i32> {
    let read = data.chunks.iter().flat_map(|chunk| headers(&chunk.batches)).map(|(_, header)| header);
    let below = read.take_while(|header| header.base_offset < offset);
    below.last().map_or(data.from_epoch, |header| Some(header.leader_epoch))
}

impl Encoded {
    fn cut_at(&mut self, offset: Offset) {
        self.cut = true;
        self.data.next_offset = offset.into();
    }
}

/// The bytes of the aborted transactions in a message.
fn aborted_len(data: &PartitionData) -> usize {
    data.aborted.iter().map(|aborted| aborted_range(aborted).encoded_len() + FRAMING_BYTES).sum()
}

/// Those with records from the offset asked for up to this one, which a reply that was cut may not get past.
fn aborted_before(data: &PartitionData, next: i64) -> Vec<v1::AbortedRange> {
    let ranges = data.aborted.iter().map(aborted_range);
    let from = data.from_offset.into();
    ranges.filter(|aborted| aborted.first_offset < next && aborted.last_offset >= from).collect()
}

fn aborted_range(aborted: &AbortedTxn) -> v1::AbortedRange {
    let AbortedTxn { producer_id, first_offset, last_offset, .. } = *aborted;
    v1::AbortedRange { producer_id, first_offset: first_offset.into(), last_offset: last_offset.into() }
}

impl From<DecodedRecord> for v1::FetchedRecord {
    fn from(record: DecodedRecord) -> Self {
        let header = |(key, value)| v1::Header { key, value };
        Self {
            offset: record.offset.into(),
            timestamp_ms: record.timestamp.get(),
            timestamp_type: timestamp_type(record.timestamp_type),
            key: record.key,
            value: record.value,
            headers: record.headers.into_iter().map(header).collect(),
        }
    }
}
