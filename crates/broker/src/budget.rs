//! A bound on bytes, or on anything else that can be counted.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::exec::{Receiver, Sender, reply};

/// What may be in use at once. A clone is the same budget.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    waiting_for_empty: Vec<Sender<()>>,
}

/// A part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    budget: Budget,
    amount: usize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Shared { limit, state: Mutex::default() }))
    }

    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    /// Takes `amount`, or nothing. What is larger than the whole budget gets it only while nobody else has any:
    /// refused always, it could never be done. Who takes bounds how large one amount can be.
    pub(crate) fn take(&self, amount: usize) -> Option<Permit> {
        let mut state = self.0.state.lock();
        let used = state.used.saturating_add(amount);
        if used > self.0.limit && state.used > 0 {
            return None;
        }
        state.used = used;
        Some(Permit { budget: self.clone(), amount })
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

    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.0.state.lock().used
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.budget.0.state.lock();
        state.used -= self.amount;
        if state.used == 0 {
            let waiting = std::mem::take(&mut state.waiting_for_empty);
            drop(state);
            waiting.into_iter().for_each(|waiting| waiting.send(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use logmill_log::env::{Env, block_on};

    use super::*;

    #[test]
    fn a_budget_is_given_out_once() {
        let budget = Budget::new(10);
        let six = budget.take(6).unwrap();
        assert!(budget.take(5).is_none());
        let four = budget.take(4).unwrap();
        assert_eq!(budget.used(), 10);
        drop(six);
        assert!(budget.take(6).is_some());
        drop(four);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn one_that_is_too_large_goes_alone() {
        let budget = Budget::new(10);
        let all = budget.take(11).unwrap();
        assert!(budget.take(1).is_none());
        drop(all);
        let _one = budget.take(1).unwrap();
        assert!(budget.take(11).is_none());
    }

    #[test]
    fn whoever_waits_for_empty_is_woken_by_the_last() {
        let env = Env::real();
        let budget = Budget::new(10);
        let permit = budget.take(3).unwrap();
        let empty = budget.empty();
        env.scheduler.spawn(logmill_log::env::Work::Read, Box::new(move || drop(permit)));
        block_on(&*env.scheduler, empty).unwrap();
        assert_eq!(budget.used(), 0);
        block_on(&*env.scheduler, budget.empty()).unwrap();
    }
}
