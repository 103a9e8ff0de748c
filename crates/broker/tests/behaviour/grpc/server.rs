//! What is around the services: health, reflection, faults, shutdown.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use v1::position::Edge;

use super::*;
use crate::common::hook_fs::{Call, hooked};
use crate::common::{config, with_env};

const SERVICES: [&str; 6] = [
    "logmill.v1.TopicService",
    "logmill.v1.ProduceService",
    "logmill.v1.FetchService",
    "logmill.v1.NodeService",
    "logmill.v1.TransactionService",
    "logmill.v1.GroupService",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_names_every_service() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    let mut health = HealthClient::new(served.channel.clone());
    for service in SERVICES.into_iter().chain([""]) {
        let request = HealthCheckRequest { service: service.into() };
        let HealthCheckResponse { status } = health.check(request).await.unwrap().into_inner();
        assert_eq!(status, ServingStatus::Serving as i32, "{service}");
    }
    let other = HealthCheckRequest { service: "other".into() };
    assert_eq!(health.check(other).await.unwrap_err().code(), Code::NotFound);
    served.stop().await;
}

async fn reflect(served: &Served, request: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut client = ServerReflectionClient::new(served.channel.clone());
    let mut replies =
        client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    replies.message().await.unwrap().unwrap().message_response.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_knows_every_service_and_its_messages() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    let MessageResponse::ListServicesResponse(list) =
        reflect(&served, MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list was asked for")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
        assert!(names.iter().any(|name| name == service), "{service} in {names:?}");
    }
    for symbol in ["logmill.v1.FetchService.Subscribe", "logmill.v1.PartitionData", "grpc.health.v1.Health"] {
        let found = reflect(&served, MessageRequest::FileContainingSymbol(symbol.into())).await;
        assert!(matches!(found, MessageResponse::FileDescriptorResponse(_)), "{symbol}: {found:?}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_in_one_call_is_an_answer_and_the_node_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let hook = {
        let armed = Arc::clone(&armed);
        move |call, _: &std::path::Path| -> io::Result<()> {
            assert!(
                call != Call::Write || !armed.swap(false, Ordering::SeqCst),
                "a fault that this test plants"
            );
            Ok(())
        }
    };
    let served = Served::start(with_env(&dir, hooked(hook))).await;
    served.create("t", 1).await;
    armed.store(true, Ordering::SeqCst);
    let status = served.produces().produce(records("t", None, ["x"])).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).1.as_str()), (Code::Internal, "INTERNAL_FAULT"));
    armed.store(true, Ordering::SeqCst);
    let request = v1::CreateTopicRequest { name: "u".into(), partitions: Some(1), settings: Vec::new() };
    let status = served.topics().create_topic(request).await.unwrap_err();
    assert_eq!(reason(&status).1, "INTERNAL_FAULT");
    served.say("t", 0, "y").await;
    served.create("u", 1).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_beyond_the_limit_is_refused_and_the_connection_lives_on() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let status = served.produces().produce(records("t", Some(0), [vec![0; 10_000_000]])).await.unwrap_err();
    assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    served.say("t", 0, "small").await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_answers_what_is_under_way_and_ends_streams() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(config(&dir)).await;
    served.create("t", 1).await;

    let latest = || vec![from("t", 0, at_edge(Edge::Latest))];
    let mut fetches = served.fetches();
    let polling = tokio::spawn(async move {
        let request = v1::FetchRequest { partitions: latest(), max_wait_ms: 60_000, ..Default::default() };
        fetches.fetch(request).await
    });
    let (requests, outgoing) = mpsc::channel(4);
    let start = v1::SubscribeStart { partitions: latest(), credit_bytes: 1_000, ..Default::default() };
    let first = Some(v1::subscribe_request::Request::Start(start));
    requests.send(v1::SubscribeRequest { request: first }).await.unwrap();
    let mut subscribed =
        served.fetches().subscribe(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    subscribed.message().await.unwrap().unwrap();
    let (produces, outgoing) = mpsc::channel(4);
    let mut answers =
        served.produces().produce_stream(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    answers.message().await.unwrap().unwrap();
    let request = v1::ProduceStreamRequest {
        correlation_id: 7,
        request: Some(records("t", None, ["x"])),
        after_failure: false,
    };
    produces.send(request).await.unwrap();
    // The poll has to wait before the shutdown, which a record would end.
    let mut seen_answer = false;
    while let Ok(Some(reply)) = answers.message().await {
        seen_answer = matches!(
            reply.reply,
            Some(v1::produce_stream_response::Reply::Answer(v1::ProduceStreamAnswer {
                correlation_id: 7,
                ..
            }))
        );
        if seen_answer {
            break;
        }
    }
    assert!(seen_answer);
    polling.await.unwrap().unwrap();

    let begun = tokio::time::Instant::now();
    let mut fetches = served.fetches();
    let polling = tokio::spawn(async move {
        let request = v1::FetchRequest { partitions: latest(), max_wait_ms: 60_000, ..Default::default() };
        fetches.fetch(request).await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    served.ask_to_stop();
    let data = polling.await.unwrap().unwrap().into_inner().partitions.remove(0);
    assert!(data.chunks.is_empty() && data.error.is_none());
    let ended = answers.message().await.unwrap_err();
    assert_eq!((ended.code(), reason(&ended).1.as_str()), (Code::Unavailable, "NODE_CLOSING"));
    let ended = loop {
        match subscribed.message().await {
            Ok(reply) => assert!(reply.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&ended).1, "NODE_CLOSING");
    served.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_is_free_when_serving_has_ended_and_the_broker_still_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    served.ask_to_stop();
    (&mut served.serving).await.unwrap().unwrap();
    assert!(served.topics().list_topics(v1::ListTopicsRequest::default()).await.is_err());
    let context = logmill_broker::RequestContext::embedded();
    assert_eq!(served.broker.describe_topic(&context, "t").await.unwrap().partitions.len(), 1);
    let broker = served.broker;
    tokio::task::spawn_blocking(move || broker.close().unwrap()).await.unwrap();
}
