//! The records of a partition's data, with memory of their own.

use bytes::Bytes;
use logmill_record::{Batch, BatchError, InflateLimits, Offset, Record, TimestampMs};

use super::{Chunk, PartitionData};
use crate::Error;

/// So many are made at a time, as a node does it: a megabyte of batch may inflate to millions of records, and each takes
/// over a hundred bytes.
pub(super) const RECORDS_AT_A_TIME: usize = 1 << 16;

/// A record as it was stored. Keys, values and the values of headers share the memory of the reply that they
/// came in, or that their batch was inflated to: a program that keeps a few of them for long should copy them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedRecord {
    /// The record's place in its partition.
    pub offset: Offset,
    /// The record's own time, or the time of append where the topic says so.
    pub timestamp: TimestampMs,
    /// When the node appended it.
    pub appended_at: TimestampMs,
    /// The key; `None` is null, which is not the same as empty.
    pub key: Option<Bytes>,
    /// The value; `None` is null, which is not the same as empty.
    pub value: Option<Bytes>,
    /// Headers, in order; a name may come twice.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// The records of one partition's data, in order; from [`PartitionData::records`].
#[derive(Debug)]
pub struct Records<'a> {
    data: &'a PartitionData,
    /// Why there are none, until it was said.
    error: Option<&'a Error>,
    /// Nothing before this is wanted, or not any more.
    floor: Offset,
    next_chunk: usize,
    appended_at: TimestampMs,
    /// What is left of the present chunk.
    rest: Bytes,
    /// The present batch, inflated, as long as it may have more records.
    batch: Option<Batch>,
    /// Of that batch.
    pub(super) records: std::vec::IntoIter<FetchedRecord>,
}

impl<'a> Records<'a> {
    pub(super) fn new(data: &'a PartitionData, floor: Offset) -> Records<'a> {
        Records {
            data,
            error: data.error.as_ref(),
            floor,
            next_chunk: 0,
            appended_at: TimestampMs::NONE,
            rest: Bytes::new(),
            batch: None,
            records: Vec::new().into_iter(),
        }
    }

    /// Takes more of the present batch apart, or comes to the next one; `false` at the end.
    fn advance(&mut self) -> Result<bool, BatchError> {
        if let Some(batch) = self.batch.take() {
            self.take_apart(batch)?;
            return Ok(true);
        }
        while self.rest.is_empty() {
            let Some(chunk) = self.data.chunks.get(self.next_chunk) else { return Ok(false) };
            let Chunk { appended_at, batches, .. } = chunk;
            self.next_chunk += 1;
            self.appended_at = *appended_at;
            self.rest = batches.clone();
        }
        if let Some(batch) = Batch::split_from(&mut self.rest)? {
            let header = batch.header();
            let is_for_readers = !header.attributes.is_control() && !self.data.is_aborted(header);
            if is_for_readers && header.last_offset() >= self.floor {
                self.take_apart(batch.inflate(&InflateLimits::default())?)?;
            }
        }
        Ok(true)
    }

    fn take_apart(&mut self, batch: Batch) -> Result<(), BatchError> {
        let count = batch.header().record_count as usize;
        let mut records = Vec::with_capacity(count.min(RECORDS_AT_A_TIME));
        for record in batch.records()? {
            let record = record?;
            if record.offset >= self.floor {
                records.push(owned(batch.bytes(), &record, self.appended_at));
            }
            if records.len() == RECORDS_AT_A_TIME {
                self.floor = record.offset.next();
                break;
            }
        }
        if records.len() == RECORDS_AT_A_TIME {
            self.batch = Some(batch);
        }
        self.records = records.into_iter();
        Ok(())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<FetchedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error.clone()));
        }
        loop {
            if let Some(record) = self.records.next() {
                return Some(Ok(record));
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.rest.clear();
                    self.next_chunk = self.data.chunks.len();
                    return Some(Err(self.data.corrupt(error)));
                }
            }
        }
    }
}

fn owned(batch: &Bytes, record: &Record<'_>, appended_at: TimestampMs) -> FetchedRecord {
    // Everything in a record lies in its batch, as it is inflated.
    let share = |bytes: &[u8]| batch.slice_ref(bytes);
    FetchedRecord {
        offset: record.offset,
        timestamp: record.timestamp,
        appended_at,
        key: record.key.map(share),
        value: record.value.map(share),
        headers: record.headers().map(|h| (h.key.to_owned(), h.value.map(share))).collect(),
    }
}
