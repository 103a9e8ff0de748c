//! The connection to a node, and the one way every call on it goes: with a deadline, and with its errors
//! turned into ours.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use logmill_proto::v1::fetch_service_client::FetchServiceClient;
use logmill_proto::v1::group_service_client::GroupServiceClient;
use logmill_proto::v1::node_service_client::NodeServiceClient;
use logmill_proto::v1::produce_service_client::ProduceServiceClient;
use logmill_proto::v1::topic_service_client::TopicServiceClient;
use logmill_proto::v1::transaction_service_client::TransactionServiceClient;
use tokio::runtime::Handle;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::clock::Clock;
use crate::error::Peer;
use crate::{ClientBuilder, Error};

/// A connection to a node. A clone shares it; it comes back by itself after it broke.
///
/// ```no_run
/// use logmill_client::Client;
///
/// # async fn example() -> Result<(), logmill_client::Error> {
/// let client = Client::connect("http://127.0.0.1:7070").await?;
/// println!("{} topics", client.describe_node().await?.topic_count);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client(pub(crate) Arc<Connection>);

/// What the clones of a client share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    pub(crate) peer: Peer,
    /// Where producers run, which may be made outside of it.
    pub(crate) runtime: Handle,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_reply_bytes: usize,
    pub(crate) clock: Clock,
}

impl Client {
    /// Connects to the node at `url`, such as `http://127.0.0.1:7070`, with the defaults of
    /// [`ClientBuilder`].
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(url: &str) -> Result<Client, Error> {
        Client::builder(url).connect().await
    }

    /// A client of the node at `url`, to be set up before it connects.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use logmill_client::Client;
    ///
    /// # async fn example() -> Result<(), logmill_client::Error> {
    /// let client = Client::builder("http://127.0.0.1:7070")
    ///     .connect_timeout(Duration::from_secs(1))
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    /// The address of the node, as errors name it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.peer.url
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.0.peer
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.0.connect_timeout
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.0.request_timeout
    }

    pub(crate) fn topics_rpc(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.0.channel.clone()).max_decoding_message_size(self.0.max_reply_bytes)
    }

    pub(crate) fn node_rpc(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.0.channel.clone()).max_decoding_message_size(self.0.max_reply_bytes)
    }

    pub(crate) fn produce_rpc(&self) -> ProduceServiceClient<Channel> {
        ProduceServiceClient::new(self.0.channel.clone()).max_decoding_message_size(self.0.max_reply_bytes)
    }

    pub(crate) fn fetch_rpc(&self) -> FetchServiceClient<Channel> {
        FetchServiceClient::new(self.0.channel.clone()).max_decoding_message_size(self.0.max_reply_bytes)
    }

    pub(crate) fn transactions_rpc(&self) -> TransactionServiceClient<Channel> {
        TransactionServiceClient::new(self.0.channel.clone())
            .max_decoding_message_size(self.0.max_reply_bytes)
    }

    pub(crate) fn groups_rpc(&self) -> GroupServiceClient<Channel> {
        GroupServiceClient::new(self.0.channel.clone()).max_decoding_message_size(self.0.max_reply_bytes)
    }

    /// Makes a call that appends nothing, within the request timeout.
    pub(crate) async fn call<T>(
        &self,
        rpc: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        self.call_within(self.0.request_timeout, rpc, call).await
    }

    /// The deadline is kept here alone. gRPC's own header would let the node cut a call short that has had its
    /// effect; a call that is given up is reset, which the node sees as well.
    pub(crate) async fn call_within<T>(
        &self,
        limit: Duration,
        rpc: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.0.peer.error(&status)),
            Err(_) => Err(self.0.peer.timeout(rpc, limit)),
        }
    }

    /// Makes a call that appends records, within the request timeout.
    pub(crate) async fn append_call<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        let limit = self.0.request_timeout;
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.0.peer.append_error(&status)),
            Err(_) => Err(self.0.peer.outcome_unknown(&format!("no answer within {limit:?}"))),
        }
    }
}
