//! Waiting until a reader has something to read.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::cursor::Cursor;
use crate::exec::Fired;
use crate::produce::More;

/// Why the waiting ended.
#[derive(Debug)]
pub(super) enum Woken {
    /// A partition has more.
    More,
    /// The partition of this cursor will never have more.
    Ended(usize, logmill_log::Error),
    /// What the caller waited for besides.
    Until,
    /// The broker closes.
    Closing,
}

/// Waits until any of the cursors has more to read, or `until` is ready.
pub(super) async fn wait(cursors: &[Cursor], until: impl Future<Output = ()>, closing: Fired) -> Woken {
    let mut until = pin!(until);
    let mut closing = pin!(closing);
    let more = cursors.iter().enumerate().filter_map(|(index, cursor)| Some((index, cursor.more()?)));
    let mut more: Vec<(usize, More)> = more.collect();
    poll_fn(move |context| {
        for (index, more) in &mut more {
            match more.as_mut().poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(Woken::More),
                Poll::Ready(Err(error)) => return Poll::Ready(Woken::Ended(*index, error)),
                Poll::Pending => {}
            }
        }
        if closing.as_mut().poll(context).is_ready() {
            return Poll::Ready(Woken::Closing);
        }
        until.as_mut().poll(context).map(|()| Woken::Until)
    })
    .await
}
