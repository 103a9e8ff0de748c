//! The records of a partition's data, with memory of their own.

use bytes::Bytes;
use logmill_record::{Batch, BatchError, InflateLimits, Offset, Record, TimestampMs};

use super::{Chunk, PartitionData};
use crate::Error;

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
    floor: Offset,
    next_chunk: usize,
    appended_at: TimestampMs,
    /// What is left of the present chunk.
    rest: Bytes,
    /// What is left of the present batch.
    batch: std::vec::IntoIter<FetchedRecord>,
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
            batch: Vec::new().into_iter(),
        }
    }

    /// Makes the next batch the present one; `false` at the end.
    fn advance(&mut self) -> Result<bool, BatchError> {
        while self.rest.is_empty() {
            let Some(chunk) = self.data.chunks.get(self.next_chunk) else { return Ok(false) };
            let Chunk { appended_at, batches, .. } = chunk;
            self.next_chunk += 1;
            self.appended_at = *appended_at;
            self.rest = batches.clone();
        }
        if let Some(batch) = Batch::split_from(&mut self.rest)? {
            self.batch = self.decode(&batch)?.into_iter();
        }
        Ok(true)
    }

    fn decode(&self, batch: &Batch) -> Result<Vec<FetchedRecord>, BatchError> {
        if batch.header().attributes.is_control() || batch.header().last_offset() < self.floor {
            return Ok(Vec::new());
        }
        let batch = batch.inflate(&InflateLimits::default())?;
        let mut records = Vec::new();
        for record in batch.records()? {
            let record = record?;
            if record.offset >= self.floor {
                records.push(owned(batch.bytes(), &record, self.appended_at));
            }
        }
        Ok(records)
    }
}

impl Iterator for Records<'_> {
    type Item = Result<FetchedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            return Some(Err(error.clone()));
        }
        loop {
            if let Some(record) = self.batch.next() {
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
