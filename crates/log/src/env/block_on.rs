//! Waiting for a runtime-free future on the calling thread.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::Scheduler;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` on this thread until it is ready, helping a scheduler that has no threads.
///
/// ```
/// use logmill_log::env::{Env, block_on};
///
/// assert_eq!(block_on(&*Env::real().scheduler, async { 1 + 1 }), 2);
/// ```
pub fn block_on<F: Future>(scheduler: &dyn Scheduler, future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        if !scheduler.help() {
            thread::park();
        }
    }
}
