//! So many at once; the others come in the order in which they asked, and hold no thread meanwhile: a fair
//! semaphore.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::limits::Meter;

/// Gives out turns. A clone gives out the same ones.
#[derive(Clone, Debug)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    at_once: usize,
    free: usize,
    meter: Arc<Meter>,
    next_id: u64,
    /// Those who wait, in order; `None` has been given its turn and not come for it yet.
    waiting: BTreeMap<u64, Option<Waker>>,
}

/// A turn; the next in line gets it when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Turns);

impl Turns {
    /// So many at once, counted by `meter`.
    pub(crate) fn new(at_once: usize, meter: Arc<Meter>) -> Self {
        let state = State { at_once, free: at_once, meter, next_id: 0, waiting: BTreeMap::new() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// How many there are.
    pub(crate) fn at_once(&self) -> usize {
        self.0.lock().at_once
    }

    /// One of the turns, which has been taken from those that are free or comes from another.
    fn turn(&self, state: &State) -> Turn {
        state.meter.add(1, state.at_once - state.free);
        Turn(self.clone())
    }

    /// A turn, if there is one that nobody waits for.
    pub(crate) fn try_take(&self) -> Option<Turn> {
        let mut state = self.0.lock();
        state.free = state.free.checked_sub(1)?;
        Some(self.turn(&state))
    }

    /// Ready with a turn. Dropped before, it leaves its place to the next.
    pub(crate) fn take(&self) -> TakeTurn {
        TakeTurn { turns: self.clone(), id: None }
    }

    fn give_back(&self) {
        let woken = {
            let mut state = self.0.lock();
            let next = state.waiting.values_mut().find_map(Option::take);
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some(waker) = woken {
            waker.wake();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.0.lock().meter.subtract(1);
        self.0.give_back();
    }
}

/// See [`Turns::take`].
#[derive(Debug)]
pub(crate) struct TakeTurn {
    turns: Turns,
    id: Option<u64>,
}

impl Future for TakeTurn {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let this = &mut *self;
        let mut state = this.turns.0.lock();
        let Some(id) = this.id else {
            if let Some(free) = state.free.checked_sub(1) {
                state.free = free;
                return Poll::Ready(this.turns.turn(&state));
            }
            state.meter.refuse();
            state.next_id += 1;
            let id = state.next_id;
            state.waiting.insert(id, Some(context.waker().clone()));
            this.id = Some(id);
            return Poll::Pending;
        };
        match state.waiting.get_mut(&id) {
            Some(Some(waker)) => {
                waker.clone_from(context.waker());
                Poll::Pending
            }
            _ => {
                state.waiting.remove(&id);
                this.id = None;
                Poll::Ready(this.turns.turn(&state))
            }
        }
    }
}

impl Drop for TakeTurn {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let place = self.turns.0.lock().waiting.remove(&id);
        if matches!(place, Some(None)) {
            self.turns.give_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn poll(turn: Pin<&mut TakeTurn>) -> Option<Turn> {
        match turn.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn turns_are_given_in_order_and_nobody_passes() {
        let turns = Turns::new(1, Arc::default());
        let held = turns.try_take().unwrap();
        let (mut first, mut second) = (pin!(turns.take()), pin!(turns.take()));
        assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
        drop(held);
        assert!(turns.try_take().is_none(), "it is the first one's");
        assert!(poll(second.as_mut()).is_none());
        let held = poll(first.as_mut()).unwrap();
        assert!(poll(second.as_mut()).is_none());
        drop(held);
        assert!(poll(second.as_mut()).is_some());
        assert!(turns.try_take().is_some());
    }

    #[test]
    fn who_goes_away_leaves_its_turn_to_the_next() {
        let turns = Turns::new(1, Arc::default());
        let held = turns.try_take().unwrap();
        let mut last = pin!(turns.take());
        {
            let (mut waits, mut was_given) = (pin!(turns.take()), pin!(turns.take()));
            assert!(poll(was_given.as_mut()).is_none() && poll(waits.as_mut()).is_none());
            assert!(poll(last.as_mut()).is_none());
            drop(held);
        }
        assert!(poll(last.as_mut()).is_some());
        assert!(turns.try_take().is_some());
        assert!(turns.0.lock().waiting.is_empty());
    }
}
