//! The answer to a record: shared by all records of a batch, awaited by each.
//!
//! One allocation and one lock per batch, not per record. The lock is held for a few instructions and never
//! while another one is taken; wakers are called after it is released.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::produce::Appended;
use crate::{Delivered, Error};

/// What becomes of a record: a future of the node's answer. The record is sent whether or not this is awaited.
///
/// ```no_run
/// use logmill_client::{Client, ProducerOptions, ProducerRecord};
///
/// # async fn example(client: Client) -> Result<(), logmill_client::Error> {
/// let producer = client.producer(ProducerOptions::default())?;
/// let delivery = producer.send(ProducerRecord::new("orders", "a value")).await?;
/// // … more records; then, when the answer matters:
/// let delivered = delivery.await?;
/// println!("partition {}, offset {}", delivered.partition, delivered.offset);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "only the answer tells whether the record is stored; `flush` tells for all records"]
pub struct Delivery {
    completion: Arc<Completion>,
    partition: u32,
    index: u32,
    slot: Option<usize>,
}

impl Delivery {
    pub(super) fn new(completion: Arc<Completion>, partition: u32, index: u32) -> Delivery {
        Delivery { completion, partition, index, slot: None }
    }

    /// The partition that the record goes to.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Delivery { completion, partition, index, slot } = &mut *self;
        completion.poll(slot, cx).map_ok(|appended| appended.delivered(*partition, *index))
    }
}

/// The answer to a batch, once it is known.
#[derive(Debug)]
pub(super) struct Completion(Mutex<State>);

#[derive(Debug)]
enum State {
    Waiting(Vec<Waker>),
    Done(Result<Appended, Error>),
}

impl Completion {
    pub(super) fn new() -> Arc<Completion> {
        Arc::new(Completion(Mutex::new(State::Waiting(Vec::new()))))
    }

    /// The first answer stands: a batch whose time ran out may be answered later all the same.
    pub(super) fn complete(&self, result: Result<Appended, Error>) {
        let wakers = {
            let mut state = self.0.lock();
            let State::Waiting(wakers) = &mut *state else { return };
            let wakers = std::mem::take(wakers);
            *state = State::Done(result);
            wakers
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) async fn wait(&self) {
        let mut slot = None;
        let _ = std::future::poll_fn(|cx| self.poll(&mut slot, cx)).await;
    }

    /// `slot` is where the caller's waker is kept, so that polling again replaces it.
    fn poll(&self, slot: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<Result<Appended, Error>> {
        match &mut *self.0.lock() {
            State::Done(result) => Poll::Ready(result.clone()),
            State::Waiting(wakers) => {
                match slot.and_then(|slot| wakers.get_mut(slot)) {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => {
                        *slot = Some(wakers.len());
                        wakers.push(cx.waker().clone());
                    }
                }
                Poll::Pending
            }
        }
    }
}
