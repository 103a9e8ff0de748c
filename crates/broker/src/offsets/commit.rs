//! What is to be committed, checked, and as records of the log.

use std::sync::Arc;

use logmill_record::{Batch, Offset, TimestampMs};

use super::Offsets;
use super::record::{Committed, Key};
use crate::broker::Core;
use crate::error::Error;
use crate::group::Held;
use crate::internal::batch_of;

/// The longest metadata of a commit, which is Kafka's: 4,096 bytes.
pub const MAX_COMMIT_METADATA_BYTES: usize = 4_096;

/// Where a group is to go on in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetToCommit {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The [`last_epoch`](crate::PartitionData::last_epoch) of what was read, if it is known.
    pub last_epoch: Option<i32>,
    /// Whatever the member wants to remember with it, up to [`MAX_COMMIT_METADATA_BYTES`].
    pub metadata: String,
}

impl OffsetToCommit {
    /// Without an epoch and metadata.
    #[must_use]
    pub fn new(topic: impl Into<String>, partition: u32, offset: Offset) -> Self {
        Self { topic: topic.into(), partition, offset, last_epoch: None, metadata: String::new() }
    }
}

/// A commit that may be made.
#[derive(Clone, Debug)]
pub(crate) struct CheckedCommit {
    pub(crate) key: Key,
    pub(crate) committed: Committed,
}

impl CheckedCommit {
    /// The records that say so.
    pub(crate) fn batch(all: &[Self], at: TimestampMs) -> Batch {
        let encoded: Vec<_> = all.iter().map(|it| (it.key.encode(), it.committed.encode())).collect();
        batch_of(at, encoded.iter().map(|(key, value)| (&key[..], Some(&value[..]))))
    }
}

impl Offsets {
    /// Checks what the owner of a unit wants to commit.
    pub(crate) fn check(
        &self,
        core: &Arc<Core>,
        held: &Held,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<Vec<CheckedCommit>, Error> {
        let now = core.config.env.clock.now();
        offsets.into_iter().map(|offset| self.check_one(core, held, offset, now)).collect()
    }

    fn check_one(
        &self,
        core: &Core,
        held: &Held,
        to_commit: OffsetToCommit,
        now: TimestampMs,
    ) -> Result<CheckedCommit, Error> {
        let OffsetToCommit { topic, partition, offset, last_epoch, metadata } = to_commit;
        if metadata.len() > MAX_COMMIT_METADATA_BYTES {
            let rule = "it has at most 4,096 bytes";
            return Err(Error::field("metadata", format!("{} bytes", metadata.len()), rule));
        }
        let state = core.catalog.topic(&topic)?;
        let of = state.partition(partition)?;
        held.check(of, state.id, partition)?;
        let range = of.range();
        if offset > range.end {
            return Err(of.name().out_of_range(offset, range.start, range.end));
        }
        let key = Key { group: held.group().to_owned(), topic, partition };
        let unit_epoch = Some(held.epoch());
        let committed = Committed { topic_id: state.id, offset, last_epoch, metadata, at: now, unit_epoch };
        self.check_forward(&key, &committed)?;
        Ok(CheckedCommit { key, committed })
    }
}
