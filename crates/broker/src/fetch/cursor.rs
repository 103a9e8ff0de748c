//! A reader of one partition, and one read from it.

use std::future::Future;
use std::sync::Arc;

use logmill_log::{AbortedTxn, Chunk, ErrorKind, Log, ReadOut};

use super::place::{Place, out_of_range, start_at};
use super::{FetchFrom, PartitionData};
use crate::catalog::{OffsetRange, Partition, TopicState};
use crate::error::{Error, Reason};
use crate::exec::{TakeTurn, Turn};
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
    aborted: Vec<AbortedTxn>,
    /// The bytes of `chunks`.
    bytes: usize,
    /// Nothing more is to be read before this is taken: the next batch would pass the partition's own limit,
    /// or cannot be read.
    satisfied: bool,
    /// The log has been asked at least once: it may have an error to tell, also at its end.
    tried: bool,
    /// The right to the next read.
    turn: Option<Turn>,
    error: Option<Error>,
    /// Why nothing came this time; there may be more later.
    not_now: Option<Error>,
}

impl Cursor {
    /// Finds its place at once, unless that takes a search.
    pub(super) fn new(from: FetchFrom, topic: Result<Arc<TopicState>, Error>) -> Self {
        let takes_a_search = matches!(from.position, Position::Time(_)) && topic.is_ok();
        let mut cursor = Self {
            from,
            topic,
            place: None,
            chunks: Vec::new(),
            aborted: Vec::new(),
            bytes: 0,
            satisfied: false,
            tried: false,
            turn: None,
            error: None,
            not_now: None,
        };
        if !takes_a_search {
            cursor.locate();
        }
        cursor
    }

    fn partition(&self) -> Result<&Partition, Error> {
        self.topic.as_ref().map_err(Clone::clone)?.partition(self.from.partition)
    }

    /// Why the partition cannot be read.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// Whether it is known where it is, or that it is nowhere.
    pub(super) fn is_located(&self) -> bool {
        self.place.is_some()
    }

    /// Looks up where to start, once. A search blocks.
    fn locate(&mut self) {
        if self.is_located() {
            return;
        }
        let found = self.partition().map(|partition| (start_at(partition, &self.from), partition.range()));
        let (located, OffsetRange { start, end, last_stable }) =
            found.unwrap_or_else(|error| (Err(error), Default::default()));
        // Also where nothing can be read: what can be is a part of the answer.
        let offset = located.unwrap_or_else(|error| {
            self.error = Some(error);
            start
        });
        let epoch = self.from.last_epoch.filter(|_| matches!(self.from.position, Position::Offset(_)));
        let (from, next, from_epoch, confirmed) = (offset, offset, epoch, None);
        self.place = Some(Place { from, next, start, end, last_stable, from_epoch, epoch, confirmed });
    }

    /// Whether it may read now: so many at once read from the files of a partition, so that one whose disk does
    /// not answer leaves threads for the others.
    pub(super) fn has_turn(&mut self) -> bool {
        if self.turn.is_none() && self.needs_turn() {
            self.turn = self.partition().ok().and_then(|partition| partition.reads().try_take());
            return self.turn.is_some();
        }
        true
    }

    /// At the end there is nothing to read, and the log says so without a look at its files.
    pub(super) fn needs_turn(&self) -> bool {
        let lane = self.partition().and_then(Partition::lane);
        lane.is_ok_and(|lane| self.place.is_none_or(|place| place.next != lane.log().end_offset()))
    }

    /// Resolves when it may read.
    pub(super) fn turn(&self) -> Option<TakeTurn> {
        Some(self.partition().ok()?.reads().take())
    }

    pub(super) fn set_turn(&mut self, turn: Turn) {
        self.turn = Some(turn);
    }

    pub(super) fn give_turn_back(&mut self) {
        self.turn = None;
    }

    /// Whether its place is known, and that the log holds what the reader has; or that it is nowhere.
    pub(super) fn is_settled(&self) -> bool {
        self.error.is_some() || self.place.is_some_and(|place| place.confirmed.is_some())
    }

    /// Finds that out. Blocks, and gives its turn back.
    pub(super) fn settle(&mut self) {
        let _turn = self.turn.take();
        self.locate();
        if !self.is_settled()
            && let Err(error) = self.confirm()
            // Else the next read finds out.
            && error.reason() != Reason::PartitionReopening
        {
            self.error = Some(error);
        }
    }

    /// The log to read from, which holds what the reader has.
    fn confirm(&mut self) -> Result<(Arc<TopicState>, Log), Error> {
        let topic = self.topic.clone()?;
        let partition = topic.partition(self.from.partition)?;
        let (log, generation) = partition.lane()?.serving();
        self.place.get_or_insert_default().confirm(partition, &log, generation)?;
        Ok((topic, log))
    }

    /// Reads on from where it is and returns how many bytes came: about `max_bytes`, but the first batch
    /// whole if `any_size`. Without that, a batch that is too large is left for another time, and the answer
    /// is `None`. Blocks, and gives its turn back.
    pub(super) fn read(&mut self, max_bytes: usize, any_size: bool) -> Option<usize> {
        let _turn = self.turn.take();
        self.locate();
        if self.error.is_some() {
            return Some(0);
        }
        self.tried = true;
        let wanted = self.own_left().map_or(max_bytes, |own| own.min(max_bytes)).min(READ_BYTES);
        let (read, aborted) = match self.read_on(wanted) {
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
        let bytes = read.chunks.iter().map(|chunk| chunk.batches.len()).sum();
        if bytes > max_bytes && !any_size {
            return None;
        }
        if self.bytes > 0 && self.own_left().is_some_and(|own| bytes > own) {
            self.satisfied = true;
            return Some(0);
        }
        if let Some(place) = &mut self.place {
            place.next = read.next_offset;
            place.epoch = read.chunks.last().map(|chunk| chunk.last_epoch).or(place.epoch);
        }
        self.chunks.extend(read.chunks);
        self.aborted.extend(aborted);
        self.bytes += bytes;
        Some(bytes)
    }

    fn read_on(&mut self, wanted: usize) -> Result<(ReadOut, Vec<AbortedTxn>), Error> {
        let (topic, log) = self.confirm()?;
        let partition = topic.partition(self.from.partition)?;
        let place = self.place.get_or_insert_default();
        let from = place.next;
        let read = log.read(from, wanted).map_err(|error| match error.kind() {
            ErrorKind::OutOfRange => out_of_range(partition, from),
            _ => partition.explain(&error),
        })?;
        (place.start, place.end) = (read.start_offset, read.end_offset);
        place.last_stable = log.last_stable_offset().min(place.end);
        if !read.chunks.iter().any(|chunk| chunk.transactional) {
            return Ok((read, Vec::new()));
        }
        let aborted = log.aborted(from..read.next_offset).map_err(|error| partition.explain(&error))?;
        Ok((read, aborted))
    }

    /// What its own limit leaves.
    fn own_left(&self) -> Option<usize> {
        self.from.max_bytes.map(|own| own.saturating_sub(self.bytes))
    }

    /// Whether a read would bring something now: records, or an error.
    pub(super) fn has_more(&self) -> bool {
        let more = |place: Place| {
            self.partition().and_then(Partition::lane).is_ok_and(|lane| {
                let (log, generation) = lane.serving();
                let other = place.confirmed.is_some_and(|confirmed| confirmed != generation);
                (other || log.end_offset() > place.next) && !lane.is_opening()
            })
        };
        self.can_have_more() && (!self.tried || self.place.is_none_or(more))
    }

    /// Whether a read may bring something, now or later.
    pub(super) fn can_have_more(&self) -> bool {
        self.error.is_none() && !self.satisfied && (self.bytes == 0 || self.own_left() != Some(0))
    }

    /// Resolves when there is more to look at, and with an error when there never will be.
    pub(super) fn more(
        &self,
    ) -> Option<impl Future<Output = Result<(), logmill_log::Error>> + Send + Sync + 'static + use<>> {
        let place = self.place.filter(|_| self.can_have_more())?;
        let lane = self.partition().ok()?.lane().ok()?;
        Some(lane.beyond(place.next, place.confirmed))
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

    /// Its place was not found in time, because others read from the partition for as long.
    pub(super) fn give_up(&mut self) {
        if !self.is_located() {
            let busy = self.partition().map_or_else(|error| error, Partition::too_many_reads);
            self.error.get_or_insert(busy);
        }
    }

    /// What has been read since the last time.
    pub(super) fn take(&mut self) -> PartitionData {
        let FetchFrom { topic, partition, .. } = &self.from;
        let place = self.place.unwrap_or_default();
        if let Some(place) = &mut self.place {
            (place.from, place.from_epoch) = (place.next, place.epoch);
        }
        self.bytes = 0;
        self.satisfied = false;
        self.turn = None;
        let not_now = self.not_now.take().filter(|_| self.chunks.is_empty());
        PartitionData {
            topic: topic.clone(),
            partition: *partition,
            start_offset: place.start,
            end_offset: place.end,
            last_stable_offset: place.last_stable,
            from_offset: place.from,
            from_epoch: place.from_epoch,
            next_offset: place.next,
            last_epoch: place.epoch,
            chunks: std::mem::take(&mut self.chunks),
            aborted: std::mem::take(&mut self.aborted),
            error: self.error.clone().or(not_now),
        }
    }
}
