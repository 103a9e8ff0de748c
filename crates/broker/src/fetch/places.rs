//! The places of a reader. Each of them has something to read, is being read, or waits for its turn or for more to
//! come; what comes for one costs nothing for the others. Places come and go while it reads.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::cursor::Cursor;
use super::job::{Begun, Job};
use super::look::Looked;
use super::{PartitionData, ReplyPermit, ReplyRoom};
use crate::broker::Core;
use crate::error::Error;
use crate::exec::{TakeTurn, Turn, Waits};

/// So many partitions are read at once where reads take long, or turns come: each has room among replies.
const MOST_READS: usize = 4;

#[derive(Debug)]
pub(super) struct Places {
    cursors: Vec<Cursor>,
    /// The numbers of those that have gone, for others that come.
    free: Vec<usize>,
    /// For what is read and not sent.
    room: ReplyRoom,
    /// Those that have something to read, in the order in which they come to it.
    ready: VecDeque<usize>,
    /// Those that have, and whose partition is being read by as many others as may. They keep their places in line.
    blocked: Vec<(usize, TakeTurn)>,
    /// The others, unless they failed: those that are being read, or wait for more.
    waits: Waits<Woken>,
    /// So many are being read.
    reads: usize,
    /// The one of them that the others wait for, until it takes long.
    reading: Option<(usize, Begun)>,
    /// The one that has something to take, and the room among replies that it takes.
    came: Option<(usize, Option<ReplyPermit>)>,
    /// The one that something was taken of the last time.
    taken: Option<usize>,
}

/// What came for one of them.
#[derive(Debug)]
enum Woken {
    /// It may have more; with an error, it never will.
    More(Result<(), logmill_log::Error>),
    /// It has more, and may read it.
    Turn(Turn),
    /// What was read; an error if the reading panicked.
    Read(Result<Read, Error>),
    /// It has come without a place to read at.
    Failed,
}

#[derive(Debug)]
struct Read {
    looked: Looked,
    room: ReplyPermit,
    /// The credit that it was read for.
    credit: usize,
}

/// What keeps the next read from being begun.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// There is nothing to read, or enough of it is being read.
    Nothing,
    /// There is another one under way, which does not take long yet.
    Reading(Begun),
    Credit,
    /// Room among replies.
    Room(ReplyRoom),
}

impl Places {
    /// Of cursors that are where they are, or failed.
    pub(super) fn new(cursors: Vec<Cursor>, room: ReplyRoom) -> Self {
        let alive = |(index, cursor): (usize, &Cursor)| cursor.error().is_none().then_some(index);
        let ready = cursors.iter().enumerate().filter_map(alive).collect();
        let (free, blocked, waits) = (Vec::new(), Vec::new(), Waits::new(cursors.len()));
        Self { cursors, free, room, ready, blocked, waits, reads: 0, reading: None, came: None, taken: None }
    }

    /// One more, which has found its place or failed; and its number, which nobody has until it goes. It says why it
    /// failed as it would later.
    pub(super) fn add(&mut self, cursor: Cursor) -> usize {
        let has_failed = cursor.error().is_some();
        let index = match self.free.pop() {
            Some(index) => {
                self.cursors[index] = cursor;
                index
            }
            None => {
                self.cursors.push(cursor);
                self.cursors.len() - 1
            }
        };
        if has_failed {
            self.waits.set(index, async { Woken::Failed });
        } else {
            self.ready.push_back(index);
        }
        index
    }

    /// One goes: nothing comes from it any more, also not what has been read already.
    pub(super) fn remove(&mut self, index: usize) {
        let cursor = &mut self.cursors[index];
        self.reads -= usize::from(cursor.is_looking());
        cursor.fail(Error::fault("a place that has gone"));
        drop(cursor.take());
        self.waits.clear(index);
        self.ready.retain(|ready| *ready != index);
        self.blocked.retain(|(blocked, _)| *blocked != index);
        self.reading.take_if(|(reading, _)| *reading == index);
        self.came.take_if(|(came, _)| *came == index);
        self.taken.take_if(|taken| *taken == index);
        self.free.push(index);
    }

    /// Begins to read from the first in turn that has something, as far as credit and room among replies go, and says
    /// what keeps the next from being read.
    pub(super) fn read(&mut self, core: &Core, credit: usize) -> Obstacle {
        if let Some((_, begun)) = &self.reading {
            return Obstacle::Reading(begun.clone());
        }
        // Those in line for their turn are not asked then.
        let for_credit = credit == 0 && !self.blocked.is_empty();
        if self.reads == MOST_READS {
            return if for_credit { Obstacle::Credit } else { Obstacle::Nothing };
        }
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { break };
            if !self.cursors[index].has_more() {
                self.line_up(index);
            } else if let Some(obstacle) = self.begin(core, index, credit) {
                return obstacle;
            }
        }
        if for_credit { Obstacle::Credit } else { Obstacle::Nothing }
    }

    /// Begins to read from one, unless it has to wait for its turn.
    fn begin(&mut self, core: &Core, index: usize, credit: usize) -> Option<Obstacle> {
        let cursor = &mut self.cursors[index];
        let room = if credit > 0 { self.room.take_up_to(credit).ok() } else { None };
        let Some(room) = room else {
            // Others can use it meanwhile.
            cursor.give_turn_back();
            self.ready.push_front(index);
            return Some(if credit > 0 { Obstacle::Room(self.room.clone()) } else { Obstacle::Credit });
        };
        if !cursor.has_turn() {
            self.blocked.push((index, cursor.turn()?));
            return None;
        }
        let look = cursor.look(Some(room.amount()))?;
        let job = Job::start(core, move || Read { looked: look.run(), room, credit });
        let (_, begun) = self.reading.get_or_insert((index, job.begun()));
        let obstacle = Obstacle::Reading(begun.clone());
        self.waits.set(index, async move { Woken::Read(job.await) });
        self.reads += 1;
        Some(obstacle)
    }

    /// The read that is under way takes long: others need not wait for it.
    pub(super) fn takes_long(&mut self) {
        self.reading = None;
    }

    /// What was read, if something was: by which of them, and the room that it takes.
    pub(super) fn take(&mut self) -> Option<(usize, PartitionData, Option<ReplyPermit>)> {
        let (index, held) = self.came.take()?;
        self.taken = Some(index);
        Some((index, self.cursors[index].take(), held))
    }

    /// There will never be more of the one that something was taken of the last time.
    #[cfg(feature = "grpc")]
    pub(super) fn end_last(&mut self, error: Error) {
        if let Some(index) = self.taken {
            self.cursors[index].fail(error);
        }
    }

    /// The one that something was taken of the last time goes on.
    pub(super) fn go_on(&mut self) {
        if let Some(index) = self.taken.take() {
            self.line_up(index);
        }
    }

    /// Puts one that is not dealt with among those that have something to read, or that wait.
    fn line_up(&mut self, index: usize) {
        let cursor = &mut self.cursors[index];
        cursor.give_turn_back();
        if cursor.error().is_some() {
            return;
        }
        match cursor.more().filter(|_| !cursor.has_more()) {
            Some(more) => self.waits.set(index, async move { Woken::More(more.await) }),
            None => self.ready.push_back(index),
        }
    }

    /// Waits until something has come for one of them, which is dealt with, unless `other` is ready before. There may
    /// be something to [take](Self::take) then. Dropping the future loses nothing.
    pub(super) async fn wait<T>(
        &mut self,
        core: &Core,
        credit: usize,
        other: impl Future<Output = T>,
    ) -> Option<T> {
        let can_read = credit > 0 && self.reads < MOST_READS;
        let came = {
            let (mut next, mut line) = (self.waits.next(), InLine(&mut self.blocked));
            let mut other = pin!(other);
            poll_fn(|context| {
                if let Poll::Ready(came) = Pin::new(&mut next).poll(context) {
                    return Poll::Ready(Ok(came));
                }
                if can_read && let Poll::Ready((index, turn)) = line.poll(context) {
                    return Poll::Ready(Ok((index, Woken::Turn(turn))));
                }
                other.as_mut().poll(context).map(Err)
            })
            .await
        };
        match came {
            Ok((index, woken)) => {
                self.woken(core, index, woken, credit);
                None
            }
            Err(other) => Some(other),
        }
    }

    fn woken(&mut self, core: &Core, index: usize, woken: Woken, credit: usize) {
        match woken {
            Woken::More(Ok(())) => self.ready.push_back(index),
            Woken::More(Err(error)) => {
                self.cursors[index].end(&error);
                self.came = Some((index, None));
            }
            // Used at once, beside others: a reader that has something else to do must not keep it.
            Woken::Turn(turn) => {
                self.cursors[index].set_turn(turn);
                self.begin(core, index, credit);
            }
            Woken::Failed => self.came = Some((index, None)),
            Woken::Read(read) => {
                self.reads -= 1;
                self.reading.take_if(|(reading, _)| *reading == index);
                self.accept(index, read, credit);
            }
        }
    }

    /// What comes late may be more than the credit that others have left: it is read again then.
    fn accept(&mut self, index: usize, read: Result<Read, Error>, credit: usize) {
        let cursor = &mut self.cursors[index];
        let (came, room) = match read {
            Ok(Read { looked, mut room, credit: before }) => {
                let came = cursor.accept(looked, credit, credit >= before).unwrap_or(0);
                room.keep(came);
                (came, Some(room))
            }
            Err(error) => {
                cursor.fail(error);
                (0, None)
            }
        };
        if came > 0 || cursor.error().is_some() {
            self.came = Some((index, room));
        } else {
            self.line_up(index);
        }
    }

    /// Whether there is something to take.
    pub(super) fn has_come(&self) -> bool {
        self.came.is_some()
    }

    /// Whether none is left to read.
    pub(super) fn none_left(&self) -> bool {
        self.ready.is_empty() && self.blocked.is_empty() && self.waits.is_empty()
    }

    /// The failure of the first, if it has failed.
    pub(super) fn failure(&self) -> Option<Error> {
        self.cursors.first().and_then(Cursor::error).cloned()
    }
}

/// Those who wait for their turn, while their reader is there to use it.
struct InLine<'a>(&'a mut Vec<(usize, TakeTurn)>);

impl InLine<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(usize, Turn)> {
        for place in 0..self.0.len() {
            if let Poll::Ready(turn) = Pin::new(&mut self.0[place].1).poll(context) {
                return Poll::Ready((self.0.swap_remove(place).0, turn));
            }
        }
        Poll::Pending
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.iter_mut().for_each(|(_, turn)| turn.step_aside());
    }
}
