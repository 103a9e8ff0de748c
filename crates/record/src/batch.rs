//! A whole batch: its bytes, known to be complete and to match their checksum.

use std::fmt;

use bytes::Bytes;

use crate::attributes::Compression;
use crate::error::BatchError;
use crate::header::{BatchHeader, CRC_STARTS_AT, LEADER_EPOCH};
use crate::inflate::{InflateLimits, Inflater, inflate_batch};
use crate::record::{Keys, Records, check_produced, check_stored};
use crate::units::Offset;

/// One whole batch whose header has been parsed and whose CRC is right. A clone shares the bytes.
///
/// That its records add up is a separate question: [`check_records`](Batch::check_records).
///
/// ```
/// use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};
///
/// let mut builder = BatchBuilder::new();
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// let sent = builder.build()?;
///
/// let received = Batch::parse(sent.bytes().clone())?;
/// received.check_records()?;
/// assert_eq!(received, sent);
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes `bytes`, which must be exactly one batch.
    ///
    /// # Errors
    /// What the header says wrong, bytes missing or left over, or a wrong CRC.
    pub fn parse(bytes: Bytes) -> Result<Batch, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        check_crc(&bytes, &header)?;
        Ok(Batch { header, bytes })
    }

    /// Splits the first batch off a run of them, as a fetch answers or a segment holds; `None` at the end.
    ///
    /// # Errors
    /// As [`parse`](Batch::parse); a cut last batch is [`Truncated`](BatchError::Truncated). `bytes` is then as
    /// it was.
    ///
    /// ```
    /// use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};
    ///
    /// let mut builder = BatchBuilder::new();
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// let one = builder.build()?;
    ///
    /// let mut run = [&one.bytes()[..], &one.bytes()[..]].concat().into();
    /// assert_eq!(Batch::split_from(&mut run)?, Some(one.clone()));
    /// assert_eq!(Batch::split_from(&mut run)?, Some(one));
    /// assert_eq!(Batch::split_from(&mut run)?, None);
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    pub fn split_from(bytes: &mut Bytes) -> Result<Option<Batch>, BatchError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let header = BatchHeader::parse(bytes)?;
        let Some(first) = bytes.get(..header.total_len) else {
            return Err(truncated(&header, bytes.len()));
        };
        check_crc(first, &header)?;
        let first = bytes.split_to(header.total_len);
        Ok(Some(Batch { header, bytes: first }))
    }

    /// A batch that the builder just made.
    pub(crate) fn from_parts(header: BatchHeader, bytes: Bytes) -> Batch {
        Batch { header, bytes }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The bytes, header and all.
    ///
    /// A record's key or value becomes a [`Bytes`] of its own, without a copy, by
    /// `batch.bytes().slice_ref(key)`.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn into_parts(self) -> (BatchHeader, Bytes) {
        (self.header, self.bytes)
    }

    /// The records, in order, borrowed from a batch that is not compressed.
    ///
    /// # Errors
    /// [`Compressed`](BatchError::Compressed) if they are compressed: [`records_with`](Batch::records_with) and
    /// [`inflate`](Batch::inflate) read them all. A record that does not add up is the iterator's error, and
    /// its last item.
    pub fn records(&self) -> Result<Records<'_>, BatchError> {
        match self.header.attributes.compression() {
            Compression::None => Ok(Records::new(&self.header, &self.bytes)),
            compression => Err(BatchError::Compressed { compression }),
        }
    }

    /// The records, in order, borrowed from the batch, or from the `inflater` if the batch is compressed.
    ///
    /// # Errors
    /// Bytes that are not what the codec writes, or [that grow too far](BatchError::InflatesTooFar);
    /// [`UnsupportedCompression`](BatchError::UnsupportedCompression) for a codec that the program was built
    /// without. A record that does not add up is the iterator's error, and its last item.
    pub fn records_with<'a>(&'a self, inflater: &'a mut Inflater) -> Result<Records<'a>, BatchError> {
        let (header, bytes) = inflater.inflate(&self.header, &self.bytes)?;
        Ok(Records::new(&header, bytes))
    }

    /// The same batch as if it had never been compressed, for records that outlive it as slices of its
    /// [`bytes`](Batch::bytes). Shares its memory if it is not compressed.
    ///
    /// # Errors
    /// As [`records_with`](Batch::records_with).
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, InflateLimits, NewRecord, TimestampMs};
    ///
    /// let mut builder = BatchBuilder::new();
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// let batch = builder.build()?.inflate(&InflateLimits::default())?;
    /// let value = batch.records()?.next().unwrap()?.value.map(|value| batch.bytes().slice_ref(value));
    /// assert_eq!(value, Some("v".into()));
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    pub fn inflate(&self, limits: &InflateLimits) -> Result<Batch, BatchError> {
        match self.header.attributes.compression() {
            Compression::None => Ok(self.clone()),
            _ => inflate_batch(self, limits),
        }
    }

    /// Whether this is what a producer may send: the check for batches that come in from outside.
    ///
    /// Every length and count fits, offset deltas are 0, 1, 2 … up to the header's last, timestamps do not
    /// overflow and their largest is the header's, header keys are UTF-8, nothing is left over, and it is not
    /// a batch that only a log writes: one without records, of control records, or with a delete horizon.
    /// A compressed batch is held to the limits that are the default.
    ///
    /// # Errors
    /// The first thing that does not add up.
    pub fn check_records(&self) -> Result<(), BatchError> {
        self.check_records_with(&mut Inflater::default())
    }

    /// As [`check_records`](Batch::check_records), with the limits and the memory of `inflater`.
    ///
    /// # Errors
    /// As there.
    pub fn check_records_with(&self, inflater: &mut Inflater) -> Result<(), BatchError> {
        let (header, bytes) = inflater.inflate(&self.header, &self.bytes)?;
        check_produced(&header, bytes, Keys::Optional)
    }

    /// As [`check_records_with`](Batch::check_records_with), and refuses a record whose key is null: where only
    /// the last record of each key is kept, one without a key would be kept for ever.
    ///
    /// # Errors
    /// As there, and [`RecordProblem::NoKey`](crate::RecordProblem::NoKey).
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, Inflater, NewRecord, TimestampMs};
    ///
    /// let mut builder = BatchBuilder::new();
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// let error = builder.build()?.check_keyed_records_with(&mut Inflater::default()).unwrap_err();
    /// assert_eq!(error.to_string(), "record 0 at byte 61 of the batch: it has no key");
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    pub fn check_keyed_records_with(&self, inflater: &mut Inflater) -> Result<(), BatchError> {
        let (header, bytes) = inflater.inflate(&self.header, &self.bytes)?;
        check_produced(&header, bytes, Keys::Needed)
    }

    /// Whether this is what a log may hold: less than what a producer is held to.
    ///
    /// Compaction leaves gaps between offsets, batches whose latest record is gone, and batches without any;
    /// the log writes control batches. Every length, count and header key is checked as for a producer.
    ///
    /// # Errors
    /// The first thing that does not add up.
    pub fn check_stored_with(&self, inflater: &mut Inflater) -> Result<(), BatchError> {
        let (header, bytes) = inflater.inflate(&self.header, &self.bytes)?;
        check_stored(&header, bytes)
    }
}

/// Without the bytes of the records, which may be megabytes.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Checks that `bytes` are exactly the batch of `header`, by length and CRC-32C.
///
/// ```
/// use logmill_record::{BatchBuilder, BatchHeader, NewRecord, TimestampMs, check_crc};
///
/// # fn main() -> Result<(), logmill_record::BatchError> {
/// # let mut batch = BatchBuilder::new();
/// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
/// # let batch = batch.build()?;
/// let mut bytes = batch.bytes().to_vec();
/// let header = BatchHeader::parse(&bytes)?;
/// check_crc(&bytes, &header)?;
/// *bytes.last_mut().expect("it is not empty") ^= 1;
/// assert!(check_crc(&bytes, &header).is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Bytes missing or left over, or a wrong CRC.
pub fn check_crc(bytes: &[u8], header: &BatchHeader) -> Result<(), BatchError> {
    if bytes.len() < header.total_len {
        return Err(truncated(header, bytes.len()));
    }
    if bytes.len() > header.total_len {
        return Err(BatchError::TrailingBytes { what: "batch", extra: bytes.len() - header.total_len });
    }
    let computed = crc32c(bytes);
    if computed != header.crc {
        return Err(BatchError::CrcMismatch { stored: header.crc, computed });
    }
    Ok(())
}

/// The CRC-32C of a whole batch: of everything from its attributes on.
pub(crate) fn crc32c(batch: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(batch.get(CRC_STARTS_AT..).unwrap_or_default())
}

fn truncated(header: &BatchHeader, available: usize) -> BatchError {
    BatchError::Truncated { what: "batch", needed: header.total_len, available }
}

/// The 16 bytes that a log writes in place of the batch's own first 16: base offset, length, leader epoch.
///
/// They lie before the CRC, so the rest is written as it came.
///
/// ```
/// use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs, stamped_prefix};
///
/// let mut builder = BatchBuilder::new();
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// let sent = builder.build()?;
///
/// let prefix = stamped_prefix(sent.header(), Offset(1_000), 3);
/// let stored = Batch::parse([&prefix[..], &sent.bytes()[prefix.len()..]].concat().into())?;
/// assert_eq!(stored.header().base_offset, Offset(1_000));
/// assert_eq!(stored.header().leader_epoch, 3);
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[must_use]
pub fn stamped_prefix(header: &BatchHeader, base_offset: Offset, leader_epoch: i32) -> [u8; 16] {
    let mut prefix = [0; 16];
    prefix[0..8].copy_from_slice(&i64::from(base_offset).to_be_bytes());
    prefix[8..12].copy_from_slice(&header.batch_length().to_be_bytes());
    prefix[LEADER_EPOCH].copy_from_slice(&leader_epoch.to_be_bytes());
    prefix
}
