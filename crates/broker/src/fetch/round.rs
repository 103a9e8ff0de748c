//! One fetch: reading what there is, and waiting until it is enough.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cursor::Cursor;
use super::wait::{Woken, wait};
use super::{Fetch, Fetched, MAX_WAIT, ReplyPermit, ReplyRoom, cursors, read};
use crate::access::{Operation, authorize};
use crate::broker::Core;
use crate::budget::{Budget, Permit};
use crate::context::RequestContext;
use crate::error::Error;

/// A fetch that is under way.
pub(super) struct Round {
    cursors: Vec<Cursor>,
    /// Which partition is read first; another one each time, so that none starves.
    turn: usize,
    max_bytes: usize,
    min_bytes: usize,
    max_wait: Duration,
    bytes: usize,
    /// A batch was left because it does not fit any more, or there was no room for it among replies.
    full: bool,
    /// Room among replies, what this one has of it, and what there was none of.
    room: ReplyRoom,
    held: Option<ReplyPermit>,
    lacks: Option<Budget>,
}

/// Checks a fetch and finds its partitions.
pub(super) fn start(
    core: &Arc<Core>,
    context: &RequestContext,
    request: Fetch,
    own: Budget,
) -> Result<Round, Error> {
    core.check_open()?;
    let topics = request.partitions.iter().map(|from| from.topic.as_str()).collect();
    authorize(context, &Operation::Fetch { topics })?;
    if request.max_wait > MAX_WAIT {
        let rule = format!("a fetch waits at most {} ms", MAX_WAIT.as_millis());
        return Err(Error::field("max_wait_ms", request.max_wait.as_millis(), &rule));
    }
    let Fetch { partitions, max_bytes, min_bytes, max_wait } = request;
    let cursors = cursors(core, partitions)?;
    let min_bytes = min_bytes.min(max_bytes);
    let turn = core.rotation.fetch_add(1, Ordering::Relaxed);
    Ok(Round {
        cursors,
        turn,
        max_bytes,
        min_bytes,
        max_wait,
        bytes: 0,
        full: false,
        room: ReplyRoom::new(core.replies.clone(), own),
        held: None,
        lacks: None,
    })
}

impl Round {
    pub(super) async fn run(mut self, core: &Arc<Core>) -> Result<Fetched, Error> {
        let mut until = Box::pin(self.until(core));
        let mut waiting = None;
        loop {
            self = read(core, self, Self::read).await.map_err(|_| Error::fault("a read"))?;
            if self.is_enough() {
                break;
            }
            if waiting.is_none() {
                waiting = Some(self.wait_permit(core)?);
            }
            match wait(&self.cursors, until.as_mut(), core.closing.fired()).await {
                Woken::More => {}
                Woken::Turn(index, turn) => self.cursors[index].set_turn(turn),
                Woken::Ended(index, error) => {
                    self.cursors[index].end(&error);
                    break;
                }
                Woken::Until | Woken::Closing => break,
            }
        }
        self.cursors.iter_mut().for_each(Cursor::give_up);
        if let (0, Some(lacks)) = (self.bytes, &self.lacks) {
            let advice = "send again when replies that are under way have been read";
            return Err(lacks.refusal("a fetch", advice));
        }
        Ok(Fetched { data: self.cursors.iter_mut().map(Cursor::take).collect(), held: self.held })
    }

    /// Ready when it has waited long enough. One that does not wait for records waits for its turn to read.
    fn until(&self, core: &Core) -> impl Future<Output = ()> + Send + use<> {
        let sleep = (!self.max_wait.is_zero()).then(|| core.timer.sleep(self.max_wait));
        async move {
            match sleep {
                Some(sleep) => sleep.await,
                None => pending().await,
            }
        }
    }

    fn wait_permit(&self, core: &Core) -> Result<Permit, Error> {
        let advice = "send again when others have ended, or without max_wait_ms";
        core.waiting_fetches.take_for(1, || "a fetch that waits".to_owned(), advice)
    }

    /// Reads what there is, up to the limit and as far as there is room among replies, of those that may. Blocks.
    fn read(&mut self) {
        let count = self.cursors.len();
        // A read ends with its segment: as long as something comes, there may be more.
        let mut came = true;
        while came && !self.full {
            came = false;
            for step in 0..count {
                let index = self.turn.wrapping_add(step) % count;
                let cursor = &mut self.cursors[index];
                if !cursor.has_more() {
                    cursor.give_turn_back();
                    continue;
                }
                if !cursor.has_turn() {
                    continue;
                }
                let left = self.max_bytes.saturating_sub(self.bytes);
                let first = self.bytes == 0;
                let room = if left > 0 || first { self.take_room(left.max(1)) } else { None };
                let cursor = &mut self.cursors[index];
                match room.and_then(|room| Some((cursor.read(room.amount().min(left), first)?, room))) {
                    Some((bytes, room)) => {
                        self.bytes += bytes;
                        came |= bytes > 0;
                        self.held.get_or_insert(room).keep(self.bytes);
                    }
                    None => {
                        self.full = true;
                        break;
                    }
                }
            }
        }
    }

    fn take_room(&mut self, amount: usize) -> Option<ReplyPermit> {
        match self.room.take_up_to(amount) {
            Ok(room) => Some(room),
            Err(lacks) => {
                self.lacks = Some(lacks.clone());
                None
            }
        }
    }

    fn is_enough(&self) -> bool {
        // The others still say where they stand.
        let located = self.cursors.iter().all(Cursor::is_located);
        let nothing_to_come = || !self.cursors.iter().any(Cursor::can_have_more);
        let all_there_is = || self.max_wait.is_zero() && !self.cursors.iter().any(Cursor::has_more);
        located && (self.full || self.bytes >= self.min_bytes || nothing_to_come() || all_there_is())
    }
}
