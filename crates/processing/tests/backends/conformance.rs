//! What the engine relies on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use logmill_broker::{
    Acks, InitTransactions, Outcome, Payload, Produce, ProduceRecord, ProducerEpoch, ProducerSequence,
    RequestContext,
};
use logmill_processing::backend::{Backend, BackendErrorKind, FetchFrom, Fetched, TopicSpec};
use logmill_processing::{Offset, TimestampMs};
use logmill_record::{Batch, BatchBuilder, NewRecord};

use crate::node::Node;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_in_the_same_process_conforms() {
    let node = Node::embedded();
    conforms(&node).await;
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_over_the_network_conforms() {
    let node = Node::remote().await;
    conforms(&node).await;
    node.close().await;
}

async fn conforms(node: &Node) {
    let backend = &*node.backend;
    topics_are_made_once_and_described(node).await;
    batches_are_appended_in_order_and_read_back(backend).await;
    a_fetch_says_where_each_partition_stands(backend).await;
    a_fetch_waits_for_records(node).await;
    records_of_aborted_and_open_transactions_are_not_there(node).await;
    a_fetch_is_bounded_and_never_stuck(backend).await;
    what_cannot_be_done_is_told_apart(backend).await;
}

fn spec(name: &str, partitions: Option<u32>) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, internal: false }
}

fn batch(values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::new();
    for value in values {
        let (timestamp, value) = (TimestampMs(5), Some(value.as_bytes()));
        builder.push(&NewRecord { timestamp, key: None, value, headers: &[] }).unwrap();
    }
    builder.build().unwrap()
}

fn from(topic: &str, partition: u32, offset: u64) -> FetchFrom {
    FetchFrom { topic: topic.to_owned(), partition, offset: Offset(offset) }
}

/// Offset and value of every record that was fetched, from `offset` on.
fn records(fetched: &Fetched, offset: u64) -> Vec<(u64, String)> {
    let mut records = Vec::new();
    for chunk in &fetched.chunks {
        let mut run = chunk.batches.clone();
        while let Some(batch) = Batch::split_from(&mut run).unwrap() {
            if batch.header().attributes.is_control() {
                continue;
            }
            for record in batch.records().unwrap().map(Result::unwrap) {
                let value = String::from_utf8_lossy(record.value.unwrap()).into_owned();
                records.push((record.offset.get(), value));
            }
        }
    }
    records.retain(|(at, _)| *at >= offset);
    records
}

async fn fetch(backend: &dyn Backend, place: FetchFrom) -> Fetched {
    let mut answers = backend.fetch(&[place], 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn topics_are_made_once_and_described(node: &Node) {
    let backend = &*node.backend;
    backend.ensure_topics(&[spec("made", Some(3)), spec("default", None)]).await.unwrap();
    backend.ensure_topics(&[spec("made", Some(7))]).await.unwrap();
    let made = backend.describe("made").await.unwrap();
    let partitions: Vec<_> = made.partitions.iter().map(|state| state.partition).collect();
    assert_eq!(partitions, [0, 1, 2], "what exists is left as it is");
    assert!(made.partitions.iter().all(|state| state.start_offset == state.stable_end));
    assert!(!backend.describe("default").await.unwrap().partitions.is_empty());

    backend.ensure_topics(&[spec("again", Some(1))]).await.unwrap();
    let first = backend.describe("again").await.unwrap().topic_id;
    assert_eq!(first, backend.describe("again").await.unwrap().topic_id);
    node.broker.delete_topic(&RequestContext::embedded(), "again").await.unwrap();
    backend.ensure_topics(&[spec("again", Some(1))]).await.unwrap();
    assert_ne!(first, backend.describe("again").await.unwrap().topic_id, "an id is never used again");
}

async fn batches_are_appended_in_order_and_read_back(backend: &dyn Backend) {
    backend.ensure_topics(&[spec("order", Some(2))]).await.unwrap();
    for number in 0..20 {
        let value = format!("v{number}");
        let at = backend.produce("order", 1, batch(&[&value, &value])).await.unwrap();
        assert_eq!(at, Offset(2 * number), "the offset of the first record");
    }
    let fetched = fetch(backend, from("order", 1, 0)).await;
    let expected: Vec<_> = (0..40).map(|offset| (offset, format!("v{}", offset / 2))).collect();
    assert_eq!(records(&fetched, 0), expected);
    assert_eq!(fetched.next_offset, Offset(40));
    let state = backend.describe("order").await.unwrap().partitions[1];
    assert_eq!(state.stable_end, Offset(40), "what is acknowledged can be read");

    let middle = fetch(backend, from("order", 1, 7)).await;
    assert_eq!(records(&middle, 7), expected[7..], "a batch comes whole, also if only its end is wanted");

    #[expect(clippy::disallowed_methods, reason = "compared with what a real node says")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let appended_at = u128::try_from(fetched.chunks[0].appended_at.get()).unwrap();
    assert!(now.abs_diff(appended_at) < 60_000);
    assert!(!fetched.chunks[0].appended_at_estimated);
}

async fn a_fetch_says_where_each_partition_stands(backend: &dyn Backend) {
    let places = [from("order", 0, 0), from("made", 2, 0), from("order", 1, 40)];
    let answers = backend.fetch(&places, 1 << 20, Duration::ZERO).await.unwrap();
    let stand: Vec<_> = answers
        .iter()
        .map(|answer| {
            let (next, end) = (answer.next_offset.get(), answer.stable_end.get());
            (answer.topic.as_str(), answer.partition, next, end, answer.chunks.len())
        })
        .collect();
    assert_eq!(stand, [("order", 0, 0, 0, 0), ("made", 2, 0, 0, 0), ("order", 1, 40, 40, 0)]);
}

async fn a_fetch_waits_for_records(node: &Node) {
    let backend = &*node.backend;
    #[expect(clippy::disallowed_methods, reason = "a real node waits in real time")]
    let started = std::time::Instant::now();
    backend.fetch(&[from("order", 0, 0)], 1 << 20, Duration::from_millis(100)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(90), "{:?}", started.elapsed());

    let waiting = backend.fetch(&[from("order", 0, 0), from("made", 0, 0)], 1 << 20, Duration::from_secs(30));
    let produced = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        backend.produce("order", 0, batch(&["late"])).await.unwrap();
    };
    let (answers, ()) = tokio::join!(waiting, produced);
    assert_eq!(records(&answers.unwrap()[0], 0), [(0, "late".to_owned())]);
    assert!(started.elapsed() < Duration::from_secs(20), "it does not wait out its time");
}

async fn records_of_aborted_and_open_transactions_are_not_there(node: &Node) {
    let backend = &*node.backend;
    backend.ensure_topics(&[spec("transactions", Some(1))]).await.unwrap();
    let context = RequestContext::embedded();
    let begin = node.broker.init_transactions(&context, InitTransactions::new("id"));
    let mut producer = begin.await.unwrap();
    let say = async |producer: ProducerEpoch, value: &str| {
        let of = ProducerSequence { id: producer.id, epoch: producer.epoch, base_sequence: 0 };
        let record = ProduceRecord { value: Some(value.to_owned().into()), ..ProduceRecord::default() };
        let payload = Payload::InTransaction(of, vec![record]);
        let (topic, acks) = ("transactions".to_owned(), Acks::Durable);
        let produce = Produce { topic, partition: Some(0), payload, acks, sent_at: None };
        node.broker.produce(&context, produce).await.unwrap().remove(0).outcome.unwrap();
    };
    backend.produce("transactions", 0, batch(&["before"])).await.unwrap();
    for (value, outcome) in [("aborted", Outcome::Abort), ("committed", Outcome::Commit)] {
        say(producer, value).await;
        producer = node.broker.end_transaction(&context, "id", producer, outcome).await.unwrap();
    }
    backend.produce("transactions", 0, batch(&["between"])).await.unwrap();
    say(producer, "open").await;
    backend.produce("transactions", 0, batch(&["behind"])).await.unwrap();

    let fetched = fetch(backend, from("transactions", 0, 0)).await;
    let there = records(&fetched, 0);
    let expected = [(0, "before"), (3, "committed"), (5, "between")];
    assert_eq!(there, expected.map(|(offset, value)| (offset, value.to_owned())));
    assert_eq!((fetched.next_offset, fetched.stable_end), (Offset(6), Offset(6)));
    let end = async || backend.describe("transactions").await.unwrap().partitions[0].stable_end;
    assert_eq!(end().await, Offset(6), "an open transaction holds it back");
    node.broker.end_transaction(&context, "id", producer, Outcome::Abort).await.unwrap();
    let fetched = fetch(backend, from("transactions", 0, 6)).await;
    assert_eq!(records(&fetched, 6), [(7, "behind".to_owned())]);
    assert_eq!((fetched.next_offset, end().await), (Offset(9), Offset(9)));
}

async fn a_fetch_is_bounded_and_never_stuck(backend: &dyn Backend) {
    backend.ensure_topics(&[spec("large", Some(2))]).await.unwrap();
    let value = "x".repeat(10_000);
    for partition in 0..2 {
        for _ in 0..5 {
            backend.produce("large", partition, batch(&[&value])).await.unwrap();
        }
    }
    let places = [from("large", 0, 0), from("large", 1, 0)];
    let answers = backend.fetch(&places, 25_000, Duration::ZERO).await.unwrap();
    let bytes: usize =
        answers.iter().flat_map(|answer| &answer.chunks).map(|chunk| chunk.batches.len()).sum();
    assert!((10_000..=35_000).contains(&bytes), "{bytes}");

    // The first batch comes though it is larger than the limit; this way everything is read in the end.
    let mut next = [0, 0];
    for _ in 0..100 {
        let places = [from("large", 0, next[0]), from("large", 1, next[1])];
        for (next, answer) in next.iter_mut().zip(backend.fetch(&places, 1, Duration::ZERO).await.unwrap()) {
            *next = answer.next_offset.get();
        }
    }
    assert_eq!(next, [5, 5]);
}

async fn what_cannot_be_done_is_told_apart(backend: &dyn Backend) {
    let kind_of_fetch = async |topic: &str, partition, offset| {
        let places = [from("made", 0, 0), from(topic, partition, offset)];
        let answer = backend.fetch(&places, 1 << 20, Duration::from_millis(10)).await;
        answer.unwrap_err().kind()
    };
    assert_eq!(kind_of_fetch("nowhere", 0, 0).await, BackendErrorKind::NotFound);
    assert_eq!(kind_of_fetch("order", 9, 0).await, BackendErrorKind::NotFound);
    assert_eq!(kind_of_fetch("order", 1, 41).await, BackendErrorKind::OutOfRange);

    assert_eq!(backend.describe("nowhere").await.unwrap_err().kind(), BackendErrorKind::NotFound);
    let kind = backend.produce("nowhere", 0, batch(&["v"])).await.unwrap_err().kind();
    assert_eq!(kind, BackendErrorKind::NotFound);
    let large = batch(&[&"x".repeat(70_000)]);
    let error = backend.produce("order", 0, large).await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::TooLarge, "{error}");
    let error = backend.ensure_topics(&[spec("../x", None)]).await.unwrap_err();
    assert_eq!(error.kind(), BackendErrorKind::Invalid);
}
