//! How a client is set up, and how it connects.

use std::sync::Arc;
use std::time::Duration;

use logmill_proto::v1;
use logmill_proto::v1::node_service_client::NodeServiceClient;
use logmill_record::TimestampMs;
use tokio::runtime::Handle;

use crate::client::Connection;
use crate::clock::Clock;
use crate::endpoint::endpoint;
use crate::error::{Peer, root_cause};
use crate::{Client, Error};

/// gRPC's own bound is 4 MB; a node keeps its replies below that unless one batch alone is larger.
const DEFAULT_MAX_REPLY_BYTES: usize = 64 << 20;

/// What a [`Client`] is made with; from [`Client::builder`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    url: String,
    connect_timeout: Duration,
    request_timeout: Duration,
    max_reply_bytes: usize,
    clock: Clock,
}

impl ClientBuilder {
    pub(crate) fn new(url: &str) -> ClientBuilder {
        ClientBuilder {
            url: url.to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            max_reply_bytes: DEFAULT_MAX_REPLY_BYTES,
            clock: Clock::system(),
        }
    }

    /// How long to wait for a connection and the node's first answer on it; 5 s unless set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.connect_timeout = timeout;
        self
    }

    /// How long to wait for the answer to a request, beyond the time that the request itself asks the node to
    /// wait; 30 s unless set.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> ClientBuilder {
        self.request_timeout = timeout;
        self
    }

    /// The largest reply that is accepted; 64 MiB unless set. A node's replies are larger than 4 MB only where
    /// a single batch is.
    #[must_use]
    pub fn max_reply_bytes(mut self, max: usize) -> ClientBuilder {
        self.max_reply_bytes = max;
        self
    }

    /// The wall clock: what records without a timestamp of their own are stamped with, and produce requests,
    /// from which the node measures delays. The system's unless set.
    #[must_use]
    pub fn clock(mut self, now: impl Fn() -> TimestampMs + Send + Sync + 'static) -> ClientBuilder {
        self.clock = Clock::new(now);
        self
    }

    /// Connects, and asks the node what it is.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for an address that cannot be one or without a tokio runtime,
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if no node answers in time, and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if what answers is something else.
    pub async fn connect(self) -> Result<Client, Error> {
        let (endpoint, url) = endpoint(&self.url, self.connect_timeout)?;
        let runtime = Handle::try_current().map_err(|error| {
            Error::invalid("a client lives in a tokio runtime: connect from within one").with_source(error)
        })?;
        let peer = Peer { url };
        let greeting = async {
            let channel =
                endpoint.connect().await.map_err(|e| peer.not_reached(&root_cause(&e)).with_source(e))?;
            let mut node = NodeServiceClient::new(channel.clone());
            match node.describe_node(v1::DescribeNodeRequest {}).await {
                Ok(_) => Ok(channel),
                Err(status) => Err(peer.greeting_error(&status)),
            }
        };
        let channel = tokio::time::timeout(self.connect_timeout, greeting)
            .await
            .map_err(|_| peer.connect_timeout(self.connect_timeout))??;
        let ClientBuilder { connect_timeout, request_timeout, max_reply_bytes, clock, .. } = self;
        Ok(Client(Arc::new(Connection {
            channel,
            peer,
            runtime,
            connect_timeout,
            request_timeout,
            max_reply_bytes,
            clock,
        })))
    }
}
