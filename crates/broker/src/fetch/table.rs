//! What the jobs of one request share: its partitions, what has been read of them, and how much more may be.
//!
//! A job takes one step after another from it, and looks into partitions without holding it. A partition that a job
//! is looking into is left out by the others, and what the look brings counts when it is there.
//!
//! Lock order: who holds the table may take the locks of a lane, of turns and of a budget.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::cursor::Cursor;
use super::look::{Look, Looked};
use super::wait::Waited;
use super::{Fetch, Fetched, ReplyPermit, ReplyRoom};
use crate::budget::Budget;
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Table {
    pub(super) cursors: Vec<Cursor>,
    /// Those that are to be looked at, in turn.
    queue: VecDeque<usize>,
    /// Which one is first; another one each time, so that none starves.
    first: usize,
    max_bytes: usize,
    min_bytes: usize,
    /// It does not wait for more than what there is.
    now: bool,
    bytes: usize,
    /// Nothing more is to be read: a batch was left because it does not fit any more, or there was no room for it
    /// among replies. The others still say where they stand.
    full: bool,
    /// What has to be known of a cursor also then.
    is_known: fn(&Cursor) -> bool,
    /// Room among replies, what this one has of it, and what there was none of.
    room: Option<ReplyRoom>,
    held: Option<ReplyPermit>,
    lacks: Option<Budget>,
}

/// What a job does next.
#[derive(Debug)]
pub(super) struct Step {
    index: usize,
    look: Look,
    /// For what it reads, if it reads.
    room: Option<ReplyPermit>,
}

/// Does one step after another, as long as there are some. Blocks.
pub(super) fn work(table: &Mutex<Table>) {
    loop {
        // The lock is not held while it looks.
        let next = table.lock().next();
        let Some(Step { index, look, room }) = next else { return };
        let looked = look.run();
        table.lock().accept(index, looked, room);
    }
}

impl Table {
    /// To read what is asked for, into this room.
    pub(super) fn to_read(cursors: Vec<Cursor>, first: usize, fetch: &Fetch, room: ReplyRoom) -> Self {
        let max_bytes = fetch.max_bytes;
        let min_bytes = fetch.min_bytes.min(max_bytes);
        let (now, is_known) = (fetch.max_wait.is_zero(), Cursor::is_located);
        let (queue, bytes, full) = (VecDeque::new(), 0, false);
        let (room, held, lacks) = (Some(room), None, None);
        Self { cursors, queue, first, max_bytes, min_bytes, now, bytes, full, is_known, room, held, lacks }
    }

    /// Only to find out where they are.
    pub(super) fn to_settle(cursors: Vec<Cursor>) -> Self {
        let (queue, full, now, is_known) = (VecDeque::new(), true, true, Cursor::is_settled);
        let (first, max_bytes, min_bytes, bytes) = (0, 0, 0, 0);
        let (room, held, lacks) = (None, None, None);
        Self { cursors, queue, first, max_bytes, min_bytes, now, bytes, full, is_known, room, held, lacks }
    }

    /// Has all of them looked at again, as far as there is something to see.
    pub(super) fn line_up(&mut self) {
        let (first, count) = (self.first, self.cursors.len());
        self.queue = (0..count).map(|step| first.wrapping_add(step) % count).collect();
    }

    pub(super) fn has_next(&self) -> bool {
        !self.queue.is_empty()
    }

    fn next(&mut self) -> Option<Step> {
        while let Some(index) = self.queue.pop_front() {
            if self.wants(index) && self.cursors[index].has_turn() {
                let room = self.reserve();
                let max_bytes = room.as_ref().map(|room| room.amount().min(self.left()));
                // There may be no room, and nothing else to find out.
                if self.wants(index)
                    && let Some(look) = self.cursors[index].look(max_bytes)
                {
                    return Some(Step { index, look, room });
                }
            }
            self.cursors[index].give_turn_back();
        }
        None
    }

    /// Whether there is something to be seen of it.
    fn wants(&self, index: usize) -> bool {
        let cursor = &self.cursors[index];
        if !self.full {
            return cursor.has_more();
        }
        !cursor.is_looking() && !(self.is_known)(cursor) && !self.is_refused()
    }

    fn left(&self) -> usize {
        self.max_bytes.saturating_sub(self.bytes)
    }

    /// Takes room among replies for the next read; where there is none, it is full.
    fn reserve(&mut self) -> Option<ReplyPermit> {
        let wanted = if self.bytes == 0 { self.left().max(1) } else { self.left() };
        let room = self.room.as_ref().filter(|_| !self.full && wanted > 0);
        let reserved = room.and_then(|room| match room.take_up_to(wanted) {
            Ok(reserved) => Some(reserved),
            Err(lacks) => {
                self.lacks = Some(lacks.clone());
                None
            }
        });
        self.full = reserved.is_none();
        reserved
    }

    /// Takes in what a look has brought. Others may have brought something meanwhile.
    fn accept(&mut self, index: usize, looked: Looked, room: Option<ReplyPermit>) {
        let max_bytes = room.as_ref().map_or(0, |room| room.amount().min(self.left()));
        // There are none where it has ended.
        let Some(cursor) = self.cursors.get_mut(index) else { return };
        match (cursor.accept(looked, max_bytes, self.bytes == 0), room) {
            (Some(came), Some(room)) => {
                self.bytes += came;
                self.held.get_or_insert(room).keep(self.bytes);
                // A read ends with its segment: as long as something comes, there may be more.
                if came > 0 {
                    self.queue.push_back(index);
                }
            }
            (None, _) => self.full = true,
            (Some(_), None) => {}
        }
    }

    /// There was no room for anything.
    fn is_refused(&self) -> bool {
        self.bytes == 0 && self.lacks.is_some()
    }

    /// Whether it has what it was to wait for.
    pub(super) fn has_enough(&self) -> bool {
        let nothing_to_come = || !self.cursors.iter().any(Cursor::can_have_more);
        let all_there_is = || self.now && !self.cursors.iter().any(Cursor::has_more);
        self.full || self.bytes >= self.min_bytes || nothing_to_come() || all_there_is()
    }

    /// Whether it is known of all of them where they stand, and no look is under way.
    pub(super) fn is_complete(&self) -> bool {
        let is_done = |cursor: &Cursor| cursor.is_located() && !cursor.is_looking();
        self.is_refused() || self.cursors.iter().all(is_done)
    }

    /// What its cursors wait for: more records if those are wanted, else that it becomes known where they are.
    pub(super) fn waited(&self, for_records: bool) -> Vec<(usize, Waited)> {
        let waits = |cursor: &Cursor| !cursor.is_looking() && (for_records || !cursor.is_located());
        let cursors = self.cursors.iter().enumerate().filter(|(_, cursor)| waits(cursor));
        cursors.filter_map(|(index, cursor)| Some((index, Waited::of(cursor)?))).collect()
    }

    /// Ends it with what was read, and the room that this takes.
    pub(super) fn fetched(&mut self) -> Result<Fetched, Error> {
        if let (0, Some(lacks)) = (self.bytes, &self.lacks) {
            let advice = "send again when replies that are under way have been read";
            return Err(lacks.refusal("a fetch", advice));
        }
        let held = self.held.take();
        Ok(Fetched { data: self.end().iter_mut().map(Cursor::take).collect(), held })
    }

    /// Ends it: jobs find nothing more to do, and what they bring comes too late. Each of the cursors is somewhere or
    /// nowhere.
    pub(super) fn end(&mut self) -> Vec<Cursor> {
        self.queue.clear();
        let mut cursors = std::mem::take(&mut self.cursors);
        cursors.iter_mut().for_each(Cursor::give_up);
        cursors
    }
}
