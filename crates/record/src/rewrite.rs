//! Batches made from batches: what compaction leaves of one, one with the broker's time, and one that a producer
//! numbers anew.

use std::borrow::Cow;

use bytes::Bytes;

use crate::attributes::{Attributes, Compression, TimestampType};
use crate::batch::Batch;
use crate::builder::compress;
use crate::encode::timestamp_delta;
use crate::error::{BatchError, RecordProblem};
use crate::header::{BatchHeader, HEADER_LEN};
use crate::inflate::{Inflater, seal};
use crate::record::{Record, Records};
use crate::units::TimestampMs;
use crate::varint::{Reader, put_varint, put_varlong};

impl Batch {
    /// The batch with only those records for which `keep` says so: what compaction leaves of it.
    ///
    /// It covers the same offsets, with the same codec, producer and kind. `delete_horizon`, if there is one,
    /// becomes its [delete horizon](BatchHeader::delete_horizon); otherwise it keeps the one that it has. The
    /// largest timestamp becomes that of the records that are left. With none left it is a header of 61 bytes,
    /// without codec and horizon, and with the largest timestamp that it had, as Kafka's compaction leaves it;
    /// callers that want no such batch see it by its `record_count`.
    ///
    /// With nothing to change it is the same batch, byte for byte, and shares its memory.
    ///
    /// # Errors
    /// Records that cannot be read, and [`TimestampSpan`](BatchError::TimestampSpan) for a horizon that is 2⁶³
    /// or more from the time of a record.
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, Inflater, NewRecord, Offset, TimestampMs};
    ///
    /// let mut builder = BatchBuilder::new();
    /// for key in [b"a", b"b", b"a"] {
    ///     builder.push(&NewRecord { timestamp: TimestampMs(5), key: Some(key), value: None, headers: &[] })?;
    /// }
    /// let batch = builder.build()?;
    ///
    /// let mut inflater = Inflater::default();
    /// let kept = batch.retain_records(&mut inflater, None, |record| record.offset > Offset(0))?;
    /// assert_eq!(kept.header().record_count, 2);
    /// assert_eq!(kept.header().next_offset(), Offset(3));
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    pub fn retain_records(
        &self,
        inflater: &mut Inflater,
        delete_horizon: Option<TimestampMs>,
        keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<Batch, BatchError> {
        let delete_horizon = delete_horizon.filter(|at| self.header().delete_horizon() != Some(*at));
        let (plain, bytes) = inflater.inflate(self.header(), self.bytes())?;
        let kept = Kept::of(&plain, bytes, delete_horizon, keep)?;
        let mut header = self.header().clone();
        if kept.count == header.record_count && delete_horizon.is_none() {
            return Ok(self.clone());
        }
        header.record_count = kept.count;
        if kept.count == 0 {
            return Ok(emptied(header));
        }
        if let Some(at) = delete_horizon {
            header.base_timestamp = at;
            header.attributes = header.attributes.with_delete_horizon(true);
        }
        if header.attributes.timestamp_type() == TimestampType::CreateTime {
            header.max_timestamp = TimestampMs(kept.max_timestamp);
        }
        let bytes = match header.attributes.compression() {
            Compression::None => kept.bytes.into_owned(),
            _ => compress(header.attributes, None, &kept.bytes)?,
        };
        header.total_len = bytes.len();
        Ok(seal(header, bytes))
    }

    /// The batch with the time of append in place of its records' own, as a topic with
    /// `message.timestamp.type=LogAppendTime` stores it: attribute, largest timestamp and CRC change, in place
    /// if nobody else shares the bytes.
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, NewRecord, TimestampMs, TimestampType};
    ///
    /// let mut builder = BatchBuilder::new();
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// let batch = builder.build()?.into_log_append_time(TimestampMs(1_700_000_000_000));
    /// assert_eq!(batch.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    /// assert_eq!(batch.records()?.next().unwrap()?.timestamp, TimestampMs(1_700_000_000_000));
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    #[must_use]
    pub fn into_log_append_time(self, at: TimestampMs) -> Batch {
        let (mut header, bytes) = self.into_parts();
        header.attributes = header.attributes.with_log_append_time();
        header.max_timestamp = at;
        seal(header, into_vec(bytes))
    }

    /// The batch with another producer, epoch or sequence, as a producer sends it that has to number its batches
    /// anew: header and CRC change, in place if nobody else shares the bytes.
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, BatchOptions, NewRecord, TimestampMs};
    ///
    /// let mut builder = BatchBuilder::with_options(BatchOptions::new().producer(4711, 0, 1_200), 0);
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// let batch = builder.build()?.with_producer(4711, 1, 0);
    /// assert_eq!((batch.header().producer_epoch, batch.header().base_sequence), (1, 0));
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    #[must_use]
    pub fn with_producer(self, id: i64, epoch: i16, base_sequence: i32) -> Batch {
        let (mut header, bytes) = self.into_parts();
        (header.producer_id, header.producer_epoch, header.base_sequence) = (id, epoch, base_sequence);
        seal(header, into_vec(bytes))
    }

    /// The batch as a part of the transaction that its producer has open: attribute and CRC change, in place if
    /// nobody else shares the bytes. Readers of committed records see it when a marker of that producer follows
    /// which commits ([`ControlRecord`](crate::ControlRecord)).
    ///
    /// ```
    /// use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
    ///
    /// let mut builder = BatchBuilder::new();
    /// builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// let batch = builder.build()?.with_producer(4711, 3, 0).into_transactional();
    /// assert!(batch.header().attributes.is_transactional());
    /// # Ok::<(), logmill_record::BatchError>(())
    /// ```
    #[must_use]
    pub fn into_transactional(self) -> Batch {
        let (mut header, bytes) = self.into_parts();
        header.attributes = header.attributes.with_transactional();
        seal(header, into_vec(bytes))
    }
}

/// The bytes to be changed: the same memory if nobody else shares it.
fn into_vec(bytes: Bytes) -> Vec<u8> {
    bytes.try_into_mut().map_or_else(|shared| shared.to_vec(), Vec::from)
}

/// The header alone, as Kafka's `DefaultRecordBatch.writeEmptyHeader` leaves it.
fn emptied(mut header: BatchHeader) -> Batch {
    let attributes: Attributes = header.attributes.with_compression(Compression::None);
    header.attributes = attributes.with_delete_horizon(false);
    header.base_timestamp = TimestampMs::NONE;
    header.total_len = HEADER_LEN;
    seal(header, vec![0; HEADER_LEN])
}

/// What is kept of an uncompressed batch.
struct Kept<'a> {
    /// With room for a header. Borrowed as long as nothing differs.
    bytes: Cow<'a, [u8]>,
    count: u32,
    max_timestamp: i64,
}

impl<'a> Kept<'a> {
    fn of(
        header: &BatchHeader,
        batch: &'a [u8],
        delete_horizon: Option<TimestampMs>,
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<Kept<'a>, BatchError> {
        let mut copy = delete_horizon.map(|_| vec![0; HEADER_LEN]);
        let (mut count, mut max_timestamp) = (0, i64::MIN);
        let mut records = Records::new(header, batch);
        loop {
            let start = records.position();
            let Some(record) = records.next() else { break };
            let record = record?;
            if !keep(&record) {
                copy.get_or_insert_with(|| batch[..start].to_vec());
                continue;
            }
            count += 1;
            max_timestamp = max_timestamp.max(record.timestamp.0);
            let Some(copy) = &mut copy else { continue };
            let bytes = &batch[start..records.position()];
            match delete_horizon {
                None => copy.extend_from_slice(bytes),
                Some(at) => rebase(bytes, header.base_timestamp, at, copy)?,
            }
        }
        Ok(Kept { bytes: copy.map_or(Cow::Borrowed(batch), Cow::Owned), count, max_timestamp })
    }
}

/// Copies a record that was read already, counting its time from another base.
fn rebase(record: &[u8], from: TimestampMs, to: TimestampMs, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let (attributes, delta, rest) =
        split(record).map_err(|problem| BatchError::Record { index: 0, position: HEADER_LEN, problem })?;
    // The sum was formed once, when the record was read.
    let delta = timestamp_delta(from.0.saturating_add(delta), to.0)?;
    let len = 1 + crate::varint::varlong_len(delta) + rest.len();
    let too_large = |_| BatchError::TooLarge { size: (out.len() + len) as u64 };
    put_varint(out, i32::try_from(len).map_err(too_large)?);
    out.push(attributes);
    put_varlong(out, delta);
    out.extend_from_slice(rest);
    Ok(())
}

/// Attributes, timestamp delta, and what follows.
fn split(record: &[u8]) -> Result<(u8, i64, &[u8]), RecordProblem> {
    let mut body = Reader::new(Reader::new(record).bytes("length")?);
    let attributes = body.byte("attributes")?;
    let delta = body.varlong("timestamp delta")?;
    Ok((attributes, delta, body.take("record", body.remaining())?))
}
