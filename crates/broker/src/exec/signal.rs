//! Something that happens once, and everyone who waits for it: a one-time event.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// Happens at most once. A clone is the same signal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signal(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    fired: bool,
    next_id: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl Signal {
    pub(crate) fn fire(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.fired = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_values().for_each(Waker::wake);
    }

    pub(crate) fn has_fired(&self) -> bool {
        self.0.lock().fired
    }

    /// Ready when the signal has fired. Dropped before, it leaves nothing behind.
    pub(crate) fn fired(&self) -> Fired {
        Fired { signal: self.clone(), id: None }
    }

    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }
}

/// See [`Signal::fired`].
#[derive(Debug)]
pub(crate) struct Fired {
    signal: Signal,
    id: Option<u64>,
}

impl Future for Fired {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.signal.0.lock();
        if state.fired {
            return Poll::Ready(());
        }
        let id = *this.id.get_or_insert_with(|| {
            state.next_id += 1;
            state.next_id
        });
        state.waiting.insert(id, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Fired {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.signal.0.lock().waiting.remove(&id);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use logmill_log::env::{Env, Work, block_on};

    use super::*;

    #[test]
    fn everyone_who_waits_is_woken_and_who_comes_later_does_not_wait() {
        let env = Env::real();
        let signal = Signal::default();
        let fires = signal.clone();
        let (one, other) = (signal.fired(), signal.fired());
        env.scheduler.spawn(Work::Read, Box::new(move || fires.fire()));
        block_on(&*env.scheduler, async {
            one.await;
            other.await;
            signal.fired().await;
        });
        assert!(signal.has_fired());
    }

    #[test]
    fn one_who_goes_leaves_nothing_behind() {
        let signal = Signal::default();
        {
            let mut fired = pin!(signal.fired());
            for _ in 0..3 {
                assert!(fired.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
            assert_eq!(signal.waiting(), 1);
        }
        assert_eq!(signal.waiting(), 0);
    }
}
