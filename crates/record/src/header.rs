//! The 61 bytes in front of every batch, and the checks that make their claims safe to act on.

use std::ops::Range;

use crate::attributes::{Attributes, Compression};
use crate::error::BatchError;
use crate::units::{Offset, TimestampMs};

/// The length of a batch's header, in bytes.
pub const HEADER_LEN: usize = 61;

/// Where in a batch its leader epoch stands, which the log stamps: before what the CRC speaks for.
pub const LEADER_EPOCH: Range<usize> = 12..16;

/// The largest batch that the format allows, in bytes: its length field is an `i32` and counts from byte 12.
pub const MAX_BATCH_LEN: usize = LENGTH_STARTS_AT + i32::MAX as usize;

/// The batch length counts the bytes from here on.
pub(crate) const LENGTH_STARTS_AT: usize = 12;
pub(crate) const MAGIC_AT: usize = 16;
/// The CRC speaks for the bytes from here on.
pub(crate) const CRC_STARTS_AT: usize = 21;
pub(crate) const MAGIC: u8 = 2;

/// The smallest record: length, attributes, two deltas, key length, value length and header count, a byte each.
const MIN_RECORD_LEN: usize = 7;

/// The header of a batch.
///
/// One that came from [`parse`](BatchHeader::parse) keeps to these rules: lengths and counts are within the
/// format's limits and agree with each other, and no offset of the batch passes [`Offset::MAX`].
///
/// ```
/// use logmill_record::{BatchBuilder, BatchHeader, NewRecord, TimestampMs};
///
/// # fn main() -> Result<(), logmill_record::BatchError> {
/// # let mut batch = BatchBuilder::new();
/// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
/// # let batch = batch.build()?;
/// let header: BatchHeader = BatchHeader::parse(batch.bytes())?;
/// assert_eq!((header.record_count, header.max_timestamp), (1, TimestampMs(5)));
/// assert_eq!(header.next_offset().get(), header.base_offset.get() + 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchHeader {
    /// The offset of the first record; what a producer writes here is replaced by the log.
    pub base_offset: Offset,
    /// The length of the whole batch with its header, in bytes.
    pub total_len: usize,
    /// The epoch in which the log was open when it took the batch; stamped by the log.
    pub leader_epoch: i32,
    /// CRC-32C of everything from the attributes to the end.
    pub crc: u32,
    /// Compression, timestamp type, and what kind of batch it is.
    pub attributes: Attributes,
    /// The offset of the last record, counted from `base_offset`. Stays when compaction takes records out.
    pub last_offset_delta: u32,
    /// What the timestamps of the records are counted from: that of the first record, or the
    /// [delete horizon](BatchHeader::delete_horizon).
    pub base_timestamp: TimestampMs,
    /// The largest timestamp of the records, or their only one: the time of append.
    pub max_timestamp: TimestampMs,
    /// The idempotent producer that made the batch; -1 is none.
    pub producer_id: i64,
    /// That producer's epoch; -1 is none.
    pub producer_epoch: i16,
    /// The first record's number among those of that producer; -1 is none.
    pub base_sequence: i32,
    /// How many records there are: `last_offset_delta + 1`, or fewer in a compacted batch, down to none.
    pub record_count: u32,
}

impl BatchHeader {
    /// Reads the header from the first 61 of `bytes`; the rest of the batch need not be there.
    ///
    /// Checks magic, compression code, lengths and counts, not the CRC.
    ///
    /// # Errors
    /// [`Truncated`](BatchError::Truncated) below 61 bytes; otherwise what the header says wrong.
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, BatchHeader, HEADER_LEN, NewRecord, Offset, TimestampMs};
    ///
    /// let mut builder = BatchBuilder::new();
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// let batch = builder.build()?;
    ///
    /// let header = BatchHeader::parse(&batch.bytes()[..HEADER_LEN])?;
    /// assert_eq!(header.total_len, batch.bytes().len());
    /// assert_eq!(header.next_offset(), Offset(1));
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        // First of all: an old message format has its magic at the same place and may be shorter.
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic != MAGIC
        {
            return Err(BatchError::UnsupportedMagic { magic: magic.cast_signed() });
        }
        let Some(h) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated { what: "header", needed: HEADER_LEN, available: bytes.len() });
        };
        let batch_length = i32::from_be_bytes(field(h, 8));
        let attributes = Attributes::parse(i16::from_be_bytes(field(h, 21)))?;
        let header = BatchHeader {
            base_offset: parse_base_offset(i64::from_be_bytes(field(h, 0)))?,
            total_len: parse_total_len(batch_length)?,
            leader_epoch: i32::from_be_bytes(field(h, LEADER_EPOCH.start)),
            crc: u32::from_be_bytes(field(h, 17)),
            attributes,
            last_offset_delta: not_negative("last offset delta", i32::from_be_bytes(field(h, 23)))?,
            base_timestamp: TimestampMs(i64::from_be_bytes(field(h, 27))),
            max_timestamp: TimestampMs(i64::from_be_bytes(field(h, 35))),
            producer_id: i64::from_be_bytes(field(h, 43)),
            producer_epoch: i16::from_be_bytes(field(h, 51)),
            base_sequence: i32::from_be_bytes(field(h, 53)),
            record_count: not_negative("record count", i32::from_be_bytes(field(h, 57)))?,
        };
        header.check_counts()?;
        Ok(header)
    }

    /// The counts against each other, and against the bytes that the batch has for its records.
    pub(crate) fn check_counts(&self) -> Result<(), BatchError> {
        let offsets = u64::from(self.last_offset_delta) + 1;
        let room = match self.attributes.compression() {
            Compression::None => ((self.total_len - HEADER_LEN) / MIN_RECORD_LEN) as u64,
            _ => u64::MAX,
        };
        if u64::from(self.record_count) > offsets.min(room) {
            return Err(BatchError::OutOfRange {
                field: "record count",
                value: self.record_count.into(),
                min: 0,
                max: offsets.min(room).cast_signed(),
            });
        }
        // One less than the largest, so that the next offset is one too.
        if self.base_offset.0 + offsets > Offset::MAX.0 {
            return Err(BatchError::OutOfRange {
                field: "base offset",
                value: self.base_offset.into(),
                min: 0,
                max: (Offset::MAX.0 - offsets).cast_signed(),
            });
        }
        Ok(())
    }

    /// The offset of the batch's last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.saturating_add(self.last_offset_delta as u64)
    }

    /// The offset after the batch: where the next one starts.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// From when on tombstones and transaction markers of the batch may be removed, if compaction has said so:
    /// [KIP-534](https://cwiki.apache.org/confluence/display/KAFKA/KIP-534%3A+Retain+tombstones+and+transaction+markers+for+approximately+delete.retention.ms+milliseconds).
    /// It stands where the base timestamp does otherwise.
    #[must_use]
    pub const fn delete_horizon(&self) -> Option<TimestampMs> {
        if self.attributes.has_delete_horizon() { Some(self.base_timestamp) } else { None }
    }

    /// Writes the header as it is, with the CRC that it has.
    pub(crate) fn write(&self, out: &mut [u8; HEADER_LEN]) {
        let batch_length = self.batch_length();
        out[0..8].copy_from_slice(&i64::from(self.base_offset).to_be_bytes());
        out[8..12].copy_from_slice(&batch_length.to_be_bytes());
        out[LEADER_EPOCH].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[MAGIC_AT] = MAGIC;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.bits().to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.0.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.0.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }

    /// The length field: the bytes after it.
    pub(crate) fn batch_length(&self) -> i32 {
        i32::try_from(self.total_len.saturating_sub(LENGTH_STARTS_AT)).unwrap_or(i32::MAX)
    }
}

fn field<const N: usize>(header: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[at..at + N]);
    out
}

fn parse_base_offset(value: i64) -> Result<Offset, BatchError> {
    Offset::try_from(value).map_err(|_| BatchError::OutOfRange {
        field: "base offset",
        value,
        min: 0,
        max: i64::MAX,
    })
}

fn parse_total_len(batch_length: i32) -> Result<usize, BatchError> {
    const MIN: usize = HEADER_LEN - LENGTH_STARTS_AT;
    match usize::try_from(batch_length) {
        Ok(length) if length >= MIN => Ok(LENGTH_STARTS_AT + length),
        _ => Err(BatchError::OutOfRange {
            field: "batch length",
            value: batch_length.into(),
            min: MIN as i64,
            max: i32::MAX.into(),
        }),
    }
}

fn not_negative(field: &'static str, value: i32) -> Result<u32, BatchError> {
    u32::try_from(value).map_err(|_| BatchError::OutOfRange {
        field,
        value: value.into(),
        min: 0,
        max: i32::MAX.into(),
    })
}
