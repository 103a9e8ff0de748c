//! Who waits for a log to get further, and how they are woken.
//!
//! A waiter looks at the published end under this lock before it registers, and a publisher
//! stores the end before it takes the lock: no wake-up is lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use logmill_record::Offset;
use parking_lot::Mutex;

use crate::error::Error;

/// The durable end of a log and everyone who waits for it to move.
#[derive(Debug)]
pub(crate) struct Waiters {
    durable_end: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the offset that the end must reach, then by registration.
    for_end: BTreeMap<(Offset, u64), Waker>,
    /// Those who wait for any progress: of a sync, a roll, or of closing.
    for_progress: BTreeMap<u64, Waker>,
    next_id: u64,
    /// Counts progress.
    progress: u64,
    /// Set when the end will never move again.
    ended: Option<Error>,
}

/// A waiter's place, for going away without a trace.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Option<(Option<Offset>, u64)>);

impl Waiters {
    pub(crate) fn new(durable_end: Offset) -> Self {
        Self { durable_end: AtomicU64::new(durable_end.get()), state: Mutex::default() }
    }

    pub(crate) fn durable_end(&self) -> Offset {
        Offset(self.durable_end.load(Ordering::Acquire))
    }

    /// Moves the durable end forward and wakes whoever it reaches.
    pub(crate) fn publish(&self, end: Offset) {
        debug_assert!(end >= self.durable_end(), "the durable end never goes back");
        self.durable_end.store(end.get(), Ordering::Release);
        let reached = {
            let mut state = self.state.lock();
            let later = state.for_end.split_off(&(end.next(), 0));
            std::mem::replace(&mut state.for_end, later)
        };
        reached.into_values().for_each(Waker::wake);
    }

    /// Tells those who wait for room, for a roll or for closing to look again.
    pub(crate) fn progressed(&self) {
        let woken = {
            let mut state = self.state.lock();
            state.progress += 1;
            std::mem::take(&mut state.for_progress)
        };
        woken.into_values().for_each(Waker::wake);
    }

    /// The end will not move again: everyone gets the error.
    pub(crate) fn end(&self, error: Error) {
        let for_end = {
            let mut state = self.state.lock();
            state.ended.get_or_insert(error);
            std::mem::take(&mut state.for_end)
        };
        for_end.into_values().for_each(Waker::wake);
        self.progressed();
    }

    /// How much progress there has been; to be read before looking at what one waits for.
    pub(crate) fn progress(&self) -> u64 {
        self.state.lock().progress
    }

    /// Ready when the durable end has reached `offset`, or never will.
    pub(crate) fn poll_end(
        &self,
        offset: Offset,
        ticket: &mut Ticket,
        context: &Context<'_>,
    ) -> Poll<Result<(), Error>> {
        if self.durable_end() >= offset {
            self.forget(ticket);
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state.lock();
        if self.durable_end() >= offset {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &state.ended {
            return Poll::Ready(Err(error.clone()));
        }
        let id = state.id_of(ticket);
        state.for_end.insert((offset, id), context.waker().clone());
        *ticket = Ticket(Some((Some(offset), id)));
        Poll::Pending
    }

    /// Ready when there has been progress beyond `seen`.
    pub(crate) fn poll_progress(&self, seen: u64, ticket: &mut Ticket, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.progress > seen {
            return Poll::Ready(());
        }
        let id = state.id_of(ticket);
        state.for_progress.insert(id, context.waker().clone());
        *ticket = Ticket(Some((None, id)));
        Poll::Pending
    }

    /// Removes a waiter that no longer waits.
    pub(crate) fn forget(&self, ticket: &mut Ticket) {
        let Some((offset, id)) = ticket.0.take() else { return };
        let mut state = self.state.lock();
        match offset {
            Some(offset) => state.for_end.remove(&(offset, id)),
            None => state.for_progress.remove(&id),
        };
    }
}

impl State {
    fn id_of(&mut self, ticket: &Ticket) -> u64 {
        ticket.0.map_or_else(
            || {
                self.next_id += 1;
                self.next_id
            },
            |(_, id)| id,
        )
    }
}
