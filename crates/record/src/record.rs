//! Records and their headers, borrowed from the batch that holds them.
//!
//! A record is: its length, attributes (unused), timestamp delta, offset delta, key, value, and headers, each
//! key with its value. A length of -1 is null, for keys, values and the values of headers.

use std::iter::FusedIterator;

use crate::attributes::TimestampType;
use crate::error::{BatchError, RecordProblem};
use crate::header::{BatchHeader, HEADER_LEN};
use crate::units::{Offset, TimestampMs};
use crate::varint::Reader;

/// The smallest header: the length of its key and of its value, a byte each.
const MIN_HEADER_LEN: u64 = 2;

/// One record, borrowed from its batch.
///
/// ```
/// use logmill_record::{BatchBuilder, NewRecord, Offset, Record, TimestampMs};
///
/// let headers = [("unit", Some(&b"C"[..])), ("unit", None)];
/// let mut builder = BatchBuilder::new();
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: Some(b"k"), value: None, headers: &headers })?;
/// let batch = builder.build()?;
///
/// let record: Record<'_> = batch.records()?.next().unwrap()?;
/// assert_eq!((record.offset, record.timestamp), (Offset(0), TimestampMs(5)));
/// assert_eq!((record.key, record.value), (Some(&b"k"[..]), None));
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The record's place in its log.
    pub offset: Offset,
    /// The record's own time, or the time of append in a batch with
    /// [`LogAppendTime`](TimestampType::LogAppendTime).
    pub timestamp: TimestampMs,
    /// The key; `None` is null, which is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// The headers, in order; keys may come twice.
    #[must_use]
    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }
}

/// A header of a record.
///
/// ```
/// use logmill_record::Header;
///
/// let header = Header { key: "unit", value: Some(b"C") };
/// assert_ne!(header, Header { value: None, ..header });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The header's name.
    pub key: &'a str,
    /// The header's value; `None` is null, which is not the same as empty.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, in order. Their bytes were checked with the record.
///
/// ```
/// use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
///
/// let headers = [("unit", Some(&b"C"[..])), ("unit", None)];
/// let mut builder = BatchBuilder::new();
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: Some(b"k"), value: None, headers: &headers })?;
/// let batch = builder.build()?;
///
/// let record = batch.records()?.next().unwrap()?;
/// assert_eq!(record.headers().len(), 2);
/// assert_eq!(record.headers().filter(|header| header.key == "unit").last().unwrap().value, None);
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    reader: Reader<'a>,
    remaining: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    #[inline]
    fn next(&mut self) -> Option<Header<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        read_header(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Headers<'_> {}
impl FusedIterator for Headers<'_> {}

/// The records of a batch, in order; ends after the first error.
///
/// A compacted batch may skip offsets, so deltas only have to grow, up to the header's last.
///
/// ```
/// use logmill_record::{BatchBuilder, NewRecord, Records, TimestampMs};
///
/// let headers = [("unit", Some(&b"C"[..])), ("unit", None)];
/// let mut builder = BatchBuilder::new();
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: Some(b"k"), value: None, headers: &headers })?;
/// let batch = builder.build()?;
///
/// let records: Records<'_> = batch.records()?;
/// let values: Result<Vec<_>, _> = records.map(|record| record.map(|record| record.value)).collect();
/// assert_eq!(values?, [None]);
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Records<'a> {
    walk: Walk<'a>,
    base_offset: Offset,
    /// Set where the batch speaks for all its records.
    append_time: Option<TimestampMs>,
}

impl<'a> Records<'a> {
    /// `batch` is the whole batch of `header`, uncompressed.
    pub(crate) fn new(header: &BatchHeader, batch: &'a [u8]) -> Records<'a> {
        let append_time = match header.attributes.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp),
        };
        Records { walk: Walk::new(header, batch), base_offset: header.base_offset, append_time }
    }

    /// Where the next record starts, in bytes from the start of the batch.
    pub(crate) fn position(&self) -> usize {
        self.walk.position()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let raw = match self.walk.next()? {
            Ok(raw) => raw,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(Record {
            offset: self.base_offset.saturating_add(raw.offset_delta.into()),
            timestamp: self.append_time.unwrap_or(raw.timestamp),
            key: raw.key,
            value: raw.value,
            headers: raw.headers,
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // One more for an error after the last: bytes left over.
        (0, Some(self.walk.count.saturating_sub(self.walk.index) as usize + 1))
    }
}

impl FusedIterator for Records<'_> {}

/// Whether each record of a batch has to have a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    Optional,
    Needed,
}

/// See [`Batch::check_records`](crate::Batch::check_records); `batch` is the whole batch, uncompressed.
pub(crate) fn check_produced(header: &BatchHeader, batch: &[u8], keys: Keys) -> Result<(), BatchError> {
    let expected = u64::from(header.last_offset_delta) + 1;
    if u64::from(header.record_count) != expected {
        return Err(BatchError::OutOfRange {
            field: "record count",
            value: header.record_count.into(),
            min: expected.cast_signed(),
            max: expected.cast_signed(),
        });
    }
    if header.attributes.is_control() {
        return Err(BatchError::NotForProducers { what: "control batches" });
    }
    if header.attributes.has_delete_horizon() {
        return Err(BatchError::NotForProducers { what: "delete horizons" });
    }
    // As many deltas as records, growing and none past the last: they can only be 0, 1, 2 …
    let largest = largest_timestamp(header, batch, keys)?;
    if is_create_time(header) && largest != header.max_timestamp.0 {
        return Err(BatchError::MaxTimestamp { header: header.max_timestamp.0, records: largest });
    }
    Ok(())
}

/// See [`Batch::check_stored_with`](crate::Batch::check_stored_with); `batch` is the whole batch, uncompressed.
pub(crate) fn check_stored(header: &BatchHeader, batch: &[u8]) -> Result<(), BatchError> {
    let largest = largest_timestamp(header, batch, Keys::Optional)?;
    // Records that compaction took out may have been the latest.
    if is_create_time(header) && largest > header.max_timestamp.0 {
        return Err(BatchError::MaxTimestamp { header: header.max_timestamp.0, records: largest });
    }
    Ok(())
}

fn is_create_time(header: &BatchHeader) -> bool {
    header.attributes.timestamp_type() == TimestampType::CreateTime
}

/// Walks every record; `i64::MIN` if there are none.
fn largest_timestamp(header: &BatchHeader, batch: &[u8], keys: Keys) -> Result<i64, BatchError> {
    let mut largest = i64::MIN;
    let mut walk = Walk::new(header, batch);
    let mut start = HEADER_LEN;
    while let Some(raw) = walk.next() {
        let raw = raw?;
        if keys == Keys::Needed && raw.key.is_none() {
            let index = walk.index.saturating_sub(1);
            return Err(BatchError::Record { index, position: start, problem: RecordProblem::NoKey });
        }
        start = walk.position();
        largest = largest.max(raw.timestamp.0);
    }
    Ok(largest)
}

/// A record as it stands in the batch, its headers checked.
struct RawRecord<'a> {
    timestamp: TimestampMs,
    offset_delta: u32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Headers<'a>,
}

/// The one walk over the records of a batch, under both the iterator and the check.
#[derive(Clone, Debug)]
struct Walk<'a> {
    reader: Reader<'a>,
    batch_len: usize,
    base_timestamp: i64,
    index: u32,
    count: u32,
    /// The smallest delta that the next record may have, and the largest.
    min_delta: u32,
    max_delta: u32,
}

impl<'a> Walk<'a> {
    fn new(header: &BatchHeader, batch: &'a [u8]) -> Walk<'a> {
        Walk {
            reader: Reader::new(batch.get(HEADER_LEN..).unwrap_or_default()),
            batch_len: batch.len(),
            base_timestamp: header.base_timestamp.0,
            index: 0,
            count: header.record_count,
            min_delta: 0,
            max_delta: header.last_offset_delta,
        }
    }

    /// Where the next record starts, in bytes from the start of the batch.
    fn position(&self) -> usize {
        self.batch_len - self.reader.remaining()
    }

    #[inline]
    fn read_record(&mut self) -> Result<RawRecord<'a>, RecordProblem> {
        let mut body = Reader::new(self.reader.bytes("length")?);
        body.byte("attributes")?;
        let timestamp_delta = body.varlong("timestamp delta")?;
        let offset_delta = body.varint("offset delta")?;
        let key = body.nullable_bytes("key")?;
        let value = body.nullable_bytes("value")?;
        let headers = read_headers(body)?;
        Ok(RawRecord {
            timestamp: self.timestamp(timestamp_delta)?,
            offset_delta: self.accept_delta(offset_delta)?,
            key,
            value,
            headers,
        })
    }

    #[inline]
    fn timestamp(&self, delta: i64) -> Result<TimestampMs, RecordProblem> {
        let base = self.base_timestamp;
        base.checked_add(delta).map(TimestampMs).ok_or(RecordProblem::Timestamp { base, delta })
    }

    #[inline]
    fn accept_delta(&mut self, found: i32) -> Result<u32, RecordProblem> {
        match u32::try_from(found) {
            Ok(delta) if (self.min_delta..=self.max_delta).contains(&delta) => {
                self.min_delta = delta + 1;
                Ok(delta)
            }
            _ => Err(RecordProblem::OffsetDelta { found, min: self.min_delta, max: self.max_delta }),
        }
    }

    /// Whatever was wrong, the walk ends with it.
    #[cold]
    fn fail<T>(&mut self, error: BatchError) -> Option<Result<T, BatchError>> {
        self.index = self.count;
        self.reader = Reader::new(&[]);
        Some(Err(error))
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<RawRecord<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let left = self.reader.remaining();
        if self.index == self.count {
            return match left {
                0 => None,
                extra => self.fail(BatchError::TrailingBytes { what: "last record", extra }),
            };
        }
        let index = self.index;
        match self.read_record() {
            Ok(record) => {
                self.index += 1;
                Some(Ok(record))
            }
            Err(problem) => self.fail(BatchError::Record { index, position: self.batch_len - left, problem }),
        }
    }
}

/// The headers at the end of a record's `body`, checked, so that iterating over them cannot fail.
#[inline]
fn read_headers(mut body: Reader<'_>) -> Result<Headers<'_>, RecordProblem> {
    const FIELD: &str = "header count";
    let value = body.varint(FIELD)?;
    let count = u32::try_from(value).map_err(|_| RecordProblem::Negative { field: FIELD, value })?;
    let needed = u64::from(count) * MIN_HEADER_LEN;
    if needed > body.remaining() as u64 {
        return Err(RecordProblem::Overrun { field: FIELD, needed, available: body.remaining() });
    }
    let headers = Headers { reader: body, remaining: count as usize };
    for _ in 0..count {
        read_header(&mut body)?;
    }
    match body.remaining() {
        0 => Ok(headers),
        extra => Err(RecordProblem::Trailing { extra }),
    }
}

#[inline]
fn read_header<'a>(reader: &mut Reader<'a>) -> Result<Header<'a>, RecordProblem> {
    let key = reader.bytes("header key")?;
    let key = std::str::from_utf8(key).map_err(|_| RecordProblem::HeaderKey)?;
    let value = reader.nullable_bytes("header value")?;
    Ok(Header { key, value })
}
