//! A future run by the scheduler's own threads, for work that has to wait without holding one.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use logmill_log::env::{Scheduler, Work};
use parking_lot::Mutex;

/// Runs `future` to its end on threads of `work`, one at a time.
pub(crate) fn drive(
    scheduler: &Arc<dyn Scheduler>,
    work: Work,
    future: impl Future<Output = ()> + Send + 'static,
) {
    let task = Arc::new(Driven {
        future: Mutex::new(Some(Box::pin(future))),
        state: AtomicU8::new(SCHEDULED),
        scheduler: Arc::clone(scheduler),
        work,
    });
    task.submit();
}

/// Leaves the thread to others that wait for it.
pub(crate) async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

const IDLE: u8 = 0;
const SCHEDULED: u8 = 1;
const RUNNING: u8 = 2;
/// Woken while it ran: it is polled again.
const WOKEN: u8 = 3;

struct Driven {
    /// Locked by the one thread that polls; `None` when it has ended.
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    state: AtomicU8,
    scheduler: Arc<dyn Scheduler>,
    work: Work,
}

impl Driven {
    fn submit(self: Arc<Self>) {
        let scheduler = Arc::clone(&self.scheduler);
        let work = self.work;
        scheduler.spawn(work, Box::new(move || self.poll()));
    }

    fn poll(self: Arc<Self>) {
        self.state.store(RUNNING, Ordering::Release);
        let waker = Waker::from(Arc::clone(&self));
        let mut slot = self.future.lock();
        let Some(mut future) = slot.take() else { return };
        // Out of the slot while it is polled: should it panic, it is dropped and not polled again.
        if future.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(()) {
            return;
        }
        *slot = Some(future);
        drop(slot);
        let idle = self.state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire);
        if idle.is_err() {
            self.state.store(SCHEDULED, Ordering::Release);
            self.submit();
        }
    }
}

impl Wake for Driven {
    fn wake(self: Arc<Self>) {
        let next = |state| match state {
            IDLE => Some(SCHEDULED),
            RUNNING => Some(WOKEN),
            _ => None,
        };
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(IDLE) {
            self.submit();
        }
    }
}

#[cfg(test)]
mod tests {
    use logmill_log::env::{Env, block_on};

    use super::super::reply;
    use super::*;

    #[test]
    fn a_future_that_waits_holds_no_thread_and_goes_on_when_woken() {
        let env = Env::real();
        let (first, first_came) = reply::<u32>();
        let (done, ended) = reply::<u32>();
        drive(&env.scheduler, Work::Append, async move {
            let got = first_came.await.unwrap_or_default();
            done.send(got + 1);
        });
        first.send(41);
        assert_eq!(block_on(&*env.scheduler, ended).unwrap(), 42);
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_again() {
        let env = Env::real();
        let (done, ended) = reply::<u32>();
        drive(&env.scheduler, Work::Append, async move {
            let mut polls = 0;
            poll_fn(|context| {
                polls += 1;
                context.waker().wake_by_ref();
                if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            done.send(polls);
        });
        assert_eq!(block_on(&*env.scheduler, ended).unwrap(), 3);
    }
}
