//! The requests of a subscription: what to read, then credit. Credit that has not been sent yet adds up to one
//! message, so nothing can queue.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use logmill_proto::v1;
use logmill_proto::v1::subscribe_request::Request;
use parking_lot::Mutex;
use tokio_stream::Stream;

/// The reader's end. The requests end when it is dropped.
#[derive(Debug)]
pub(super) struct Credit(Arc<Mutex<State>>);

/// The stream's end.
#[derive(Debug)]
pub(super) struct Requests(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    start: Option<v1::SubscribeStart>,
    credit_bytes: i64,
    waker: Option<Waker>,
    over: bool,
}

impl Requests {
    pub(super) fn new(start: v1::SubscribeStart) -> (Requests, Credit) {
        let state = State { start: Some(start), credit_bytes: 0, waker: None, over: false };
        let state = Arc::new(Mutex::new(state));
        (Requests(Arc::clone(&state)), Credit(state))
    }
}

impl Credit {
    pub(super) fn grant(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.change(|state| {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            state.credit_bytes = state.credit_bytes.saturating_add(bytes);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let waker = {
            let mut state = self.0.lock();
            change(&mut state);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.change(|state| state.over = true);
    }
}

impl Stream for Requests {
    type Item = v1::SubscribeRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock();
        let request = match state.start.take() {
            Some(start) => Request::Start(start),
            None if state.over => return Poll::Ready(None),
            None if state.credit_bytes > 0 => {
                Request::Credit(v1::SubscribeCredit { bytes: std::mem::take(&mut state.credit_bytes) })
            }
            None => {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        };
        Poll::Ready(Some(v1::SubscribeRequest { request: Some(request) }))
    }
}
