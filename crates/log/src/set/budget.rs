//! A bound on what all logs of a set together may take of something, and who waits for room.
//!
//! Room is given in the order in which logs began to wait, and nobody passes them. A waiter that
//! is woken does not take room itself: it tries its step again, so the room is kept for its log
//! until then. A log that does not come back would keep it for ever; after a while it is taken
//! from it, and as soon as nothing is used everyone who waits is woken. The lock is a leaf;
//! wakers are called without it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use uuid::Uuid;

/// How much of a budget of the set is used. See [`SetStats`](crate::SetStats).
///
/// ```
/// use logmill_log::{BudgetStats, LogSet, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default().max_dirty_bytes(64 << 20))?;
/// let dirty: BudgetStats = set.stats().dirty_bytes;
/// assert_eq!((dirty.used, dirty.most), (0, 64 << 20));
/// if dirty.waiting > 0 {
///     println!("the disk is slower than the appends");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BudgetStats {
    /// So much is used now.
    pub used: u64,
    /// So much may be used; one append or one file alone may need more.
    pub most: u64,
    /// So many appends wait for it.
    pub waiting: usize,
}

/// Room is kept for a log over so many releases.
const KEPT_FOR: u64 = 64;

/// So much there is, so much is used, and these wait.
#[derive(Debug)]
pub(crate) struct Budget {
    most: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    /// By the order of their coming.
    waiting: BTreeMap<u64, Waiting>,
    next_place: u64,
    /// Room kept for logs whose waiters were woken.
    kept: BTreeMap<Uuid, Kept>,
    releases: u64,
}

#[derive(Debug)]
struct Waiting {
    log: Uuid,
    need: u64,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    amount: u64,
    /// The number of releases at which it lapses.
    until: u64,
}

impl Budget {
    pub(crate) fn new(most: u64) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Takes `need` for a log, or a place in the queue. Whoever finds nothing used takes what it
    /// needs, however much: a need above the whole budget must be met at some time.
    pub(crate) fn take_or_queue(self: &Arc<Self>, log: Uuid, need: u64) -> Result<(), Place> {
        let mut state = self.state.lock();
        let kept = state.kept.remove(&log).map_or(0, |kept| kept.amount);
        if kept >= need || state.used == 0 || (state.waiting.is_empty() && state.has_room(need, self.most)) {
            state.used += need;
            return Ok(());
        }
        // What was kept and is not enough may be enough for another.
        let woken = if kept > 0 { state.give_room(self.most) } else { Vec::new() };
        let first = state.waiting.is_empty();
        state.next_place += 1;
        let number = state.next_place;
        state.waiting.insert(number, Waiting { log, need, waker: None });
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        Err(Place { budget: Arc::clone(self), number, first })
    }

    pub(crate) fn release(&self, amount: u64) {
        if amount == 0 {
            return;
        }
        let woken = {
            let mut state = self.state.lock();
            state.used = state.used.checked_sub(amount).expect("no more is given back than was taken");
            state.releases += 1;
            if state.used == 0 {
                // Nothing will be released by anybody: nobody may wait for it.
                state.kept.clear();
                std::mem::take(&mut state.waiting).into_values().filter_map(|place| place.waker).collect()
            } else {
                let now = state.releases;
                state.kept.retain(|_, kept| kept.until > now);
                state.give_room(self.most)
            }
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// A log ends: room is no longer kept for it.
    pub(crate) fn forget(&self, log: Uuid) {
        let woken = {
            let mut state = self.state.lock();
            if state.kept.remove(&log).is_some() { state.give_room(self.most) } else { Vec::new() }
        };
        woken.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn stats(&self) -> BudgetStats {
        let state = self.state.lock();
        BudgetStats { used: state.used, most: self.most, waiting: state.waiting.len() }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Whether somebody waits, or soon will.
    pub(crate) fn is_tight(&self) -> bool {
        let state = self.state.lock();
        !state.waiting.is_empty() || state.used > self.most / 2
    }
}

impl State {
    fn has_room(&self, need: u64, most: u64) -> bool {
        let kept: u64 = self.kept.values().map(|kept| kept.amount).sum();
        self.used.saturating_add(kept).saturating_add(need) <= most
    }

    /// Keeps room for those who waited longest, as far as it goes, and returns their wakers.
    fn give_room(&mut self, most: u64) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some((number, first)) = self.waiting.first_key_value() {
            let (number, log, need) = (*number, first.log, first.need);
            if !self.has_room(need, most) {
                break;
            }
            let kept = self.kept.entry(log).or_insert(Kept { amount: 0, until: 0 });
            kept.amount += need;
            kept.until = self.releases + KEPT_FOR;
            let waiting = self.waiting.remove(&number);
            woken.extend(waiting.and_then(|waiting| waiting.waker));
        }
        woken
    }
}

/// A place in the queue for room; a future that resolves when it is worth trying again.
#[derive(Debug)]
pub(crate) struct Place {
    budget: Arc<Budget>,
    number: u64,
    /// Nobody waited before.
    pub(crate) first: bool,
}

impl Future for Place {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.budget.state.lock().waiting.get_mut(&self.number) {
            Some(waiting) => {
                waiting.waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let woken = {
            let mut state = self.budget.state.lock();
            // It may have been the first, and too large for the room there is.
            let waited = state.waiting.remove(&self.number).is_some();
            if waited { state.give_room(self.budget.most) } else { Vec::new() }
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn is_ready(place: &mut Place) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(place).poll(&mut context).is_ready()
    }

    #[test]
    fn room_is_given_in_the_order_of_coming_and_nobody_passes() {
        let budget = Arc::new(Budget::new(10));
        budget.take_or_queue(log(1), 8).unwrap();
        let mut large = budget.take_or_queue(log(2), 6).unwrap_err();
        let mut small = budget.take_or_queue(log(3), 1).unwrap_err();
        assert!(large.first && !small.first);
        budget.release(3);
        assert!(!is_ready(&mut large) && !is_ready(&mut small), "5 are used, 6 are waited for");
        budget.release(1);
        assert!(is_ready(&mut large) && !is_ready(&mut small));
        assert!(budget.take_or_queue(log(4), 1).is_err(), "the room is kept");
        budget.take_or_queue(log(2), 6).unwrap();
        assert_eq!(budget.stats().used, 10);
    }

    #[test]
    fn whoever_goes_away_lets_the_next_through() {
        let budget = Arc::new(Budget::new(10));
        budget.take_or_queue(log(1), 8).unwrap();
        let large = budget.take_or_queue(log(2), 6).unwrap_err();
        let mut small = budget.take_or_queue(log(3), 1).unwrap_err();
        drop(large);
        assert!(is_ready(&mut small));
    }

    #[test]
    fn room_kept_for_one_that_never_comes_back_is_not_lost() {
        let budget = Arc::new(Budget::new(10));
        budget.take_or_queue(log(1), 10).unwrap();
        let mut gone = budget.take_or_queue(log(2), 10).unwrap_err();
        let mut next = budget.take_or_queue(log(3), 10).unwrap_err();
        budget.release(9);
        assert!(!is_ready(&mut gone));
        budget.release(1);
        assert!(is_ready(&mut gone) && is_ready(&mut next), "nothing is used: all may try");
        drop(gone);
        budget.take_or_queue(log(3), 10).unwrap();
    }

    #[test]
    fn kept_room_lapses_and_goes_with_its_log() {
        let budget = Arc::new(Budget::new(100));
        budget.take_or_queue(log(1), 100).unwrap();
        let _gone = budget.take_or_queue(log(2), 10).unwrap_err();
        budget.release(10);
        assert!(budget.take_or_queue(log(3), 1).is_err());
        let mut waits = budget.take_or_queue(log(3), 10).unwrap_err();
        budget.forget(log(2));
        assert!(is_ready(&mut waits));
        for _ in 0..KEPT_FOR {
            budget.release(1);
        }
        assert!(budget.take_or_queue(log(4), 70).is_ok(), "26 are used, none kept");
    }

    #[test]
    fn a_need_above_the_budget_is_met_when_nothing_is_used() {
        let budget = Arc::new(Budget::new(10));
        budget.take_or_queue(log(1), 1).unwrap();
        let mut place = budget.take_or_queue(log(2), 50).unwrap_err();
        budget.release(1);
        assert!(is_ready(&mut place));
        budget.take_or_queue(log(2), 50).unwrap();
        assert!(budget.take_or_queue(log(1), 1).is_err());
    }

    #[test]
    fn threads_that_take_and_give_back_all_get_through() {
        let budget = Arc::new(Budget::new(3));
        let scheduler = crate::env::ThreadPool::new();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (budget, scheduler) = (&budget, &scheduler);
                scope.spawn(move || {
                    for round in 0..2_000_u64 {
                        let need = 1 + (round + n) % 4;
                        while let Err(place) = budget.take_or_queue(log(n.into()), need) {
                            crate::env::block_on(scheduler, place);
                        }
                        budget.release(need);
                    }
                });
            }
        });
        assert_eq!((budget.stats().used, budget.waiting()), (0, 0));
    }
}
