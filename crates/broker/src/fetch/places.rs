//! The places of a subscription. Each of them has something to read, waits for its turn to read it, or waits
//! for more to come, and what comes for one costs nothing for the others.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::cursor::Cursor;
use super::{PartitionData, ReplyPermit, ReplyRoom};
use crate::error::Error;
use crate::exec::{TakeTurn, Turn, Waits};

#[derive(Debug)]
pub(super) struct Places {
    cursors: Vec<Cursor>,
    /// Those that have something to read, in the order in which they come to it.
    ready: VecDeque<usize>,
    /// Those that have, and whose partition is being read by as many others as may.
    blocked: Vec<usize>,
    /// The others, unless they failed.
    waits: Waits<Result<(), logmill_log::Error>>,
    /// The one that has something to take.
    came: Option<usize>,
    /// The room among replies that it takes.
    held: Option<ReplyPermit>,
    /// There was none.
    no_room: bool,
}

/// What the waiting ended with.
#[derive(Debug)]
pub(super) enum Woken {
    /// This one may have more.
    More(usize),
    /// This one has more, and may read it.
    Turn(usize, Turn),
    /// The partition of this one will never have more.
    Ended(usize, logmill_log::Error),
}

impl Places {
    pub(super) fn new(cursors: Vec<Cursor>) -> Self {
        let waits = Waits::new(cursors.len());
        let (ready, blocked) = (VecDeque::new(), Vec::new());
        Self { cursors, ready, blocked, waits, came: None, held: None, no_room: false }
    }

    /// Finds where they are, of those that may read now. Blocks.
    pub(super) fn settle(&mut self) {
        for cursor in &mut self.cursors {
            if !cursor.is_settled() && cursor.has_turn() {
                cursor.settle();
            }
        }
    }

    /// One whose place is not known yet, and its turn to look for it.
    pub(super) fn not_located(&self) -> Option<(usize, TakeTurn)> {
        let index = self.cursors.iter().position(|cursor| !cursor.is_located())?;
        Some((index, self.cursors[index].turn()?))
    }

    pub(super) fn set_turn(&mut self, index: usize, turn: Turn) {
        self.cursors[index].set_turn(turn);
    }

    /// Where they are, all of them known.
    pub(super) fn started(&mut self) -> Vec<PartitionData> {
        let alive = |(index, cursor): (usize, &Cursor)| cursor.error().is_none().then_some(index);
        self.ready = self.cursors.iter().enumerate().filter_map(alive).collect();
        self.cursors.iter_mut().map(Cursor::take).collect()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads from the first in turn that has something, as far as there is room among replies. Blocks.
    pub(super) fn read(&mut self, max_bytes: usize, room: &ReplyRoom) {
        let Ok(mut held) = room.take_up_to(max_bytes) else {
            // Who waits for room, for as long as its client likes, keeps no turn from those who have some.
            self.cursors.iter_mut().for_each(Cursor::give_turn_back);
            self.no_room = true;
            return;
        };
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop_front() else { return };
            let cursor = &mut self.cursors[index];
            if cursor.has_more() {
                if !cursor.has_turn() {
                    self.blocked.push(index);
                    continue;
                }
                let came = cursor.read(held.amount(), true).unwrap_or(0);
                if came > 0 || cursor.error().is_some() {
                    held.keep(came);
                    (self.came, self.held) = (Some(index), Some(held));
                    return;
                }
            }
            self.line_up(index);
        }
    }

    /// Whether the last read found no room among replies.
    pub(super) fn had_no_room(&mut self) -> bool {
        std::mem::take(&mut self.no_room)
    }

    /// What was read, if something was, and the room that it takes.
    pub(super) fn take(&mut self) -> Option<(PartitionData, Option<ReplyPermit>)> {
        let index = self.came.take()?;
        let data = self.cursors[index].take();
        self.line_up(index);
        Some((data, self.held.take()))
    }

    /// Puts one that is not dealt with among those that have something to read, or that wait.
    fn line_up(&mut self, index: usize) {
        let cursor = &mut self.cursors[index];
        cursor.give_turn_back();
        if cursor.error().is_some() {
            return;
        }
        match cursor.more().filter(|_| !cursor.has_more()) {
            Some(more) => self.waits.set(index, more),
            None => self.ready.push_back(index),
        }
    }

    /// Waits until one of them has something to read. Dropping the future loses nothing.
    pub(super) async fn wait(&mut self) -> Woken {
        let turn = |index: &usize| Some((*index, self.cursors[*index].turn()?));
        let mut turns: Vec<(usize, TakeTurn)> = self.blocked.iter().filter_map(turn).collect();
        let mut more = self.waits.next();
        poll_fn(move |context| {
            if let Poll::Ready((index, more)) = Pin::new(&mut more).poll(context) {
                return Poll::Ready(match more {
                    Ok(()) => Woken::More(index),
                    Err(error) => Woken::Ended(index, error),
                });
            }
            for (index, turn) in &mut turns {
                if let Poll::Ready(turn) = Pin::new(turn).poll(context) {
                    return Poll::Ready(Woken::Turn(*index, turn));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes note of why the waiting ended.
    pub(super) fn woken(&mut self, woken: Woken) {
        match woken {
            Woken::More(index) => self.ready.push_back(index),
            Woken::Turn(index, turn) => {
                self.blocked.retain(|blocked| *blocked != index);
                self.cursors[index].set_turn(turn);
                self.ready.push_back(index);
            }
            Woken::Ended(index, error) => {
                self.cursors[index].end(&error);
                self.came = Some(index);
            }
        }
    }

    /// The failure of one of them, if none is left to read.
    pub(super) fn all_failed(&self) -> Option<Error> {
        let none_left = self.ready.is_empty() && self.blocked.is_empty() && self.waits.is_empty();
        self.cursors.first().and_then(Cursor::error).filter(|_| none_left).cloned()
    }
}
