//! A set of futures waited for at once, of which only those are polled that were woken: what comes for one of
//! thousands costs nothing for the others.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// What is waited for, by number.
pub(crate) struct Waits<T> {
    slots: Vec<Option<Wait<T>>>,
    /// So many of them are.
    waiting: usize,
    woken: Arc<Mutex<Woken>>,
}

struct Wait<T> {
    future: Pin<Box<dyn Future<Output = T> + Send + Sync>>,
    waker: Waker,
}

#[derive(Default)]
struct Woken {
    /// The numbers of those that were woken, each once or more.
    numbers: VecDeque<usize>,
    /// Who polls them.
    waker: Option<Waker>,
}

/// Wakes one of them.
struct WakeOne {
    number: usize,
    woken: Arc<Mutex<Woken>>,
}

impl<T> Waits<T> {
    /// None yet, with room for `room`; it grows.
    pub(crate) fn new(room: usize) -> Self {
        Self { slots: (0..room).map(|_| None).collect(), waiting: 0, woken: Arc::default() }
    }

    /// Waits for `future` under a number, in place of what was waited for there.
    pub(crate) fn set(&mut self, number: usize, future: impl Future<Output = T> + Send + Sync + 'static) {
        let waker = Waker::from(Arc::new(WakeOne { number, woken: Arc::clone(&self.woken) }));
        waker.wake_by_ref();
        if number >= self.slots.len() {
            self.slots.resize_with(number + 1, || None);
        }
        let before = self.slots[number].replace(Wait { future: Box::pin(future), waker });
        self.waiting += usize::from(before.is_none());
    }

    /// Waits no more for what is waited for under a number.
    pub(crate) fn clear(&mut self, number: usize) {
        let before = self.slots.get_mut(number).and_then(Option::take);
        self.waiting -= usize::from(before.is_some());
    }

    /// Whether nothing is waited for.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Ready with the next that is, and its number; nothing is waited for there any more. Dropped before, it
    /// loses nothing.
    pub(crate) fn next(&mut self) -> Next<'_, T> {
        Next(self)
    }

    fn poll_next(&mut self, context: &Context<'_>) -> Poll<(usize, T)> {
        loop {
            let number = {
                let mut woken = self.woken.lock();
                let Some(number) = woken.numbers.pop_front() else {
                    woken.waker = Some(context.waker().clone());
                    return Poll::Pending;
                };
                number
            };
            let Some(wait) = &mut self.slots[number] else { continue };
            if let Poll::Ready(came) = wait.future.as_mut().poll(&mut Context::from_waker(&wait.waker)) {
                self.slots[number] = None;
                self.waiting -= 1;
                return Poll::Ready((number, came));
            }
        }
    }
}

/// See [`Waits::next`].
#[derive(Debug)]
pub(crate) struct Next<'a, T>(&'a mut Waits<T>);

impl<T> Future for Next<'_, T> {
    type Output = (usize, T);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<(usize, T)> {
        self.0.poll_next(context)
    }
}

impl<T> Drop for Next<'_, T> {
    fn drop(&mut self) {
        let waker = self.0.woken.lock().waker.take();
        drop(waker);
    }
}

impl<T> std::fmt::Debug for Waits<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waits").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Wake for WakeOne {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let waker = {
            let mut woken = self.woken.lock();
            woken.numbers.push_back(self.number);
            woken.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Sender, reply};
    use super::*;

    #[test]
    fn only_what_was_woken_is_polled() {
        let polls: Arc<Vec<AtomicUsize>> = Arc::new((0..100).map(|_| AtomicUsize::new(0)).collect());
        let mut waits = Waits::new(100);
        let mut senders: Vec<Option<Sender<()>>> = Vec::new();
        for number in 0..100 {
            let (sender, receiver) = reply::<()>();
            let polls = Arc::clone(&polls);
            let mut receiver = Box::pin(receiver);
            let counted = std::future::poll_fn(move |context| {
                polls[number].fetch_add(1, Ordering::Relaxed);
                receiver.as_mut().poll(context).map(|_| ())
            });
            waits.set(number, counted);
            senders.push(Some(sender));
        }
        let mut next = || Pin::new(&mut waits.next()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(next().is_pending());
        for number in [7, 93, 8] {
            senders[number].take().unwrap().send(());
        }
        for expected in [7, 93, 8] {
            let Poll::Ready((number, ())) = next() else { panic!("it was woken") };
            assert_eq!(number, expected);
        }
        assert!(next().is_pending());
        let polled: Vec<usize> = polls.iter().map(|polls| polls.load(Ordering::Relaxed)).collect();
        assert_eq!(polled.iter().sum::<usize>(), 103, "{polled:?}");
    }
}
