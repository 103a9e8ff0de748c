//! The requests of a produce stream, made at the moment when the connection has room for them.
//!
//! Nothing queues between the accumulator and HTTP/2: while the node holds the stream back, batches go on
//! filling.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use logmill_proto::v1;
use tokio_stream::Stream;

use super::accumulator::{MostBytes, Next, Outgoing, ToCompress};
use super::rules::MAX_MESSAGE_BYTES;
use super::shared::{Failed, Life, Shared};
use crate::convert::partition_to;
use crate::produce::produce_request;
use crate::{Error, ErrorKind};

pub(super) struct Requests {
    pub(super) shared: Arc<Shared>,
    /// The stream that these requests belong to; they end when it is not the present one any more.
    pub(super) stream: u64,
}

impl Stream for Requests {
    type Item = v1::ProduceStreamRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let failed = {
                let mut state = self.shared.state.lock();
                if state.stream.id != self.stream {
                    return Poll::Ready(None);
                }
                let next = if state.stream.started { state.accumulator.take() } else { Next::Nothing };
                if let Next::Nothing = next {
                    let is_done = state.life == Life::Closing && !state.accumulator.has_waiting();
                    // Ids are asked for before a stream opens.
                    if is_done || (state.stream.started && state.accumulator.wants_id()) {
                        return Poll::Ready(None);
                    }
                    state.stream_waker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                match next {
                    Next::Nothing => continue,
                    Next::Compress(work) => {
                        drop(state);
                        self.compress(work);
                        continue;
                    }
                    Next::Send(outgoing) => {
                        drop(state);
                        match self.request(outgoing) {
                            Some(request) => return Poll::Ready(Some(request)),
                            None => continue,
                        }
                    }
                    Next::Refused { tracked, size_bytes, most } => {
                        let error = too_large(&tracked.topic, size_bytes, most);
                        state.fail(vec![tracked], &error)
                    }
                    Next::Unbuildable { tracked, error } => state.fail(vec![tracked], &not_built(error)),
                }
            };
            failed.tell();
        }
    }
}

impl Requests {
    fn compress(&self, work: ToCompress) {
        let built = work.builder.build();
        let (failed, waker) = {
            let mut state = self.shared.state.lock();
            let failed = match state.accumulator.compressed(work.place, built) {
                Some((tracked, error)) => state.fail(vec![tracked], &not_built(error)),
                None => Failed::default(),
            };
            // This stream may be over by now, and the next one waits for the batch.
            let is_present = state.stream.id == self.stream;
            (failed, if is_present { None } else { state.waker_if_any_may_go() })
        };
        failed.tell();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn request(&self, outgoing: Outgoing) -> Option<v1::ProduceStreamRequest> {
        let Outgoing { correlation_id, topic, partition, batch, after_failure } = outgoing;
        let partition = match partition_to(partition) {
            Ok(partition) => partition,
            Err(error) => {
                super::driver::refused(&self.shared, correlation_id, &error);
                return None;
            }
        };
        let Shared { client, options, .. } = &*self.shared;
        let request = produce_request(&topic, partition, &batch, options.acks, client.clock().now());
        Some(v1::ProduceStreamRequest { correlation_id, request: Some(request), after_failure })
    }
}

fn not_built(error: logmill_record::BatchError) -> Error {
    Error::invalid(format!("these records cannot be in a batch: {error}")).with_source(error)
}

/// A record, or a batch that was begun before the limit was known.
pub(super) fn too_large(topic: &str, size_bytes: usize, most: MostBytes) -> Error {
    let max_bytes = most.bytes();
    let (limit, message) = match most {
        MostBytes::Node(_) => (
            "max_batch_bytes",
            format!(
                "a batch of {size_bytes} bytes for topic {topic} was not sent, because the node takes at most \
                 {max_bytes} bytes: send smaller records, or raise the node's limit max_batch_bytes (`serve --limit`)"
            ),
        ),
        MostBytes::Topic(_) => (
            MAX_MESSAGE_BYTES,
            format!(
                "a batch of {size_bytes} bytes for topic {topic} was not sent, because the topic's \
                 {MAX_MESSAGE_BYTES} is {max_bytes}: send smaller records, or raise it for the topic"
            ),
        ),
    };
    Error::new(ErrorKind::TooLarge, "MESSAGE_TOO_LARGE", message).with_metadata([
        ("topic", topic.to_owned()),
        ("bytes", size_bytes.to_string()),
        ("limit", limit.to_owned()),
        ("value", max_bytes.to_string()),
    ])
}
