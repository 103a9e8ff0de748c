//! A bound on bytes, or on anything else that can be counted.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::error::Error;
use crate::exec::{Receiver, Sender, reply};
use crate::limits::{Limit, Meter};

/// What may be in use at once. A clone is the same budget.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Which limit it is; `None` only counts.
    limit: Option<Limit>,
    most: usize,
    meter: Arc<Meter>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    waiting_for_empty: Vec<Sender<()>>,
    /// In the order of their coming.
    waiting_for_room: BTreeMap<u64, Waker>,
    next_id: u64,
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Budget,
    amount: usize,
}

impl Budget {
    /// See [`Bounds::budget`](crate::limits::Bounds::budget).
    pub(crate) fn metered(limit: Limit, most: usize, meter: Arc<Meter>) -> Self {
        Self(Arc::new(Shared { limit: Some(limit), most, meter, state: Mutex::default() }))
    }

    /// Without a bound: to wait until it is empty.
    pub(crate) fn unbounded() -> Self {
        let (most, meter) = (usize::MAX, Arc::default());
        Self(Arc::new(Shared { limit: None, most, meter, state: Mutex::default() }))
    }

    /// Takes `amount`, or nothing. What is larger than the whole budget gets it only while nobody else has any:
    /// refused always, it could never be done. Who takes bounds how large one amount can be.
    pub(crate) fn take(&self, amount: usize) -> Option<Permit> {
        let mut state = self.0.state.lock();
        let used = state.used.saturating_add(amount);
        if used > self.0.most && state.used > 0 {
            drop(state);
            self.0.meter.refuse();
            return None;
        }
        state.used = used;
        self.0.meter.add(amount, used);
        drop(state);
        Some(Permit { budget: self.clone(), amount })
    }

    /// As [`take`](Self::take), with an error that names the limit; `doing` and `advice` are for its sentence.
    pub(crate) fn take_for(
        &self,
        amount: usize,
        doing: impl FnOnce() -> String,
        advice: &str,
    ) -> Result<Permit, Error> {
        self.take(amount).ok_or_else(|| self.refusal(&doing(), advice))
    }

    /// What whoever is refused is told.
    pub(crate) fn refusal(&self, doing: &str, advice: &str) -> Error {
        match self.0.limit {
            Some(limit) => Error::limit(limit, self.0.most, doing, advice),
            None => Error::fault(doing),
        }
    }

    /// Takes `amount`, or as much of it as there is, but something.
    pub(crate) fn take_up_to(&self, amount: usize) -> Option<Permit> {
        let mut state = self.0.state.lock();
        let amount = amount.min(self.0.most.saturating_sub(state.used));
        if amount == 0 {
            drop(state);
            self.0.meter.refuse();
            return None;
        }
        state.used += amount;
        self.0.meter.add(amount, state.used);
        drop(state);
        Some(Permit { budget: self.clone(), amount })
    }

    /// Takes `amount` whatever is in use: it is there already.
    #[cfg(feature = "grpc")]
    pub(crate) fn overdraw(&self, amount: usize) -> Permit {
        let mut permit = Permit { budget: self.clone(), amount: 0 };
        permit.keep(amount);
        permit
    }

    /// Whether half of it or more is in use.
    #[cfg(feature = "grpc")]
    pub(crate) fn is_tight(&self) -> bool {
        self.used() >= self.0.most / 2
    }

    /// Ready when something can be taken, which somebody else may do first.
    pub(crate) fn room(&self) -> Room {
        Room { budget: self.clone(), id: None }
    }

    /// Ready when everything has been given back.
    pub(crate) fn empty(&self) -> Receiver<()> {
        let (sender, receiver) = reply();
        let mut state = self.0.state.lock();
        if state.used == 0 {
            drop(state);
            sender.send(());
        } else {
            state.waiting_for_empty.push(sender);
        }
        receiver
    }

    pub(crate) fn used(&self) -> usize {
        self.0.state.lock().used
    }

    fn give_back(&self, amount: usize) {
        if amount == 0 {
            return;
        }
        self.0.meter.subtract(amount);
        let mut state = self.0.state.lock();
        state.used -= amount;
        let empty = if state.used == 0 { std::mem::take(&mut state.waiting_for_empty) } else { Vec::new() };
        let next = self.next(&mut state);
        drop(state);
        empty.into_iter().for_each(|waiting| waiting.send(()));
        next.into_iter().for_each(Waker::wake);
    }

    /// The one who waits longest, if there is room. It wakes the next when it has taken its part.
    fn next(&self, state: &mut State) -> Option<Waker> {
        if state.used < self.0.most {
            state.waiting_for_room.pop_first().map(|(_, waker)| waker)
        } else {
            None
        }
    }
}

impl Permit {
    /// Takes `amount` more, or nothing.
    pub(crate) fn grow(&mut self, amount: usize) -> bool {
        let Some(more) = self.budget.take(amount) else { return false };
        self.amount += more.forget();
        true
    }

    pub(crate) fn amount(&self) -> usize {
        self.amount
    }

    /// Keeps `amount` of it. Where that is more, it is taken also beyond the budget: it is in use already.
    pub(crate) fn keep(&mut self, amount: usize) {
        match amount.checked_sub(self.amount) {
            None | Some(0) => self.budget.give_back(self.amount - amount),
            Some(more) => {
                let mut state = self.budget.0.state.lock();
                state.used = state.used.saturating_add(more);
                self.budget.0.meter.add(more, state.used);
            }
        }
        self.amount = amount;
    }

    /// What it is, to be given back by another.
    fn forget(mut self) -> usize {
        std::mem::take(&mut self.amount)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.give_back(self.amount);
    }
}

/// See [`Budget::room`].
#[derive(Debug)]
pub(crate) struct Room {
    budget: Budget,
    id: Option<u64>,
}

impl Future for Room {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.budget.0.state.lock();
        if state.used < this.budget.0.most {
            return Poll::Ready(());
        }
        let id = *this.id.get_or_insert_with(|| {
            state.next_id += 1;
            state.next_id
        });
        state.waiting_for_room.insert(id, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let next = {
            let mut state = self.budget.0.state.lock();
            state.waiting_for_room.remove(&id);
            self.budget.next(&mut state)
        };
        next.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use logmill_log::env::{Env, Work, block_on};

    use super::*;
    use crate::limits::{Bounds, LimitStats, Limits};

    fn ten() -> (Bounds, Budget) {
        let bounds = Bounds::new(Limits { max_topics: 10, ..Limits::default() });
        let budget = bounds.budget(Limit::MaxTopics);
        (bounds, budget)
    }

    fn stands(bounds: &Bounds) -> (usize, usize, u64) {
        let stats = bounds.stats();
        let LimitStats { used, peak, refused, .. } = stats[Limit::MaxTopics as usize];
        (used, peak, refused)
    }

    #[test]
    fn a_budget_is_given_out_once_and_says_how_it_stands() {
        let (bounds, budget) = ten();
        let six = budget.take(6).unwrap();
        assert!(budget.take(5).is_none());
        let four = budget.take(4).unwrap();
        assert_eq!((budget.used(), stands(&bounds)), (10, (10, 10, 1)));
        drop(six);
        assert!(budget.take(6).is_some());
        drop(four);
        assert_eq!((budget.used(), stands(&bounds)), (0, (0, 10, 1)));
    }

    #[test]
    fn one_that_is_too_large_goes_alone() {
        let (_, budget) = ten();
        let all = budget.take(11).unwrap();
        assert!(budget.take(1).is_none());
        drop(all);
        let _one = budget.take(1).unwrap();
        assert!(budget.take(11).is_none());
    }

    #[test]
    fn budgets_of_one_limit_count_together_and_peak_each_for_itself() {
        let (bounds, one) = ten();
        let other = bounds.budget(Limit::MaxTopics);
        let (_six, _seven) = (one.take(6).unwrap(), other.take(7).unwrap());
        assert_eq!(stands(&bounds), (13, 7, 0));
    }

    #[test]
    fn a_permit_grows_within_the_budget_and_keeps_what_is_in_use_beyond_it() {
        let (bounds, budget) = ten();
        let mut permit = budget.take_up_to(20).unwrap();
        assert_eq!(permit.amount(), 10);
        assert!(budget.take_up_to(1).is_none() && !permit.grow(1));
        permit.keep(4);
        assert!(permit.grow(2));
        permit.keep(15);
        assert_eq!(stands(&bounds), (15, 15, 2));
        drop(permit);
        assert_eq!(stands(&bounds).0, 0);
    }

    #[test]
    fn whoever_waits_for_empty_is_woken_by_the_last() {
        let env = Env::real();
        let (_, budget) = ten();
        let permit = budget.take(3).unwrap();
        let empty = budget.empty();
        env.scheduler.spawn(Work::Read, Box::new(move || drop(permit)));
        block_on(&*env.scheduler, empty).unwrap();
        assert_eq!(budget.used(), 0);
        block_on(&*env.scheduler, budget.empty()).unwrap();
    }

    #[test]
    fn whoever_waits_for_room_and_goes_lets_the_next_through() {
        let env = Env::real();
        let (_, budget) = ten();
        let permit = budget.take(10).unwrap();
        let mut waiting = [budget.room(), budget.room()];
        for room in &mut waiting {
            assert!(pin!(room).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let [goes, next] = waiting;
        env.scheduler.spawn(Work::Read, Box::new(move || drop(permit)));
        env.scheduler.spawn(Work::Read, Box::new(move || drop(goes)));
        block_on(&*env.scheduler, next);
    }
}
