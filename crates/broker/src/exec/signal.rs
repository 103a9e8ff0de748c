//! Something that happens once, and everyone who waits for it.

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
