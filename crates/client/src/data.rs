//! What was read: stored batches of a partition, and the records in them.
//!
//! Batches are handed on as they came, and checked when they are looked into: a program that only copies them
//! pays for no checksum.

mod records;
#[cfg(test)]
mod tests;

pub use records::{FetchedRecord, Records};

use bytes::Bytes;
use logmill_proto::v1;
use logmill_proto::v1::chunk::Data;
use logmill_record::{Batch, BatchError, BatchErrorKind, BatchHeader, Offset, TimestampMs};

use crate::convert::{offset_from, partition_from};
use crate::error::in_reply;
use crate::isolation::Aborted;
use crate::{Error, ErrorKind, FetchFrom};

/// Records of one partition, or why there are none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionData {
    /// The topic's name.
    pub topic: String,
    /// The topic's UUID, by which the node tells whether another topic has its name when reading goes on; `None` if
    /// there is none of that name.
    pub topic_id: Option<String>,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the first record that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers can see, if they read also what is not committed.
    pub end_offset: Offset,
    /// Up to here every transaction has ended: readers of committed records see so far. Where none is open it is
    /// the end.
    pub last_stable_offset: Offset,
    /// Where to read next. It moves also where `chunks` have no record for the reader, but those of aborted
    /// transactions and the markers that end them.
    pub next_offset: Offset,
    /// The leader epoch of the last batch before that, by which the node tells whether the partition still holds
    /// it; `None` if there is none, or it cannot be read.
    pub last_epoch: Option<i32>,
    /// The records as stored batches, in order of their offsets. The first batch may begin before the offset
    /// asked for, and a reader of committed records gets batches of aborted transactions too;
    /// [`records`](PartitionData::records) leaves those records out.
    pub chunks: Vec<Chunk>,
    /// Why the partition could not be read; there are no chunks then.
    pub error: Option<Error>,
    /// Nothing before this offset was asked for.
    floor: Offset,
    aborted: Aborted,
}

/// Batches that were appended at about the same time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Chunk {
    /// When the node appended them.
    pub appended_at: TimestampMs,
    /// The time of append was lost and `appended_at` is an upper bound for it: no delays can be computed from
    /// it.
    pub appended_at_estimated: bool,
    /// Whole record batches, one after the other.
    pub batches: Bytes,
}

impl PartitionData {
    pub(crate) fn received(data: v1::PartitionData, floor: Offset) -> Result<PartitionData, Error> {
        let error = data.error.map(in_reply);
        let next_offset = offset_from(data.next_offset)?;
        if error.is_none() && next_offset < floor {
            return Err(Error::nonsense(format!("offset {next_offset} follows after {floor}")));
        }
        Ok(PartitionData {
            topic: data.topic,
            topic_id: data.topic_id,
            partition: partition_from(data.partition)?,
            start_offset: offset_from(data.start_offset)?,
            end_offset: offset_from(data.end_offset)?,
            last_stable_offset: offset_from(data.last_stable_offset)?,
            next_offset,
            last_epoch: data.last_epoch,
            chunks: data.chunks.into_iter().map(Chunk::try_from).collect::<Result<_, _>>()?,
            error,
            floor,
            aborted: data.aborted.try_into()?,
        })
    }

    /// The records for the reader, from the offset asked for, each with keys and values of its own that share the memory of
    /// the reply. Ends after the first error: the partition's own, [`Corrupt`](ErrorKind::Corrupt) for a batch that
    /// is not what was written, [`Unsupported`](ErrorKind::Unsupported) for one whose compression is a feature that
    /// this program was built without.
    ///
    /// To borrow records instead of owning them, go through [`Chunk::batches`] and
    /// [`Batch::records_with`], and leave out control batches and those that are
    /// [aborted](PartitionData::is_aborted).
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records::new(self, self.floor.max(self.start_offset))
    }

    /// Whether a batch among the chunks belongs to a transaction that was aborted, so that a reader of committed
    /// records is to leave it out. For one that asked for uncommitted ones none does.
    #[must_use]
    pub fn is_aborted(&self, batch: &BatchHeader) -> bool {
        self.aborted.has(batch)
    }

    /// Where to read next, and what the node has to know to tell whether the topic is still the same, and the
    /// partition still holds what was read before.
    #[must_use]
    pub fn go_on(&self) -> FetchFrom {
        let from = FetchFrom::new(self.topic.as_str(), self.partition, self.next_offset);
        FetchFrom { last_epoch: self.last_epoch, topic_id: self.topic_id.clone(), ..from }
    }

    /// Bytes of stored batches.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.batches.len()).sum()
    }

    fn corrupt(&self, error: BatchError) -> Error {
        let PartitionData { topic, partition, .. } = self;
        let (kind, reason) = match error.kind() {
            BatchErrorKind::Unsupported => (ErrorKind::Unsupported, "BATCH_UNSUPPORTED"),
            _ => (ErrorKind::Corrupt, "DATA_CORRUPT"),
        };
        let message = format!("a batch of {topic}/{partition} before offset {}: {error}", self.next_offset);
        Error::new(kind, reason, message).with_source(error)
    }
}

impl Chunk {
    /// The batches one by one, each with its checksum verified. Ends after the first error.
    ///
    /// ```no_run
    /// # use logmill_record::Inflater;
    /// # fn example(data: logmill_client::PartitionData) -> Result<(), logmill_record::BatchError> {
    /// let mut inflater = Inflater::default();
    /// for chunk in &data.chunks {
    ///     for batch in chunk.batches() {
    ///         for record in batch?.records_with(&mut inflater)? {
    ///             let record = record?;
    ///             println!("{}: {} bytes", record.offset, record.value.map_or(0, <[u8]>::len));
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn batches(&self) -> impl Iterator<Item = Result<Batch, BatchError>> + use<> {
        let mut rest = self.batches.clone();
        std::iter::from_fn(move || {
            let batch = Batch::split_from(&mut rest).transpose();
            if let Some(Err(_)) = batch {
                rest.clear();
            }
            batch
        })
    }
}

impl TryFrom<v1::Chunk> for Chunk {
    type Error = Error;

    fn try_from(chunk: v1::Chunk) -> Result<Chunk, Error> {
        let Some(Data::Batches(batches)) = chunk.data else {
            return Err(Error::nonsense("a chunk without batches, for which it was asked"));
        };
        Ok(Chunk {
            appended_at: TimestampMs(chunk.appended_at_ms),
            appended_at_estimated: chunk.appended_at_estimated,
            batches,
        })
    }
}
