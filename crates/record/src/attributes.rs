//! What the attribute bits of a batch say: compression, whose time it is, and what kind of batch.

use std::fmt;

use crate::error::BatchError;

const COMPRESSION: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
const DELETE_HORIZON: i16 = 1 << 6;

/// How the records of a batch are compressed; the producer's choice.
///
/// ```
/// use logmill_record::Compression;
///
/// // As features, topic options and error messages spell it.
/// assert_eq!(Compression::Zstd.to_string(), "zstd");
/// assert_eq!(Compression::default(), Compression::None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Snappy, in the framing of xerial's snappy-java; bare blocks are read too.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard (RFC 8878).
    Zstd,
}

impl Compression {
    /// As the lowest three attribute bits have it.
    const fn code(self) -> i16 {
        match self {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        })
    }
}

/// Whose time the timestamps of a batch are.
///
/// ```
/// use logmill_record::{BatchBuilder, NewRecord, TimestampMs, TimestampType};
///
/// let mut builder = BatchBuilder::new();
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// let batch = builder.build()?;
/// assert_eq!(batch.header().attributes.timestamp_type(), TimestampType::CreateTime);
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's, record by record.
    CreateTime,
    /// The broker's: every record has the batch's largest timestamp, when it was appended.
    LogAppendTime,
}

/// The attribute bits of a batch: 0 to 2 compression, 3 timestamp type, 4 transactional, 5 control, 6 delete
/// horizon.
///
/// Bits that this version does not know are kept and ignored, as Kafka does.
///
/// ```
/// use logmill_record::{BatchOptions, BatchBuilder, Compression, NewRecord, TimestampMs};
///
/// let options = BatchOptions::new().producer(4711, 3, 0).transactional();
/// let mut builder = BatchBuilder::with_options(options, 0);
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// let attributes = builder.build()?.header().attributes;
/// assert!(attributes.is_transactional() && !attributes.is_control());
/// assert_eq!(attributes.compression(), Compression::None);
/// assert_eq!(attributes.bits(), 0b1_0000);
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    bits: i16,
    compression: Compression,
}

impl Attributes {
    /// Of a batch as a plain producer sends it: uncompressed, with create time.
    pub(crate) const PLAIN: Attributes = Attributes { bits: 0, compression: Compression::None };

    pub(crate) fn parse(bits: i16) -> Result<Attributes, BatchError> {
        let compression = match bits & COMPRESSION {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            code => return Err(BatchError::UnknownCompression { code: code.to_le_bytes()[0] }),
        };
        Ok(Attributes { bits, compression })
    }

    /// The bits as they stand in the header.
    #[must_use]
    pub const fn bits(self) -> i16 {
        self.bits
    }

    /// How the records are compressed.
    #[must_use]
    pub const fn compression(self) -> Compression {
        self.compression
    }

    /// Whose time the timestamps are.
    #[must_use]
    pub const fn timestamp_type(self) -> TimestampType {
        if self.bits & LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.bits & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a control record, such as the end of a transaction, which no application reads.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.bits & CONTROL != 0
    }

    /// Whether the base timestamp is a [delete horizon](crate::BatchHeader::delete_horizon).
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.bits & DELETE_HORIZON != 0
    }

    pub(crate) const fn with_compression(self, compression: Compression) -> Attributes {
        Attributes { bits: self.bits & !COMPRESSION | compression.code(), compression }
    }

    pub(crate) const fn with_log_append_time(self) -> Attributes {
        self.with(LOG_APPEND_TIME, true)
    }

    pub(crate) const fn with_transactional(self) -> Attributes {
        self.with(TRANSACTIONAL, true)
    }

    pub(crate) const fn with_control(self) -> Attributes {
        self.with(CONTROL, true)
    }

    pub(crate) const fn with_delete_horizon(self, there: bool) -> Attributes {
        self.with(DELETE_HORIZON, there)
    }

    const fn with(self, bit: i16, set: bool) -> Attributes {
        let bits = if set { self.bits | bit } else { self.bits & !bit };
        Attributes { bits, compression: self.compression }
    }
}
