//! Waiting for work that may hang, but not for ever.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Scheduler, Work, block_on, sleep};

struct Outcome<T> {
    value: Option<T>,
    caller: Option<Waker>,
}

/// Runs `work` on the workers that sync, of which there are many, and returns what it did, or nothing if that takes longer
/// than `timeout`: then it goes on by itself.
pub(crate) fn within<T: Send + 'static>(
    scheduler: &dyn Scheduler,
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let outcome = Arc::new(Mutex::new(Outcome { value: None, caller: None }));
    let task = {
        let outcome = Arc::clone(&outcome);
        move || {
            let value = work();
            let caller = {
                let mut outcome = outcome.lock();
                outcome.value = Some(value);
                outcome.caller.take()
            };
            caller.into_iter().for_each(Waker::wake);
        }
    };
    scheduler.spawn(Work::Sync, Box::new(task));
    let mut timeout = pin!(sleep(scheduler, timeout));
    let either = poll_fn(|context| {
        {
            let mut outcome = outcome.lock();
            if let Some(value) = outcome.value.take() {
                return Poll::Ready(Some(value));
            }
            outcome.caller = Some(context.waker().clone());
        }
        timeout.as_mut().poll(context).map(|()| None)
    });
    block_on(scheduler, either)
}
