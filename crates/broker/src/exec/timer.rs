//! Timeouts that leave nothing behind when they are dropped.
//!
//! The scheduler cannot take a timed task back, so all waiters share one: it is armed for the earliest of
//! them, and goes on to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logmill_log::env::{Env, Work};
use parking_lot::Mutex;

/// Makes [`Sleep`]s. A clone is the same timer.
#[derive(Clone)]
pub(crate) struct Timer(Arc<Shared>);

struct Shared {
    env: Env,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By due time, on the monotonic clock, and a number that keeps equal times apart.
    waiting: BTreeMap<(Duration, u64), Waker>,
    next_id: u64,
    /// The times for which the scheduler holds a task of ours.
    armed: BTreeSet<Duration>,
}

impl Timer {
    pub(crate) fn new(env: Env) -> Self {
        Self(Arc::new(Shared { env, state: Mutex::default() }))
    }

    /// Ready when `delay` has passed.
    pub(crate) fn sleep(&self, delay: Duration) -> Sleep {
        let due = self.0.env.clock.monotonic().saturating_add(delay);
        Sleep { timer: self.clone(), due, id: None }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.state.lock().waiting.len()
    }

    /// Sees to it that a task comes at the earliest due time.
    fn arm(&self) {
        let due = {
            let mut state = self.0.state.lock();
            let Some(due) = state.waiting.first_key_value().map(|((due, _), _)| *due) else { return };
            if state.armed.first().is_some_and(|armed| *armed <= due) {
                return;
            }
            state.armed.insert(due);
            due
        };
        let delay = due.saturating_sub(self.0.env.clock.monotonic());
        let timer = Arc::downgrade(&self.0);
        let task = move || {
            if let Some(shared) = timer.upgrade() {
                Self(shared).ring(due);
            }
        };
        self.0.env.scheduler.spawn_after(Work::Wake, delay, Box::new(task));
    }

    fn ring(&self, armed: Duration) {
        let now = self.0.env.clock.monotonic();
        let due = {
            let mut state = self.0.state.lock();
            state.armed.remove(&armed);
            let later = state.waiting.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.waiting, later)
        };
        due.into_values().for_each(Waker::wake);
        self.arm();
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.lock();
        f.debug_struct("Timer")
            .field("waiting", &state.waiting.len())
            .field("armed", &state.armed.len())
            .finish()
    }
}

/// See [`Timer::sleep`].
#[derive(Debug)]
pub(crate) struct Sleep {
    timer: Timer,
    due: Duration,
    id: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.timer.0.env.clock.monotonic() >= this.due {
            return Poll::Ready(());
        }
        {
            let mut state = this.timer.0.state.lock();
            let id = *this.id.get_or_insert_with(|| {
                state.next_id += 1;
                state.next_id
            });
            state.waiting.insert((this.due, id), context.waker().clone());
        }
        this.timer.arm();
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.timer.0.state.lock().waiting.remove(&(self.due, id));
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use logmill_log::env::block_on;

    use super::*;

    #[test]
    fn sleeps_end_in_order_of_their_times() {
        let env = Env::real();
        let timer = Timer::new(env.clone());
        let start = env.clock.monotonic();
        let long = timer.sleep(Duration::from_millis(30));
        let short = timer.sleep(Duration::from_millis(5));
        block_on(&*env.scheduler, async {
            short.await;
            assert!(env.clock.monotonic() - start >= Duration::from_millis(5));
            long.await;
            assert!(env.clock.monotonic() - start >= Duration::from_millis(30));
        });
        assert_eq!(timer.waiting(), 0);
    }

    #[test]
    fn a_dropped_sleep_leaves_nothing_behind() {
        let timer = Timer::new(Env::real());
        for _ in 0..1_000 {
            let mut sleep = pin!(timer.sleep(Duration::from_secs(3_600)));
            let polled = sleep.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_pending());
        }
        assert_eq!(timer.waiting(), 0);
        assert_eq!(timer.0.state.lock().armed.len(), 1, "one task of the scheduler serves them all");
    }

    #[test]
    fn a_sleep_of_no_time_is_ready_at_once() {
        let env = Env::real();
        block_on(&*env.scheduler, Timer::new(env.clone()).sleep(Duration::ZERO));
    }
}
