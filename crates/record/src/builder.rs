//! Makes a batch, record by record.

use crate::batch::{Batch, crc32c};
use crate::error::BatchError;
use crate::header::{Attributes, BatchHeader, HEADER_LEN, MAX_BATCH_LEN};
use crate::units::{Offset, TimestampMs};
use crate::varint::{put_varint, put_varlong, varint_len, varlong_len};

/// A record to be put into a batch.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// The record's own time.
    pub timestamp: TimestampMs,
    /// The key; `None` is null, which is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is null, a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers, in order; keys may come twice, values may be null.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Collects records into one uncompressed batch, and knows its exact size at every moment.
///
/// The batch has base offset 0, leader epoch 0 and no producer; its base timestamp is that of its first record.
///
/// ```
/// use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
///
/// const LIMIT_BYTES: usize = 16 * 1024;
///
/// let mut batches = Vec::new();
/// let mut builder = BatchBuilder::new();
/// for i in 0..1_000 {
///     let value = format!("reading {i}");
///     let record = NewRecord {
///         timestamp: TimestampMs(1_700_000_000_000 + i),
///         key: None,
///         value: Some(value.as_bytes()),
///         headers: &[],
///     };
///     if !builder.is_empty() && builder.size_with(&record) > LIMIT_BYTES {
///         batches.push(std::mem::take(&mut builder).build()?);
///     }
///     builder.push(&record)?;
/// }
/// batches.push(builder.build()?);
/// assert!(batches.iter().all(|batch| batch.bytes().len() <= LIMIT_BYTES));
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records.
    bytes: Vec<u8>,
    count: u32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
}

/// What a record will take in this batch.
struct Plan {
    timestamp_delta: i64,
    offset_delta: i32,
    body_len: i32,
    batch_len: usize,
}

impl BatchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> BatchBuilder {
        BatchBuilder::with_capacity(HEADER_LEN)
    }

    /// An empty builder with room for a batch of `size_bytes`, so that it does not grow by doubling.
    #[must_use]
    pub fn with_capacity(size_bytes: usize) -> BatchBuilder {
        let mut bytes = Vec::with_capacity(size_bytes.max(HEADER_LEN));
        bytes.resize(HEADER_LEN, 0);
        BatchBuilder { bytes, count: 0, base_timestamp: TimestampMs::NONE, max_timestamp: TimestampMs::NONE }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// [`TooLarge`](BatchError::TooLarge) if the batch would pass [`MAX_BATCH_LEN`], and
    /// [`TimestampSpan`](BatchError::TimestampSpan); the builder is then as it was.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), BatchError> {
        let plan = self.plan(record)?;
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
            self.max_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.count += 1;
        self.bytes.reserve(plan.batch_len - self.bytes.len());
        self.write(record, &plan);
        debug_assert_eq!(self.bytes.len(), plan.batch_len);
        Ok(())
    }

    /// How many records are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether no record is in it yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The exact size of the batch if it were built now, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The exact size of the batch if `record` were added and it were built then, in bytes; `usize::MAX` for a
    /// record that [`push`](BatchBuilder::push) refuses.
    #[must_use]
    pub fn size_with(&self, record: &NewRecord<'_>) -> usize {
        self.plan(record).map_or(usize::MAX, |plan| plan.batch_len)
    }

    /// Finishes the batch.
    ///
    /// # Errors
    /// [`Empty`](BatchError::Empty) without a record.
    pub fn build(mut self) -> Result<Batch, BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let mut header = BatchHeader {
            base_offset: Offset::ZERO,
            total_len: self.bytes.len(),
            leader_epoch: 0,
            crc: 0,
            attributes: Attributes::PLAIN,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: self.count,
        };
        self.write_header(&header);
        header.crc = crc32c(&self.bytes);
        self.write_header(&header);
        Ok(Batch::from_parts(header, self.bytes.into()))
    }

    fn write_header(&mut self, header: &BatchHeader) {
        let room =
            self.bytes.first_chunk_mut::<HEADER_LEN>().expect("invariant: made with the header's room");
        header.write(room);
    }

    fn plan(&self, record: &NewRecord<'_>) -> Result<Plan, BatchError> {
        let base = if self.count == 0 { record.timestamp.0 } else { self.base_timestamp.0 };
        let timestamp = record.timestamp.0;
        let timestamp_delta =
            timestamp.checked_sub(base).ok_or(BatchError::TimestampSpan { base, timestamp })?;
        let offset_delta = self.count.cast_signed();

        let body_len = 1 // attributes
            + varlong_len(timestamp_delta) as u64
            + varint_len(offset_delta) as u64
            + content_len(record);
        let too_large = |size| BatchError::TooLarge { size };
        let body_len = i32::try_from(body_len).map_err(|_| too_large(self.bytes.len() as u64 + body_len))?;
        let batch_len = self.bytes.len() + varint_len(body_len) + body_len.cast_unsigned() as usize;
        if batch_len > MAX_BATCH_LEN {
            return Err(too_large(batch_len as u64));
        }
        Ok(Plan { timestamp_delta, offset_delta, body_len, batch_len })
    }

    fn write(&mut self, record: &NewRecord<'_>, plan: &Plan) {
        let out = &mut self.bytes;
        put_varint(out, plan.body_len);
        out.push(0); // attributes: none are defined
        put_varlong(out, plan.timestamp_delta);
        put_varint(out, plan.offset_delta);
        put_nullable(out, record.key);
        put_nullable(out, record.value);
        put_varint(out, fits_i32(record.headers.len()));
        for (key, value) in record.headers {
            put_nullable(out, Some(key.as_bytes()));
            put_nullable(out, *value);
        }
    }
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

/// What key, value and headers take, with their lengths. Saturates: headers may share memory, so that their
/// sum can pass what memory holds.
fn content_len(record: &NewRecord<'_>) -> u64 {
    let mut len = nullable_len(record.key)
        .saturating_add(nullable_len(record.value))
        .saturating_add(length_len(record.headers.len()));
    for (key, value) in record.headers {
        len = len.saturating_add(nullable_len(Some(key.as_bytes()))).saturating_add(nullable_len(*value));
    }
    len.min(u64::from(u32::MAX))
}

fn nullable_len(bytes: Option<&[u8]>) -> u64 {
    match bytes {
        Some(bytes) => length_len(bytes.len()) + bytes.len() as u64,
        None => 1,
    }
}

/// What a length takes. One that does not fit is refused as part of its record; its own size does not matter.
fn length_len(len: usize) -> u64 {
    varint_len(i32::try_from(len).unwrap_or(i32::MAX)) as u64
}

#[inline]
fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, fits_i32(bytes.len()));
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

/// Every part of a record is shorter than the record, whose length was checked.
fn fits_i32(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}
