//! What is around each service: a call has a place on its connection until its response has been sent, and a request
//! that arrives in parts takes room for them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Request, Status};

use super::connection::{Connection, Held};
use super::sending::Instead;
use crate::budget::Permit;
use crate::error::Error;

/// A message on the wire begins with a flag and its length.
const PREFIX_BYTES: usize = 5;

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
        let arriving =
            |body| Body::new(Arriving { body, message: Message::default(), held: None, connection });
        let answer = self.0.call(request.map(arriving));
        Box::pin(async move {
            let mut response = answer.await?;
            let instead = response.extensions_mut().remove::<Instead>().and_then(|body| body.take());
            Ok(response.map(|body| {
                let body = instead.unwrap_or(body);
                Body::new(Leaving { body, _place: place })
            }))
        })
    }
}

fn refuse(error: Error) -> BoxFuture<http::Response<Body>, Infallible> {
    Box::pin(async move { Ok(Status::from(error).into_http()) })
}

/// The connection that a request came by.
pub(super) fn connection<T>(request: &Request<T>) -> Result<Connection, Error> {
    let connection = request.extensions().get::<Connection>().cloned();
    connection.ok_or_else(|| Error::fault("a call without a connection"))
}

/// The body of a request. As long as a message in it is not whole, it lies in memory, and its bytes count.
struct Arriving {
    body: Body,
    message: Message,
    held: Option<(Held, Permit)>,
    connection: Connection,
}

/// The message that is arriving.
#[derive(Debug, Default)]
struct Message {
    prefix: [u8; PREFIX_BYTES],
    /// What has come of it, the prefix too.
    come: usize,
    /// What it has in all, once the prefix has come.
    whole: Option<usize>,
}

impl Message {
    /// Takes what has come, and says how much of a message that is not whole has.
    fn take(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            let missing = self.whole.unwrap_or(PREFIX_BYTES) - self.come;
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            if self.whole.is_none() {
                self.prefix[self.come..self.come + taken.len()].copy_from_slice(taken);
            }
            self.come += taken.len();
            bytes = rest;
            if self.whole.is_none() && self.come == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                self.whole = Some(PREFIX_BYTES.saturating_add(u32::from_be_bytes(length) as usize));
            }
            if self.whole == Some(self.come) {
                *self = Self::default();
            }
        }
        self.come
    }
}

impl Arriving {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let come = self.message.take(bytes);
        let mut had = self.held.as_ref().map_or(0, |(_, own)| own.amount());
        if come < had {
            // That message is whole, and this is another, if there is one.
            self.held = None;
            had = 0;
        }
        match &mut self.held {
            Some((held, own)) => held.grow(own, come - had)?,
            None if come > 0 => self.held = Some(self.connection.hold_request(come)?),
            None => {}
        }
        Ok(())
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
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
    fn only_what_has_come_of_a_message_that_is_not_whole_counts() {
        let message = |len: u32| [&[0][..], &len.to_be_bytes(), &vec![7; len as usize]].concat();
        let wire = [message(3), message(0), message(300)].concat();
        for step in 1..wire.len() {
            let mut arriving = Message::default();
            let mut come = 0;
            for part in wire.chunks(step) {
                come += part.len();
                let whole = [8, 13, 318].into_iter().filter(|end| *end <= come).max().unwrap_or(0);
                assert_eq!(arriving.take(part), come - whole, "{come} bytes in steps of {step}");
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_only_counted() {
        let mut arriving = Message::default();
        assert_eq!(arriving.take(&[0, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2]), 7);
    }
}
