//! The pipelined rpc of `ProduceService`.
//!
//! One task reads the stream and hands each request to the broker before it reads the next: that is the
//! order of the records. Each answer leaves when it is there. While too much is unanswered, nothing is read,
//! and HTTP/2's flow control holds the sender back.
//!
//! A request that cannot be understood is a failure like any other to those behind it.

use std::sync::Arc;

use logmill_proto::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Services;
use super::convert::number;
use super::produce::to_produce;
use crate::context::RequestContext;
use crate::error::Error;
use crate::produce::{MAX_IN_FLIGHT_BATCHES, Produce, ProduceResult, ProduceStream as Ordered};

/// The most bytes of requests, as they lie in memory, that are unanswered on one stream: 16 MiB.
const MAX_UNANSWERED_BYTES: u32 = 16 * 1024 * 1024;
/// What a request takes besides its bytes, so that many small ones are bounded too.
const REQUEST_OVERHEAD_BYTES: usize = 1024;
/// Answers that wait for the stream; what waits for them is bounded by the requests.
const ANSWERS: usize = 64;

type Answer = Result<v1::ProduceStreamResponse, Status>;

pub(super) fn start(
    services: &Services,
    context: RequestContext,
    requests: Streaming<v1::ProduceStreamRequest>,
) -> ReceiverStream<Answer> {
    let (answers, stream) = mpsc::channel(ANSWERS);
    let unanswered = Arc::new(Semaphore::new(MAX_UNANSWERED_BYTES as usize));
    let ordered = services.broker.produce_stream();
    let stream_of = ProduceStream { services: services.clone(), context, ordered, answers, unanswered };
    tokio::spawn(stream_of.run(requests));
    ReceiverStream::new(stream)
}

struct ProduceStream {
    services: Services,
    context: RequestContext,
    ordered: Ordered,
    answers: mpsc::Sender<Answer>,
    /// What may still be unanswered, in bytes.
    unanswered: Arc<Semaphore>,
}

impl ProduceStream {
    async fn run(self, mut requests: Streaming<v1::ProduceStreamRequest>) {
        let max_batch_bytes = self.services.broker.config().limits.max_batch_bytes;
        let started = v1::ProduceStreamStarted {
            max_unanswered_bytes: MAX_UNANSWERED_BYTES.into(),
            max_batch_bytes: number(u32::try_from(max_batch_bytes).unwrap_or(u32::MAX)),
            max_in_flight_batches_per_partition: number(
                u32::try_from(MAX_IN_FLIGHT_BATCHES).unwrap_or(u32::MAX),
            ),
        };
        let _ = self.answers.send(Ok(reply(v1::produce_stream_response::Reply::Started(started)))).await;

        let stopping = self.services.stopping.clone();
        let last = tokio::select! {
            last = self.read(&mut requests) => last,
            () = stopping.fired() => Some(Error::closing().into()),
            // The client is gone. What it sent is appended all the same.
            () = self.answers.closed() => return,
        };
        // Everything that was read is answered before the stream ends.
        let _all = self.unanswered.acquire_many(MAX_UNANSWERED_BYTES).await;
        if let Some(status) = last {
            let _ = self.answers.send(Err(status)).await;
        }
    }

    /// Takes requests until the client has no more, or cannot be understood.
    async fn read(&self, requests: &mut Streaming<v1::ProduceStreamRequest>) -> Option<Status> {
        loop {
            let request = match requests.message().await {
                Ok(request) => request?,
                Err(status) => return Some(status),
            };
            let v1::ProduceStreamRequest { correlation_id, request, after_failure } = request;
            let partition = request.as_ref().and_then(|request| request.partition).unwrap_or(-1);
            let named = request.as_ref().and_then(named);
            let bounds = &self.services.broker.core().bounds;
            // Before the wait, so that what is refused does not lie in memory meanwhile.
            let produce = request
                .ok_or_else(|| Error::missing("request", "send a request"))
                .and_then(|request| to_produce(request, bounds));
            let payload = produce.as_ref().map_or(0, |produce| produce.payload.size_bytes());
            let bytes = payload.saturating_add(REQUEST_OVERHEAD_BYTES);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(MAX_UNANSWERED_BYTES);
            // Closed never: an error would end the stream.
            let held = Arc::clone(&self.unanswered).acquire_many_owned(bytes).await.ok()?;
            if let (Err(_), Some((topic, partition))) = (&produce, &named) {
                self.ordered.note_refused(topic, *partition, after_failure);
            }
            let asked = Asked { correlation_id, partition, after_failure };
            self.accept(asked, produce, held);
        }
    }

    /// Hands a request to the broker, and its answer to the stream when it is there.
    fn accept(&self, asked: Asked, produce: Result<Produce, Error>, held: OwnedSemaphorePermit) {
        let Asked { correlation_id, partition, after_failure } = asked;
        let context = RequestContext { request_id: self.services.next_request_id(), ..self.context.clone() };
        let produced = produce.map(|produce| self.ordered.produce(&context, produce, after_failure));
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let results = match produced {
                Ok(produced) => produced.await,
                Err(error) => Err(error),
            };
            let answer = v1::ProduceStreamAnswer { correlation_id, results: to_results(results, partition) };
            // A client that is gone wants no answer.
            let _ = answers.send(Ok(reply(v1::produce_stream_response::Reply::Answer(answer)))).await;
            drop(held);
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

fn reply(reply: v1::produce_stream_response::Reply) -> v1::ProduceStreamResponse {
    v1::ProduceStreamResponse { reply: Some(reply) }
}
