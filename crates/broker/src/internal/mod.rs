//! The node's own logs beside its list of topics: keyed records, always durable, compacted, read whole at the start.
//!
//! | directory | what |
//! |---|---|
//! | `internal/transactions` | which transactions were decided, and how: see [`transaction`](crate::transaction) |
//! | `internal/offsets` | what groups have committed, and who owns what: see [`group`](crate::group) |
//!
//! Each has a [`Lane`] as a partition has: what comes at the same time shares one write and one sync, and a log whose
//! sync failed is opened again.

pub(crate) mod codec;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codec::DecodeError;
use logmill_log::{AbortedTxn, CompactionOptions, Log, LogOptions, LogSet, LogState, OpenTransaction};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
use uuid::Uuid;

use crate::budget::Budget;
use crate::error::{Error, OpenError, PartitionName, Reason};
use crate::exec::{Receiver, Signal, Timer};
use crate::limits::Bounds;
use crate::produce::{Answer, Lane, Written};
use crate::settings::Rules;
use crate::topic::TopicPartition;

const READ_BYTES: usize = 1024 * 1024;
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
const SEGMENT_AGE: Duration = Duration::from_hours(24);
/// Room for 131,072 keys; for more, compaction goes over the log several times.
const KEY_MAP_BYTES: usize = 4 * 1024 * 1024;

/// What could not be written is tried again after so long, and then after twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The log of offsets among the partitions that a transaction touches: no topic has this UUID.
pub(crate) const OFFSETS_ID: TopicPartition = TopicPartition { topic: Uuid::nil(), partition: 0 };

/// Which of the node's own logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Transactions,
    Offsets,
}

impl Which {
    /// Below the data directory.
    const fn path(self) -> &'static str {
        match self {
            Self::Transactions => "internal/transactions",
            Self::Offsets => "internal/offsets",
        }
    }

    /// The name in errors. No topic can have it.
    const fn name(self) -> &'static str {
        match self {
            Self::Transactions => "__transactions",
            Self::Offsets => "__offsets",
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct InternalLog {
    lane: Lane,
}

/// A record of one of the node's own logs, as it is read back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) offset: Offset,
    pub(crate) key: &'a [u8],
    /// `None` says that nothing is known of the key any more.
    pub(crate) value: Option<&'a [u8]>,
}

/// Without space to end what has begun, none is made.
fn options() -> LogOptions {
    LogOptions::default()
        .may_use_last_space(true)
        .segment_bytes(SEGMENT_BYTES)
        .segment_age(Some(SEGMENT_AGE))
        .compaction(Some(CompactionOptions::default().key_map_bytes(KEY_MAP_BYTES)))
}

impl InternalLog {
    /// Opens the log, or makes a new one in a data directory without.
    pub(crate) fn open(set: &LogSet, bounds: &Bounds, which: Which) -> Result<Self, OpenError> {
        let is_new = !set.holds_log(which.path()).map_err(OpenError::from_log)?;
        let log = if is_new { create(set, which) } else { open_existing(set, which) }?;
        let name = PartitionName { topic: which.name().into(), partition: 0 };
        let rules =
            Rules { max_message_bytes: usize::MAX, append_time: false, compression: None, needs_key: false };
        let (scheduler, reopenings) = (Arc::clone(&set.env().scheduler), bounds.reopenings.clone());
        let queued = Budget::unbounded();
        let lane = Lane::new(name, log, scheduler, Arc::new(rules), options(), queued, reopenings);
        Ok(Self { lane })
    }

    /// Its way in.
    pub(crate) fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Gives every record to `each` that counts, in order: of transactions those that were committed, and of those that
    /// no marker has ended those that are not `undone`. Blocks.
    pub(crate) fn read(
        &self,
        undone: &[OpenTransaction],
        mut each: impl FnMut(Stored<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), OpenError> {
        let log = self.lane.log();
        let unreadable = |offset, cause: Unreadable| {
            OpenError::internal_unreadable(log.dir(), offset, cause.is_newer(), &cause.to_string())
        };
        let damaged = |error| OpenError::internal_damaged(log.dir(), error);
        let (mut next, end) = (log.start_offset(), log.end_offset());
        while next < end {
            let read = log.read(next, READ_BYTES).map_err(damaged)?;
            let aborted = log.aborted(next..read.next_offset).map_err(damaged)?;
            for mut chunk in read.chunks {
                while let Some(batch) =
                    Batch::split_from(&mut chunk.batches).map_err(|error| unreadable(next, error.into()))?
                {
                    let offset = batch.header().base_offset;
                    if offset < end && counts(&batch, &aborted, undone) {
                        apply(&batch, &mut each).map_err(|cause| unreadable(offset, cause))?;
                    }
                }
            }
            next = read.next_offset;
        }
        Ok(())
    }

    /// Writes `batch` and resolves when it is on disk, with its first offset, however often it takes. It is as if it had been written
    /// once: what is there twice says the same twice.
    ///
    /// # Errors
    /// Only when the node is closing: then it is not known whether it is there.
    pub(crate) async fn write(&self, batch: Batch, timer: &Timer, closing: &Signal) -> Result<Offset, Error> {
        append_until_durable(&self.lane, batch, timer, closing).await
    }
}

/// Appends `batch` to the lane's log and resolves when it is on disk, however often it takes.
///
/// # Errors
/// When the node is closing, or when the lane takes nothing ever again: then it is not known whether it is there.
pub(crate) async fn append_until_durable(
    lane: &Lane,
    batch: Batch,
    timer: &Timer,
    closing: &Signal,
) -> Result<Offset, Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match append_durable(lane, batch.clone()).await {
            Ok(written) => return Ok(written),
            Err(error) => error,
        };
        // A partition that can only be read may be put right, and nothing may be forgotten of it meanwhile.
        let ends =
            matches!(error.reason(), Reason::TopicNotFound | Reason::NodeClosing | Reason::ProducerFenced);
        if ends || closing.has_fired() {
            return Err(error);
        }
        tracing::warn!(%error, "what the node has to write is tried again");
        timer.sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Appends `batch` to the lane's log and resolves when it is on disk, with its first offset.
pub(crate) async fn append_durable(lane: &Lane, batch: Batch) -> Result<Offset, Error> {
    confirmed(lane, lane.push_internal(vec![batch])?).await
}

/// Resolves when what waits in the lane is on disk, with its first offset.
pub(crate) async fn confirmed(lane: &Lane, answer: Receiver<Answer>) -> Result<Offset, Error> {
    let written = written(lane, answer).await?;
    written.durable.confirm(lane).await?;
    Ok(written.first_offset)
}

/// Resolves when what waits in the lane is written.
pub(crate) async fn written(lane: &Lane, answer: Receiver<Answer>) -> Result<Written, Error> {
    let answer = answer.await;
    let answer = answer.map_err(|_| lane.refusal().unwrap_or_else(|| Error::fault("an append")))?;
    answer.map_err(|refused| refused.error)
}

/// A batch of records, each of which says how something stands now.
pub(crate) fn batch_of<'a>(
    at: TimestampMs,
    records: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> Batch {
    let mut batch = BatchBuilder::new();
    for (key, value) in records {
        let record = NewRecord { timestamp: at, key: Some(key), value, headers: &[] };
        batch.push(&record).expect("what the node says of itself fits a batch");
    }
    batch.build().expect("what the node says of itself fits a batch")
}

fn create(set: &LogSet, which: Which) -> Result<Log, OpenError> {
    let log = set.create(which.path(), b"", options()).map_err(OpenError::from_log)?;
    // Also where a node that was killed here before had made the directories and not synced them.
    let internal = set.dir().join(Path::new(which.path()).parent().unwrap_or(Path::new("")));
    for dir in [internal.as_path(), set.dir()] {
        set.env().fs.sync_dir(dir).map_err(|error| OpenError::io("sync", dir, error))?;
    }
    Ok(log)
}

fn open_existing(set: &LogSet, which: Which) -> Result<Log, OpenError> {
    let dir = set.dir().join(which.path());
    let log =
        set.open_log(which.path(), options()).map_err(|error| OpenError::internal_damaged(&dir, error))?;
    match log.stats().state {
        LogState::ReadOnly(error) | LogState::Poisoned(error) => {
            Err(OpenError::internal_damaged(&dir, error))
        }
        _ => Ok(log),
    }
}

/// Whether the records of a batch are to be read.
fn counts(batch: &Batch, aborted: &[AbortedTxn], undone: &[OpenTransaction]) -> bool {
    let header = batch.header();
    let is_aborted = |txn: &AbortedTxn| {
        txn.producer_id == header.producer_id
            && (txn.first_offset..=txn.last_offset).contains(&header.base_offset)
    };
    let is_undone = |txn: &OpenTransaction| {
        txn.producer_id == header.producer_id && txn.first_offset <= header.base_offset
    };
    let attributes = header.attributes;
    let is_undecided = || aborted.iter().any(is_aborted) || undone.iter().any(is_undone);
    let leaves_out = attributes.is_control() || attributes.is_transactional() && is_undecided();
    !leaves_out
}

fn apply(
    batch: &Batch,
    each: &mut impl FnMut(Stored<'_>) -> Result<(), DecodeError>,
) -> Result<(), Unreadable> {
    for record in batch.records()? {
        let record = record?;
        each(Stored { offset: record.offset, key: record.key.unwrap_or_default(), value: record.value })?;
    }
    Ok(())
}

/// Why a record of one of the node's own logs cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error(transparent)]
    Batch(#[from] logmill_record::BatchError),
    #[error(transparent)]
    Record(#[from] DecodeError),
}

impl Unreadable {
    fn is_newer(&self) -> bool {
        matches!(self, Self::Record(DecodeError::NewerVersion { .. }))
    }
}
