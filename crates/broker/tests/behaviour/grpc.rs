//! The services over a real connection, through the generated client stubs.

mod by_chance;
mod committed;
mod effects;
mod every_limit;
mod fuzz;
mod groups;
mod limits;
mod member;
mod produce;
mod raw;
mod read;
mod server;
mod topics;
mod undecodable;

use std::collections::HashMap;
use std::net::SocketAddr;

use logmill_broker::{Broker, Config, grpc};
use logmill_proto::v1;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

type Topics = v1::topic_service_client::TopicServiceClient<Channel>;
type Produces = v1::produce_service_client::ProduceServiceClient<Channel>;
type Fetches = v1::fetch_service_client::FetchServiceClient<Channel>;
type Transactions = v1::transaction_service_client::TransactionServiceClient<Channel>;
type Groups = v1::group_service_client::GroupServiceClient<Channel>;
type Nodes = v1::node_service_client::NodeServiceClient<Channel>;

/// A node that listens on a free port, and a connection to it.
struct Served {
    broker: Broker,
    address: SocketAddr,
    channel: Channel,
    shutdown: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), grpc::ServeError>>,
}

impl Served {
    async fn start(config: Config) -> Self {
        let broker = tokio::task::spawn_blocking(|| Broker::open(config).unwrap()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, asked) = oneshot::channel::<()>();
        let serving = tokio::spawn(grpc::serve(broker.clone(), listener, async {
            let _ = asked.await;
        }));
        let channel = connect(address).await;
        Self { broker, address, channel, shutdown: Some(shutdown), serving }
    }

    /// Asks for the shutdown; the services end in their own time.
    fn ask_to_stop(&mut self) {
        drop(self.shutdown.take());
    }

    async fn stop(mut self) {
        self.ask_to_stop();
        drop(self.channel);
        self.serving.await.unwrap().unwrap();
        let broker = self.broker;
        tokio::task::spawn_blocking(move || broker.close().unwrap()).await.unwrap();
    }

    fn topics(&self) -> Topics {
        Topics::new(self.channel.clone())
    }

    fn produces(&self) -> Produces {
        Produces::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    fn fetches(&self) -> Fetches {
        Fetches::new(self.channel.clone())
    }

    fn transactions(&self) -> Transactions {
        Transactions::new(self.channel.clone())
    }

    fn groups(&self) -> Groups {
        Groups::new(self.channel.clone())
    }

    fn nodes(&self) -> Nodes {
        Nodes::new(self.channel.clone())
    }

    async fn create(&self, name: &str, partitions: i32) {
        let request =
            v1::CreateTopicRequest { name: name.into(), partitions: Some(partitions), settings: Vec::new() };
        self.topics().create_topic(request).await.unwrap();
    }

    /// Appends one record durably.
    async fn say(&self, topic: &str, partition: i32, value: &str) {
        self.produces().produce(records(topic, Some(partition), [value])).await.unwrap();
    }
}

/// A connection of its own.
async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// The reason and metadata of a status, which says them in the way that the API promises.
fn reason(status: &Status) -> (Code, String, HashMap<String, String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, grpc::ERROR_DOMAIN);
    assert!(!status.message().is_empty());
    (status.code(), info.reason.clone(), info.metadata.clone())
}

fn invalid_field(status: &Status) -> String {
    let (code, reason, metadata) = reason(status);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "REQUEST_INVALID"), "{status:?}");
    metadata["field"].clone()
}

fn record(value: impl AsRef<[u8]>) -> v1::Record {
    v1::Record { value: Some(bytes::Bytes::copy_from_slice(value.as_ref())), ..v1::Record::default() }
}

fn records<V: AsRef<[u8]>>(
    topic: &str,
    partition: Option<i32>,
    values: impl IntoIterator<Item = V>,
) -> v1::ProduceRequest {
    let records = values.into_iter().map(record).collect();
    v1::ProduceRequest {
        topic: topic.into(),
        partition,
        payload: Some(v1::produce_request::Payload::Records(v1::RecordSet { records })),
        ..v1::ProduceRequest::default()
    }
}

fn at_offset(offset: i64) -> Option<v1::Position> {
    Some(v1::Position { at: Some(v1::position::At::Offset(offset)) })
}

fn at_edge(edge: v1::position::Edge) -> Option<v1::Position> {
    Some(v1::Position { at: Some(v1::position::At::Edge(edge.into())) })
}

fn from(topic: &str, partition: i32, position: Option<v1::Position>) -> v1::FetchPartition {
    v1::FetchPartition { topic: topic.into(), partition, position, ..v1::FetchPartition::default() }
}
