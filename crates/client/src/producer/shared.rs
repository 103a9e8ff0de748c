//! What a producer's callers, its stream to the node and its driver share: the accumulator under one lock, and
//! the signals between them.
//!
//! Lock order: the state's lock alone. What takes a batch out because it has failed notes the failure under the same
//! lock, so that no flush or commit can come between; its callers are told after the lock is released, because that
//! wakes tasks.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::ProducerOptions;
use super::accumulator::{Accumulator, Drained, Identity, Limits, Tracked};
use crate::{Client, Error, ErrorKind};

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) options: ProducerOptions,
    /// One permit per byte of the buffer.
    pub(super) buffer: Arc<Semaphore>,
    pub(super) state: Mutex<State>,
    /// Something was sent or closed, for the driver when it waits for work.
    pub(super) work: Notify,
    /// As `work`, for the driver's watch over deadlines.
    pub(super) due: Notify,
    /// As `due`, when a partition has to wait before it sends again.
    pub(super) paused: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) accumulator: Accumulator,
    /// The stream that may take batches; every other one is over.
    pub(super) stream: StreamState,
    /// The task of the stream when nothing may go out.
    pub(super) stream_waker: Option<Waker>,
    pub(super) life: Life,
    /// The first failure that no flush has reported yet.
    pub(super) failure: Option<Error>,
    /// Why the present transaction can only be aborted.
    pub(super) broken: Option<Error>,
    /// Why the last attempt to reach the node failed, for those whose time runs out meanwhile.
    pub(super) unreachable: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamState {
    pub(super) id: u64,
    /// Whether the node has said that the stream is open. Nothing is sent before, so that a stream that never
    /// came about leaves no outcome unknown.
    pub(super) started: bool,
}

/// From open to closing to closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// Takes no more records, and sends what it has.
    Closing,
    Closed,
}

impl State {
    /// The task of the stream, if it waits and there is something for it to send.
    pub(super) fn waker_if_any_may_go(&mut self) -> Option<Waker> {
        if self.accumulator.may_take() { self.stream_waker.take() } else { None }
    }
}

impl State {
    /// Batches that were taken out have failed, and with them the transaction that they are in.
    pub(super) fn fail(&mut self, mut batches: Vec<Tracked>, error: &Error) -> Failed {
        if !batches.is_empty() {
            self.failure.get_or_insert_with(|| error.clone());
            if self.accumulator.is_transactional() {
                batches.extend(self.break_transaction(error));
            }
        }
        Failed(batches.into_iter().map(|batch| (batch, error.clone())).collect())
    }

    /// The transaction can only be aborted. Gives the batches that are left of it, which nobody need send any more.
    fn break_transaction(&mut self, error: &Error) -> Vec<Tracked> {
        self.broken.get_or_insert_with(|| error.clone());
        self.accumulator.drain()
    }

    /// The transaction can only be aborted, and what is left of it fails.
    pub(super) fn break_off(&mut self, error: &Error) -> Failed {
        let rest = self.break_transaction(error);
        self.fail(rest, error)
    }
}

/// Batches that have failed, and whose callers are not told yet.
#[derive(Debug, Default)]
#[must_use = "somebody waits for them"]
pub(super) struct Failed(Vec<(Tracked, Error)>);

impl Failed {
    pub(super) fn and(mut self, more: Failed) -> Failed {
        self.0.extend(more.0);
        self
    }

    /// To be called without the lock.
    pub(super) fn tell(self) {
        for (batch, error) in self.0 {
            batch.completion.complete(Err(error));
        }
    }
}

impl Shared {
    pub(super) fn new(client: Client, options: ProducerOptions, identity: Identity) -> Shared {
        let limits = Limits {
            batch_bytes: options.max_batch_bytes,
            bytes_in_flight: options.max_in_flight_bytes,
            batches_in_flight: usize::MAX,
        };
        let accumulator = Accumulator::new(limits, identity, options.compression);
        Shared {
            client,
            buffer: Arc::new(Semaphore::new(options.buffer_permits())),
            options,
            state: Mutex::new(State {
                accumulator,
                stream: StreamState { id: 0, started: false },
                stream_waker: None,
                life: Life::Open,
                failure: None,
                broken: None,
                unreachable: None,
            }),
            work: Notify::new(),
            due: Notify::new(),
            paused: Notify::new(),
        }
    }

    /// Calls whoever may have something to do after the state has changed.
    pub(super) fn wake(&self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            waker.wake();
        }
        self.work.notify_one();
        self.due.notify_one();
    }

    /// Fails what has waited too long.
    pub(super) fn expire(&self, now: Instant) {
        let limit = self.options.delivery_timeout;
        let mut failed = Failed::default();
        let waker = {
            let mut state = self.state.lock();
            let drained = state.accumulator.expire(now);
            // What was behind a batch that was given up may go now; but not before it had its chance to run out of
            // time as well, and be told for certain that it is not stored.
            let waker = if drained.is_empty() { state.waker_if_any_may_go() } else { None };
            for batch in drained.not_stored {
                let why = batch.put_back.clone().or_else(|| state.unreachable.clone());
                failed = failed.and(state.fail(vec![batch], &self.not_sent_in_time(limit, why)));
            }
            for batch in drained.unknown {
                let cause = match &batch.put_back {
                    Some(error) => format!("no answer within {limit:?}, though it was sent again: {error}"),
                    None => format!("no answer within {limit:?}"),
                };
                failed = failed.and(state.fail(vec![batch], &self.client.peer().outcome_unknown(&cause)));
            }
            waker
        };
        failed.tell();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Lets partitions send again that have waited long enough.
    pub(super) fn resume(&self, now: Instant) {
        let waker = {
            let mut state = self.state.lock();
            if state.accumulator.resume(now) { state.waker_if_any_may_go() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn not_sent_in_time(&self, limit: Duration, unreachable: Option<Error>) -> Error {
        let why = match &unreachable {
            Some(error) => error.to_string(),
            None => format!("the node at {} takes records more slowly than they are sent", self.client.url()),
        };
        let message = format!("not sent within {limit:?}, and not appended: {why}");
        let error = Error::new(ErrorKind::Timeout, "DELIVERY_TIMEOUT", message);
        match unreachable {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }

    /// Ends everything, at once.
    pub(super) fn shut(&self) {
        let error = self.client.peer().outcome_unknown("the producer was closed before the answer came");
        let (failed, waker) = {
            let mut state = self.state.lock();
            state.life = Life::Closed;
            state.stream.id += 1;
            state.stream.started = false;
            let Drained { not_stored, mut unknown } = state.accumulator.drain_waiting();
            unknown.extend(state.accumulator.drain_in_flight());
            let failed = state.fail(not_stored, &closed()).and(state.fail(unknown, &error));
            (failed, state.stream_waker.take())
        };
        self.buffer.close();
        failed.tell();
        self.wake(waker);
    }
}

pub(super) fn closed() -> Error {
    let message = "the producer is closed, and what it had not sent was not appended: make another one";
    Error::new(ErrorKind::Closed, "CLOSED", message)
}
