//! What can be wrong with a batch, by kind, with the field, the value and the limit that it broke.

use crate::attributes::Compression;
use crate::header::MAX_BATCH_LEN;

/// Why a batch was refused.
///
/// Match on [`kind`](BatchError::kind); the variants carry what a message or a log line needs.
///
/// ```
/// use logmill_record::{Batch, BatchBuilder, BatchError, NewRecord, TimestampMs};
///
/// let mut builder = BatchBuilder::new();
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// let mut bytes = builder.build()?.bytes().to_vec();
/// bytes[68] ^= 1;
/// let error = Batch::parse(bytes.into()).unwrap_err();
/// assert!(matches!(error, BatchError::CrcMismatch { .. }));
/// # Ok::<(), BatchError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The bytes end before the header or the batch does.
    #[error("the {what} is cut short: it has {needed} bytes, {available} are there")]
    Truncated {
        /// What is cut: the header or the batch.
        what: &'static str,
        /// How many bytes it has when whole.
        needed: usize,
        /// How many there are.
        available: usize,
    },
    /// Bytes follow where exactly one batch, or the batch's last record, should end.
    #[error("{extra} bytes follow the end of the {what}")]
    TrailingBytes {
        /// What ended: the batch or the last record.
        what: &'static str,
        /// How many bytes follow.
        extra: usize,
    },
    /// A message format older or newer than record batch v2.
    #[error(
        "message format v{magic} is not supported, only v2 is: use a Kafka client of version 0.11 or later, \
         and leave its message format at the default"
    )]
    UnsupportedMagic {
        /// The format number that was found.
        magic: i8,
    },
    /// A number that its field does not allow.
    #[error("{field} is {value}, which is not between {min} and {max}")]
    OutOfRange {
        /// The field of the header, or of the record.
        field: &'static str,
        /// What it holds.
        value: i64,
        /// The smallest allowed.
        min: i64,
        /// The largest allowed.
        max: i64,
    },
    /// The bytes are not those that the checksum was made of.
    #[error("CRC-32C mismatch: the header says {stored:#010x}, the bytes give {computed:#010x}")]
    CrcMismatch {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A compression that this program was built without.
    #[error(
        "records compressed with {compression} cannot be read or written: the program was built without the \
         feature `{compression}` of logmill-record"
    )]
    UnsupportedCompression {
        /// The compression of the batch.
        compression: Compression,
    },
    /// The records were asked for where only uncompressed ones can be borrowed.
    #[error("the records are compressed with {compression}: they can be read after inflating them")]
    Compressed {
        /// The compression of the batch.
        compression: Compression,
    },
    /// Bytes that are not what the codec writes.
    #[error("the records are not what {compression} writes: {problem}")]
    NotInflated {
        /// The compression of the batch.
        compression: Compression,
        /// What the codec says about them.
        problem: String,
    },
    /// Compressed records that are larger than the reader allows.
    #[error(
        "{compressed} bytes compressed with {compression} inflate to more than the {limit} that are allowed: \
         send fewer records in a batch"
    )]
    InflatesTooFar {
        /// The compression of the batch.
        compression: Compression,
        /// How many bytes they are compressed.
        compressed: usize,
        /// How many bytes they may be.
        limit: usize,
    },
    /// A compression that the format does not define.
    #[error("compression code {code} is not defined: record batch v2 has codes 0 to 4")]
    UnknownCompression {
        /// The lowest three bits of the attributes.
        code: u8,
    },
    /// The header's largest timestamp is not that of the records; the time index would miss records.
    #[error("the header's largest timestamp is {header}, that of the records is {records}")]
    MaxTimestamp {
        /// The header's `max_timestamp`, in ms.
        header: i64,
        /// The largest of the records, in ms.
        records: i64,
    },
    /// A record that does not add up.
    #[error("record {index} at byte {position} of the batch: {problem}")]
    Record {
        /// The record's place in the batch, from 0.
        index: u32,
        /// Where the record starts, in bytes from the start of the batch as it is uncompressed.
        position: usize,
        /// What is wrong with it.
        problem: RecordProblem,
    },
    /// A batch of a kind that only a log writes, where one of a producer was expected.
    #[error("{what} are written by the log itself: a producer does not send them")]
    NotForProducers {
        /// The kind.
        what: &'static str,
    },
    /// A batch without records was asked for.
    #[error("a batch needs at least one record")]
    Empty,
    /// The record would make the batch larger than the format can say.
    #[error(
        "the batch would have {size} bytes, the format's limit is {}: send it in several batches",
        MAX_BATCH_LEN
    )]
    TooLarge {
        /// What the size would be, in bytes.
        size: u64,
    },
    /// The time between the first record and this one does not fit 64 bits.
    #[error("timestamp {timestamp} is too far from the batch's first, {base}: send it in another batch")]
    TimestampSpan {
        /// The timestamp of the batch's first record, in ms.
        base: i64,
        /// The timestamp of the record that was refused, in ms.
        timestamp: i64,
    },
}

/// What a caller may do about a [`BatchError`].
///
/// ```
/// use logmill_record::{BatchError, BatchErrorKind};
///
/// /// Whether a producer that splits its batch may succeed.
/// fn worth_splitting(error: &BatchError) -> bool {
///     matches!(error.kind(), BatchErrorKind::TooLarge)
/// }
/// assert!(!worth_splitting(&BatchError::Empty));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BatchErrorKind {
    /// More bytes are needed: at the end of a file, a torn write; in a request, a broken sender.
    Truncated,
    /// The bytes contradict themselves: never written by a correct producer, and not to be stored.
    Invalid,
    /// The checksum is wrong: the bytes changed on their way or on the disk.
    Corrupt,
    /// Correct, perhaps, but of a format or compression that this version does not read.
    Unsupported,
    /// Too much for one batch: split it.
    TooLarge,
}

impl BatchError {
    /// The kind, for deciding what to do.
    ///
    /// ```
    /// use logmill_record::{BatchErrorKind, BatchHeader};
    ///
    /// let error = BatchHeader::parse(&[0; 10]).unwrap_err();
    /// assert_eq!(error.kind(), BatchErrorKind::Truncated);
    /// ```
    #[must_use]
    pub fn kind(&self) -> BatchErrorKind {
        match self {
            BatchError::Truncated { .. } => BatchErrorKind::Truncated,
            BatchError::CrcMismatch { .. } => BatchErrorKind::Corrupt,
            BatchError::UnsupportedMagic { .. }
            | BatchError::UnsupportedCompression { .. }
            | BatchError::Compressed { .. }
            | BatchError::UnknownCompression { .. } => BatchErrorKind::Unsupported,
            BatchError::TooLarge { .. }
            | BatchError::TimestampSpan { .. }
            | BatchError::InflatesTooFar { .. } => BatchErrorKind::TooLarge,
            BatchError::TrailingBytes { .. }
            | BatchError::OutOfRange { .. }
            | BatchError::MaxTimestamp { .. }
            | BatchError::NotInflated { .. }
            | BatchError::NotForProducers { .. }
            | BatchError::Record { .. }
            | BatchError::Empty => BatchErrorKind::Invalid,
        }
    }
}

/// What is wrong with one record; part of [`BatchError::Record`].
///
/// ```
/// use logmill_record::RecordProblem;
///
/// let problem = RecordProblem::Overrun { field: "key", needed: 99, available: 2 };
/// assert_eq!(problem.to_string(), "its key needs 99 bytes, 2 remain");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordProblem {
    /// A length or count claims more than the bytes that remain.
    #[error("its {field} needs {needed} bytes, {available} remain")]
    Overrun {
        /// The field.
        field: &'static str,
        /// How many bytes it needs, at the least.
        needed: u64,
        /// How many remain in the record, or in the batch.
        available: usize,
    },
    /// A length or count below what the field allows; -1 is null where null is allowed.
    #[error("its {field} is {value}")]
    Negative {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: i32,
    },
    /// A variable-length integer that goes on past 5 bytes, or 10, or past the bits of its type.
    #[error("its {field} is a variable-length integer of more than {bits} bits")]
    VarintOverflow {
        /// The field.
        field: &'static str,
        /// The bits that its type has.
        bits: u8,
    },
    /// A header's key is not UTF-8.
    #[error("a header's key is not UTF-8")]
    HeaderKey,
    /// Its key is null where every record has to have one.
    #[error("it has no key")]
    NoKey,
    /// The record's fields end before its length does.
    #[error("{extra} bytes follow its last header")]
    Trailing {
        /// How many bytes follow.
        extra: usize,
    },
    /// The offset delta does not follow on the one before, or passes the last of the batch.
    #[error("its offset delta is {found}, which is not between {min} and {max}")]
    OffsetDelta {
        /// What it holds.
        found: i32,
        /// The smallest allowed here.
        min: u32,
        /// The largest allowed here.
        max: u32,
    },
    /// Base timestamp and delta together do not fit 64 bits.
    #[error("its timestamp, {base} plus {delta} ms, does not fit 64 bits")]
    Timestamp {
        /// The batch's base timestamp, in ms.
        base: i64,
        /// The record's delta, in ms.
        delta: i64,
    },
}
