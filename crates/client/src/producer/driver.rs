//! The task behind a producer: keeps a stream open while there is something to send, and hands out answers.

use std::sync::Arc;
use std::time::Duration;

use logmill_proto::v1;
use logmill_proto::v1::produce_stream_response::Reply;
use tokio::time::Instant;
use tonic::Streaming;

use super::accumulator::{Fate, Limits, Refused};
use super::rules::is_by_rules;
use super::shared::{Failed, Life, Shared};
use super::stream::Requests;
use crate::backoff::Backoff;
use crate::error::root_cause;
use crate::produce::appended;
use crate::{Error, ErrorKind};

type Answers = Streaming<v1::ProduceStreamResponse>;

/// Runs until the producer is closed. However it ends, nobody is left waiting.
pub(super) async fn run(shared: Arc<Shared>) {
    let _ending = Ending(Arc::clone(&shared));
    tokio::select! {
        () = keep_sending(&shared) => {}
        () = watch_deadlines(&shared) => {}
    }
}

struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.shut();
    }
}

async fn keep_sending(shared: &Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut not_before = Instant::now();
    while wait_for_work(shared).await {
        tokio::time::sleep_until(not_before).await;
        match open(shared).await {
            Ok(answers) => {
                let End { error, cause, any_answered } = read(shared, answers).await;
                end_stream(shared, error, &cause);
                if any_answered {
                    backoff.reset();
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a produce stream could not be opened");
                end_stream(shared, error.clone(), &error.to_string());
                if !error.kind().is_retriable() {
                    give_up(shared, &error);
                }
            }
        }
        not_before = Instant::now() + backoff.next();
    }
}

/// Waits until there is something to send; `false` when there will be nothing any more.
async fn wait_for_work(shared: &Shared) -> bool {
    loop {
        {
            let state = shared.state.lock();
            if state.accumulator.has_waiting() {
                return true;
            }
            if state.life != Life::Open {
                return false;
            }
        }
        shared.work.notified().await;
    }
}

/// Opens a stream; batches go out from the moment when the node has said that it is open.
async fn open(shared: &Arc<Shared>) -> Result<Answers, Error> {
    let stream = {
        let mut state = shared.state.lock();
        state.stream.id += 1;
        state.stream.started = false;
        state.stream.id
    };
    let peer = shared.client.peer();
    if shared.state.lock().accumulator.wants_id() {
        let id = shared.client.init_producer_id().await?;
        shared.state.lock().accumulator.set_id(id);
    }
    let opening = async {
        let requests = Requests { shared: Arc::clone(shared), stream };
        let mut answers = shared.client.produce_rpc().produce_stream(requests).await?.into_inner();
        let first = answers.message().await?;
        Ok((answers, first))
    };
    let limit = shared.client.connect_timeout();
    let (answers, first) = match tokio::time::timeout(limit, opening).await {
        Ok(opened) => opened.map_err(|status: tonic::Status| peer.error(&status))?,
        Err(_) => return Err(peer.connect_timeout(limit)),
    };
    let Some(Reply::Started(started)) = first.and_then(|response| response.reply) else {
        return Err(Error::nonsense("a produce stream does not begin with `started`"));
    };
    let waker = {
        let mut state = shared.state.lock();
        state.accumulator.set_node_limits(Limits {
            batch_bytes: limit_from(started.max_batch_bytes.into()),
            bytes_in_flight: limit_from(started.max_unanswered_bytes),
            batches_in_flight: limit_from(started.max_in_flight_batches_per_partition.into()),
        });
        state.stream.started = true;
        state.unreachable = None;
        state.stream_waker.take()
    };
    shared.wake(waker);
    Ok(answers)
}

/// A node that tells no limit has none that matters here.
fn limit_from(bytes: i64) -> usize {
    usize::try_from(bytes).ok().filter(|&bytes| bytes > 0).unwrap_or(usize::MAX)
}

/// How a stream ended.
struct End {
    error: Error,
    /// The error in a few words.
    cause: String,
    any_answered: bool,
}

/// Hands out answers until the stream ends.
async fn read(shared: &Shared, mut answers: Answers) -> End {
    let mut any_answered = false;
    loop {
        let (error, cause) = match answers.message().await {
            Ok(Some(v1::ProduceStreamResponse { reply: Some(Reply::Answer(answer)) })) => {
                any_answered = true;
                answered(shared, answer);
                continue;
            }
            Ok(Some(_)) => {
                let cause = "a reply that is no answer";
                (Error::nonsense(cause), cause.to_owned())
            }
            Ok(None) => {
                let cause = "the node ended the stream";
                (shared.client.peer().broken(cause), cause.to_owned())
            }
            Err(status) => (shared.client.peer().error(&status), root_cause(&status)),
        };
        tracing::debug!(%cause, "a produce stream ended");
        return End { error, cause, any_answered };
    }
}

fn answered(shared: &Shared, answer: v1::ProduceStreamAnswer) {
    let correlation_id = answer.correlation_id;
    // One that is not known any more has run out of time, and was reported then.
    let Some(records) = shared.state.lock().accumulator.record_count(correlation_id) else { return };
    match appended(answer.results, records) {
        Ok(appended) => {
            let (tracked, waker) = {
                let mut state = shared.state.lock();
                let tracked = state.accumulator.finish(correlation_id);
                (tracked, state.waker_if_any_may_go())
            };
            if let Some(tracked) = tracked {
                tracked.completion.complete(Ok(appended));
            }
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        Err(error) => refused(shared, correlation_id, &error),
    }
}

/// A batch under way is not stored, or nobody says whether it is.
pub(super) fn refused(shared: &Shared, correlation_id: u64, error: &Error) {
    let (failed, waker) = {
        let mut state = shared.state.lock();
        let fate = state.accumulator.refuse(correlation_id, Refused::by(error), error, Instant::now());
        if let Fate::Fails(tracked) | Fate::Unknown(tracked) = &fate
            && (error.kind() == ErrorKind::NotFound || is_by_rules(error))
        {
            state.accumulator.topics.forget(&tracked.topic);
        }
        let failed = match fate {
            Fate::SentAgain => {
                tracing::debug!(%error, "a batch was not taken, and is sent again");
                Failed::default()
            }
            Fate::Fails(tracked) => state.fail(vec![tracked], error),
            Fate::Unknown(tracked) => {
                let cause =
                    format!("it was sent before, no answer came, and sent again it was refused: {error}");
                state.fail(vec![tracked], &shared.client.peer().outcome_unknown(&cause))
            }
        };
        (failed, state.waker_if_any_may_go())
    };
    failed.tell();
    if let Some(waker) = waker {
        waker.wake();
    }
    shared.paused.notify_one();
}

/// No batch goes out on the present stream any more. What had and was not answered goes back to be sent again on
/// the next one; what may be stored and cannot be sent again fails.
fn end_stream(shared: &Shared, why: Error, cause: &str) {
    let unknown = shared.client.peer().outcome_unknown(cause);
    let (failed, waker) = {
        let mut state = shared.state.lock();
        state.stream.id += 1;
        state.stream.started = false;
        let lost = state.accumulator.put_all_back(&why);
        state.unreachable = Some(why);
        (state.fail(lost.unknown, &unknown), state.stream_waker.take())
    };
    failed.tell();
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// No stream will ever open: all that waits fails.
fn give_up(shared: &Shared, why: &Error) {
    let unknown = shared.client.peer().outcome_unknown(&why.to_string());
    let failed = {
        let mut state = shared.state.lock();
        let drained = state.accumulator.drain_waiting();
        state.fail(drained.not_stored, why).and(state.fail(drained.unknown, &unknown))
    };
    failed.tell();
}

/// Fails what has waited too long, at most a tenth of its time late, and lets partitions send again of which the
/// node asked for patience.
async fn watch_deadlines(shared: &Shared) {
    let step = (shared.options.delivery_timeout / 10).clamp(Duration::from_millis(5), Duration::from_secs(1));
    let mut expires_at = Instant::now() + step;
    loop {
        if shared.state.lock().accumulator.is_idle() {
            shared.due.notified().await;
            expires_at = Instant::now() + step;
        }
        let paused_until = shared.state.lock().accumulator.paused_until();
        let until = paused_until.map_or(expires_at, |until| until.min(expires_at));
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = shared.paused.notified() => continue,
        }
        let now = Instant::now();
        shared.resume(now);
        if now >= expires_at {
            shared.expire(now);
            expires_at = now + step;
        }
    }
}
