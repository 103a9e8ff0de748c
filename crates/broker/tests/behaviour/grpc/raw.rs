//! Calls by hand: requests that no client would send, and wrong ones of every kind.

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use logmill_broker::{Limit, Limits};
use tokio::net::TcpStream;

use super::limits::{counts, is_over, limited};
use super::*;
use crate::common::config;

/// A connection on which requests can be sent in parts.
pub(super) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A call whose request is still to be sent.
pub(super) async fn begin(
    sender: &SendRequest<Bytes>,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request = http::Request::post(format!("http://node{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut sender = sender.clone().ready().await.unwrap();
    sender.send_request(request.body(()).unwrap(), false).unwrap()
}

/// A message on the wire.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// What a call is answered with: the bytes of its messages, and its status.
pub(super) async fn answer(response: ResponseFuture) -> Result<(Bytes, Status), h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part?;
        body.flow_control().release_capacity(part.len())?;
        bytes.extend_from_slice(&part);
    }
    Ok((bytes.freeze(), status(&head.headers, body).await?))
}

async fn status(headers: &HeaderMap, mut body: RecvStream) -> Result<Status, h2::Error> {
    if let Some(status) = Status::from_header_map(headers) {
        return Ok(status);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(Status::from_header_map(&trailers).expect("a status in the trailers"))
}

/// Calls with these bytes as the whole request.
async fn call(served: &Served, path: &str, headers: &[(&'static str, &str)], bytes: Vec<u8>) -> Status {
    let (response, mut body) = begin(&connect(served.address).await, path, headers).await;
    // The answer may come before.
    let _ = body.send_data(bytes.into(), true);
    answer(response).await.unwrap().1
}

const LIST: &str = "/logmill.v1.TopicService/ListTopics";
const PRODUCE: &str = "/logmill.v1.ProduceService/Produce";
const PRODUCE_STREAM: &str = "/logmill.v1.ProduceService/ProduceStream";
const SUBSCRIBE: &str = "/logmill.v1.FetchService/Subscribe";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_the_callers_fault_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let subscribe = v1::SubscribeStart {
        partitions: vec![from("t", 0, at_offset(0))],
        credit_bytes: 1,
        ..v1::SubscribeStart::default()
    };
    let start = v1::SubscribeRequest { request: Some(v1::subscribe_request::Request::Start(subscribe)) };
    let begun = framed(&prost::Message::encode_to_vec(&start));
    let junk = framed(&[0xFF; 20]);
    let cases = [
        ("a field of a type that it does not have", LIST, framed(&[0x0A, 1, b'x'])),
        ("text that is no UTF-8", LIST, framed(&[0x12, 2, 0xC3, 0x28])),
        ("junk", PRODUCE, junk.clone()),
        ("half a message", PRODUCE, framed(&[0x0A; 100])[..50].to_vec()),
        ("no message", PRODUCE, Vec::new()),
        ("a flag that there is not", PRODUCE, vec![7, 0, 0, 0, 0]),
        ("compressed, and not said how", PRODUCE, vec![1, 0, 0, 0, 0]),
        ("junk on a stream of requests", PRODUCE_STREAM, junk.clone()),
        ("junk as a first message", SUBSCRIBE, junk.clone()),
        ("junk as a later message", SUBSCRIBE, [begun, junk].concat()),
    ];
    for (what, path, bytes) in cases {
        let status = call(&served, path, &[], bytes).await;
        let (code, reason, metadata) = reason(&status);
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "REQUEST_INVALID"), "{what}: {status:?}");
        assert!(status.message().contains("cannot be read") && metadata.is_empty(), "{what}: {status:?}");
    }
    assert_eq!(served.broker.stats().limits[Limit::MaxRequestBytes as usize].used, 0);
    served.say("t", 0, "still here").await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_what_there_is_not_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    for path in [
        "/logmill.v1.TopicService/RenameTopic",
        "/logmill.v1.GroupService/JoinGroup",
        "/grpc.health.v1.Health/Heal",
        "/logmill.v1.TopicService",
        "/",
    ] {
        let status = call(&served, path, &[], framed(b"")).await;
        let (code, reason, metadata) = reason(&status);
        assert_eq!((code, reason.as_str()), (Code::Unimplemented, "RPC_UNKNOWN"), "{path}: {status:?}");
        assert_eq!(metadata["rpc"], path);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_grpc_compressed_is_refused_and_what_it_left_as_it_is_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    for path in [LIST, PRODUCE_STREAM] {
        let status = call(&served, path, &[("grpc-encoding", "gzip")], framed(b"")).await;
        let (code, reason, metadata) = reason(&status);
        assert_eq!((code, reason.as_str()), (Code::Unimplemented, "ENCODING_UNSUPPORTED"), "{status:?}");
        assert_eq!(metadata["encoding"], "gzip");
        // As gRPC's description of compression asks.
        assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), "identity");
    }
    let status = call(&served, LIST, &[("grpc-encoding", "identity")], framed(b"")).await;
    assert_eq!(status.code(), Code::Ok, "{status:?}");
    served.stop().await;
}

/// The prefix alone is enough: the rest never comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_is_refused_before_it_comes() {
    const MOST: u32 = 9 * 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let served = limited(&dir, Limits::default()).await;
    for path in [PRODUCE, PRODUCE_STREAM, SUBSCRIBE, LIST, "/grpc.health.v1.Health/Check"] {
        let (response, mut body) = begin(&connect(served.address).await, path, &[]).await;
        let prefix = [&[0][..], &(MOST + 1).to_be_bytes()].concat();
        body.send_data(prefix.into(), false).unwrap();
        let (_, status) = answer(response).await.unwrap();
        is_over(&status, Limit::MaxBatchBytes);
        assert_eq!(reason(&status).2["value"], "8388608");
        assert!(status.message().contains(&MOST.to_string()), "{status:?}");
    }
    let (used, refused) = counts(&served, Limit::MaxBatchBytes);
    assert_eq!((used, refused), (0, 5));

    let (response, mut body) = begin(&connect(served.address).await, PRODUCE, &[]).await;
    let prefix = [&[0][..], &MOST.to_be_bytes()].concat();
    body.send_data([prefix, vec![0xFF; 100]].concat().into(), false).unwrap();
    while counts(&served, Limit::MaxRequestBytes).0 < 105 {
        tokio::task::yield_now().await;
    }
    drop((response, body));
    served.stop().await;
}
