//! A whole batch: its bytes, known to be complete and to match their checksum.

use std::fmt;

use bytes::Bytes;

use crate::error::BatchError;
use crate::header::{BatchHeader, CRC_STARTS_AT, Compression};
use crate::record::{Records, check_records};
use crate::units::Offset;

/// One whole batch whose header has been parsed and whose CRC is right. A clone shares the bytes.
///
/// That its records add up is a separate question: [`check_records`](Batch::check_records).
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

    /// The records, in order, borrowed from the batch.
    ///
    /// # Errors
    /// [`UnsupportedCompression`](BatchError::UnsupportedCompression) if they are compressed. A record that
    /// does not add up is the iterator's error, and its last item.
    pub fn records(&self) -> Result<Records<'_>, BatchError> {
        self.check_readable()?;
        Ok(Records::new(&self.header, &self.bytes))
    }

    /// Walks every record without handing it out: the check for batches that come in from outside.
    ///
    /// Every length and count fits, offset deltas are 0, 1, 2 … up to the header's last, timestamps do not
    /// overflow and their largest is the header's, header keys are UTF-8, and nothing is left over.
    ///
    /// # Errors
    /// The first thing that does not add up; [`UnsupportedCompression`](BatchError::UnsupportedCompression) if
    /// the records are compressed.
    pub fn check_records(&self) -> Result<(), BatchError> {
        self.check_readable()?;
        check_records(&self.header, &self.bytes)
    }

    fn check_readable(&self) -> Result<(), BatchError> {
        match self.header.attributes.compression() {
            Compression::None => Ok(()),
            compression => Err(BatchError::UnsupportedCompression { compression }),
        }
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
    prefix[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    prefix
}
