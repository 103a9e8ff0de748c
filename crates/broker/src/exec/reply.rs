//! One answer from one task to one future: a oneshot channel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// A place for one answer.
pub(crate) fn reply<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Mutex::new(Slot { answer: None, waker: None, sender_gone: false }));
    (Sender(Arc::clone(&slot)), Receiver(slot))
}

/// The sender went without an answer, which only a panic or a scheduler that is gone can bring about.
#[derive(Debug)]
pub(crate) struct Dropped;

#[derive(Debug)]
struct Slot<T> {
    answer: Option<T>,
    waker: Option<Waker>,
    sender_gone: bool,
}

/// Who owes the answer.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Mutex<Slot<T>>>);

/// Who waits for the answer.
#[derive(Debug)]
pub(crate) struct Receiver<T>(Arc<Mutex<Slot<T>>>);

impl<T> Sender<T> {
    /// Gives the answer. If nobody waits any more, it is dropped with the place.
    pub(crate) fn send(self, answer: T) {
        self.0.lock().answer = Some(answer);
        // Dropping `self` wakes the receiver.
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = self.0.lock();
            slot.sender_gone = true;
            slot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Dropped>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock();
        if let Some(answer) = slot.answer.take() {
            return Poll::Ready(Ok(answer));
        }
        if slot.sender_gone {
            return Poll::Ready(Err(Dropped));
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use logmill_log::env::{Env, block_on};

    use super::*;

    #[test]
    fn an_answer_arrives_from_another_thread() {
        let env = Env::real();
        let (sender, receiver) = reply();
        env.scheduler.spawn(logmill_log::env::Work::Read, Box::new(move || sender.send(7)));
        assert_eq!(block_on(&*env.scheduler, receiver).unwrap(), 7);
    }

    #[test]
    fn a_sender_that_panics_does_not_leave_the_receiver_waiting() {
        let (sender, receiver) = reply::<()>();
        drop(sender);
        assert!(block_on(&*Env::real().scheduler, receiver).is_err());
    }
}
