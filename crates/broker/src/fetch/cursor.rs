//! A reader's place in one partition, and one read from it.

use std::sync::Arc;

use logmill_log::{Chunk, ErrorKind};
use logmill_record::{Offset, TimestampMs};

use super::{FetchFrom, PartitionData};
use crate::catalog::{Partition, TopicState};
use crate::error::{Error, Reason};
use crate::produce::More;
use crate::topic::Position;

/// The most that is read from a log in one piece; who wants more gets it in several.
const READ_BYTES: usize = 16 * 1024 * 1024;

/// Where a reader is in a partition.
#[derive(Debug)]
pub(super) struct Cursor {
    from: FetchFrom,
    /// The partition's topic, or why there is none.
    topic: Result<Arc<TopicState>, Error>,
    /// Set once the position asked for has been looked up.
    place: Option<Place>,
    /// What has been read and not been taken yet.
    chunks: Vec<Chunk>,
    /// The bytes of `chunks`.
    bytes: usize,
    /// Nothing more is to be read before this is taken: the next batch would pass the partition's own limit,
    /// or cannot be read.
    satisfied: bool,
    /// The log has been asked at least once: it may have an error to tell, also at its end.
    tried: bool,
    error: Option<Error>,
    /// Why nothing came this time; there may be more later.
    not_now: Option<Error>,
}

/// Offsets of a partition as they were last seen.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    from: Offset,
    next: Offset,
    start: Offset,
    end: Offset,
}

impl Cursor {
    pub(super) fn new(from: FetchFrom, topic: Result<Arc<TopicState>, Error>) -> Self {
        Self {
            from,
            topic,
            place: None,
            chunks: Vec::new(),
            bytes: 0,
            satisfied: false,
            tried: false,
            error: None,
            not_now: None,
        }
    }

    fn partition(&self) -> Result<&Partition, Error> {
        self.topic.as_ref().map_err(Clone::clone)?.partition(self.from.partition)
    }

    /// Why the partition cannot be read.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Looks up where to start, once. Blocks.
    pub(super) fn locate(&mut self) {
        if self.place.is_some() || self.error.is_some() {
            return;
        }
        let found = self.partition().map(|partition| {
            let located = locate(partition, self.from.position);
            (located, partition.range())
        });
        let (located, (start, end)) = found.unwrap_or_else(|error| (Err(error), Default::default()));
        // Also where nothing can be read: what can be is a part of the answer.
        let offset = located.map_or_else(
            |error| {
                self.error = Some(error);
                start
            },
            |(offset, _)| offset,
        );
        self.place = Some(Place { from: offset, next: offset, start, end });
    }

    /// Reads on from where it is and returns how many bytes came: about `max_bytes`, but the first batch
    /// whole if `any_size`. Without that, a batch that is too large is left for another time, and the answer
    /// is `None`. Blocks.
    pub(super) fn read(&mut self, max_bytes: usize, any_size: bool) -> Option<usize> {
        self.locate();
        let Some(place) = self.place.filter(|_| self.error.is_none()) else { return Some(0) };
        self.tried = true;
        let wanted = self.own_left().map_or(max_bytes, |own| own.min(max_bytes)).min(READ_BYTES);
        let read = self.partition().and_then(|partition| {
            partition.log()?.read(place.next, wanted).map_err(|error| match error.kind() {
                ErrorKind::OutOfRange => out_of_range(partition, place.next),
                _ => partition.explain(&error),
            })
        });
        let read = match read {
            Ok(read) => read,
            // Another log takes the place of this one: there is more to see then.
            Err(error) if error.reason() == Reason::PartitionReopening => {
                self.not_now = Some(error);
                return Some(0);
            }
            Err(error) => {
                if self.chunks.is_empty() {
                    self.error = Some(error);
                } else {
                    // What was read before it is still good; the next read meets the error again.
                    self.satisfied = true;
                }
                return Some(0);
            }
        };
        let seen = Place { start: read.start_offset, end: read.end_offset, ..place };
        self.place = Some(seen);
        let bytes = read.chunks.iter().map(|chunk| chunk.batches.len()).sum();
        if bytes > max_bytes && !any_size {
            return None;
        }
        if self.bytes > 0 && self.own_left().is_some_and(|own| bytes > own) {
            self.satisfied = true;
            return Some(0);
        }
        self.place = Some(Place { next: read.next_offset, ..seen });
        self.chunks.extend(read.chunks);
        self.bytes += bytes;
        Some(bytes)
    }

    /// What its own limit leaves.
    fn own_left(&self) -> Option<usize> {
        self.from.max_bytes.map(|own| own.saturating_sub(self.bytes))
    }

    /// Whether a read would bring something now: records, or an error.
    pub(super) fn has_more(&self) -> bool {
        let more = |place: Place| {
            let lane = self.partition().and_then(Partition::lane);
            lane.is_ok_and(|lane| lane.log().end_offset() > place.next && !lane.is_opening())
        };
        self.can_have_more() && (!self.tried || self.place.is_none_or(more))
    }

    /// Whether a read may bring something, now or later.
    pub(super) fn can_have_more(&self) -> bool {
        self.error.is_none() && !self.satisfied && (self.bytes == 0 || self.own_left() != Some(0))
    }

    /// Resolves when there is more to read, and with an error when there never will be.
    pub(super) fn more(&self) -> Option<More> {
        let place = self.place.filter(|_| self.can_have_more())?;
        Some(self.partition().ok()?.lane().ok()?.beyond(place.next))
    }

    /// There will never be more: its log has ended with `error`.
    pub(super) fn end(&mut self, error: &logmill_log::Error) {
        let ended = self.partition().map_or_else(
            |error| error,
            |partition| match error.kind() {
                ErrorKind::Closed | ErrorKind::Corrupt => partition.explain(error),
                _ => partition.name().failed(error),
            },
        );
        self.error.get_or_insert(ended);
    }

    /// What has been read since the last time.
    pub(super) fn take(&mut self) -> PartitionData {
        let FetchFrom { topic, partition, .. } = &self.from;
        // A read has located it before it is taken.
        let place = self.place.unwrap_or_default();
        if let Some(place) = &mut self.place {
            place.from = place.next;
        }
        self.bytes = 0;
        self.satisfied = false;
        let not_now = self.not_now.take().filter(|_| self.chunks.is_empty());
        PartitionData {
            topic: topic.clone(),
            partition: *partition,
            start_offset: place.start,
            end_offset: place.end,
            from_offset: place.from,
            next_offset: place.next,
            chunks: std::mem::take(&mut self.chunks),
            error: self.error.clone().or(not_now),
        }
    }
}

/// The offset at a position, and the timestamp there if it was found by time. Blocks.
pub(super) fn locate(
    partition: &Partition,
    position: Position,
) -> Result<(Offset, Option<TimestampMs>), Error> {
    let log = partition.log()?;
    match position {
        Position::Offset(offset) if offset < log.start_offset() || offset > log.end_offset() => {
            Err(out_of_range(partition, offset))
        }
        Position::Offset(offset) => Ok((offset, None)),
        Position::Earliest => Ok((log.start_offset(), None)),
        Position::Latest => Ok((log.end_offset(), None)),
        Position::Time(at) => {
            let end = log.end_offset();
            let found = log.find_time(at).map_err(|error| partition.explain(&error))?;
            Ok(found.map_or((end, None), |(offset, timestamp)| (offset, Some(timestamp))))
        }
    }
}

fn out_of_range(partition: &Partition, offset: Offset) -> Error {
    let (start, end) = partition.range();
    partition.name().out_of_range(offset, start, end)
}
