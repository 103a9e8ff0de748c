//! What kind of batch a builder makes.

use crate::attributes::{Attributes, Compression};
use crate::units::{Offset, TimestampMs};

/// What kind of batch a [`BatchBuilder`](crate::BatchBuilder) makes; a plain one, if nothing is said.
///
/// ```
/// use logmill_record::{BatchBuilder, BatchOptions, NewRecord, TimestampMs};
///
/// // The next batch of an idempotent producer.
/// let options = BatchOptions::new().producer(4711, 3, 1_200);
/// let mut builder = BatchBuilder::with_options(options, 16 << 10);
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// let batch = builder.build()?;
/// assert_eq!((batch.header().producer_id, batch.header().base_sequence), (4711, 1_200));
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct BatchOptions {
    pub(crate) compression: Compression,
    pub(crate) level: Option<i32>,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) transactional: bool,
    pub(crate) control: bool,
    pub(crate) append_time: Option<TimestampMs>,
    pub(crate) delete_horizon: Option<TimestampMs>,
    pub(crate) base_offset: Offset,
    pub(crate) last_offset: Option<Offset>,
}

impl BatchOptions {
    /// Uncompressed, with the records' own times, of no producer, from offset 0 on.
    pub fn new() -> BatchOptions {
        BatchOptions {
            compression: Compression::None,
            level: None,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            transactional: false,
            control: false,
            append_time: None,
            delete_horizon: None,
            base_offset: Offset::ZERO,
            last_offset: None,
        }
    }

    /// Compresses the records; each codec is a feature of this crate, and all of them are off by default.
    pub fn compression(self, compression: Compression) -> BatchOptions {
        BatchOptions { compression, ..self }
    }

    /// How hard to compress: 0 to 9 for gzip (6 if nothing is said), −131072 to 22 for zstd (3). Snappy and
    /// LZ4 have one level, and take no notice.
    pub fn compression_level(self, level: i32) -> BatchOptions {
        BatchOptions { level: Some(level), ..self }
    }

    /// The idempotent producer: its id and epoch, and the number of the first record among all of its records
    /// for the partition.
    pub fn producer(self, id: i64, epoch: i16, base_sequence: i32) -> BatchOptions {
        BatchOptions { producer_id: id, producer_epoch: epoch, base_sequence, ..self }
    }

    /// Makes the batch part of its producer's transaction.
    pub fn transactional(self) -> BatchOptions {
        BatchOptions { transactional: true, ..self }
    }

    /// Gives all records the time of append, instead of each its own, which is kept beneath it.
    pub fn log_append_time(self, at: TimestampMs) -> BatchOptions {
        BatchOptions { append_time: Some(at), ..self }
    }

    /// Says from when on compaction may remove the tombstones and markers of the batch; see
    /// [`BatchHeader::delete_horizon`](crate::BatchHeader::delete_horizon).
    pub fn delete_horizon(self, at: TimestampMs) -> BatchOptions {
        BatchOptions { delete_horizon: Some(at), ..self }
    }

    /// The first and the last offset that the batch covers, with or without a record at either. A batch may
    /// then have no records at all: it stands for offsets whose records compaction took out.
    pub fn offsets(self, base: Offset, last: Offset) -> BatchOptions {
        BatchOptions { base_offset: base, last_offset: Some(last), ..self }
    }

    /// Only control records, which are not for applications.
    pub(crate) fn control(self) -> BatchOptions {
        BatchOptions { control: true, ..self }
    }

    pub(crate) fn attributes(&self) -> Attributes {
        let mut attributes = Attributes::PLAIN.with_compression(self.compression);
        if self.append_time.is_some() {
            attributes = attributes.with_log_append_time();
        }
        if self.transactional {
            attributes = attributes.with_transactional();
        }
        if self.control {
            attributes = attributes.with_control();
        }
        attributes.with_delete_horizon(self.delete_horizon.is_some())
    }
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions::new()
    }
}
