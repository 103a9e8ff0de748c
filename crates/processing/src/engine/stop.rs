//! Waiting that can be cut short: the task's thread sleeps nowhere else.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use parking_lot::Mutex;

/// How urgently a run is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// After committing what has been gathered.
    Soon,
    /// Leaving everything as it is.
    Now,
}

/// The way to end a run from another thread.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    /// 0: run; else an urgency and one.
    level: AtomicU8,
    sleeper: Mutex<Option<Thread>>,
}

impl Stop {
    pub(crate) fn request(&self, urgency: Urgency) {
        self.level.fetch_max(urgency as u8 + 1, Ordering::SeqCst);
        if let Some(sleeper) = &*self.sleeper.lock() {
            sleeper.unpark();
        }
    }

    #[cfg(test)]
    pub(crate) fn reset(&self) {
        self.level.store(0, Ordering::SeqCst);
    }

    /// Whether an end of at least this urgency was requested.
    pub(crate) fn is_requested(&self, urgency: Urgency) -> bool {
        self.level.load(Ordering::SeqCst) > urgency as u8
    }

    /// Polls `future` on this thread until it is ready; `None` if the run is to end first.
    pub(crate) fn block_on<F: Future>(&self, urgency: Urgency, future: F) -> Option<F::Output> {
        *self.sleeper.lock() = Some(thread::current());
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            if self.is_requested(urgency) {
                return None;
            }
            thread::park();
        }
    }

    /// Sleeps, about so long at most, and shorter if the run is to end.
    pub(crate) fn pause(&self, urgency: Urgency, duration: Duration) {
        *self.sleeper.lock() = Some(thread::current());
        if !self.is_requested(urgency) {
            thread::park_timeout(duration);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
