//! A server of the same API that does nothing: what tonic alone costs.

use std::io::{Write as _, stdin, stdout};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use logmill_bench::{Part, Run};
use logmill_proto::v1::fetch_service_client::FetchServiceClient;
use logmill_proto::v1::fetch_service_server::{FetchService, FetchServiceServer};
use logmill_proto::v1::produce_service_client::ProduceServiceClient;
use logmill_proto::v1::produce_service_server::{ProduceService, ProduceServiceServer};
use logmill_proto::v1::{self, produce_request, produce_stream_response, subscribe_response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::{Channel, Endpoint, Server as Tonic};
use tonic::{Request, Response, Status, Streaming};

/// As the node has them.
const STREAM_WINDOW: u32 = 8 << 20;
const FRAME: u32 = 1 << 20;
/// As the public client has them.
const CLIENT_STREAM_WINDOW: u32 = 4 << 20;
const CLIENT_FRAME: u32 = 256 << 10;
/// As both have it.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How many messages may wait to be sent.
const QUEUED: usize = 8;

/// An empty server in a process of its own.
pub(crate) struct Server {
    _part: Part,
    port: f64,
}

impl Server {
    pub(crate) fn start(run: &Run) -> Self {
        let mut part = Part::start("server", run.directory().path(), &[]);
        let port = part.line()[0];
        Self { _part: part, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The server's process: says its port, and ends with whoever started it.
pub(crate) fn serve(_run: &Run) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
        println!("{}", listener.local_addr().expect("it is bound").port());
        stdout().flush().expect("somebody listens");
        let serving = Tonic::builder()
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .add_service(ProduceServiceServer::new(Empty))
            .add_service(FetchServiceServer::new(Empty))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let ended = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            stdin().read_line(&mut line)
        });
        tokio::select! {
            served = serving => served.expect("it serves"),
            _ = ended => {}
        }
    });
}

async fn connect(url: &str) -> Channel {
    Endpoint::from_shared(url.to_owned())
        .expect("the address is good")
        .tcp_nodelay(true)
        .initial_stream_window_size(CLIENT_STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(CLIENT_FRAME)
        .connect_timeout(Duration::from_secs(5))
        .connect()
        .await
        .expect("the server can be reached")
}

/// Sends messages and waits for the answer to each.
pub(crate) async fn send(url: &str, messages: usize, len: usize) {
    let mut client = ProduceServiceClient::new(connect(url).await);
    let (sender, requests) = mpsc::channel(QUEUED);
    let payload = Bytes::from(vec![7; len]);
    let sending = tokio::spawn(async move {
        for correlation_id in 0..messages as u64 {
            let batch = Some(produce_request::Payload::Batch(payload.clone()));
            let request = v1::ProduceRequest { payload: batch, ..Default::default() };
            let request =
                v1::ProduceStreamRequest { correlation_id, request: Some(request), after_failure: false };
            sender.send(request).await.expect("the server takes messages");
        }
    });
    let mut answers =
        client.produce_stream(ReceiverStream::new(requests)).await.expect("it answers").into_inner();
    for _ in 0..messages {
        answers.message().await.expect("it answers").expect("it answers each");
    }
    sending.await.expect("all is sent");
}

/// Receives so many messages.
pub(crate) async fn receive(url: &str, messages: usize, len: usize) {
    let mut client = FetchServiceClient::new(connect(url).await).max_decoding_message_size(4 << 20);
    let start =
        v1::SubscribeStart { credit_bytes: i64::try_from(messages).expect("it fits"), ..Default::default() };
    let start = v1::SubscribeRequest { request: Some(v1::subscribe_request::Request::Start(start)) };
    let replies = client.subscribe(tokio_stream::once(start)).await.expect("it answers");
    let mut replies = replies.into_inner();
    let mut bytes = 0;
    while let Some(reply) = replies.message().await.expect("it goes on") {
        let Some(subscribe_response::Reply::Data(data)) = reply.reply else { continue };
        bytes += data.chunks.iter().map(|chunk| batches(chunk).len()).sum::<usize>();
    }
    assert_eq!(bytes, messages * len);
}

fn batches(chunk: &v1::Chunk) -> &[u8] {
    match &chunk.data {
        Some(v1::chunk::Data::Batches(batches)) => batches,
        _ => &[],
    }
}

struct Empty;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ProduceService for Empty {
    type ProduceStreamStream = Replies<v1::ProduceStreamResponse>;

    async fn produce(&self, _: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        Err(Status::unimplemented("empty"))
    }

    async fn produce_stream(
        &self,
        requests: Request<Streaming<v1::ProduceStreamRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let answers = requests.into_inner().map(|request| {
            let answer =
                v1::ProduceStreamAnswer { correlation_id: request?.correlation_id, results: Vec::new() };
            Ok(v1::ProduceStreamResponse { reply: Some(produce_stream_response::Reply::Answer(answer)) })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn init_producer_id(
        &self,
        _: Request<v1::InitProducerIdRequest>,
    ) -> Result<Response<v1::InitProducerIdResponse>, Status> {
        Err(Status::unimplemented("empty"))
    }
}

#[tonic::async_trait]
impl FetchService for Empty {
    type SubscribeStream = Replies<v1::SubscribeResponse>;

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        Err(Status::unimplemented("empty"))
    }

    /// As many messages of 1 MiB as there is credit.
    async fn subscribe(
        &self,
        requests: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let start = requests.into_inner().message().await?.and_then(|request| request.request);
        let Some(v1::subscribe_request::Request::Start(start)) = start else {
            return Err(Status::invalid_argument("no start"));
        };
        let batches = Bytes::from(vec![7; super::MESSAGE_LEN]);
        let replies = (0..start.credit_bytes).map(move |_| {
            let data = Some(v1::chunk::Data::Batches(batches.clone()));
            let chunk = v1::Chunk { data, ..Default::default() };
            let data = v1::PartitionData { chunks: vec![chunk], ..Default::default() };
            Ok(v1::SubscribeResponse { reply: Some(subscribe_response::Reply::Data(data)) })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }
}
