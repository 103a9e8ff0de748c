//! The pipelined rpc of `ProduceService`.
//!
//! One task reads the stream and hands each request to the broker before it reads the next: that is the
//! order of the records. Each answer leaves when it is there. While too much is unanswered, on the stream or in
//! answers that its connection or all of them do not read, nothing is read, and HTTP/2's flow control holds the
//! sender back. A request that was read goes to its partition at once: nothing waits that no limit counts.
//!
//! A request that cannot be understood is a failure like any other to those behind it.

use std::pin::Pin;
use std::task::{Context, Poll};

use logmill_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::Services;
use super::connection::{Connection, Held};
use super::convert::{count, number};
use super::produce::to_produce;
use super::status::with_reason;
use crate::budget::{Budget, Permit};
use crate::context::RequestContext;
use crate::error::Error;
use crate::fetch::ReplyPermit;
use crate::limits::Limit;
use crate::produce::{MAX_IN_FLIGHT_BATCHES, Produce, ProduceResult, ProduceStream as Ordered};

/// What a request takes besides its bytes until it is answered, and its answer then, so that many small ones are
/// bounded too.
const REQUEST_OVERHEAD_BYTES: usize = 1024;
/// Answers that wait for the stream; what waits for them is bounded by the requests.
const ANSWERS: usize = 64;

type Answer = Result<v1::ProduceStreamResponse, Status>;

/// The answers of a stream, each with the memory that it takes until it is encoded.
pub(super) struct Answers(mpsc::Receiver<(Answer, Held)>);

impl Stream for Answers {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        self.0.poll_recv(context).map(|answer| answer.map(|(answer, _)| answer))
    }
}

pub(super) fn start(
    services: &Services,
    context: RequestContext,
    connection: Connection,
    requests: Streaming<v1::ProduceStreamRequest>,
) -> Answers {
    let (answers, stream) = mpsc::channel(ANSWERS);
    let unanswered = services.broker.core().bounds.budget(Limit::MaxUnansweredBytes);
    let ordered = services.broker.produce_stream();
    let services = services.clone();
    let stream_of = ProduceStream { services, context, ordered, answers, connection, unanswered };
    tokio::spawn(stream_of.run(requests));
    Answers(stream)
}

struct ProduceStream {
    services: Services,
    context: RequestContext,
    ordered: Ordered,
    answers: mpsc::Sender<(Answer, Held)>,
    connection: Connection,
    /// Bytes of requests that are unanswered.
    unanswered: Budget,
}

/// The room that a request takes until its answer has gone.
struct Room {
    unanswered: Permit,
    answer: ReplyPermit,
}

impl ProduceStream {
    async fn run(self, mut requests: Streaming<v1::ProduceStreamRequest>) {
        let limits = &self.services.broker.config().limits;
        let started = v1::ProduceStreamStarted {
            max_unanswered_bytes: count(limits.max_unanswered_bytes as u64),
            max_batch_bytes: number(u32::try_from(limits.max_batch_bytes).unwrap_or(u32::MAX)),
            max_in_flight_batches_per_partition: number(
                u32::try_from(MAX_IN_FLIGHT_BATCHES).unwrap_or(u32::MAX),
            ),
        };
        self.send(Ok(reply(v1::produce_stream_response::Reply::Started(started)))).await;

        let stopping = self.services.stopping.clone();
        let last = tokio::select! {
            last = self.read(&mut requests) => last,
            () = stopping.fired() => Some(Error::closing().into()),
            // The client is gone. What it sent is appended all the same.
            () = self.answers.closed() => return,
        };
        // Everything that was read is answered before the stream ends.
        let _all = self.unanswered.empty().await;
        if let Some(status) = last {
            self.send(Err(status)).await;
        }
    }

    async fn send(&self, answer: Answer) {
        // A client that is gone wants no answer.
        let _ = self.answers.send((answer, self.connection.hold_reply(0))).await;
    }

    /// Takes requests until the client has no more, or cannot be understood.
    async fn read(&self, requests: &mut Streaming<v1::ProduceStreamRequest>) -> Option<Status> {
        loop {
            let mut room = self.room().await;
            let request = match requests.message().await {
                Ok(request) => request?,
                Err(status) => return Some(with_reason(status)),
            };
            let v1::ProduceStreamRequest { correlation_id, request, after_failure } = request;
            let partition = request.as_ref().and_then(|request| request.partition).unwrap_or(-1);
            let named = request.as_ref().and_then(named);
            let bounds = &self.services.broker.core().bounds;
            let produce = request
                .ok_or_else(|| Error::missing("request", "send a request"))
                .and_then(|request| to_produce(request, bounds));
            let payload = produce.as_ref().map_or(0, |produce| produce.payload.size_bytes());
            room.unanswered.keep(payload.saturating_add(REQUEST_OVERHEAD_BYTES));
            room.answer.keep(REQUEST_OVERHEAD_BYTES);
            if let (Err(_), Some((topic, partition))) = (&produce, &named) {
                self.ordered.note_refused(topic, *partition, after_failure);
            }
            let asked = Asked { correlation_id, partition, after_failure };
            self.accept(asked, produce, room);
        }
    }

    /// Waits until there is room for one request more, of any size, and for its answer.
    async fn room(&self) -> Room {
        let unanswered = loop {
            match self.unanswered.take_up_to(REQUEST_OVERHEAD_BYTES) {
                Some(unanswered) => break unanswered,
                None => self.unanswered.room().await,
            }
        };
        let replies = self.connection.reply_room();
        loop {
            match replies.take_up_to(REQUEST_OVERHEAD_BYTES) {
                Ok(answer) => return Room { unanswered, answer },
                Err(_) => replies.wait().await,
            }
        }
    }

    /// Hands a request to the broker, and its answer to the stream when it is there.
    fn accept(&self, asked: Asked, produce: Result<Produce, Error>, room: Room) {
        let Asked { correlation_id, partition, after_failure } = asked;
        let Room { unanswered, answer: mut room } = room;
        let connection = self.connection.clone();
        let context = RequestContext { request_id: self.services.next_request_id(), ..self.context.clone() };
        let produced = produce.map(|produce| self.ordered.produce(&context, produce, after_failure));
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let results = match produced {
                Ok(produced) => produced.await,
                Err(error) => Err(error),
            };
            let results = to_results(results, partition);
            room.keep(REQUEST_OVERHEAD_BYTES.max(results.iter().map(memory_of).sum()));
            // From here on it waits for nobody but the client. Before, it is the disk that may take long.
            let held = connection.hold_answer(room);
            let answer = v1::ProduceStreamAnswer { correlation_id, results };
            let answer = Ok(reply(v1::produce_stream_response::Reply::Answer(answer)));
            let _ = answers.send((answer, held)).await;
            drop(unanswered);
        });
    }
}

/// What a request says of itself besides what is to be appended.
#[derive(Clone, Copy)]
struct Asked {
    correlation_id: u64,
    partition: i32,
    after_failure: bool,
}

/// The partition that a request names; its order holds also for requests that cannot be understood.
fn named(request: &v1::ProduceRequest) -> Option<(String, u32)> {
    let partition = request.partition.and_then(|partition| u32::try_from(partition).ok())?;
    Some((request.topic.clone(), partition))
}

fn to_results(results: Result<Vec<ProduceResult>, Error>, partition: i32) -> Vec<v1::ProduceResult> {
    use v1::produce_result::Outcome;
    match results {
        Ok(results) => results.into_iter().map(Into::into).collect(),
        Err(error) => {
            let outcome = Some(Outcome::Error(error.into()));
            vec![v1::ProduceResult { partition, record_indexes: Vec::new(), outcome }]
        }
    }
}

/// What a result takes in memory, but for what an error says.
fn memory_of(result: &v1::ProduceResult) -> usize {
    size_of::<v1::ProduceResult>() + size_of_val(&*result.record_indexes)
}

fn reply(reply: v1::produce_stream_response::Reply) -> v1::ProduceStreamResponse {
    v1::ProduceStreamResponse { reply: Some(reply) }
}
