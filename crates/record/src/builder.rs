//! Makes a batch, record by record.

use crate::attributes::{Attributes, Compression};
use crate::batch::Batch;
use crate::codec;
use crate::encode::Plan;
use crate::error::BatchError;
use crate::header::{BatchHeader, HEADER_LEN, MAX_BATCH_LEN};
use crate::inflate::seal;
use crate::options::BatchOptions;
use crate::units::{Offset, TimestampMs};

/// A record to be put into a batch.
///
/// ```
/// use logmill_record::{NewRecord, TimestampMs};
///
/// let record = NewRecord {
///     timestamp: TimestampMs(1_700_000_000_000),
///     key: Some(b"sensor-7"),
///     value: Some(b"21.5"),
///     headers: &[("unit", Some(b"C")), ("unit", None)],
/// };
/// assert_eq!(record.headers.len(), 2);
/// ```
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

/// Collects records into one batch, and knows the size of it at every moment.
///
/// What kind of batch it is, is said beforehand by [`BatchOptions`]: uncompressed, with base offset 0 and
/// without a producer, if nothing is. Its base timestamp is that of its first record.
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
    options: BatchOptions,
    /// Room for the header, then the records, not compressed yet.
    bytes: Vec<u8>,
    count: u32,
    /// Of the next record, unless it comes with an offset of its own.
    next_delta: u32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
}

impl BatchBuilder {
    /// An empty builder of a plain batch.
    #[must_use]
    pub fn new() -> BatchBuilder {
        BatchBuilder::with_capacity(HEADER_LEN)
    }

    /// An empty builder with room for a plain batch of `size_bytes`, so that it does not grow by doubling.
    #[must_use]
    pub fn with_capacity(size_bytes: usize) -> BatchBuilder {
        BatchBuilder::with_options(BatchOptions::new(), size_bytes)
    }

    /// An empty builder of such a batch, with room for `size_bytes` of it before compression.
    #[must_use]
    pub fn with_options(options: BatchOptions, size_bytes: usize) -> BatchBuilder {
        let mut bytes = Vec::with_capacity(size_bytes.max(HEADER_LEN));
        bytes.resize(HEADER_LEN, 0);
        BatchBuilder {
            options,
            bytes,
            count: 0,
            next_delta: 0,
            base_timestamp: options.delete_horizon.unwrap_or(TimestampMs::NONE),
            max_timestamp: TimestampMs::NONE,
        }
    }

    /// Adds a record, at the offset after the one before.
    ///
    /// # Errors
    /// [`TooLarge`](BatchError::TooLarge) if the batch would pass [`MAX_BATCH_LEN`], and
    /// [`TimestampSpan`](BatchError::TimestampSpan); the builder is then as it was.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), BatchError> {
        let plan = self.plan(record)?;
        self.take(record, &plan);
        Ok(())
    }

    /// Adds a record at an offset of its own, as compaction does, which leaves gaps.
    ///
    /// # Errors
    /// [`OutOfRange`](BatchError::OutOfRange) if the offset is not behind the one before, or lies 2³¹ or more
    /// behind the base; and as [`push`](BatchBuilder::push). The builder is then as it was.
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, BatchOptions, NewRecord, Offset, TimestampMs};
    ///
    /// // What compaction leaves of offsets 100 to 119.
    /// let options = BatchOptions::new().offsets(Offset(100), Offset(119));
    /// let mut builder = BatchBuilder::with_options(options, 0);
    /// let record = NewRecord { timestamp: TimestampMs(5), key: Some(b"k"), value: None, headers: &[] };
    /// builder.push_at(Offset(107), &record)?;
    /// let batch = builder.build()?;
    /// assert_eq!(batch.records()?.next().unwrap()?.offset, Offset(107));
    /// assert_eq!(batch.header().next_offset(), Offset(120));
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    pub fn push_at(&mut self, offset: Offset, record: &NewRecord<'_>) -> Result<(), BatchError> {
        let base = self.options.base_offset;
        let smallest = base.saturating_add(self.next_delta.into());
        let delta = offset.checked_sub(base).and_then(|delta| i32::try_from(delta).ok());
        let Some(delta) = delta.filter(|_| offset >= smallest) else {
            return Err(BatchError::OutOfRange {
                field: "offset",
                value: offset.into(),
                min: smallest.into(),
                max: base.saturating_add(i32::MAX.cast_unsigned().into()).into(),
            });
        };
        let plan = self.plan_at(delta, record)?;
        self.next_delta = delta.cast_unsigned();
        self.take(record, &plan);
        Ok(())
    }

    fn take(&mut self, record: &NewRecord<'_>, plan: &Plan) {
        if self.count == 0 {
            self.base_timestamp = self.options.delete_horizon.unwrap_or(record.timestamp);
            self.max_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        self.count += 1;
        self.next_delta += 1;
        plan.write(record, &mut self.bytes);
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

    /// The size of the batch if it were built now, in bytes: exact if it is not compressed, before compression
    /// if it is.
    ///
    /// What compression makes of it is known when it is built; a producer multiplies by what came out of the
    /// batches before. See also [`max_size_bytes`](BatchBuilder::max_size_bytes).
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// As [`size_bytes`](BatchBuilder::size_bytes), if `record` were added; `usize::MAX` for a record that
    /// [`push`](BatchBuilder::push) refuses.
    #[must_use]
    pub fn size_with(&self, record: &NewRecord<'_>) -> usize {
        self.plan(record).map_or(usize::MAX, |plan| plan.batch_len)
    }

    /// What the built batch cannot pass, in bytes: records that do not shrink become a little larger when they
    /// are compressed.
    #[must_use]
    pub fn max_size_bytes(&self) -> usize {
        HEADER_LEN + codec::max_len(self.options.compression, self.bytes.len() - HEADER_LEN)
    }

    /// Says whose batch it is, as [`BatchOptions::producer`] does, for a producer that numbers a batch only when
    /// it is full.
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
    ///
    /// let mut builder = BatchBuilder::new();
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// builder.set_producer(4711, 0, 1_200);
    /// assert_eq!(builder.build()?.header().base_sequence, 1_200);
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    pub fn set_producer(&mut self, id: i64, epoch: i16, base_sequence: i32) {
        self.options = self.options.producer(id, epoch, base_sequence);
    }

    /// Finishes the batch.
    ///
    /// # Errors
    /// [`Empty`](BatchError::Empty) without a record, unless the options say which
    /// [`offsets`](BatchOptions::offsets) it covers; [`OutOfRange`](BatchError::OutOfRange) for records past
    /// those offsets, or past [`Offset::MAX`], or a level that the codec does not have;
    /// [`UnsupportedCompression`](BatchError::UnsupportedCompression) for a codec that the program was built
    /// without.
    pub fn build(self) -> Result<Batch, BatchError> {
        let last_offset_delta = self.last_offset_delta()?;
        let attributes = self.options.attributes();
        let bytes = match attributes.compression() {
            Compression::None => self.bytes,
            _ => compress(attributes, self.options.level, &self.bytes)?,
        };
        let header = BatchHeader {
            base_offset: self.options.base_offset,
            total_len: bytes.len(),
            leader_epoch: 0,
            crc: 0,
            attributes,
            last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.options.append_time.unwrap_or(self.max_timestamp),
            producer_id: self.options.producer_id,
            producer_epoch: self.options.producer_epoch,
            base_sequence: self.options.base_sequence,
            record_count: self.count,
        };
        header.check_counts()?;
        Ok(seal(header, bytes))
    }

    fn last_offset_delta(&self) -> Result<u32, BatchError> {
        let Some(last) = self.options.last_offset else {
            return self.next_delta.checked_sub(1).ok_or(BatchError::Empty);
        };
        let base = self.options.base_offset;
        let delta = last.checked_sub(base).and_then(|delta| u32::try_from(delta).ok());
        let fits = |delta: &u32| *delta <= i32::MAX.cast_unsigned() && delta + 1 >= self.next_delta;
        delta.filter(fits).ok_or(BatchError::OutOfRange {
            field: "last offset",
            value: last.into(),
            min: base.saturating_add(self.next_delta.saturating_sub(1).into()).into(),
            max: base.saturating_add(i32::MAX.cast_unsigned().into()).into(),
        })
    }

    fn plan(&self, record: &NewRecord<'_>) -> Result<Plan, BatchError> {
        self.plan_at(self.next_delta.cast_signed(), record)
    }

    fn plan_at(&self, offset_delta: i32, record: &NewRecord<'_>) -> Result<Plan, BatchError> {
        let base = match self.count {
            0 => self.options.delete_horizon.unwrap_or(record.timestamp),
            _ => self.base_timestamp,
        };
        Plan::new(record, base.0, offset_delta, self.bytes.len())
    }
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

/// Room for a header, and the compressed form of the records in `plain`, which has that room too.
pub(crate) fn compress(
    attributes: Attributes,
    level: Option<i32>,
    plain: &[u8],
) -> Result<Vec<u8>, BatchError> {
    let records = plain.get(HEADER_LEN..).unwrap_or_default();
    let mut out = vec![0; HEADER_LEN];
    if !records.is_empty() {
        codec::compress(attributes.compression(), level, records, &mut out)?;
    }
    if out.len() > MAX_BATCH_LEN {
        return Err(BatchError::TooLarge { size: out.len() as u64 });
    }
    Ok(out)
}
