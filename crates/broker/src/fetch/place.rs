//! Where a reader is in a partition, and whether the partition still holds what it has.

use logmill_log::Log;
use logmill_record::{Offset, TimestampMs};

use super::{FetchFrom, Isolation};
use crate::catalog::{OffsetRange, Partition, TopicState};
use crate::error::Error;
use crate::topic::Position;

/// Offsets of a partition as they were last seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    pub(super) from: Offset,
    pub(super) next: Offset,
    pub(super) start: Offset,
    pub(super) end: Offset,
    pub(super) last_stable: Offset,
    /// The leader epochs of the batches before `from` and `next`, if they are known.
    pub(super) from_epoch: Option<i32>,
    pub(super) epoch: Option<i32>,
    /// Which of the partition's logs is known to hold what the reader has.
    pub(super) confirmed: Option<u64>,
}

impl Place {
    /// At this offset of a partition that stands so.
    pub(super) fn new(offset: Offset, range: OffsetRange, epoch: Option<i32>) -> Self {
        let OffsetRange { start, end, last_stable } = range;
        let (from, next, from_epoch) = (offset, offset, epoch);
        Self { from, next, start, end, last_stable, from_epoch, epoch, confirmed: None }
    }

    /// Where a request begins to read, or why it cannot; how the partition stands is a part of the answer then, too.
    /// A search by time blocks.
    pub(super) fn find(topic: &TopicState, from: &FetchFrom, isolation: Isolation) -> (Self, Option<Error>) {
        let partition = match topic.partition(from.partition) {
            Ok(partition) => partition,
            Err(error) => return (Self::default(), Some(error)),
        };
        let (found, range) = (start_at(partition, from, isolation), partition.range());
        let epoch = from.last_epoch.filter(|_| matches!(from.position, Position::Offset(_)));
        match found {
            Ok(offset) => (Self::new(offset, range, epoch), None),
            Err(error) => (Self::new(range.start, range, epoch), Some(error)),
        }
    }

    /// Makes sure that the log holds what the reader has: once, and again when the log was opened again, which
    /// may have lost what was not on disk, and given its offsets to others.
    pub(super) fn confirm(&mut self, partition: &Partition, log: &Log, generation: u64) -> Result<(), Error> {
        if self.confirmed == Some(generation) {
            return Ok(());
        }
        match self.epoch {
            Some(epoch) => check_not_truncated(partition, log, self.next, epoch)?,
            // Where it cannot be told it stays unknown: what the reader has is not looked at then.
            None => self.epoch = log.epoch_before(self.next).unwrap_or_default(),
        }
        if self.from == self.next {
            self.from_epoch = self.epoch;
        }
        self.confirmed = Some(generation);
        Ok(())
    }
}

/// Refuses to read on at `offset` for a reader whose last batch has `epoch`, if that is gone.
fn check_not_truncated(partition: &Partition, log: &Log, offset: Offset, epoch: i32) -> Result<(), Error> {
    let explain = |error: logmill_log::Error| partition.explain(&error);
    let before = log.epoch_before(offset).map_err(explain)?;
    if offset <= log.end_offset() && before.is_none_or(|before| before <= epoch) {
        return Ok(());
    }
    let diverging = log.end_of_epoch(epoch).map_err(explain)?.min(offset);
    Err(partition.name().truncated(offset, epoch, diverging))
}

/// Where a request begins to read; a search by time blocks.
fn start_at(partition: &Partition, from: &FetchFrom, isolation: Isolation) -> Result<Offset, Error> {
    match from.position {
        // Past the end is not out of range then, but truncated, which is found out before it is read.
        Position::Offset(offset)
            if from.last_epoch.is_some() && offset >= partition.log()?.start_offset() =>
        {
            Ok(offset)
        }
        position => locate(partition, position, isolation).map(|(offset, _)| offset),
    }
}

/// The offset at a position, and the timestamp there if it was found by time, for which it blocks. A time is looked
/// for among all records: what lies before the one found, or before the end, is of no interest to whoever asks, also
/// where it is not decided yet.
pub(crate) fn locate(
    partition: &Partition,
    position: Position,
    isolation: Isolation,
) -> Result<(Offset, Option<TimestampMs>), Error> {
    let log = partition.log()?;
    match position {
        Position::Offset(offset) if offset < log.start_offset() || offset > log.end_offset() => {
            Err(out_of_range(partition, offset))
        }
        Position::Offset(offset) => Ok((offset, None)),
        Position::Earliest => Ok((log.start_offset(), None)),
        Position::Latest => Ok((isolation.end_of(&log), None)),
        Position::Time(at) => {
            let end = log.end_offset();
            let found = log.find_time(at).map_err(|error| partition.explain(&error))?;
            Ok(found.map_or((end, None), |(offset, timestamp)| (offset, Some(timestamp))))
        }
    }
}

pub(super) fn out_of_range(partition: &Partition, offset: Offset) -> Error {
    let OffsetRange { start, end, .. } = partition.range();
    partition.name().out_of_range(offset, start, end)
}
