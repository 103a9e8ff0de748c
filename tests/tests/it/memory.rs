//! What a node takes in memory when there is much of everything, against what its limits allow. Each prints
//! `RssAnon`.

use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use logmill_client::{
    Acks, Client, FetchFrom, Position, ProducerOptions, ProducerRecord, Subscribe, Subscription,
};
use logmill_proto::v1;
use logmill_record::Offset;
use logmill_tests::{Node, rss_anon};
use prost::Message as _;

use crate::logmill;
use crate::wire::{
    DATA, END_HEADERS, Ended, GOAWAY, HEADERS, Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, call, frame,
    message,
};

const MIB: u64 = 1024 * 1024;
/// A node without work, its threads, and what an allocator keeps of the small pieces that it has given back.
const NODE: u64 = 48 * MIB;
/// The node's limits here, in bytes.
const QUEUED: u64 = 32 * MIB;
const REPLIES: u64 = 32 * MIB;
const REQUESTS: u64 = 32 * MIB;
/// Of one connection.
const OWN_REPLIES: u64 = 16 * MIB;
/// What a sender may be ahead of the node on a connection, and unanswered on a stream.
const STREAM: u64 = 32 * MIB;
/// Of RFC 9113, sections 6.5 and 7.
const SETTINGS_ACK: u8 = 1;
const FLOW_CONTROL_ERROR: [u8; 4] = [0, 0, 0, 3];

/// A node with small limits, over a directory that goes with it. Its allocator gives large pieces back at once:
/// by itself glibc's keeps them, up to 200 MiB here, and one would see that and not what the node holds.
fn small() -> (tempfile::TempDir, Node) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = logmill().command(["serve", "--listen", "127.0.0.1:0", "--stall-timeout-ms", "2000"]);
    command.arg("--data-dir").arg(dir.path().join("data"));
    command.env("MALLOC_MMAP_THRESHOLD_", "131072").env("MALLOC_TRIM_THRESHOLD_", "131072");
    for (limit, value) in [
        ("max_queued_bytes", QUEUED),
        ("max_reply_bytes", REPLIES),
        ("max_connection_reply_bytes", OWN_REPLIES),
        ("max_request_bytes", REQUESTS),
    ] {
        command.arg("--limit").arg(format!("{limit}={value}"));
    }
    (dir, Node::from_command(command))
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(future)
}

/// Prints what the node takes, and checks that it is within what `bounds` add up to.
fn check(node: &Node, what: &str, bounds: &[u64]) {
    check_taken(rss_anon(node.pid()), what, bounds);
}

fn check_taken(taken: u64, what: &str, bounds: &[u64]) {
    let most = bounds.iter().sum::<u64>();
    println!("{what}: RssAnon {} MiB, at most {} MiB", taken / MIB, most / MIB);
    assert!(taken < most, "{what}: {taken} bytes, and the limits allow {most}");
}

/// The most that the node takes while `work` is done.
async fn most_taken(node: &Node, work: impl Future<Output = ()>) -> u64 {
    let mut work = pin!(work);
    let mut taken = rss_anon(node.pid());
    while tokio::time::timeout(Duration::from_millis(10), &mut work).await.is_err() {
        taken = rss_anon(node.pid()).max(taken);
    }
    taken
}

async fn append(client: &Client, topic: &str, records: u32, bytes: usize) {
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let value = Bytes::from(vec![b'x'; bytes]);
    for _ in 0..records {
        drop(producer.send(ProducerRecord::new(topic, value.clone())).await.unwrap());
    }
    producer.flush().await.unwrap();
}

#[test]
fn a_hundred_thousand_tiny_messages_on_one_stream() {
    const MESSAGES: u32 = 100_000;
    let (_dir, node) = small();
    run(async {
        let client = Client::connect(node.url()).await.unwrap();
        client.create_topic("t", Some(1)).await.unwrap();
        // A batch, and so a message, for each record.
        let options =
            ProducerOptions { max_batch_bytes: 1, acks: Acks::Written, ..ProducerOptions::default() };
        let producer = client.producer(options).unwrap();
        let mut last = None;
        for number in 0..MESSAGES {
            last = Some(producer.send(ProducerRecord::new("t", number.to_string())).await.unwrap());
        }
        producer.flush().await.unwrap();
        assert_eq!(last.unwrap().await.unwrap().offset, Offset(u64::from(MESSAGES) - 1));
    });
    check(&node, "100,000 tiny messages on one stream", &[NODE, QUEUED]);
    assert_eq!(node.terminate(), 0);
}

#[test]
fn two_thousand_idle_subscribers_that_all_wake_at_once() {
    const RECORDS: u32 = 4;
    let (_dir, node) = small();
    run(async {
        let client = Client::connect(node.url()).await.unwrap();
        client.create_topic("t", Some(1)).await.unwrap();
        let mut subscribers = Vec::new();
        for _ in 0..4 {
            let client = Client::connect(node.url()).await.unwrap();
            for _ in 0..500 {
                let from = FetchFrom::new("t", 0, Position::Earliest);
                subscribers.push(client.subscribe(Subscribe::from(from)).await.unwrap());
            }
        }
        check(&node, "2,000 idle subscribers", &[NODE, 2_000 * 24 * 1024]);
        append(&client, "t", RECORDS, 64 * 1024).await;
        let read = |mut subscriber: Subscription| async move {
            let mut next = Offset(0);
            while next < Offset(RECORDS.into()) {
                next = subscriber.next().await.unwrap().unwrap().next_offset;
            }
        };
        let reading: Vec<_> = subscribers.into_iter().map(|it| tokio::spawn(read(it))).collect();
        for reader in reading {
            reader.await.unwrap();
        }
    });
    check(&node, "2,000 subscribers that woke at once", &[NODE, 2_000 * 24 * 1024, REPLIES]);
    assert_eq!(node.terminate(), 0);
}

#[test]
#[ignore = "each topic is a few syncs: a minute"]
fn a_thousand_topics() {
    const TOPICS: u32 = 1_000;
    let (_dir, node) = small();
    run(async {
        let client = Client::connect(node.url()).await.unwrap();
        let producer = client.producer(ProducerOptions::default()).unwrap();
        for number in 0..TOPICS {
            client.create_topic(&format!("t{number}"), Some(1)).await.unwrap();
        }
        for number in 0..TOPICS {
            drop(producer.send(ProducerRecord::new(format!("t{number}"), "x")).await.unwrap());
        }
        producer.flush().await.unwrap();
    });
    check(&node, "1,000 topics with a record each", &[NODE, u64::from(TOPICS) * 20 * 1024]);
    assert_eq!(node.terminate(), 0);
}

/// Windows as wide as they get, so that nothing but the node's own limits holds it back.
fn with_wide_windows(url: &str) -> Peer {
    let mut peer = Peer::connect(url);
    let widest = frame(SETTINGS, 0, 0, &[&[0, 4][..], &0x7FFF_FFFF_u32.to_be_bytes()].concat());
    assert_eq!(peer.send(&widest), Ended::Taken);
    assert_eq!(peer.send(&frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes())), Ended::Taken);
    peer
}

fn subscribe_to(topic: &str) -> Vec<u8> {
    let from = v1::FetchPartition {
        topic: topic.into(),
        position: Some(v1::Position {
            at: Some(v1::position::At::Edge(v1::position::Edge::Earliest.into())),
        }),
        ..v1::FetchPartition::default()
    };
    let start = v1::SubscribeStart {
        partitions: vec![from],
        credit_bytes: i64::MAX,
        ..v1::SubscribeStart::default()
    };
    let request = v1::subscribe_request::Request::Start(start);
    message(&v1::SubscribeRequest { request: Some(request) }.encode_to_vec())
}

#[test]
fn subscribers_that_never_read() {
    let (_dir, node) = small();
    run(async {
        let client = Client::connect(node.url()).await.unwrap();
        client.create_topic("t", Some(1)).await.unwrap();
        append(&client, "t", 100, 1_000_000).await;
        let fields = call("/logmill.v1.FetchService/Subscribe");
        // Each with as much as it wants of memory: 200 streams would keep a gigabyte of replies.
        let mut peers: Vec<Peer> = (0..20).map(|_| with_wide_windows(node.url())).collect();
        for peer in &mut peers {
            for stream in (1..20).step_by(2) {
                assert_eq!(peer.send(&frame(HEADERS, END_HEADERS, stream, &fields)), Ended::Taken);
                assert_eq!(peer.send(&frame(DATA, 0, stream, &subscribe_to("t"))), Ended::Taken);
            }
        }
        // Somebody who reads gets everything all the same: it is tried again while others keep the memory.
        let (mut next, mut taken) = (Offset(0), 0);
        while next < Offset(100) {
            taken = rss_anon(node.pid()).max(taken);
            let from = FetchFrom::new("t", 0, Position::Offset(next));
            match client.fetch(from.into()).await {
                Ok(data) => next = data[0].next_offset,
                Err(error) => assert_eq!(error.reason(), "LIMIT_EXCEEDED", "{error}"),
            }
        }
        check_taken(taken, "200 subscribers that never read, at most", &[NODE, 2 * REPLIES]);
        drop(peers);
    });
    check(&node, "200 subscribers that never read", &[NODE, 2 * REPLIES]);
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_connection_that_never_reads_what_it_subscribed_to() {
    let (_dir, node) = small();
    run(async {
        let client = Client::connect(node.url()).await.unwrap();
        client.create_topic("t", Some(1)).await.unwrap();
        append(&client, "t", 20, 1_000_000).await;
        let fields = call("/logmill.v1.FetchService/Subscribe");
        let mut greedy = with_wide_windows(node.url());
        for number in 0..1_000 {
            let stream = number * 2 + 1;
            assert_eq!(greedy.send(&frame(HEADERS, END_HEADERS, stream, &fields)), Ended::Taken);
            assert_eq!(greedy.send(&frame(DATA, 0, stream, &subscribe_to("t"))), Ended::Taken);
        }
        // Nobody else is refused.
        let read_all = async {
            for _ in 0..20 {
                let mut next = Offset(0);
                while next < Offset(20) {
                    let from = FetchFrom::new("t", 0, Position::Offset(next));
                    next = client.fetch(from.into()).await.unwrap()[0].next_offset;
                }
            }
        };
        let taken = most_taken(&node, read_all).await;
        check_taken(
            taken,
            "1,000 subscriptions of one connection, at most",
            &[NODE, 2 * OWN_REPLIES, STREAM],
        );
    });
    assert_eq!(node.terminate(), 0);
}

#[test]
fn answers_that_nobody_reads() {
    const REQUESTS: usize = 15_000;
    let (_dir, node) = small();
    let produce = v1::ProduceRequest {
        topic: "t".into(),
        partition: Some(0),
        payload: Some(v1::produce_request::Payload::Records(v1::RecordSet {
            records: vec![v1::Record { value: Some("x".into()), ..v1::Record::default() }],
        })),
        acks: v1::Acks::Written.into(),
        ..v1::ProduceRequest::default()
    };
    let sent = v1::ProduceStreamRequest { request: Some(produce), ..v1::ProduceStreamRequest::default() };
    let requests = message(&sent.encode_to_vec()).repeat(REQUESTS);
    let fields = call("/logmill.v1.ProduceService/ProduceStream");
    run(async {
        let client = Client::connect(node.url()).await.unwrap();
        client.create_topic("t", Some(1)).await.unwrap();
        // As much as fits the windows of a connection: the answers alone would be hundreds of megabytes. What the node
        // sends is taken, and no window opened for more.
        let mut peer = Peer::connect(node.url());
        // The node's windows hold once its settings are acknowledged.
        assert!(peer.reads(|kind| kind == SETTINGS).is_some());
        assert_eq!(peer.send(&frame(SETTINGS, SETTINGS_ACK, 0, b"")), Ended::Taken);
        let mut takes = peer.0.try_clone().unwrap();
        let taking = tokio::task::spawn_blocking(move || io::copy(&mut takes, &mut io::sink()));
        let mut frames: Vec<Vec<u8>> = Vec::new();
        for stream in (1..40).step_by(2) {
            frames.push(frame(HEADERS, END_HEADERS, stream, &fields));
            frames.extend(requests.chunks(16_384).map(|part| frame(DATA, 0, stream, part)));
        }
        // A node may hold it back, and end it.
        let ended = frames.iter().map(|frame| peer.send(frame)).find(|ended| *ended != Ended::Taken);
        println!("streams whose answers nobody reads: {:?}", ended.unwrap_or(Ended::Taken));
        let taken = most_taken(&node, append(&client, "t", 2_000, 1_000)).await;
        let what = "300,000 requests whose answers nobody reads, at most";
        check_taken(taken, what, &[NODE, OWN_REPLIES, STREAM]);
        let _gone_already = peer.0.shutdown(Shutdown::Both);
        let _ended = taking.await.unwrap();
        append(&client, "t", 10, 1_000).await;
    });
    assert_eq!(node.terminate(), 0);
}

/// Two bytes each on the wire, and a hundred in memory: decoded, one message would be a third of a gigabyte.
#[test]
fn messages_of_nothing_but_empty_records() {
    const RECORDS: usize = 3_500_000;
    let (_dir, node) = small();
    let set = v1::RecordSet { records: vec![v1::Record::default(); RECORDS] };
    let payload = Some(v1::produce_request::Payload::Records(set));
    let request = v1::ProduceRequest { topic: "t".into(), payload, ..v1::ProduceRequest::default() };
    let bytes = message(&request.encode_to_vec());
    let url = node.url().to_owned();
    let refused = move || {
        for _ in 0..8 {
            let mut peer = Peer::connect(&url);
            let fields = call("/logmill.v1.ProduceService/Produce");
            assert_eq!(peer.send(&frame(HEADERS, END_HEADERS, 1, &fields)), Ended::Taken);
            // The call is refused before all of it has come, and the connection ends if one goes on all the same.
            let all = bytes.chunks(16_384).map(|part| frame(DATA, 0, 1, part));
            let _: Vec<_> =
                all.map(|part| peer.send(&part)).take_while(|ended| *ended == Ended::Taken).collect();
        }
    };
    run(async {
        let taken = most_taken(&node, async { tokio::task::spawn_blocking(refused).await.unwrap() }).await;
        check_taken(taken, "messages of 3,500,000 empty records, at most", &[NODE, REQUESTS]);
    });
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_producer_that_never_waits() {
    let (_dir, node) = small();
    run(async {
        let client = Client::connect(node.url()).await.unwrap();
        client.create_topic("t", Some(1)).await.unwrap();
        // One that keeps to HTTP/2's windows, and has a quarter of a gigabyte under way.
        let most = 1 << 30;
        let options =
            ProducerOptions { max_buffered_bytes: most, max_in_flight_bytes: most, ..Default::default() };
        let producer = client.producer(options).unwrap();
        let value = Bytes::from(vec![b'x'; 500_000]);
        for _ in 0..500 {
            drop(producer.send(ProducerRecord::new("t", value.clone())).await.unwrap());
        }
        let flushed = async { producer.flush().await.unwrap() };
        let taken = most_taken(&node, flushed).await;
        let bounds = [NODE, QUEUED, REQUESTS, STREAM];
        check_taken(taken, "a producer that never waits, a quarter of a gigabyte, at most", &bounds);
    });
    let records = v1::RecordSet {
        records: vec![v1::Record { value: Some(vec![b'x'; 500_000].into()), ..v1::Record::default() }],
    };
    let request = v1::ProduceRequest {
        topic: "t".into(),
        partition: Some(0),
        payload: Some(v1::produce_request::Payload::Records(records)),
        ..v1::ProduceRequest::default()
    };
    let sent = v1::ProduceStreamRequest { request: Some(request), ..v1::ProduceStreamRequest::default() };
    let bytes = message(&sent.encode_to_vec());
    let mut peer = Peer::connect(node.url());
    assert_eq!(
        peer.send(&frame(HEADERS, END_HEADERS, 1, &call("/logmill.v1.ProduceService/ProduceStream"))),
        Ended::Taken
    );
    // 300 MB, in frames that any server takes, and without a look at windows. The node resets the stream (RFC 9113,
    // 6.9.1) with the first frame beyond them, and drops what comes behind it.
    let ended = peer.flood(600, |_| bytes.chunks(16_384).flat_map(|part| frame(DATA, 0, 1, part)).collect());
    assert_ne!(ended, Ended::Cut, "the connection of other streams goes on");
    let told = peer.reads(|kind| kind == RST_STREAM || kind == GOAWAY).unwrap();
    assert_eq!((told.kind, told.stream, &told.payload[..]), (RST_STREAM, 1, &FLOW_CONTROL_ERROR[..]));
    check(&node, "a producer that minds no windows", &[NODE, QUEUED, REQUESTS, STREAM]);
    drop(peer);
    let program = logmill().at(node.url());
    program.ok_with(["produce", "t"], b"served\n");
    assert_eq!(node.terminate(), 0);
}
