//! A node of another version: a gRPC server that says what it is, and knows none of the other calls.

use std::net::SocketAddr;

use logmill_proto::v1;
use logmill_proto::v1::node_service_server::{NodeService, NodeServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

struct OnlyItself;

#[tonic::async_trait]
impl NodeService for OnlyItself {
    async fn describe_node(
        &self,
        _request: Request<v1::DescribeNodeRequest>,
    ) -> Result<Response<v1::DescribeNodeResponse>, Status> {
        let version = "0.0.1".to_owned();
        Ok(Response::new(v1::DescribeNodeResponse { version, ..v1::DescribeNodeResponse::default() }))
    }
}

/// Starts one, which serves as long as the runtime does.
pub(crate) async fn older_node() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Server::builder().add_service(NodeServiceServer::new(OnlyItself));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}
