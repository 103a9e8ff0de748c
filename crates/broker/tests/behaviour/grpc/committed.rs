//! Readers and transactions over `FetchService`: what comes decoded is what a reader of stored batches is left with.

use logmill_log::sim::SimRandom;
use logmill_log::{Log, LogOptions, LogSet, SetOptions};
use logmill_record::{
    Batch, BatchBuilder, BatchHeader, BatchOptions, ControlRecord, ControlType, NewRecord, TimestampMs,
};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v1::chunk::Data;
use v1::position::Edge;
use v1::subscribe_request::Request as Sent;
use v1::subscribe_response::Reply;
use v1::{Format, Isolation};

use super::*;
use crate::common::config;

fn batch(options: BatchOptions, values: &[String]) -> Batch {
    let mut builder = BatchBuilder::with_options(options, 0);
    for value in values {
        let value = Some(value.as_bytes());
        builder.push(&NewRecord { timestamp: TimestampMs(5), key: None, value, headers: &[] }).unwrap();
    }
    builder.build().unwrap()
}

fn in_transaction(producer: i64, sequence: i32, values: &[String]) -> Batch {
    batch(BatchOptions::new().producer(producer, 0, sequence).transactional(), values)
}

fn marker(producer: i64, kind: ControlType) -> Batch {
    ControlRecord { kind, coordinator_epoch: 1 }.batch(producer, 0, TimestampMs(6)).unwrap()
}

/// A node whose topic `t` has in its one partition what `fill` appends, and where the start has aborted what that
/// leaves open.
async fn holding(dir: &tempfile::TempDir, fill: impl FnOnce(&Log)) -> Served {
    let served = Served::start(config(dir)).await;
    served.create("t", 1).await;
    let described = v1::DescribeTopicRequest { name: "t".into() };
    let id = served.topics().describe_topic(described).await.unwrap().into_inner().topic.unwrap().topic_id;
    served.stop().await;
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.open_log(format!("topics/{id}/0"), LogOptions::default()).unwrap();
    fill(&log);
    drop(log);
    set.close().unwrap();
    Served::start(config(dir)).await
}

/// Offset and value of the records in a reply, of batches those that its reader is left with.
fn records(data: &v1::PartitionData) -> Vec<(i64, String)> {
    assert_eq!(data.error, None);
    let mut left = Vec::new();
    for chunk in &data.chunks {
        match chunk.data.clone() {
            Some(Data::Records(records)) => {
                assert_eq!(data.aborted, [], "the node has left them out");
                left.extend(records.records.iter().map(|it| (it.offset, text(it.value.as_deref()))));
            }
            Some(Data::Batches(mut batches)) => {
                while let Some(batch) = Batch::split_from(&mut batches).unwrap() {
                    if !is_left_out(batch.header(), &data.aborted) {
                        let records = batch.records().unwrap().map(Result::unwrap);
                        left.extend(records.map(|it| (it.offset.into(), text(it.value))));
                    }
                }
            }
            None => panic!("a chunk without data"),
        }
    }
    left
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8(value.unwrap().to_vec()).unwrap()
}

fn is_left_out(batch: &BatchHeader, aborted: &[v1::AbortedRange]) -> bool {
    let base = i64::from(batch.base_offset);
    let is_aborted = batch.attributes.is_transactional()
        && aborted.iter().any(|range| {
            range.producer_id == batch.producer_id && (range.first_offset..=range.last_offset).contains(&base)
        });
    is_aborted || batch.attributes.is_control()
}

fn request(next: i64, max_bytes: i32, format: Format, isolation: Isolation) -> v1::FetchRequest {
    v1::FetchRequest {
        partitions: vec![from("t", 0, at_offset(next))],
        max_bytes,
        format: format.into(),
        isolation: isolation.into(),
        ..v1::FetchRequest::default()
    }
}

/// All that a reader is left with, in replies of about so many bytes.
async fn read_all(
    served: &Served,
    max_bytes: i32,
    format: Format,
    isolation: Isolation,
) -> Vec<(i64, String)> {
    let (mut next, mut all) = (0, Vec::new());
    loop {
        let request = request(next, max_bytes, format, isolation);
        let data = served.fetches().fetch(request).await.unwrap().into_inner().partitions.remove(0);
        let behind =
            |range: &v1::AbortedRange| range.first_offset >= data.next_offset || range.last_offset < next;
        assert!(!data.aborted.iter().any(behind), "told of what has no records in the reply: {data:?}");
        // Of a batch that began before, what is there already.
        all.extend(records(&data).into_iter().filter(|(offset, _)| *offset >= next));
        if data.next_offset == next {
            let committed = isolation != Isolation::ReadUncommitted;
            assert_eq!(next, if committed { data.last_stable_offset } else { data.end_offset });
            return all;
        }
        next = data.next_offset;
    }
}

/// The same from a subscription.
async fn follow(served: &Served, end: i64, format: Format, isolation: Isolation) -> Vec<(i64, String)> {
    let (requests, outgoing) = mpsc::channel(16);
    let start = v1::SubscribeStart {
        partitions: vec![from("t", 0, at_edge(Edge::Earliest))],
        format: format.into(),
        isolation: isolation.into(),
        credit_bytes: 1 << 30,
    };
    requests.send(v1::SubscribeRequest { request: Some(Sent::Start(start)) }).await.unwrap();
    let mut replies = served.fetches().subscribe(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let (mut next, mut all) = (0, Vec::new());
    while next < end {
        match replies.message().await.unwrap().unwrap().reply {
            Some(Reply::Data(data)) => {
                assert!(data.next_offset > next);
                all.extend(records(&data).into_iter().filter(|(offset, _)| *offset >= next));
                next = data.next_offset;
            }
            other => assert!(matches!(other, Some(Reply::Started(_))), "{other:?}"),
        }
    }
    assert_eq!(next, end);
    all
}

/// What a producer of its own writes as part of a transaction; and that producer.
async fn write_in_transaction(served: &Served, id: &str, value: &str) -> v1::ProducerEpoch {
    let init = v1::InitTransactionsRequest { transactional_id: id.into(), timeout_ms: None };
    let begun = served.transactions().init_transactions(init).await.unwrap().into_inner();
    let v1::ProducerEpoch { id, epoch } = begun.producer.unwrap();
    let producer = Some(v1::ProducerState { id, epoch, base_sequence: 0, transactional: true });
    let request = v1::ProduceRequest { producer, ..super::records("t", Some(0), [value]) };
    served.produces().produce(request).await.unwrap();
    begun.producer.unwrap()
}

/// Leaves a transaction open in front of others' records, of which some are committed by a transaction.
async fn leave_open(served: &Served) {
    write_in_transaction(served, "open", "open").await;
    served.say("t", 0, "behind it").await;
    let producer = Some(write_in_transaction(served, "committed", "behind it, too").await);
    let (transactional_id, outcome) = ("committed".into(), v1::Outcome::Commit.into());
    let end = v1::EndTransactionRequest { transactional_id, producer, outcome };
    served.transactions().end_transaction(end).await.unwrap();
}

/// Appends random transactions; returns what readers of committed records are to see when the start has aborted those
/// that are open, and where the log ends then.
fn random_transactions(log: &Log, random: &SimRandom) -> (Vec<(i64, String)>, i64) {
    // Of each producer its next sequence, and the records of its open transaction.
    let mut producers: [(i32, Vec<(i64, String)>); 3] = Default::default();
    let mut committed = Vec::new();
    for _ in 0..80 {
        let end = i64::from(log.written_end());
        let values: Vec<String> = (0..=random.below(3)).map(|i| format!("value {i} at {end}")).collect();
        let new = (end..).zip(values.clone());
        let number = usize::try_from(random.below(3)).unwrap();
        let id = i64::try_from(number).unwrap();
        let (sequence, open) = &mut producers[number];
        let batch = match random.below(4) {
            0 => {
                committed.extend(new);
                batch(BatchOptions::new(), &values)
            }
            1 if !open.is_empty() => {
                let is_commit = random.one_in(2);
                committed.extend(open.drain(..).filter(|_| is_commit));
                marker(id, if is_commit { ControlType::Commit } else { ControlType::Abort })
            }
            _ => {
                let batch = in_transaction(id, *sequence, &values);
                open.extend(new);
                *sequence += i32::try_from(values.len()).unwrap();
                batch
            }
        };
        drop(log.append(&[batch]).unwrap());
    }
    let markers = producers.iter().filter(|(_, open)| !open.is_empty()).count();
    committed.sort_unstable();
    (committed, i64::from(log.written_end()) + i64::try_from(markers).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_with_the_aborted_left_out_are_the_records_that_come_decoded() {
    for seed in 0..6 {
        let random = SimRandom::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let (mut committed, mut stable) = (Vec::new(), 0);
        let served = holding(&dir, |log| (committed, stable) = random_transactions(log, &random)).await;
        leave_open(&served).await;
        let end = read_all(&served, 0, Format::Records, Isolation::ReadUncommitted).await;
        for max_bytes in [1, 500, 0] {
            for format in [Format::Unspecified, Format::Records, Format::Batches] {
                for isolation in [Isolation::Unspecified, Isolation::ReadCommitted] {
                    let read = read_all(&served, max_bytes, format, isolation).await;
                    assert_eq!(read, committed, "seed {seed}: {max_bytes} bytes, {format:?}, {isolation:?}");
                }
                let read = read_all(&served, max_bytes, format, Isolation::ReadUncommitted).await;
                assert_eq!(read, end, "seed {seed}: {max_bytes} bytes, {format:?}, uncommitted");
            }
        }
        for format in [Format::Records, Format::Batches] {
            let read = follow(&served, stable, format, Isolation::Unspecified).await;
            assert_eq!(read, committed, "seed {seed}: subscribed, {format:?}");
        }
        served.stop().await;
    }
}

/// What is told of them counts: left out of account, it would carry a reply that is full past what clients accept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_with_many_aborted_transactions_stays_within_what_clients_accept() {
    const LONG_ONES: i64 = 9_000;
    const SHORT_ONES: i32 = 80;
    let dir = tempfile::tempdir().unwrap();
    let fill = |log: &Log| {
        let (value, large) = (["v".to_owned()], ["x".repeat(100_000)]);
        let append = |batches: Vec<Batch>| drop(log.append(&batches).unwrap());
        let long_ones: Vec<i64> = (1..=LONG_ONES).map(|number| (1 << 60) + number).collect();
        for ids in long_ones.chunks(1_000) {
            append(ids.iter().map(|id| in_transaction(*id, 0, &value)).collect());
        }
        for sequence in 0..SHORT_ONES {
            let short_one = in_transaction(0, sequence, &value);
            append(vec![batch(BatchOptions::new(), &large), short_one, marker(0, ControlType::Abort)]);
        }
        for ids in long_ones.chunks(1_000) {
            append(ids.iter().map(|id| marker(*id, ControlType::Abort)).collect());
        }
    };
    let served = holding(&dir, fill).await;
    let (mut next, mut replies, mut values) = (0, Vec::new(), 0);
    while next < 2 * LONG_ONES + 3 * i64::from(SHORT_ONES) {
        let request = request(next, i32::MAX, Format::Batches, Isolation::ReadCommitted);
        let reply = served.fetches().fetch(request).await.unwrap().into_inner();
        let data = &reply.partitions[0];
        let told_ahead = data.aborted.iter().any(|range| range.first_offset >= data.next_offset);
        assert!(data.next_offset > next && !told_ahead);
        (next, values) = (data.next_offset, values + records(data).len());
        replies.push(reply.encoded_len());
    }
    assert_eq!(values, usize::try_from(SHORT_ONES).unwrap());
    assert!(replies.iter().all(|length| *length < 3_910_000), "{replies:?}");
    assert!(replies.iter().any(|length| *length > 3_700_000), "one was full: {replies:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_latest_offset_is_that_of_the_reader_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    served.say("t", 0, "a").await;
    write_in_transaction(&served, "open", "open").await;
    let latest = at_edge(Edge::Latest);
    for (isolation, offset) in
        [(Isolation::Unspecified, 1), (Isolation::ReadCommitted, 1), (Isolation::ReadUncommitted, 2)]
    {
        let positions = vec![v1::PartitionPosition { partition: 0, position: latest }];
        let request = v1::ListOffsetsRequest { topic: "t".into(), positions, isolation: isolation.into() };
        let found = served.topics().list_offsets(request).await.unwrap().into_inner();
        assert_eq!(found.offsets[0].offset, offset, "{isolation:?}");
    }
    served.stop().await;
}
