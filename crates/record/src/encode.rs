//! How one record is written.

use crate::builder::NewRecord;
use crate::error::BatchError;
use crate::header::MAX_BATCH_LEN;
use crate::varint::{put_varint, put_varlong, varint_len, varlong_len};

/// What a record will take in its batch.
pub(crate) struct Plan {
    timestamp_delta: i64,
    offset_delta: i32,
    body_len: i32,
    /// The batch with the record.
    pub(crate) batch_len: usize,
}

impl Plan {
    /// For `record` behind `len` bytes of batch.
    pub(crate) fn new(
        record: &NewRecord<'_>,
        base_timestamp: i64,
        offset_delta: i32,
        len: usize,
    ) -> Result<Plan, BatchError> {
        let timestamp_delta = timestamp_delta(record.timestamp.0, base_timestamp)?;
        let body_len = 1 // attributes
            + varlong_len(timestamp_delta) as u64
            + varint_len(offset_delta) as u64
            + content_len(record);
        let too_large = |size| BatchError::TooLarge { size };
        let body_len = i32::try_from(body_len).map_err(|_| too_large(len as u64 + body_len))?;
        let batch_len = len + varint_len(body_len) + body_len.cast_unsigned() as usize;
        if batch_len > MAX_BATCH_LEN {
            return Err(too_large(batch_len as u64));
        }
        Ok(Plan { timestamp_delta, offset_delta, body_len, batch_len })
    }

    /// Appends the record that was planned.
    pub(crate) fn write(&self, record: &NewRecord<'_>, out: &mut Vec<u8>) {
        out.reserve(self.batch_len - out.len());
        put_varint(out, self.body_len);
        out.push(0); // attributes: none are defined
        put_varlong(out, self.timestamp_delta);
        put_varint(out, self.offset_delta);
        put_nullable(out, record.key);
        put_nullable(out, record.value);
        put_varint(out, fits_i32(record.headers.len()));
        for (key, value) in record.headers {
            put_nullable(out, Some(key.as_bytes()));
            put_nullable(out, *value);
        }
        debug_assert_eq!(out.len(), self.batch_len);
    }
}

pub(crate) fn timestamp_delta(timestamp: i64, base: i64) -> Result<i64, BatchError> {
    timestamp.checked_sub(base).ok_or(BatchError::TimestampSpan { base, timestamp })
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
