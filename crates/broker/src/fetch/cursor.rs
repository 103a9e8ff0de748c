//! A reader of one partition: where it is, and what has been read of it.

use std::future::Future;
use std::sync::Arc;

use logmill_log::{AbortedTxn, Chunk, ErrorKind, ReadOut};

use super::look::{Look, Looked, Outcome};
use super::place::Place;
use super::{FetchFrom, Isolation, PartitionData};
use crate::catalog::{OffsetRange, Partition, TopicState};
use crate::error::{Error, Reason};
use crate::exec::{TakeTurn, Turn};
use crate::produce::Lane;
use crate::topic::Position;

/// The most that is read from a log in one piece; who wants more gets it in several.
const READ_BYTES: usize = 16 * 1024 * 1024;

/// Where a reader is in a partition.
#[derive(Debug)]
pub(super) struct Cursor {
    from: Arc<FetchFrom>,
    /// The partition's topic, or why there is none.
    topic: Result<Arc<TopicState>, Error>,
    isolation: Isolation,
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
    /// A look is under way.
    looking: bool,
    /// The right to the next look.
    turn: Option<Turn>,
    error: Option<Error>,
    /// Why nothing came this time; there may be more later.
    not_now: Option<Error>,
}

impl Cursor {
    /// Finds its place at once, unless that takes a search.
    pub(super) fn new(from: FetchFrom, topic: Result<Arc<TopicState>, Error>, isolation: Isolation) -> Self {
        let (place, error) = match &topic {
            Ok(_) if matches!(from.position, Position::Time(_)) => (None, None),
            Ok(topic) => {
                let (place, error) = Place::find(topic, &from, isolation);
                (Some(place), error)
            }
            Err(error) => (Some(Place::default()), Some(error.clone())),
        };
        Self {
            from: Arc::new(from),
            topic,
            isolation,
            place,
            chunks: Vec::new(),
            aborted: Vec::new(),
            bytes: 0,
            satisfied: false,
            tried: false,
            looking: false,
            turn: None,
            error,
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

    /// Whether it is known where it is, or that it is nowhere.
    pub(super) fn is_located(&self) -> bool {
        self.place.is_some()
    }

    /// Whether a look is under way.
    pub(super) fn is_looking(&self) -> bool {
        self.looking
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

    /// A look from where it is, with its turn: to read about so much, or only to find out where that is. What it
    /// brings is to be [accepted](Self::accept), before there is another. There is none where there is no topic.
    pub(super) fn look(&mut self, max_bytes: Option<usize>) -> Option<Look> {
        let topic = Arc::clone(self.topic.as_ref().ok()?);
        let own = |max_bytes| self.own_left().map_or(max_bytes, |own| own.min(max_bytes)).min(READ_BYTES);
        let max_bytes = max_bytes.map(own);
        self.looking = true;
        let (from, place, _turn) = (Arc::clone(&self.from), self.place, self.turn.take());
        Some(Look { from, topic, isolation: self.isolation, place, _turn, max_bytes })
    }

    /// Takes in what a look has brought and returns how many bytes came. Of more than `max_bytes` nothing is taken,
    /// unless `any_size`: it is left for another time then, and the answer is `None`.
    pub(super) fn accept(&mut self, looked: Looked, max_bytes: usize, any_size: bool) -> Option<usize> {
        self.looking = false;
        self.place = Some(looked.place);
        self.tried |= !matches!(looked.outcome, Outcome::Settled);
        match looked.outcome {
            Outcome::Read(read, aborted) => return self.accept_read(read, aborted, max_bytes, any_size),
            Outcome::Settled => {}
            Outcome::Nowhere(error) => self.error = Some(error),
            // Another log takes the place of this one: there is more to see then.
            Outcome::Failed(error) if error.reason() == Reason::PartitionReopening => {
                self.not_now = Some(error);
            }
            Outcome::Failed(error) if self.chunks.is_empty() => self.error = Some(error),
            // What was read before it is still good; the next read meets the error again.
            Outcome::Failed(_) => self.satisfied = true,
        }
        Some(0)
    }

    fn accept_read(
        &mut self,
        read: ReadOut,
        aborted: Vec<AbortedTxn>,
        max_bytes: usize,
        any_size: bool,
    ) -> Option<usize> {
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

    /// What its own limit leaves.
    fn own_left(&self) -> Option<usize> {
        self.from.max_bytes.map(|own| own.saturating_sub(self.bytes))
    }

    /// Whether a read would bring something now: records, or an error.
    pub(super) fn has_more(&self) -> bool {
        let more = |place: Place| {
            self.partition().and_then(Partition::lane).is_ok_and(|lane| {
                let (log, generation) = lane.serving();
                if place.confirmed == Some(generation) {
                    self.isolation.end_of(&log) > place.next && !lane.is_opening()
                } else {
                    // While it is being opened again, nobody can say whether it holds what the reader has.
                    !lane.is_reopening()
                }
            })
        };
        self.can_have_more() && !self.looking && (!self.tried || self.place.is_none_or(more))
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
        let lane = self.partition().ok()?.lane().ok()?.clone();
        let isolation = self.isolation;
        Some(async move {
            match isolation {
                Isolation::ReadCommitted => more_committed(&lane, place).await,
                Isolation::ReadUncommitted => lane.beyond(place.next, place.confirmed).await,
            }
        })
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
        self.fail(ended);
    }

    /// There will never be more, because of `error`.
    pub(super) fn fail(&mut self, error: Error) {
        self.looking = false;
        self.error.get_or_insert(error);
    }

    /// What a look that is under way will bring comes too late. Without a place nothing can be read then.
    pub(super) fn give_up(&mut self) {
        if !self.is_located() {
            let (range, why) = match self.partition() {
                Ok(partition) if self.looking => (partition.range(), partition.search_takes_long()),
                Ok(partition) => (partition.range(), partition.too_many_reads()),
                Err(error) => (OffsetRange::default(), error),
            };
            self.place = Some(Place::new(range.start, range, None));
            self.error.get_or_insert(why);
        }
        self.looking = false;
    }

    /// What has been read since the last time.
    pub(super) fn take(&mut self) -> PartitionData {
        let FetchFrom { topic, partition, .. } = &*self.from;
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
            topic_id: self.topic.as_ref().ok().map(|topic| topic.id),
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

/// Resolves when there is more that is committed, or the log is not the one that was read; and with an error when there
/// never will be.
async fn more_committed(lane: &Lane, place: Place) -> Result<(), logmill_log::Error> {
    let (log, generation) = lane.serving();
    // Else it is to be looked at first, or can be asked nothing.
    if place.confirmed == Some(generation) && !lane.is_opening() {
        if log.stable_beyond(place.next).await.is_ok() {
            return Ok(());
        }
        // It has ended, and what lies before its end stays undecided: there is more only if another log takes its
        // place, which the lane knows.
        return lane.beyond(log.end_offset().max(place.next), place.confirmed).await;
    }
    lane.beyond(place.next, place.confirmed).await
}
