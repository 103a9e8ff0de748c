//! The broker behind the services of `proto/logmill/v1`: thin adapters that hold no state.
//!
//! Each rpc is turned into a call of [`Broker`] and its answer into messages; fields that make no sense are
//! refused on the way. Beside the services of the API there are `grpc.health.v1.Health`, which names each of
//! them, and server reflection.
//!
//! A failure is a status with `google.rpc.ErrorInfo`: domain `logmill`, the [`Reason`](crate::Reason), and
//! what varies in the message as metadata.

mod connection;
mod consume;
mod context;
mod convert;
mod encode;
mod fetch;
mod groups;
mod guard;
mod node;
mod outbox;
mod pieces;
mod produce;
mod produce_stream;
mod sending;
mod shape;
mod socket;
mod status;
mod subscribe;
mod topics;
mod transactions;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use connection::Connections;
use guard::{Guard, Unknown, max_message_bytes};
use logmill_proto::v1;
use socket::Socket;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;
use tonic_health::{ServingStatus, server::health_reporter};

use crate::broker::Broker;
use crate::exec::Signal;

/// The domain of every `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "logmill";

/// How long requests that are under way may go on after the shutdown was asked for.
pub const SHUTDOWN_BOUND: Duration = Duration::from_secs(10);

/// A sender may be so far ahead of the node on one stream, and on one connection.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Senders cut their messages into frames of this size. With HTTP/2's own 16 KiB every message costs many
/// small reads.
const MAX_FRAME_BYTES: u32 = 1024 * 1024;
/// HTTP/2 lets a peer have so many streams more than the limit says, so that those can be told of it: streams
/// beyond what HTTP/2 itself allows wait in the client, without a word.
const STREAMS_TO_BE_TOLD: u32 = 64;
/// What a request says before its message: a path, a deadline, some metadata.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
/// A peer that resets streams faster than they are taken up, or makes us reset so many, only costs us time: its
/// connection ends.
const MAX_PENDING_RESETS: usize = 32;
const MAX_OWN_RESETS: usize = 1_024;
/// A peer that is silent so long is asked whether it is there, and has so long to say so.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// So many replies are made of records at the same time.
const ENCODERS: usize = 4;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Why the services ended before they were asked to.
#[derive(Debug, thiserror::Error)]
#[error("the gRPC services ended: {0}; start the node again")]
pub struct ServeError(#[from] tonic::transport::Error);

/// What every service shares.
#[derive(Clone, Debug)]
struct Services {
    broker: Broker,
    next_request: Arc<AtomicU64>,
    /// Who makes records of batches takes turns: a batch can inflate to 64 MiB.
    encoders: Arc<Semaphore>,
    /// Fires when the services are to end.
    stopping: Signal,
}

/// Serves the broker on `listener` until `shutdown` is ready.
///
/// Then it takes no further connection, ends streams when what they had sent is answered, and waits for
/// calls that are under way, but not longer than [`SHUTDOWN_BOUND`]. The broker stays open: closing it is
/// the caller's, who opened it.
///
/// # Errors
/// If the listener fails.
///
/// ```
/// use logmill_broker::{Broker, Config, grpc};
/// use tokio::net::TcpListener;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let broker = Broker::open(Config::new(dir.path()))?;
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// println!("listening on {}", listener.local_addr()?);
///
/// let shutdown = async { /* until a signal comes */ };
/// grpc::serve(broker.clone(), listener, shutdown).await?;
/// broker.close()?;
/// # Ok(())
/// # }
/// ```
pub async fn serve(
    broker: Broker,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let stopping = Signal::default();
    let (next_request, encoders) = (Arc::default(), Arc::new(Semaphore::new(ENCODERS)));
    let services = Services { broker, next_request, encoders, stopping: stopping.clone() };
    let (reporter, health) = health_reporter();
    report(&reporter, ServingStatus::Serving).await;
    let connections = Connections::new(services.broker.core());
    let max_message_bytes = max_message_bytes(&services.broker.config().limits);
    let health = Guard(health.max_decoding_message_size(max_message_bytes));
    let router = server(&services).add_routes(routes(&services, max_message_bytes).add_service(health));

    let (take, stall_timeout) = (connections.clone(), services.broker.config().stall_timeout);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).then(pause_after_failure).filter_map(
        move |accepted| accepted.map(|tcp| take_connection(&take, tcp, stall_timeout)).transpose(),
    );
    let mut serving = pin!(router.serve_with_incoming_shutdown(incoming, stopping.fired()));
    let mut watching = pin!(connections.cut_those_that_stall());
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = shutdown => {}
        () = &mut watching => {}
    }
    report(&reporter, ServingStatus::NotServing).await;
    stopping.fire();
    match tokio::time::timeout(SHUTDOWN_BOUND, serving).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            tracing::warn!(bound = ?SHUTDOWN_BOUND, "calls were still under way at the end of the shutdown");
            Ok(())
        }
    }
}

/// Out of descriptors, say: the next try would fail as well, and as fast as the processor can.
async fn pause_after_failure(accepted: io::Result<TcpStream>) -> io::Result<TcpStream> {
    if let Err(error) = &accepted {
        tracing::warn!(%error, "cannot take a connection");
        tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
    }
    accepted
}

/// `None` if there are too many.
fn take_connection(connections: &Connections, tcp: TcpStream, stall_timeout: Duration) -> Option<Socket> {
    let connection = connections.open(tcp.peer_addr().ok());
    if connection.is_none() {
        tracing::debug!("a connection was closed: there are too many");
    }
    Some(Socket::new(tcp, connection?, stall_timeout))
}

fn server(services: &Services) -> Server {
    let limits = &services.broker.config().limits;
    let max_streams = u32::try_from(limits.max_streams_per_connection).unwrap_or(u32::MAX);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_concurrent_streams(max_streams.saturating_add(STREAMS_TO_BE_TOLD))
        .http2_max_header_list_size(MAX_HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_OWN_RESETS))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Every service, and an answer to calls of any other. A larger message is refused by [`Guard`], with a reason.
fn routes(services: &Services, max_message_bytes: usize) -> Routes {
    macro_rules! guarded {
        ($server:expr) => {
            Guard($server.max_decoding_message_size(max_message_bytes))
        };
    }
    let made = "the descriptors were made by the compiler";
    let mut routes = Routes::default()
        .add_service(guarded!(v1::topic_service_server::TopicServiceServer::new(services.clone())))
        .add_service(guarded!(v1::produce_service_server::ProduceServiceServer::new(services.clone())))
        .add_service(guarded!(v1::fetch_service_server::FetchServiceServer::new(services.clone())))
        .add_service(guarded!(v1::node_service_server::NodeServiceServer::new(services.clone())))
        .add_service(guarded!(v1::group_service_server::GroupServiceServer::new(services.clone())))
        .add_service(guarded!(v1::transaction_service_server::TransactionServiceServer::new(
            services.clone()
        )))
        .add_service(guarded!(reflection().build_v1().expect(made)))
        .add_service(guarded!(reflection().build_v1alpha().expect(made)));
    let router = routes.axum_router_mut();
    *router = std::mem::take(router).fallback_service(Unknown);
    routes
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(logmill_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // For the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Says of every service, and of the node as a whole, how it stands.
async fn report(reporter: &HealthReporter, status: ServingStatus) {
    let names = [
        "",
        <v1::topic_service_server::TopicServiceServer<Services> as NamedService>::NAME,
        <v1::produce_service_server::ProduceServiceServer<Services> as NamedService>::NAME,
        <v1::fetch_service_server::FetchServiceServer<Services> as NamedService>::NAME,
        <v1::node_service_server::NodeServiceServer<Services> as NamedService>::NAME,
        <v1::transaction_service_server::TransactionServiceServer<Services> as NamedService>::NAME,
        <v1::group_service_server::GroupServiceServer<Services> as NamedService>::NAME,
    ];
    for name in names {
        reporter.set_service_status(name, status).await;
    }
}
