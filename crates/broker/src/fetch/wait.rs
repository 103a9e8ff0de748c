//! Waiting until a fetch has something to read.

use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::Poll;

use super::cursor::Cursor;
use crate::exec::{Fired, TakeTurn, Turn};

/// Why the waiting ended.
#[derive(Debug)]
pub(super) enum Woken {
    /// A partition has more.
    More,
    /// This cursor has more, and may read it.
    Turn(usize, Turn),
    /// The partition of this cursor will never have more.
    Ended(usize, logmill_log::Error),
    /// What the caller waited for besides.
    Until,
    /// The broker closes.
    Closing,
}

/// What is waited for in a partition.
enum Waited {
    More(Pin<Box<dyn Future<Output = Result<(), logmill_log::Error>> + Send>>),
    /// There is more, and others are reading.
    Turn(Pin<Box<TakeTurn>>),
}

impl Waited {
    fn of(cursor: &Cursor) -> Option<Self> {
        match cursor.has_more() {
            true if cursor.needs_turn() => Some(Self::Turn(Box::pin(cursor.turn()?))),
            true => Some(Self::More(Box::pin(ready(Ok(()))))),
            false => Some(Self::More(Box::pin(cursor.more()?))),
        }
    }
}

/// Waits until any of the cursors has more to read, or `until` is ready.
pub(super) async fn wait(cursors: &[Cursor], until: impl Future<Output = ()>, closing: Fired) -> Woken {
    let mut until = pin!(until);
    let mut closing = pin!(closing);
    let waited = cursors.iter().enumerate().filter_map(|(index, cursor)| Some((index, Waited::of(cursor)?)));
    let mut waited: Vec<(usize, Waited)> = waited.collect();
    poll_fn(move |context| {
        for (index, waited) in &mut waited {
            let woken = match waited {
                Waited::More(more) => more.as_mut().poll(context).map(|more| match more {
                    Ok(()) => Woken::More,
                    Err(error) => Woken::Ended(*index, error),
                }),
                Waited::Turn(turn) => turn.as_mut().poll(context).map(|turn| Woken::Turn(*index, turn)),
            };
            if woken.is_ready() {
                return woken;
            }
        }
        if closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(Woken::Closing);
        }
        until.as_mut().poll(context).map(|()| Woken::Until)
    })
    .await
}

/// What `future` brings, unless the broker closes before.
pub(super) async fn unless_closing<T>(future: impl Future<Output = T>, closing: Fired) -> Option<T> {
    let (mut future, mut closing) = (pin!(future), pin!(closing));
    poll_fn(|context| {
        if closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}
