//! What is bounded of connections, calls, and the memory that both keep.

use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use logmill_broker::{Limit, LimitStats, Limits};
use logmill_log::env::{Clock as _, SystemClock};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use v1::position::Edge;

use super::*;
use crate::common::hook_fs::{Call, gated, is_segment_of_0};
use crate::common::{config, with_env};

pub(super) async fn limited(dir: &tempfile::TempDir, limits: Limits) -> Served {
    Served::start(Config { limits, stall_timeout: Duration::from_millis(300), ..config(dir) }).await
}

pub(super) fn counts(served: &Served, limit: Limit) -> (usize, u64) {
    let stats = served.broker.stats().limits.into_iter().find(|stats| stats.limit == limit);
    let LimitStats { used, refused, .. } = stats.unwrap();
    (used, refused)
}

pub(super) fn is_over(status: &Status, limit: Limit) {
    let (code, reason, metadata) = reason(status);
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "LIMIT_EXCEEDED"), "{status:?}");
    assert_eq!(metadata["limit"], limit.as_str());
    assert!(status.message().contains(limit.as_str()), "{status:?}");
}

pub(super) async fn list(channel: &Channel) -> Result<(), Status> {
    Topics::new(channel.clone()).list_topics(v1::ListTopicsRequest::default()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_told_so_and_works_when_another_has_gone() {
    let dir = tempfile::tempdir().unwrap();
    let served = limited(&dir, Limits { max_connections: 2, ..Limits::default() }).await;
    let second = connect(served.address).await;
    list(&second).await.unwrap();
    let third = connect(served.address).await;
    is_over(&list(&third).await.unwrap_err(), Limit::MaxConnections);
    list(&second).await.unwrap();
    assert_eq!(counts(&served, Limit::MaxConnections).0, 2);
    drop(second);
    // The node hears of the end of a connection in its own time.
    while let Err(status) = list(&third).await {
        is_over(&status, Limit::MaxConnections);
    }
    assert!(counts(&served, Limit::MaxConnections).1 > 0);
    drop(third);
    served.stop().await;
}

pub(super) async fn subscribe(
    channel: &Channel,
    topic: &str,
) -> Result<(mpsc::Sender<v1::SubscribeRequest>, Streaming<v1::SubscribeResponse>), Status> {
    let (requests, outgoing) = mpsc::channel(4);
    let partitions = vec![from(topic, 0, at_edge(Edge::Earliest))];
    let start = v1::SubscribeStart { partitions, credit_bytes: 1 << 40, ..Default::default() };
    let first = Some(v1::subscribe_request::Request::Start(start));
    requests.send(v1::SubscribeRequest { request: first }).await.unwrap();
    let replies = Fetches::new(channel.clone()).subscribe(ReceiverStream::new(outgoing)).await?;
    Ok((requests, replies.into_inner()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_too_many_on_a_connection_is_told_so_and_another_connection_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let served = limited(&dir, Limits { max_streams_per_connection: 2, ..Limits::default() }).await;
    served.create("t", 1).await;
    let first = subscribe(&served.channel, "t").await.unwrap();
    let second = subscribe(&served.channel, "t").await.unwrap();
    is_over(&list(&served.channel).await.unwrap_err(), Limit::MaxStreamsPerConnection);
    list(&connect(served.address).await).await.unwrap();
    drop(first);
    while let Err(status) = list(&served.channel).await {
        is_over(&status, Limit::MaxStreamsPerConnection);
    }
    drop(second);
    served.stop().await;
}

/// A message that says that it is larger than what comes of it.
pub(super) async fn send_part(
    sender: &SendRequest<Bytes>,
    part: usize,
) -> (ResponseFuture, SendStream<Bytes>) {
    let (response, mut body) = raw::begin(sender, "/logmill.v1.ProduceService/Produce", &[]).await;
    let bytes = [&[0][..], &1_000_000_u32.to_be_bytes(), &vec![0; part]].concat();
    body.send_data(bytes.into(), false).unwrap();
    (response, body)
}

async fn is_refused(response: ResponseFuture, limit: Limit) {
    is_over(&raw::answer(response).await.unwrap().1, limit);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_so_much_of_requests_half_sent_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let served = limited(&dir, Limits { max_connection_bytes: 50_000, ..Limits::default() }).await;
    let hostile = raw::connect(served.address).await;
    let waits = send_part(&hostile, 30_000).await;
    while counts(&served, Limit::MaxConnectionBytes).0 < 30_000 {
        list(&served.channel).await.unwrap();
    }
    let (refused, body) = send_part(&hostile, 30_000).await;
    is_refused(refused, Limit::MaxConnectionBytes).await;
    assert_eq!(counts(&served, Limit::MaxConnectionBytes), (30_005, 1));
    served.create("t", 1).await;
    served.say("t", 0, &"x".repeat(30_000)).await;
    drop((waits, body, hostile));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_finishes_a_request_is_cut_when_others_are_refused_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let served = limited(&dir, Limits { max_request_bytes: 50_000, ..Limits::default() }).await;
    let (stalls, _stalled) = send_part(&raw::connect(served.address).await, 40_000).await;
    while counts(&served, Limit::MaxRequestBytes).0 < 40_000 {
        list(&served.channel).await.unwrap();
    }
    let (refused, body) = send_part(&raw::connect(served.address).await, 30_000).await;
    is_refused(refused, Limit::MaxRequestBytes).await;
    assert!(stalls.await.is_err(), "its connection is gone");
    drop(body);
    while counts(&served, Limit::MaxRequestBytes).0 > 0 {
        list(&served.channel).await.unwrap();
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_never_read_are_cut_when_others_are_refused_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_reply_bytes: 4_000_000, ..Limits::default() };
    let served = limited(&dir, limits).await;
    served.create("t", 1).await;
    for _ in 0..8 {
        served.produces().produce(records("t", Some(0), [vec![b'x'; 900_000]])).await.unwrap();
    }
    let mut never_read = Vec::new();
    for _ in 0..8 {
        never_read.push(subscribe(&connect(served.address).await, "t").await.unwrap());
    }
    let fetch = || async {
        let partitions = vec![from("t", 0, at_edge(Edge::Earliest))];
        served.fetches().fetch(v1::FetchRequest { partitions, ..Default::default() }).await
    };
    // They take all the room there is, and then others get it.
    let refused = loop {
        match fetch().await {
            Ok(read) => assert!(!read.into_inner().partitions[0].chunks.is_empty()),
            Err(status) => break status,
        }
    };
    is_over(&refused, Limit::MaxReplyBytes);
    while fetch().await.is_err() {}
    let mut cut = 0;
    for (_requests, mut replies) in never_read {
        loop {
            match replies.message().await {
                Ok(Some(reply)) if is_last(&reply) => break,
                Ok(reply) => assert!(reply.is_some()),
                Err(_) => {
                    cut += 1;
                    break;
                }
            }
        }
    }
    assert!(cut > 0);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_never_reads_takes_its_part_and_no_other_is_refused_for_it() {
    const PART: usize = 4_000_000;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_reply_bytes: 6 * PART,
        max_connection_reply_bytes: PART,
        // Those who wait for room would else keep it from all others for ever.
        max_partition_reads: 1,
        ..Limits::default()
    };
    let served = limited(&dir, limits).await;
    served.create("t", 1).await;
    for _ in 0..8 {
        served.produces().produce(records("t", Some(0), [vec![b'x'; 900_000]])).await.unwrap();
    }
    let fetch = |channel: &Channel| {
        let partitions = vec![from("t", 0, at_edge(Edge::Earliest))];
        let mut fetches = Fetches::new(channel.clone());
        async move { fetches.fetch(v1::FetchRequest { partitions, ..Default::default() }).await }
    };
    let greedy = connect(served.address).await;
    let mut never_read = Vec::new();
    for _ in 0..200 {
        never_read.push(subscribe(&greedy, "t").await.unwrap());
    }
    // Until they wait, and for some time after.
    let mut after = 0;
    while after < 50 {
        let read = fetch(&served.channel).await.unwrap().into_inner();
        assert!(!read.partitions[0].chunks.is_empty());
        after += usize::from(counts(&served, Limit::MaxConnectionReplyBytes).1 >= 150);
    }
    is_over(&fetch(&greedy).await.unwrap_err(), Limit::MaxConnectionReplyBytes);
    assert_eq!(counts(&served, Limit::MaxReplyBytes).1, 0);
    // Who reads in the end gets everything.
    let read_all = |(requests, mut replies): (_, Streaming<v1::SubscribeResponse>)| async move {
        while !is_last(&replies.message().await.unwrap().unwrap()) {}
        drop(requests);
    };
    let reading: Vec<_> = never_read.into_iter().map(|it| tokio::spawn(read_all(it))).collect();
    for reader in reading {
        reader.await.unwrap();
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_hold_back_their_own_connection_and_no_other() {
    const REQUESTS: usize = 3_000;
    let dir = tempfile::tempdir().unwrap();
    // Room for so few answers that most of the requests are not even read.
    let limits = Limits { max_connection_reply_bytes: 200 * 1024, ..Limits::default() };
    let served = limited(&dir, limits).await;
    served.create("t", 1).await;
    let slow = connect(served.address).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let requests = (0..REQUESTS).map(|id| v1::ProduceStreamRequest {
            correlation_id: id as u64,
            request: Some(v1::ProduceRequest {
                acks: v1::Acks::Written.into(),
                ..records("t", Some(0), ["x"])
            }),
            after_failure: false,
        });
        let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
        let mut produces = Produces::new(slow.clone());
        streams.push(produces.produce_stream(requests).await.unwrap().into_inner());
    }
    while counts(&served, Limit::MaxConnectionReplyBytes).1 == 0 {
        served.say("t", 0, "meanwhile").await;
    }
    let (used, _) = counts(&served, Limit::MaxConnectionReplyBytes);
    assert!(used <= 210 * 1024, "{used} bytes of answers");
    served.say("t", 0, "still").await;
    for mut answers in streams {
        for _ in 0..=REQUESTS {
            answers.message().await.unwrap().unwrap();
        }
        assert!(answers.message().await.unwrap().is_none());
    }
    served.stop().await;
}

/// Whether it has the last of the eight records.
/// Its answers are in nobody's hand yet, and the client reads them as soon as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_answers_while_the_disk_takes_long_is_not_cut_for_the_room_they_take() {
    const STALL_TIMEOUT: Duration = Duration::from_millis(100);
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = gated(Call::Write, is_segment_of_0);
    let limits = Limits { max_reply_bytes: 4 * 1024, ..Limits::default() };
    let config = Config { limits, stall_timeout: STALL_TIMEOUT, ..with_env(&dir, env) };
    let served = Served::start(config).await;
    served.create("t", 2).await;
    served.say("t", 1, "x").await;
    gate.arm();
    let requests = (0..4).map(|correlation_id| {
        let request = Some(records("t", Some(0), ["x"]));
        v1::ProduceStreamRequest { correlation_id, request, after_failure: false }
    });
    let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
    let mut produces = Produces::new(connect(served.address).await);
    let mut answers = produces.produce_stream(requests).await.unwrap().into_inner();
    while counts(&served, Limit::MaxReplyBytes).0 < 4 * 1024 {
        tokio::task::yield_now().await;
    }
    // Others are refused for it, for longer than it takes to find those who keep room from them.
    let clock = SystemClock::new();
    while clock.monotonic() < 20 * STALL_TIMEOUT {
        let partitions = vec![from("t", 1, at_edge(Edge::Earliest))];
        let refused = served.fetches().fetch(v1::FetchRequest { partitions, ..Default::default() }).await;
        is_over(&refused.unwrap_err(), Limit::MaxReplyBytes);
    }
    gate.open();
    // That it has begun, and the answers.
    for _ in 0..5 {
        answers.message().await.unwrap().unwrap();
    }
    assert!(answers.message().await.unwrap().is_none());
    served.stop().await;
}

fn is_last(reply: &v1::SubscribeResponse) -> bool {
    match &reply.reply {
        Some(v1::subscribe_response::Reply::Data(data)) => data.next_offset == 8,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_http2_gets_an_end_and_so_does_silence() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let dir = tempfile::tempdir().unwrap();
    let served = limited(&dir, Limits::default()).await;
    for bytes in [
        &b""[..],
        b"PRI * HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\nHost: node\r\n\r\n",
        b"POST /logmill.v1.TopicService/ListTopics HTTP/1.1\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0",
        // A TLS client's hello.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ] {
        let mut tcp = TcpStream::connect(served.address).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // An error is an end as well: the node does not read on.
        let _ = tcp.read_to_end(&mut answer).await;
        assert!(answer.len() < 1_000, "{answer:?}");
        list(&served.channel).await.unwrap();
    }
    served.stop().await;
}
