//! So many at once; the others come in the order in which they asked, and hold no thread meanwhile: a fair
//! semaphore.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Those who wait, in order.
    waiting: BTreeMap<u64, Waker>,
    /// Those who have been given their turn and not come for it yet.
    given: BTreeSet<u64>,
}

/// A turn; the next in line gets it when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Turns);

impl Turns {
    /// So many at once, counted by `meter`.
    pub(crate) fn new(at_once: usize, meter: Arc<Meter>) -> Self {
        let (waiting, given) = (BTreeMap::new(), BTreeSet::new());
        let state = State { at_once, free: at_once, meter, next_id: 0, waiting, given };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Whether these are the same turns.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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
            let next = state.waiting.pop_first();
            match &next {
                Some((id, _)) => _ = state.given.insert(*id),
                None => state.free += 1,
            }
            next
        };
        if let Some((_, waker)) = woken {
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
    /// Its place in line, once it has one.
    id: Option<u64>,
}

impl TakeTurn {
    /// Gets no turn until it is polled again, and keeps its place in line: who is busy with something else holds
    /// nobody up.
    pub(crate) fn step_aside(&mut self) {
        let Some(id) = self.id else { return };
        let (waker, was_given) = {
            let mut state = self.turns.0.lock();
            (state.waiting.remove(&id), state.given.remove(&id))
        };
        drop(waker);
        if was_given {
            self.turns.give_back();
        }
    }
}

impl Future for TakeTurn {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn> {
        let this = &mut *self;
        let mut state = this.turns.0.lock();
        let was_given = this.id.is_some_and(|id| state.given.remove(&id));
        if !was_given {
            let Some(free) = state.free.checked_sub(1) else {
                let id = *this.id.get_or_insert_with(|| {
                    state.meter.refuse();
                    state.next_id += 1;
                    state.next_id
                });
                let before = state.waiting.insert(id, context.waker().clone());
                drop(state);
                drop(before);
                return Poll::Pending;
            };
            state.free = free;
        }
        this.id = None;
        Poll::Ready(this.turns.turn(&state))
    }
}

impl Drop for TakeTurn {
    fn drop(&mut self) {
        self.step_aside();
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

    #[test]
    fn who_steps_aside_gets_no_turn_and_keeps_its_place() {
        let turns = Turns::new(1, Arc::default());
        let mut held = turns.try_take();
        let (mut first, mut second) = (pin!(turns.take()), pin!(turns.take()));
        assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
        first.step_aside();
        drop(held.take());
        held = poll(second.as_mut());
        assert!(held.is_some(), "the first one is not there");
        assert!(poll(second.as_mut()).is_none() && poll(first.as_mut()).is_none());
        drop(held.take());
        first.step_aside();
        held = poll(second.as_mut());
        assert!(held.is_some(), "it was given, and left to the next");
        assert!(poll(second.as_mut()).is_none() && poll(first.as_mut()).is_none());
        drop(held.take());
        assert!(poll(second.as_mut()).is_none());
        held = poll(first.as_mut());
        assert!(held.is_some(), "it came before the second one");
        assert!(turns.0.lock().given.is_empty());
    }
}
