//! Waiting for time to pass, without a runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Scheduler, Wanted, Work};

/// A future that resolves when `duration` has passed, by the scheduler's clock. Dropping it leaves
/// next to nothing behind.
///
/// ```
/// use std::time::Duration;
/// use logmill_log::env::{Env, block_on, sleep};
///
/// let env = Env::real();
/// block_on(&*env.scheduler, sleep(&*env.scheduler, Duration::from_millis(1)));
/// ```
pub fn sleep(scheduler: &dyn Scheduler, duration: Duration) -> Sleep {
    let sleep = Sleep(Arc::default());
    let state = Arc::downgrade(&sleep.0);
    let ring = move || {
        let Some(state) = state.upgrade() else { return };
        let waker = {
            let mut state = state.lock();
            state.over = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    };
    let wanted: Wanted = Arc::<Mutex<State>>::downgrade(&sleep.0);
    scheduler.spawn_after_if_wanted(Work::Wake, duration, wanted, Box::new(ring));
    sleep
}

/// Time that has to pass: what [`sleep`] returns. Dropping it leaves nobody to wake.
///
/// ```
/// use std::time::Duration;
/// use logmill_log::env::{Sleep, block_on, sleep};
/// use logmill_log::env::Env;
///
/// let env = Env::real();
/// let nap: Sleep = sleep(&*env.scheduler, Duration::from_millis(1));
/// block_on(&*env.scheduler, nap);
/// ```
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Sleep(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    over: bool,
    waker: Option<Waker>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.over {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
