//! The body of a subscription's response, in place of tonic's.
//!
//! tonic encodes into a buffer that it keeps for the next message, as large as the largest was: thousands of
//! subscribers that wait would keep a reply each. Here each message has a buffer of its own, of its size, which
//! goes when it has been sent.
//!
//! The generated code makes a body of tonic's from a stream of messages. It gets an empty stream, and ours goes
//! beside it, for [`Guard`](super::guard::Guard) to put in its place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::Frame;
use logmill_proto::v1;
use parking_lot::Mutex;
use prost::Message;
use tokio_stream::{Empty, empty};
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::{Response, Status};

use super::subscribe::Replies;

/// What the generated code sees of a subscription.
pub(super) type Nothing = Empty<Result<v1::SubscribeResponse, Status>>;

/// A body that is to take the place of the one that tonic makes. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Instead(Arc<Mutex<Option<Body>>>);

/// The response to a subscription.
pub(super) fn response(replies: Replies) -> Response<Nothing> {
    let body = Body::new(Sending { replies, ended: false });
    let mut response = Response::new(empty());
    response.extensions_mut().insert(Instead(Arc::new(Mutex::new(Some(body)))));
    response
}

impl Instead {
    pub(super) fn take(&self) -> Option<Body> {
        self.0.lock().take()
    }
}

struct Sending {
    replies: Replies,
    /// The last frame, with the status, has gone.
    ended: bool,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(self.replies.poll_recv(context)) {
            Some((Ok(message), held)) => {
                encode(&message).map(|bytes| Frame::data(Arc::new(held).keep_with(bytes)))
            }
            Some((Err(status), _)) => self.end(&status),
            None => self.end(&Status::ok("")),
        };
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl Sending {
    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

/// The message with what goes before it: that it is not compressed, and its length.
fn encode(message: &v1::SubscribeResponse) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let prefix = u32::try_from(length).map_err(|_| Status::internal("a reply of more than 4 GiB"))?;
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode(&mut bytes).map_err(|error| Status::internal(error.to_string()))?;
    Ok(bytes.freeze())
}
