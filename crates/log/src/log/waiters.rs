//! Who waits for a log to get further, and how they are woken.
//!
//! A waiter looks at the published end under this lock before it registers, and a publisher
//! stores the end before it takes the lock: no wake-up is lost. `tests/loom.rs` runs this file in
//! every order of its steps.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use logmill_record::Offset;

use crate::error::Error;
use crate::sync::{AtomicU64, Mutex};

/// Which end of a log somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// What is on disk.
    Durable,
    /// What readers see.
    Visible,
    /// What readers of committed records see: the last stable offset.
    Stable,
}

/// The ends of a log and everyone who waits for them to move.
#[derive(Debug)]
pub(crate) struct Waiters {
    durable_end: AtomicU64,
    visible_end: AtomicU64,
    stable_end: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the offset that the end must reach, then by registration.
    for_durable: BTreeMap<(Offset, u64), Waker>,
    for_visible: BTreeMap<(Offset, u64), Waker>,
    for_stable: BTreeMap<(Offset, u64), Waker>,
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
pub(crate) struct Ticket(Option<(Option<(End, Offset)>, u64)>);

impl Waiters {
    pub(crate) fn new(durable_end: Offset, stable_end: Offset) -> Self {
        let end = |end: Offset| AtomicU64::new(end.get());
        Self {
            durable_end: end(durable_end),
            visible_end: end(durable_end),
            stable_end: end(stable_end),
            state: Mutex::default(),
        }
    }

    pub(crate) fn durable_end(&self) -> Offset {
        self.end_of(End::Durable)
    }

    pub(crate) fn end_of(&self, which: End) -> Offset {
        Offset(match which {
            End::Durable => self.durable_end.load(Ordering::Acquire),
            End::Visible => self.visible_end.load(Ordering::Acquire),
            End::Stable => self.stable_end.load(Ordering::Acquire),
        })
    }

    /// Moves the ends forward, to what is durable and what is stable now, and wakes whoever they reach.
    pub(crate) fn publish_durable(&self, end: Offset, stable: Offset) {
        debug_assert!(end >= self.durable_end(), "the durable end never goes back");
        self.durable_end.store(end.get(), Ordering::Release);
        // Readers may have been shown more.
        self.visible_end.fetch_max(end.get(), Ordering::AcqRel);
        self.stable_end.fetch_max(stable.get(), Ordering::AcqRel);
        let (receipts, readers) = {
            let mut state = self.state.lock();
            (reached(&mut state.for_durable, end), state.reached_readers(end, stable))
        };
        receipts.into_values().for_each(Waker::wake);
        readers.into_iter().flat_map(BTreeMap::into_values).for_each(Waker::wake);
    }

    /// Shows readers what is written up to `end`, and those of committed records what of it is stable. Several
    /// appenders may come here out of order.
    pub(crate) fn publish_visible(&self, end: Offset, stable: Offset) {
        self.visible_end.fetch_max(end.get(), Ordering::AcqRel);
        self.stable_end.fetch_max(stable.get(), Ordering::AcqRel);
        let readers = self.state.lock().reached_readers(end, stable);
        readers.into_iter().flat_map(BTreeMap::into_values).for_each(Waker::wake);
    }

    /// What is stable has moved, and the end has not: the log starts past what was not.
    pub(crate) fn publish_stable(&self, stable: Offset) {
        self.stable_end.fetch_max(stable.get(), Ordering::AcqRel);
        let readers = reached(&mut self.state.lock().for_stable, stable);
        readers.into_values().for_each(Waker::wake);
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
        let waiting = {
            let mut state = self.state.lock();
            state.ended.get_or_insert(error);
            let State { for_durable, for_visible, for_stable, .. } = &mut *state;
            [for_durable, for_visible, for_stable].map(std::mem::take)
        };
        waiting.into_iter().flat_map(BTreeMap::into_values).for_each(Waker::wake);
        self.progressed();
    }

    /// How much progress there has been; to be read before looking at what one waits for.
    pub(crate) fn progress(&self) -> u64 {
        self.state.lock().progress
    }

    /// Ready when that end has reached `offset`, or never will.
    pub(crate) fn poll_end(
        &self,
        which: End,
        offset: Offset,
        ticket: &mut Ticket,
        context: &Context<'_>,
    ) -> Poll<Result<(), Error>> {
        if self.end_of(which) >= offset {
            self.forget(ticket);
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state.lock();
        if self.end_of(which) >= offset {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &state.ended {
            return Poll::Ready(Err(error.clone()));
        }
        let id = state.id_of(ticket);
        state.for_end(which).insert((offset, id), context.waker().clone());
        *ticket = Ticket(Some((Some((which, offset)), id)));
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
        let Some((end, id)) = ticket.0.take() else { return };
        let mut state = self.state.lock();
        match end {
            Some((which, offset)) => state.for_end(which).remove(&(offset, id)),
            None => state.for_progress.remove(&id),
        };
    }
}

/// Takes out whoever waits for an offset up to `end`.
fn reached(waiting: &mut BTreeMap<(Offset, u64), Waker>, end: Offset) -> BTreeMap<(Offset, u64), Waker> {
    let later = waiting.split_off(&(end.next(), 0));
    std::mem::replace(waiting, later)
}

impl State {
    fn for_end(&mut self, which: End) -> &mut BTreeMap<(Offset, u64), Waker> {
        match which {
            End::Durable => &mut self.for_durable,
            End::Visible => &mut self.for_visible,
            End::Stable => &mut self.for_stable,
        }
    }

    /// Takes out the readers that these ends reach.
    fn reached_readers(&mut self, end: Offset, stable: Offset) -> [BTreeMap<(Offset, u64), Waker>; 2] {
        [reached(&mut self.for_visible, end), reached(&mut self.for_stable, stable)]
    }

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
