//! Compressed batches made readable, within limits: what a few kilobytes may grow to is decided here.
//!
//! Records are compressed as a whole, so inflating gives the bytes that the same batch has uncompressed. They
//! are put behind a header that says so, and everything that reads a plain batch reads them.

use bytes::Bytes;

use crate::attributes::Compression;
use crate::batch::{Batch, crc32c};
use crate::codec;
use crate::error::BatchError;
use crate::header::{BatchHeader, HEADER_LEN, MAX_BATCH_LEN};

/// Up to here the ratio does not count: a small batch of records that repeat themselves shrinks a
/// thousandfold, and hurts nobody.
const RATIO_COUNTS_FROM: usize = 1 << 20;

/// What an [`Inflater`] keeps between batches.
const KEPT_BYTES: usize = 4 << 20;

/// How much a compressed batch may grow to.
///
/// What passes either limit is refused as soon as it does:
/// [`InflatesTooFar`](BatchError::InflatesTooFar). Uncompressed batches have no limit but their own length.
///
/// ```
/// use logmill_record::InflateLimits;
///
/// let limits = InflateLimits { max_bytes: 8 << 20, ..InflateLimits::default() };
/// assert_eq!(limits.max_ratio, 1_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InflateLimits {
    /// The records' size when inflated, in bytes.
    pub max_bytes: usize,
    /// The records' size when inflated, over their size compressed. The first MiB is free of it.
    pub max_ratio: usize,
}

impl InflateLimits {
    /// The bytes that `compressed_len` bytes may grow to.
    fn allowance(&self, compressed_len: usize) -> usize {
        let by_ratio = compressed_len.saturating_mul(self.max_ratio).max(RATIO_COUNTS_FROM);
        self.max_bytes.min(by_ratio).min(MAX_BATCH_LEN - HEADER_LEN)
    }
}

/// 64 MiB, and a thousandfold: more than any producer at its defaults makes.
impl Default for InflateLimits {
    fn default() -> InflateLimits {
        InflateLimits { max_bytes: 64 << 20, max_ratio: 1_000 }
    }
}

/// Memory for inflating batch after batch, and the limits that hold for them.
///
/// Where batches are looked into one after another, this saves allocating for each of them. Uncompressed
/// batches go through it untouched.
///
/// ```
/// use logmill_record::{BatchBuilder, InflateLimits, Inflater, NewRecord, TimestampMs};
///
/// let mut builder = BatchBuilder::new();
/// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// let batch = builder.build()?;
///
/// let mut inflater = Inflater::new(InflateLimits::default());
/// batch.check_records_with(&mut inflater)?;
/// for record in batch.records_with(&mut inflater)? {
///     assert_eq!(record?.value, Some(&b"v"[..]));
/// }
/// # Ok::<(), logmill_record::BatchError>(())
/// ```
#[derive(Debug, Default)]
pub struct Inflater {
    limits: InflateLimits,
    /// The last batch, as it is uncompressed: room for the header, then the records.
    bytes: Vec<u8>,
    contexts: codec::Contexts,
}

impl Inflater {
    /// One with these limits.
    #[must_use]
    pub fn new(limits: InflateLimits) -> Inflater {
        Inflater { limits, ..Inflater::default() }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> InflateLimits {
        self.limits
    }

    /// The batch of `header` as it is uncompressed: its header, and its bytes with room for one.
    pub(crate) fn inflate<'a>(
        &'a mut self,
        header: &BatchHeader,
        batch: &'a [u8],
    ) -> Result<(BatchHeader, &'a [u8]), BatchError> {
        if header.attributes.compression() == Compression::None {
            return Ok((header.clone(), batch));
        }
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        let inflated = inflate(&mut self.contexts, header, batch, &self.limits, &mut self.bytes)?;
        Ok((inflated, &self.bytes))
    }
}

/// As [`Inflater::inflate`], for keeps: a whole batch with a header and CRC of its own.
pub(crate) fn inflate_batch(batch: &Batch, limits: &InflateLimits) -> Result<Batch, BatchError> {
    let mut bytes = Vec::new();
    let header = inflate(&mut codec::Contexts::default(), batch.header(), batch.bytes(), limits, &mut bytes)?;
    if bytes.capacity() / 2 > bytes.len() {
        bytes.shrink_to_fit();
    }
    Ok(seal(header, bytes))
}

/// Writes `header` with the right CRC before the records in `bytes`, which has the room.
pub(crate) fn seal(mut header: BatchHeader, mut bytes: Vec<u8>) -> Batch {
    put_header(&header, &mut bytes);
    header.crc = crc32c(&bytes);
    put_header(&header, &mut bytes);
    Batch::from_parts(header, Bytes::from(bytes))
}

fn put_header(header: &BatchHeader, bytes: &mut [u8]) {
    let room = bytes.first_chunk_mut::<HEADER_LEN>().expect("invariant: made with the header's room");
    header.write(room);
}

/// Puts room for a header and the inflated records into `out`.
fn inflate(
    contexts: &mut codec::Contexts,
    header: &BatchHeader,
    batch: &[u8],
    limits: &InflateLimits,
    out: &mut Vec<u8>,
) -> Result<BatchHeader, BatchError> {
    let compressed = batch.get(HEADER_LEN..).unwrap_or_default();
    out.clear();
    out.resize(HEADER_LEN, 0);
    // Kafka's compaction can leave a batch with a codec and without records; there is nothing to inflate.
    if !(compressed.is_empty() && header.record_count == 0) {
        let max_len = HEADER_LEN + limits.allowance(compressed.len());
        codec::inflate(contexts, header.attributes.compression(), compressed, out, max_len)?;
    }
    let mut inflated = header.clone();
    inflated.attributes = header.attributes.with_compression(Compression::None);
    inflated.total_len = out.len();
    // Only now can the count be held against the bytes.
    inflated.check_counts()?;
    Ok(inflated)
}
