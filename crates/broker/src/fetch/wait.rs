//! Waiting until a request has something to read.

use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use super::cursor::Cursor;
use super::job::Job;
use crate::error::Error;
use crate::exec::{Fired, TakeTurn, Turn};

/// Why the waiting ended.
#[derive(Debug)]
pub(super) enum Woken {
    /// A partition has more, or a look that took long has ended.
    More,
    /// This cursor has more, and may read it.
    Turn(usize, Turn),
    /// The partition of this cursor will never have more.
    Ended(usize, logmill_log::Error),
    /// A job panicked.
    Lost(Error),
    /// It has waited long enough.
    Until,
    /// The broker closes.
    Closing,
}

/// What is waited for in a partition.
pub(super) enum Waited {
    More(Pin<Box<dyn Future<Output = Result<(), logmill_log::Error>> + Send>>),
    /// There is more, and others are reading.
    Turn(Pin<Box<TakeTurn>>),
}

impl Waited {
    pub(super) fn of(cursor: &Cursor) -> Option<Self> {
        match cursor.has_more() {
            true if cursor.needs_turn() => Some(Self::Turn(Box::pin(cursor.turn()?))),
            true => Some(Self::More(Box::pin(ready(Ok(()))))),
            false => Some(Self::More(Box::pin(cursor.more()?))),
        }
    }

    fn poll(&mut self, index: usize, context: &mut Context<'_>) -> Poll<Woken> {
        match self {
            Self::More(more) => more.as_mut().poll(context).map(|more| match more {
                Ok(()) => Woken::More,
                Err(error) => Woken::Ended(index, error),
            }),
            Self::Turn(turn) => turn.as_mut().poll(context).map(|turn| Woken::Turn(index, turn)),
        }
    }
}

/// Waits until one of them has come, or a job has ended, or `until` is ready. The end comes first: those who always
/// have something must not put it off.
pub(super) async fn wait(
    mut waited: Vec<(usize, Waited)>,
    jobs: &mut Vec<Job<()>>,
    until: impl Future<Output = ()>,
    closing: Fired,
) -> Woken {
    let (mut until, mut closing) = (pin!(until), pin!(closing));
    poll_fn(move |context| {
        if closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(Woken::Closing);
        }
        if until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Woken::Until);
        }
        for (number, job) in jobs.iter_mut().enumerate() {
            if let Poll::Ready(ended) = Pin::new(job).poll(context) {
                drop(jobs.swap_remove(number));
                return Poll::Ready(ended.map_or_else(Woken::Lost, |()| Woken::More));
            }
        }
        let mut polled = waited.iter_mut().map(|(index, waited)| waited.poll(*index, context));
        polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// What `future` brings, unless `other` is ready before.
pub(super) async fn unless<T>(future: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    let (mut future, mut other) = (pin!(future), pin!(other));
    poll_fn(|context| {
        if let Poll::Ready(came) = future.as_mut().poll(context) {
            return Poll::Ready(Some(came));
        }
        other.as_mut().poll(context).map(|()| None)
    })
    .await
}
