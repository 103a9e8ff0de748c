//! Bodies of responses in place of tonic's, for what was read.
//!
//! tonic encodes into a buffer that it keeps for the next message, as large as the largest was: all that was read is
//! copied once more, and thousands of subscribers that wait would keep a reply each. Here a message is sent in
//! [`pieces`](super::pieces), each of which goes when it has been sent.
//!
//! The generated code makes a body of tonic's from a message, or a stream of them. It gets an empty one, and ours
//! goes beside it, for [`Guard`](super::guard::Guard) to put in its place.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use logmill_proto::v1;
use parking_lot::Mutex;
use tokio_stream::{Empty, empty};
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;
use tonic::{Response, Status};

use super::connection::Held;
use super::outbox::Replies;

/// What the generated code sees of a stream of records.
pub(super) type Nothing<T> = Empty<Result<T, Status>>;

/// A body that is to take the place of the one that tonic makes. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Instead(Arc<Mutex<Option<Body>>>);

/// The response to a call that answers with a stream of records.
pub(super) fn streamed<T>(replies: Replies) -> Response<Nothing<T>> {
    instead(empty(), Sending { replies: Some(replies), unsent: None, ended: false })
}

/// The response to a fetch, and the memory that it takes until it has been sent.
pub(super) fn fetched(pieces: Vec<Bytes>, held: Held) -> Response<v1::FetchResponse> {
    let unsent = Some(unsent(pieces, held));
    instead(v1::FetchResponse::default(), Sending { replies: None, unsent, ended: false })
}

fn instead<T>(generated: T, body: Sending) -> Response<T> {
    let mut response = Response::new(generated);
    response.extensions_mut().insert(Instead(Arc::new(Mutex::new(Some(Body::new(body))))));
    response
}

impl Instead {
    pub(super) fn take(&self) -> Option<Body> {
        self.0.lock().take()
    }
}

/// What is left of a message, and the memory that it takes.
type Unsent = (std::vec::IntoIter<Bytes>, Arc<Held>);

fn unsent(pieces: Vec<Bytes>, held: Held) -> Unsent {
    (pieces.into_iter(), Arc::new(held))
}

struct Sending {
    /// Messages that come, if any do.
    replies: Option<Replies>,
    /// The one that is being sent.
    unsent: Option<Unsent>,
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
        loop {
            if let Some((pieces, held)) = &mut self.unsent
                && let Some(piece) = pieces.next()
            {
                return Poll::Ready(Some(Ok(Frame::data(held.keep_with(piece)))));
            }
            // While it is waited for the next one, nothing is kept of this.
            self.unsent = None;
            let next = match &mut self.replies {
                Some(replies) => ready!(replies.poll_recv(context)),
                None => None,
            };
            match next {
                Some((Ok(pieces), held)) => self.unsent = Some(unsent(pieces, held)),
                Some((Err(status), _)) => return Poll::Ready(Some(self.end(&status))),
                None => return Poll::Ready(Some(self.end(&Status::ok("")))),
            }
        }
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
