//! Who asks: the context that every core operation takes.

use std::fmt;
use std::net::SocketAddr;

/// As whom a request is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// The program that opened the broker in its own process. It may do everything.
    Embedded,
    /// Somebody who has not said who they are, on a listener that does not ask.
    Anonymous,
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Anonymous => "anonymous",
        })
    }
}

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Listener {
    /// A call in the same process.
    Embedded,
    /// The gRPC services.
    Grpc,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Grpc => "grpc",
        })
    }
}

/// Who makes a request, from where, and under which number the node's log mentions it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContext {
    /// As whom.
    pub principal: Principal,
    /// From which address; `None` in the same process.
    pub peer: Option<SocketAddr>,
    /// Where it came in.
    pub listener: Listener,
    /// The request's number; 0 for calls in the same process that choose none.
    pub request_id: u64,
}

impl RequestContext {
    /// A call by the program that opened the broker.
    ///
    /// ```
    /// use logmill_broker::{Principal, RequestContext};
    ///
    /// let context = RequestContext::embedded();
    /// assert_eq!(context.principal, Principal::Embedded);
    /// assert_eq!(context.peer, None);
    /// ```
    #[must_use]
    pub const fn embedded() -> Self {
        Self { principal: Principal::Embedded, peer: None, listener: Listener::Embedded, request_id: 0 }
    }
}

impl fmt::Display for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.principal, self.listener)?;
        if let Some(peer) = self.peer {
            write!(f, " from {peer}")?;
        }
        write!(f, " (request {})", self.request_id)
    }
}
