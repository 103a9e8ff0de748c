//! `FetchService`.

use std::time::Duration;

use logmill_record::{Batch, BatchBuilder, BatchOptions, Compression, NewRecord, TimestampMs};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use v1::chunk::Data;
use v1::position::Edge;
use v1::subscribe_request::Request as Sent;
use v1::subscribe_response::Reply;

use super::*;
use crate::common::{batch, config};

fn fetch(partitions: Vec<v1::FetchPartition>) -> v1::FetchRequest {
    v1::FetchRequest { partitions, ..v1::FetchRequest::default() }
}

/// Offsets and values of decoded records.
fn decoded(data: &v1::PartitionData) -> Vec<(i64, String)> {
    assert_eq!(data.error, None);
    let records = data.chunks.iter().flat_map(|chunk| match &chunk.data {
        Some(Data::Records(records)) => records.records.clone(),
        other => panic!("{other:?}"),
    });
    records
        .map(|record| {
            (record.offset, String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned())
        })
        .collect()
}

async fn append(served: &Served, partition: i32, values: &[&str]) {
    append_batch(served, partition, batch(values)).await;
}

async fn append_batch(served: &Served, partition: i32, batch: Batch) {
    let request = v1::ProduceRequest {
        topic: "t".into(),
        partition: Some(partition),
        payload: Some(v1::produce_request::Payload::Batch(batch.bytes().clone())),
        ..v1::ProduceRequest::default()
    };
    served.produces().produce(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_decoded_from_the_offset_asked_for_or_as_they_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    append(&served, 0, &["a", "b", "c"]).await;
    append(&served, 0, &["d"]).await;
    let mut fetches = served.fetches();
    let request = fetch(vec![from("t", 0, at_offset(1))]);
    let data = fetches.fetch(request.clone()).await.unwrap().into_inner().partitions.remove(0);
    assert_eq!(decoded(&data), [(1, "b".into()), (2, "c".into()), (3, "d".into())]);
    assert_eq!((data.start_offset, data.end_offset, data.next_offset), (0, 4, 4));
    let Some(Data::Records(records)) = &data.chunks[0].data else { panic!("{data:?}") };
    assert_eq!(records.records[0].timestamp_ms, 1_000);
    assert_eq!(records.records[0].timestamp_type(), v1::TimestampType::CreateTime);
    assert!(data.chunks[0].appended_at_ms > 1_700_000_000_000);

    let request = v1::FetchRequest { format: v1::Format::Batches.into(), ..request };
    let data = fetches.fetch(request).await.unwrap().into_inner().partitions.remove(0);
    let mut bases = Vec::new();
    for chunk in data.chunks {
        let Some(Data::Batches(mut batches)) = chunk.data else { panic!("batches were asked for") };
        while let Some(batch) = Batch::split_from(&mut batches).unwrap() {
            bases.push(batch.header().base_offset.get());
        }
    }
    assert_eq!(bases, [0, 3]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_make_no_sense_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let mut fetches = served.fetches();
    let good = || fetch(vec![from("t", 0, at_offset(0))]);
    let partition = |change: fn(&mut v1::FetchPartition)| {
        let mut request = good();
        change(&mut request.partitions[0]);
        request
    };
    let cases = [
        (fetch(Vec::new()), "partitions"),
        (fetch(vec![from("t", 0, at_offset(0)), from("t", 0, at_offset(0))]), "partitions"),
        (v1::FetchRequest { max_bytes: -1, ..good() }, "max_bytes"),
        (v1::FetchRequest { min_bytes: i32::MIN, ..good() }, "min_bytes"),
        (v1::FetchRequest { max_wait_ms: -1, ..good() }, "max_wait_ms"),
        (v1::FetchRequest { max_wait_ms: 60_001, ..good() }, "max_wait_ms"),
        (v1::FetchRequest { max_wait_ms: i32::MAX, ..good() }, "max_wait_ms"),
        (v1::FetchRequest { format: 9, ..good() }, "format"),
        (v1::FetchRequest { isolation: -9, ..good() }, "isolation"),
        (partition(|from| from.partition = -1), "partition"),
        (partition(|from| from.max_bytes = -1), "max_bytes"),
        (partition(|from| from.last_epoch = Some(-1)), "last_epoch"),
        (partition(|from| from.topic_id = Some("t".into())), "topic_id"),
        (partition(|from| from.position = None), "position"),
        (partition(|from| from.position = at_offset(i64::MIN)), "offset"),
        (partition(|from| from.position = at_edge(Edge::Unspecified)), "edge"),
    ];
    for (request, field) in cases {
        let status = fetches.fetch(request.clone()).await.expect_err(field);
        assert_eq!(invalid_field(&status), field, "{request:?}");
    }
    let huge = v1::FetchRequest { max_bytes: i32::MAX, min_bytes: i32::MAX, ..good() };
    assert!(fetches.fetch(huge).await.unwrap().into_inner().partitions[0].error.is_none());
    let outside = fetch(vec![from("t", 0, at_offset(1)), from("t", i32::MAX, at_offset(0))]);
    let data = fetches.fetch(outside).await.unwrap().into_inner().partitions;
    let error = data[0].error.as_ref().unwrap();
    assert_eq!((error.code, error.reason.as_str()), (Code::OutOfRange as i32, "OFFSET_OUT_OF_RANGE"));
    assert_eq!(error.metadata["end_offset"], "0");
    assert_eq!(data[1].error.as_ref().unwrap().reason, "PARTITION_NOT_FOUND");
    served.stop().await;
}

/// The default limit of gRPC clients is 4 MiB; records so small take far more in a message than in a batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_stays_under_what_clients_accept_and_nothing_is_lost_at_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 2).await;
    let tiny = vec!["x"; 100_000];
    for _ in 0..3 {
        append(&served, 0, &tiny).await;
        append(&served, 1, &tiny).await;
    }
    let mut fetches = served.fetches();
    let mut next = [0, 0];
    let mut replies = 0;
    while next != [300_000, 300_000] {
        let partitions = (0..2).map(|p| from("t", p, at_offset(next[usize::try_from(p).unwrap()]))).collect();
        let request = v1::FetchRequest { max_bytes: i32::MAX, ..fetch(partitions) };
        let reply = fetches.fetch(request).await.unwrap().into_inner();
        assert!(reply.encoded_len() < 4_000_000, "{} bytes", reply.encoded_len());
        for (next, data) in next.iter_mut().zip(&reply.partitions) {
            let read = decoded(data);
            assert!(read.iter().map(|(offset, _)| *offset).eq(*next..data.next_offset));
            *next = data.next_offset;
        }
        replies += 1;
    }
    assert!((3..20).contains(&replies), "{replies}");
    served.stop().await;
}

/// Each start of the node has an epoch of its own, so that a wrong one would be answered with `LOG_TRUNCATED`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_is_cut_tells_the_epoch_of_the_record_before_the_cut() {
    const EACH: i64 = 60_000;
    let dir = tempfile::tempdir().unwrap();
    let mut epochs = Vec::new();
    for round in 0..4 {
        let served = Served::start(config(&dir)).await;
        if round == 0 {
            served.create("t", 1).await;
        }
        append(&served, 0, &vec!["x"; usize::try_from(EACH).unwrap()]).await;
        let node = served.nodes().describe_node(v1::DescribeNodeRequest {}).await.unwrap().into_inner();
        epochs.push(node.leader_epoch);
        served.stop().await;
    }
    let served = Served::start(config(&dir)).await;
    let (mut next, mut last_epoch, mut cuts) = (0, None, 0);
    while next < 4 * EACH {
        let asked = v1::FetchPartition { last_epoch, ..from("t", 0, at_offset(next)) };
        let request = v1::FetchRequest { max_bytes: i32::MAX, ..fetch(vec![asked]) };
        let data = served.fetches().fetch(request).await.unwrap().into_inner().partitions.remove(0);
        assert_eq!(data.error, None);
        (next, last_epoch) = (data.next_offset, data.last_epoch);
        assert_eq!(last_epoch, Some(epochs[usize::try_from((next - 1) / EACH).unwrap()]), "before {next}");
        assert_eq!((data.last_stable_offset, data.aborted), (4 * EACH, Vec::new()));
        cuts += usize::from(next % EACH != 0);
    }
    assert!(cuts > 0, "some reply ended inside a batch");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold_record_by_record_and_the_first_always_comes() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(Config { max_message_bytes: 8_000_000, ..config(&dir) }).await;
    served.create("t", 1).await;
    let values: Vec<String> = (0..10).map(|i| i.to_string().repeat(100)).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    append(&served, 0, &values).await;
    let mut fetches = served.fetches();
    let read = |max_bytes, offset| {
        let request = v1::FetchRequest { max_bytes, ..fetch(vec![from("t", 0, at_offset(offset))]) };
        let mut fetches = fetches.clone();
        async move { fetches.fetch(request).await.unwrap().into_inner().partitions.remove(0) }
    };
    let data = read(1, 3).await;
    assert_eq!((decoded(&data).len(), data.next_offset), (1, 4));
    let data = read(350, 4).await;
    assert_eq!((decoded(&data).len(), data.next_offset), (3, 7));
    let data = read(350, 9).await;
    assert_eq!((decoded(&data).len(), data.next_offset), (1, 10));

    // A record beyond what clients accept goes alone, to those who accept it.
    let huge = "h".repeat(5_000_000);
    append(&served, 0, &[&huge, "after"]).await;
    let request = fetch(vec![from("t", 0, at_offset(10))]);
    assert_eq!(fetches.fetch(request.clone()).await.unwrap_err().code(), Code::OutOfRange);
    let mut large = served.fetches().max_decoding_message_size(16 << 20);
    let data = large.fetch(request).await.unwrap().into_inner().partitions.remove(0);
    assert_eq!(decoded(&data), [(10, huge)]);
    assert_eq!(data.next_offset, 11);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_is_woken_and_one_that_is_cancelled_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let limits = logmill_broker::Limits { max_waiting_fetches: 1, ..logmill_broker::Limits::default() };
    let served = Served::start(Config { limits, ..config(&dir) }).await;
    served.create("t", 1).await;
    let poll = || {
        let mut fetches = served.fetches();
        let partitions = vec![from("t", 0, at_edge(Edge::Latest))];
        let request = v1::FetchRequest { max_wait_ms: 30_000, ..fetch(partitions) };
        async move { fetches.fetch(request).await }
    };
    let cancelled = tokio::time::timeout(Duration::from_millis(200), poll()).await;
    assert!(cancelled.is_err());
    // Only one may wait, so this one would be refused if the other were still there.
    let mut attempts = 0;
    loop {
        let say = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            served.say("t", 0, "news").await;
        };
        let (outcome, ()) = tokio::join!(poll(), say);
        match outcome {
            Ok(reply) => {
                let data = reply.into_inner().partitions.remove(0);
                assert_eq!(decoded(&data)[0].1, "news");
                break;
            }
            // The cancellation is still on its way.
            Err(status) => assert_eq!(reason(&status).1, "LIMIT_EXCEEDED"),
        }
        attempts += 1;
        assert!(attempts < 20, "the cancelled one never went");
    }
    served.stop().await;
}

struct Subscribed {
    requests: mpsc::Sender<v1::SubscribeRequest>,
    replies: Streaming<v1::SubscribeResponse>,
}

fn start(partitions: Vec<v1::FetchPartition>, credit_bytes: i64) -> v1::SubscribeStart {
    v1::SubscribeStart { partitions, credit_bytes, ..v1::SubscribeStart::default() }
}

impl Subscribed {
    async fn open(served: &Served, first: Option<Sent>) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(16);
        requests.send(v1::SubscribeRequest { request: first }).await.unwrap();
        let replies = served.fetches().subscribe(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { requests, replies })
    }

    async fn grant(&self, bytes: i64) {
        let request = Some(Sent::Credit(v1::SubscribeCredit { bytes }));
        self.requests.send(v1::SubscribeRequest { request }).await.unwrap();
    }

    async fn reply(&mut self) -> Result<Option<Reply>, Status> {
        Ok(self.replies.message().await?.and_then(|reply| reply.reply))
    }

    async fn data(&mut self) -> v1::PartitionData {
        match self.reply().await.unwrap() {
            Some(Reply::Data(data)) => data,
            other => panic!("{other:?}"),
        }
    }

    async fn nothing_comes(&mut self) {
        let reply = tokio::time::timeout(Duration::from_millis(200), self.reply()).await;
        assert!(reply.is_err(), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_starts_goes_on_and_keeps_to_its_credit() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 2).await;
    append(&served, 1, &["ten bytes!"; 5]).await;
    let partitions = vec![from("t", 0, at_edge(Edge::Earliest)), from("t", 1, at_offset(2))];
    let mut subscribed = Subscribed::open(&served, Some(Sent::Start(start(partitions, 1)))).await.unwrap();
    let Some(Reply::Started(started)) = subscribed.reply().await.unwrap() else {
        panic!("started comes first")
    };
    let places: Vec<_> = started
        .partitions
        .iter()
        .map(|data| (data.partition, data.start_offset, data.end_offset, data.next_offset, data.chunks.len()))
        .collect();
    assert_eq!(places, [(0, 0, 0, 0, 0), (1, 0, 5, 2, 0)]);
    let data = subscribed.data().await;
    assert_eq!(decoded(&data).iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [2, 3, 4]);

    // Three records of ten bytes came for a credit of one.
    served.say("t", 0, "more").await;
    subscribed.nothing_comes().await;
    subscribed.grant(29).await;
    subscribed.nothing_comes().await;
    subscribed.grant(1).await;
    assert_eq!(decoded(&subscribed.data().await), [(0, "more".into())]);

    // Who grants no more and has nothing left is done.
    drop(subscribed.requests);
    assert!(subscribed.replies.message().await.unwrap().is_none());
    served.stop().await;
}

/// Stored, such a batch is a few hundred bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_were_compressed_count_as_the_reader_sees_them() {
    const EACH: i64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let options = BatchOptions::new().compression(Compression::Zstd);
    for _ in 0..3 {
        let mut batch = BatchBuilder::with_options(options, 0);
        for _ in 0..100 {
            let value = vec![b'x'; usize::try_from(EACH / 100).unwrap()];
            let record =
                NewRecord { timestamp: TimestampMs(5), key: None, value: Some(&value), headers: &[] };
            batch.push(&record).unwrap();
        }
        append_batch(&served, 0, batch.build().unwrap()).await;
    }
    let all = start(vec![from("t", 0, at_edge(Edge::Earliest))], 1);
    let mut subscribed = Subscribed::open(&served, Some(Sent::Start(all))).await.unwrap();
    subscribed.reply().await.unwrap();
    assert_eq!(decoded(&subscribed.data().await).len(), 100);
    // The first came for a credit of one; what it was more is owed.
    subscribed.grant(EACH - 1).await;
    subscribed.nothing_comes().await;
    subscribed.grant(1).await;
    assert_eq!(decoded(&subscribed.data().await).len(), 100);
    subscribed.grant(EACH / 2).await;
    subscribed.nothing_comes().await;
    drop(subscribed);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_splits_what_does_not_fit_a_reply() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let tiny = vec![""; 110_000];
    for _ in 0..3 {
        append(&served, 0, &tiny).await;
    }
    let start = start(vec![from("t", 0, at_edge(Edge::Earliest))], i64::MAX);
    let mut subscribed = Subscribed::open(&served, Some(Sent::Start(start))).await.unwrap();
    subscribed.reply().await.unwrap();
    let mut next = 0;
    while next < 330_000 {
        let data = subscribed.data().await;
        assert!(data.encoded_len() < 4_000_000);
        assert!(decoded(&data).into_iter().map(|(offset, _)| offset).eq(next..data.next_offset));
        next = data.next_offset;
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_starts_badly_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let here = || vec![from("t", 0, at_offset(0))];
    let cases = [
        (None, "start"),
        (Some(Sent::Credit(v1::SubscribeCredit { bytes: 5 })), "start"),
        (Some(Sent::Start(start(here(), 0))), "credit_bytes"),
        (Some(Sent::Start(start(here(), -1))), "credit_bytes"),
        (Some(Sent::Start(start(Vec::new(), 1))), "partitions"),
        (Some(Sent::Start(start(vec![from("t", 0, None)], 1))), "position"),
        (Some(Sent::Start(v1::SubscribeStart { format: 7, ..start(here(), 1) })), "format"),
    ];
    for (first, field) in cases {
        let status = Subscribed::open(&served, first).await.map(|_| ()).expect_err(field);
        assert_eq!(invalid_field(&status), field);
    }

    for (later, field) in [
        (Some(Sent::Start(start(here(), 1))), "credit"),
        (None, "credit"),
        (Some(Sent::Credit(v1::SubscribeCredit { bytes: 0 })), "bytes"),
        (Some(Sent::Credit(v1::SubscribeCredit { bytes: i64::MIN })), "bytes"),
    ] {
        let mut subscribed = Subscribed::open(&served, Some(Sent::Start(start(here(), 1)))).await.unwrap();
        subscribed.reply().await.unwrap();
        subscribed.requests.send(v1::SubscribeRequest { request: later }).await.unwrap();
        assert_eq!(invalid_field(&subscribed.reply().await.unwrap_err()), field);
    }

    let nowhere = vec![from("nowhere", 0, at_offset(0))];
    let mut subscribed = Subscribed::open(&served, Some(Sent::Start(start(nowhere, 1)))).await.unwrap();
    let Some(Reply::Started(started)) = subscribed.reply().await.unwrap() else {
        panic!("started comes first")
    };
    assert_eq!(started.partitions[0].error.as_ref().unwrap().reason, "TOPIC_NOT_FOUND");
    assert_eq!(subscribed.reply().await.unwrap_err().code(), Code::NotFound);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_reply_never_sends_a_reader_back_into_a_batch() {
    const ROOM: usize = 3_900_000;
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 2).await;
    append(&served, 1, &["a", "b", "c"]).await;
    // So much in partition 0 that the request has room for both and the reply, with what is around them, not.
    let size = |value: &str| batch([value]).bytes().len();
    let big = "x".repeat(900_000);
    let around = size(&big) - big.len();
    let rest = ROOM - batch(["a", "b", "c"]).bytes().len() - 4 * size(&big) - around;
    for value in [&big, &big, &big, &big, &"x".repeat(rest)] {
        append(&served, 0, &[value]).await;
    }
    let mut fetches = served.fetches();
    let mut left_out = 0;
    // The partitions take turns in being read first.
    for _ in 0..2 {
        let request = v1::FetchRequest {
            format: v1::Format::Batches.into(),
            max_bytes: i32::try_from(ROOM).unwrap(),
            ..fetch(vec![from("t", 0, at_offset(0)), from("t", 1, at_offset(2))])
        };
        let reply = fetches.fetch(request).await.unwrap().into_inner();
        let data = reply.partitions.iter().find(|data| data.partition == 1).unwrap();
        assert!(data.next_offset >= 2, "asked for 2, and to go on at {}", data.next_offset);
        left_out += i32::from(data.chunks.is_empty());
    }
    assert!(left_out > 0, "the case did not come about");
    served.stop().await;
}
