//! What is around each service: a call has a place on its connection until its response has been sent, a request that
//! arrives takes room until it is taken, and what tonic says of a wrong call gets a reason.

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Request, Status};

use super::connection::{Connection, Held};
use super::sending::Instead;
use super::shape::{Call, Counter};
use super::status::{check_encoding, status_with_reason, unknown_rpc};
use crate::budget::Permit;
use crate::error::Error;
use crate::limits::{Bounds, Limit, Limits};

/// A message on the wire begins with a flag and its length.
const PREFIX_BYTES: usize = 5;
/// A message holds a batch and what goes with it, or plain records of several batches.
const MESSAGE_SLACK_BYTES: usize = 1024 * 1024;
const MIN_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// A service behind the limits of its connections.
#[derive(Clone, Debug)]
pub(super) struct Guard<S>(pub(super) S);

impl<S: NamedService> NamedService for Guard<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(connection) = request.extensions().get::<Connection>().cloned() else {
            return refuse(Error::fault("a call without a connection"));
        };
        let place = match connection.begin() {
            Ok(place) => place,
            Err(error) => return refuse(error),
        };
        if let Err(status) = check_encoding(request.headers()) {
            return refuse(status);
        }
        let uri = request.uri().clone();
        let call = Call::find(uri.path());
        let arriving =
            |body| Body::new(Arriving { body, message: Message::new(call), held: None, connection });
        let answer = self.0.call(request.map(arriving));
        Box::pin(async move {
            let mut response = answer.await?;
            if let Some(status) = status_with_reason(response.headers(), uri.path()) {
                response = status.into_http();
            }
            let instead = response.extensions_mut().remove::<Instead>().and_then(|body| body.take());
            Ok(response.map(|body| {
                let body = instead.unwrap_or(body);
                Body::new(Leaving { body, _place: place })
            }))
        })
    }
}

fn refuse(status: impl Into<Status>) -> BoxFuture<http::Response<Body>, Infallible> {
    let status = status.into();
    Box::pin(async move { Ok(status.into_http()) })
}

/// What answers calls of services that there are not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unknown;

impl<B> Service<http::Request<B>> for Unknown {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        std::future::ready(Ok(Status::from(unknown_rpc(request.uri().path())).into_http()))
    }
}

/// The connection that a request came by.
pub(super) fn connection<T>(request: &Request<T>) -> Result<Connection, Error> {
    let connection = request.extensions().get::<Connection>().cloned();
    connection.ok_or_else(|| Error::fault("a call without a connection"))
}

/// The body of a request. What has come lies in memory until it is taken, and counts: messages that are not whole,
/// and those that wait behind another.
struct Arriving {
    body: Body,
    message: Message,
    held: Option<Held>,
    connection: Connection,
}

/// The message that is arriving.
#[derive(Debug)]
struct Message {
    prefix: [u8; PREFIX_BYTES],
    /// What has come of it, the prefix too.
    come: usize,
    /// What it has in all, once the prefix has come.
    whole: Option<usize>,
    counter: Option<Counter>,
    /// Another one may follow. In other calls the one that they have waits for the end of the request.
    goes_on: bool,
}

impl Message {
    fn new(call: Option<&'static Call>) -> Self {
        let goes_on = call.is_some_and(|call| call.is_stream);
        Self { prefix: [0; PREFIX_BYTES], come: 0, whole: None, counter: call.map(Counter::new), goes_on }
    }

    /// Takes what has come. One that is too large, or has too many parts, is refused before it lies in memory.
    fn take(&mut self, mut bytes: &[u8], bounds: &Bounds) -> Result<(), Error> {
        while !bytes.is_empty() {
            let missing = self.whole.unwrap_or(PREFIX_BYTES) - self.come;
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            match &mut self.counter {
                _ if self.whole.is_none() => {
                    self.prefix[self.come..self.come + taken.len()].copy_from_slice(taken);
                }
                Some(counter) => counter.take(taken, bounds)?,
                None => {}
            }
            self.come += taken.len();
            bytes = rest;
            if self.whole.is_none() && self.come == PREFIX_BYTES {
                self.whole = Some(PREFIX_BYTES + self.length(bounds)?);
            }
            if self.whole == Some(self.come) {
                (self.come, self.whole) = (0, None);
                self.counter.iter_mut().for_each(Counter::begin);
            }
        }
        Ok(())
    }

    /// The length that the prefix says, if a message can have it.
    fn length(&self, bounds: &Bounds) -> Result<usize, Error> {
        let [_, length @ ..] = self.prefix;
        let (length, most) = (u32::from_be_bytes(length) as usize, max_message_bytes(bounds.limits()));
        if length <= most {
            return Ok(length);
        }
        let advice = format!("a request takes at most {most} bytes; send less at once");
        Err(bounds.refuse(Limit::MaxBatchBytes, &format!("a request of {length} bytes"), &advice))
    }
}

/// The most that a request takes on the wire.
pub(super) fn max_message_bytes(limits: &Limits) -> usize {
    limits.max_batch_bytes.saturating_add(MESSAGE_SLACK_BYTES).max(MIN_MESSAGE_BYTES)
}

impl Arriving {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.message.take(bytes, self.connection.bounds())?;
        match &mut self.held {
            Some(held) => held.grow(bytes.len())?,
            None if !bytes.is_empty() => self.held = Some(self.connection.hold_request(bytes.len())?),
            None => {}
        }
        Ok(())
    }

    /// More is asked for when everything that is whole has been taken.
    fn give_back(&mut self) {
        match &mut self.held {
            Some(_) if self.message.come == 0 => self.held = None,
            Some(held) if self.message.come < held.amount() => held.keep(self.message.come),
            _ => {}
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        if self.message.goes_on {
            self.give_back();
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(error) = self.take(data)
        {
            return Poll::Ready(Some(Err(error.into())));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The body of a response.
struct Leaving {
    body: Body,
    _place: Permit,
}

impl HttpBody for Leaving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_of_a_message_that_is_not_whole_is_known_however_it_comes() {
        let message = |len: u32| [&[0][..], &len.to_be_bytes(), &vec![7; len as usize]].concat();
        let wire = [message(3), message(0), message(300)].concat();
        let bounds = Bounds::new(Limits::default());
        for step in 1..wire.len() {
            let mut arriving = Message::new(None);
            let mut come = 0;
            for part in wire.chunks(step) {
                come += part.len();
                let whole = [8, 13, 318].into_iter().filter(|end| *end <= come).max().unwrap_or(0);
                arriving.take(part, &bounds).unwrap();
                assert_eq!(arriving.come, come - whole, "{come} bytes in steps of {step}");
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_with_the_prefix() {
        let bounds = Bounds::new(Limits { max_batch_bytes: 1, ..Limits::default() });
        let mut arriving = Message::new(None);
        arriving.take(&[0, 0, 0x40, 0, 0], &bounds).unwrap();
        let mut arriving = Message::new(None);
        arriving.take(&[0, 0, 0x40, 0], &bounds).unwrap();
        assert!(arriving.take(&[1], &bounds).unwrap_err().message().contains("4194305"));
    }
}
