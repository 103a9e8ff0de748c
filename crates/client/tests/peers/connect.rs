//! What can be at an address instead of a node, and calls that are not answered.

use std::time::Duration;

use logmill_client::{Client, Error, ErrorKind, FetchFrom, Position, ProducerOptions, ProducerRecord};
use logmill_proto::v1::node_service_server::NodeServiceServer;
use logmill_proto::v1::topic_service_server::TopicServiceServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

use crate::fake::Fake;

const PATIENCE: Duration = Duration::from_millis(500);

async fn connect(url: &str) -> (Error, Duration) {
    let begun = Instant::now();
    let error = Client::builder(url).connect_timeout(PATIENCE).connect().await.unwrap_err();
    (error, begun.elapsed())
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// One clear sentence: the address, the advice, and nothing of the machinery.
fn assert_clear(error: &Error, url: &str, kind: ErrorKind) {
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(text.contains(url), "{text}");
    assert!(text.contains("logmill serve") || text.contains("address"), "{text}");
    assert!(!text.contains('\n') && !text.contains("transport error") && text.len() < 300, "{text}");
}

#[tokio::test]
async fn nobody_is_there() {
    let (listener, url) = listen().await;
    drop(listener);
    let (error, took) = connect(&url).await;
    assert_clear(&error, &url, ErrorKind::Unavailable);
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(took < PATIENCE, "{took:?}");
    let (error, _) = connect("http://host.invalid:7070").await;
    assert_clear(&error, "http://host.invalid:7070", ErrorKind::Unavailable);
}

#[tokio::test]
async fn somebody_accepts_and_stays_silent() {
    let (_listener, url) = listen().await;
    let (error, took) = connect(&url).await;
    assert_clear(&error, &url, ErrorKind::Unavailable);
    assert!((PATIENCE..PATIENCE * 4).contains(&took), "{took:?}");
}

#[tokio::test]
async fn somebody_accepts_and_hangs_up() {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            drop(connection);
        }
    });
    let (error, _) = connect(&url).await;
    assert_clear(&error, &url, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_web_server_of_http_1_is_there() {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = connection.read(&mut request).await;
            let reply = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nno\n";
            let _ = connection.write_all(reply).await;
            sleep(PATIENCE).await;
        }
    });
    let (error, _) = connect(&url).await;
    assert_clear(&error, &url, ErrorKind::Unsupported);
    assert!(error.to_string().contains("does not speak gRPC"), "{error}");
}

#[tokio::test]
async fn another_grpc_service_is_there() {
    let (listener, url) = listen().await;
    let router = Server::builder().add_service(TopicServiceServer::new(Fake::new()));
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    let (error, _) = connect(&url).await;
    assert_clear(&error, &url, ErrorKind::Unsupported);
    assert_eq!(error.reason(), "NOT_A_NODE");
}

#[tokio::test]
async fn a_node_without_the_call_is_said_to_be_older() {
    let assert_older = |error: &Error, url: &str| {
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unsupported, "UNIMPLEMENTED"), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(url) && text.contains("older") && text.contains("update the node"), "{text}");
    };
    // Neither topics nor records; then no way to write them.
    let bare = Server::builder().add_service(NodeServiceServer::new(Fake::new()));
    let readable = Server::builder()
        .add_service(NodeServiceServer::new(Fake::new()))
        .add_service(TopicServiceServer::new(Fake::new()));
    for (router, has_topics) in [(bare, false), (readable, true)] {
        let (listener, url) = listen().await;
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let client = Client::connect(&url).await.unwrap();
        assert_eq!(client.describe_topic("t").await.is_ok(), has_topics);
        if !has_topics {
            assert_older(&client.describe_topic("t").await.unwrap_err(), &url);
        }
        let from = FetchFrom::new("t", 0, Position::Earliest);
        assert_older(&client.fetch(from.clone().into()).await.unwrap_err(), &url);
        let subscribed = match client.subscribe(from.into()).await {
            Ok(mut subscription) => subscription.next().await.unwrap().map(drop),
            Err(error) => Err(error),
        };
        assert_older(&subscribed.unwrap_err(), &url);
        let producer = client.producer(ProducerOptions::default()).unwrap();
        let sent = match producer.send(ProducerRecord::new("t", "x")).await {
            Ok(delivery) => delivery.await.map(drop),
            Err(error) => Err(error),
        };
        assert_older(&sent.unwrap_err(), &url);
    }
}

#[test]
fn connecting_outside_of_a_runtime_is_an_error_and_no_panic() {
    let mut connecting = std::pin::pin!(Client::connect("http://127.0.0.1:1"));
    let waker = std::task::Waker::noop();
    match connecting.as_mut().poll(&mut std::task::Context::from_waker(waker)) {
        std::task::Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_call_that_is_not_answered_ends() {
    let node = Fake { describe_delay: Duration::from_secs(60), ..Fake::new() }.start().await;
    let client = Client::builder(&node.url()).request_timeout(PATIENCE).connect().await.unwrap();
    let begun = Instant::now();
    let error = client.describe_topic("t").await.unwrap_err();
    assert!((PATIENCE..PATIENCE * 4).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("DescribeTopic"), "{error}");
}

#[tokio::test]
async fn calls_fail_while_the_node_is_away_and_work_when_it_is_back() {
    let mut node = Fake::new().start().await;
    let client = node.client().await;
    assert_eq!(client.describe_topic("t").await.unwrap().topic.partition_count, 4);
    node.kill();
    sleep(Duration::from_millis(100)).await;
    let error = client.describe_topic("t").await.unwrap_err();
    assert_clear(&error, &node.url(), ErrorKind::Unavailable);
    node.restart().await;
    assert_eq!(client.describe_topic("t").await.unwrap().topic.partition_count, 4);
}

#[tokio::test]
async fn lists_of_topics_are_read_to_their_last_page() {
    let node = Fake::new().start().await;
    for name in ["a", "b", "c"] {
        node.fake.topics.lock().insert(name.into(), 1);
    }
    let names: Vec<String> =
        node.client().await.list_topics(false).await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["a", "b", "c", "t"]);
}
