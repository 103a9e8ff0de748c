//! The task behind a consumer: keeps it a member, whatever its handler does meanwhile.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use logmill_proto::v1;
use logmill_proto::v1::consume_response::Reply;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_stream::Stream;
use tonic::Streaming;

use super::state::State;
use crate::backoff::Backoff;
use crate::{Client, Error};

pub(super) type Replies = Streaming<v1::ConsumeResponse>;

/// A commit that failed for a while is tried again after so long, however long a session is.
const LONGEST_TICK: Duration = Duration::from_secs(2);

/// A stream that held so long was a good one: the next break is not counted to those before.
const GOOD_STREAM: Duration = Duration::from_secs(5);

/// What the handler, the stream and the driver share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) reconnect_timeout: Duration,
    pub(super) state: Mutex<State>,
    /// For the handler: there may be something for it.
    pub(super) news: Notify,
    /// For who closes the consumer: a commit may be answered.
    pub(super) settled: Notify,
    /// For the driver: something is done, and may have to be committed later.
    pub(super) done: Notify,
}

impl Shared {
    /// Changes the state, and wakes whom it may concern.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, waker) = {
            let mut state = self.state.lock();
            (change(&mut state), state.requests_waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// Resolves when what is done is to be committed.
    async fn commit_due(&self) {
        loop {
            let due = self.state.lock().commit_due();
            match due {
                Some(due) => return sleep_until(due).await,
                None => self.done.notified().await,
            }
        }
    }

    fn tell(&self) {
        self.news.notify_one();
        self.settled.notify_one();
    }
}

/// Joins, or joins again.
pub(super) async fn open(shared: &Arc<Shared>) -> Result<Replies, Error> {
    let (client, limit) = (&shared.client, shared.client.connect_timeout());
    let stream = shared.change(State::begin_stream);
    let requests = Requests { shared: Arc::clone(shared), stream };
    let opening = async {
        let mut replies = client.groups_rpc().consume(requests).await?.into_inner();
        let first = replies.message().await?;
        Ok((replies, first))
    };
    let (replies, first) = match timeout(limit, opening).await {
        Ok(opened) => opened.map_err(|status: tonic::Status| client.peer().error(&status))?,
        Err(_) => return Err(client.peer().timeout("Consume", limit)),
    };
    let Some(Reply::Joined(joined)) = first.and_then(|response| response.reply) else {
        return Err(Error::nonsense("a stream of a group does not begin with `joined`"));
    };
    shared.change(|state| state.reply(Reply::Joined(joined)))?;
    Ok(replies)
}

/// Runs until the consumer has left, or cannot go on. However it ends, nobody is left waiting.
pub(super) async fn run(shared: Arc<Shared>, first: Replies) {
    let _ending = Ending(Arc::clone(&shared));
    let mut opened = Ok(first);
    let mut backoff = Backoff::default();
    let mut broken_since: Option<Instant> = None;
    loop {
        let error = match opened {
            Ok(replies) => {
                let since = Instant::now();
                let error = read(&shared, replies).await;
                if since.elapsed() >= GOOD_STREAM {
                    backoff.reset();
                    broken_since = None;
                }
                error
            }
            Err(error) => error,
        };
        if error.reason() == "MEMBER_UNKNOWN" {
            // The group has let it go already: whoever leaves has left.
            shared.change(State::stream_ended);
        }
        let (leaving, left) = {
            let state = shared.state.lock();
            (state.leaving, state.left)
        };
        if left || (leaving && !error.kind().is_retriable()) {
            return;
        }
        if leaving {
            // Who closes the consumer does not wait for long.
            backoff.reset();
        }
        if !may_join_again(&shared, &error) {
            shared.change(|state| state.fail(error));
            return;
        }
        tracing::debug!(%error, "a stream of a group ended");
        shared.change(State::end_stream);
        if broken_since.get_or_insert_with(Instant::now).elapsed() >= shared.reconnect_timeout {
            shared.change(|state| state.report(error));
            shared.tell();
            broken_since = None;
        }
        sleep(backoff.next()).await;
        opened = open(&shared).await;
    }
}

/// A static member that is not known any more may have been succeeded by another one, which it would drive out again.
fn may_join_again(shared: &Shared, error: &Error) -> bool {
    let is_forgotten = error.reason() == "MEMBER_UNKNOWN" && !shared.state.lock().is_static();
    error.kind().is_retriable() || is_forgotten
}

struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.change(|state| {
            if !state.over {
                state.fail(super::state::closed());
            }
        });
        self.0.tell();
    }
}

/// Takes in what the node says, and gives signs of life, until the stream ends.
async fn read(shared: &Shared, mut replies: Replies) -> Error {
    let session_timeout = shared.state.lock().session_timeout;
    let mut ticks = interval((session_timeout / 4).clamp(Duration::from_millis(1), LONGEST_TICK));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one is at once, and the node has not said yet what the consumer has.
    ticks.tick().await;
    loop {
        let message = tokio::select! {
            message = replies.message() => message,
            () = shared.commit_due() => {
                shared.change(State::commit_done);
                continue;
            }
            _ = ticks.tick() => {
                shared.change(State::tick);
                shared.tell();
                continue;
            }
        };
        let taken = match message {
            Ok(Some(v1::ConsumeResponse { reply: Some(reply) })) => shared.change(|state| state.reply(reply)),
            Ok(Some(_)) => Err(Error::nonsense("a message of a group that says nothing")),
            Ok(None) => {
                shared.change(State::stream_ended);
                Err(shared.client.peer().broken("the node ended the stream"))
            }
            Err(status) => Err(shared.client.peer().error(&status)),
        };
        if let Err(error) = taken {
            return error;
        }
        shared.tell();
    }
}

/// What the consumer says on one stream, made when the connection has room for it.
struct Requests {
    shared: Arc<Shared>,
    stream: u64,
}

impl Stream for Requests {
    type Item = v1::ConsumeRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.shared.state.lock();
        if state.stream != self.stream {
            return Poll::Ready(None);
        }
        if let Some(request) = state.next_request() {
            return Poll::Ready(Some(v1::ConsumeRequest { request: Some(request) }));
        }
        if state.leaving && state.joined {
            return Poll::Ready(None);
        }
        state.requests_waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
