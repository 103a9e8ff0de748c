//! The requests of a produce stream, made at the moment when the connection has room for them.
//!
//! Nothing queues between the accumulator and HTTP/2: while the node holds the stream back, batches go on
//! filling.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use logmill_proto::v1;
use tokio_stream::Stream;

use super::accumulator::{Next, Outgoing};
use super::shared::{Life, Shared};
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
            let next = {
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
                next
            };
            match next {
                Next::Send(outgoing) => {
                    if let Some(request) = self.request(outgoing) {
                        return Poll::Ready(Some(request));
                    }
                }
                Next::Refused { tracked, size_bytes, limit_bytes } => {
                    let error = too_large(&tracked.topic, size_bytes, limit_bytes);
                    self.shared.fail(vec![tracked], &error);
                }
                Next::Unbuildable { tracked, error } => self.shared.fail(vec![tracked], &not_built(error)),
                Next::Nothing => {}
            }
        }
    }
}

impl Requests {
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

/// A record, or a batch that was begun before the node had told its limit.
pub(super) fn too_large(topic: &str, size_bytes: usize, limit_bytes: usize) -> Error {
    let message = format!(
        "a batch of {size_bytes} bytes for topic {topic} was not sent, because the node takes at most \
         {limit_bytes} bytes: send smaller records, or raise the node's setting max.message.bytes"
    );
    Error::new(ErrorKind::TooLarge, "MESSAGE_TOO_LARGE", message).with_metadata([
        ("topic", topic.to_owned()),
        ("size_bytes", size_bytes.to_string()),
        ("max_bytes", limit_bytes.to_string()),
    ])
}
