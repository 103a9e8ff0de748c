//! Reading from a real node.

use std::time::Duration;

use logmill_client::{
    Client, Error, ErrorKind, Fetch, FetchFrom, Isolation, PartitionData, Position, ProducerOptions,
    ProducerRecord, Subscribe, TransactionalOptions, TransactionalProducer,
};
use logmill_record::{Offset, TimestampMs};
use tokio::time::{Instant, timeout};

use super::{Node, SOON};

/// Records 0 to `count`, a second apart, in batches of ten.
async fn fill(client: &Client, count: u32) {
    let producer = client.producer(ProducerOptions::default()).unwrap();
    for i in 0..count {
        let at = TimestampMs(i64::from(i) * 1_000);
        let record = ProducerRecord::new("t", format!("value {i}")).partition(0).timestamp(at);
        drop(producer.send(record).await.unwrap());
        if i % 10 == 9 {
            producer.flush().await.unwrap();
        }
    }
    producer.close().await.unwrap();
}

async fn first_offset(client: &Client, at: impl Into<Position>) -> Option<u64> {
    let data = client.fetch(FetchFrom::new("t", 0, at).into()).await.unwrap().remove(0);
    let mut records = data.records();
    records.next().map(|record| record.unwrap().offset.get())
}

#[tokio::test]
async fn a_reader_of_a_topic_that_was_made_again_is_told_and_skips_nothing_of_the_new_one() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    fill(&client, 50).await;
    let seen = client.fetch(FetchFrom::new("t", 0, Position::Earliest).into()).await.unwrap().remove(0);
    assert_eq!(seen.next_offset, Offset(50));
    assert!(client.fetch(seen.go_on().into()).await.unwrap()[0].error.is_none());
    client.delete_topic("t").await.unwrap();
    let client = node.client_with_topic(1).await;
    fill(&client, 100).await;
    let again = client.fetch(seen.go_on().into()).await.unwrap().remove(0);
    assert_eq!(again.error.as_ref().map(Error::kind), Some(ErrorKind::NotFound));
    assert_eq!(client.subscribe(seen.go_on().into()).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn reading_starts_exactly_where_it_was_asked_to() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    fill(&client, 50).await;
    assert_eq!(first_offset(&client, Position::Earliest).await, Some(0));
    assert_eq!(first_offset(&client, Offset(17)).await, Some(17));
    assert_eq!(first_offset(&client, Position::Time(TimestampMs(22_500))).await, Some(23));
    assert_eq!(first_offset(&client, Position::Latest).await, None);
    let places = [
        (0, Position::Earliest),
        (0, Position::Time(TimestampMs(22_500))),
        (0, Position::Time(TimestampMs(99_000))),
        (0, Position::Latest),
    ];
    let found = client.list_offsets("t", &places).await.unwrap();
    let found: Vec<_> = found.iter().map(|it| (it.offset.get(), it.timestamp)).collect();
    assert_eq!(found, [(0, None), (23, Some(TimestampMs(23_000))), (50, None), (50, None)]);
}

#[tokio::test]
async fn a_fetch_waits_for_records_but_not_longer_than_asked() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let fetch = |max_wait| Fetch { max_wait, ..FetchFrom::new("t", 0, Offset(0)).into() };
    let begun = Instant::now();
    let wait = Duration::from_millis(300);
    assert!(client.fetch(fetch(wait)).await.unwrap()[0].chunks.is_empty());
    assert!((wait..wait * 10).contains(&begun.elapsed()), "{:?}", begun.elapsed());

    let waiting = tokio::spawn({
        let (client, fetch) = (client.clone(), fetch(Duration::from_secs(50)));
        async move { client.fetch(fetch).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    fill(&client, 1).await;
    let data = timeout(SOON, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(data[0].next_offset, Offset(1));
}

#[tokio::test]
async fn a_partition_that_cannot_be_read_does_not_hold_up_the_others() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    fill(&client, 10).await;
    let partitions = vec![
        FetchFrom::new("t", 0, Offset(0)),
        FetchFrom::new("t", 1, Offset(0)),
        FetchFrom::new("nowhere", 0, Position::Earliest),
    ];
    let data = client.fetch(Fetch::from(partitions)).await.unwrap();
    assert_eq!(data[0].records().count(), 10);
    let kinds: Vec<_> = data.iter().map(|data| data.error.as_ref().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::NotFound), Some(ErrorKind::NotFound)]);

    let past = client.fetch(FetchFrom::new("t", 0, Offset(11)).into()).await.unwrap().remove(0);
    let error = past.error.unwrap();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::OutOfRange, "OFFSET_OUT_OF_RANGE"));
    assert_eq!(error.metadata("end_offset"), Some("10"));
}

#[tokio::test]
async fn a_subscription_brings_what_is_there_and_what_comes() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    fill(&client, 200).await;
    // Less than a batch takes: each comes alone, against credit granted for the one before.
    let subscribe = Subscribe { credit_bytes: 50, ..FetchFrom::new("t", 0, Offset(5)).into() };
    let mut subscription = client.subscribe(subscribe).await.unwrap();
    let writer = tokio::spawn({
        let client = client.clone();
        async move { fill(&client, 100).await }
    });
    let mut next = 5;
    while next < 300 {
        let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
        for record in data.records() {
            assert_eq!(record.unwrap().offset.get(), next);
            next += 1;
        }
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn a_subscription_to_what_is_not_there_fails_at_once() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let cases = [
        (FetchFrom::new("nowhere", 0, Position::Earliest), ErrorKind::NotFound),
        (FetchFrom::new("nowhere", 0, Position::Latest), ErrorKind::NotFound),
        (FetchFrom::new("t", 1, Offset(0)), ErrorKind::NotFound),
        (FetchFrom::new("t", 0, Offset(1)), ErrorKind::OutOfRange),
    ];
    for (from, kind) in cases {
        let error = client.subscribe(from.clone().into()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{from:?}: {error}");
    }
    assert_eq!(client.subscribe(Subscribe::default()).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_deleted_topic_ends_its_subscription_with_the_reason() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    fill(&client, 10).await;
    let mut subscription = client.subscribe(FetchFrom::new("t", 0, Offset(0)).into()).await.unwrap();
    let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
    assert!(data.error.is_none());
    client.delete_topic("t").await.unwrap();
    let last = loop {
        let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
        if let Some(error) = data.error {
            break error;
        }
    };
    assert_eq!((last.kind(), last.reason()), (ErrorKind::NotFound, "TOPIC_NOT_FOUND"));
    assert!(timeout(SOON, subscription.next()).await.unwrap().is_none());
}

async fn producer(client: &Client, id: &str) -> TransactionalProducer {
    client.transactional_producer(id, TransactionalOptions::default()).await.unwrap()
}

/// Waits for the answer, so that the offsets are in the order of the calls.
async fn send(producer: &TransactionalProducer, value: &'static str) {
    producer.send(ProducerRecord::new("t", value)).await.unwrap().await.unwrap();
}

fn texts(data: &PartitionData) -> Vec<String> {
    let value = |value: Option<bytes::Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    data.records().map(|record| value(record.unwrap().value)).collect()
}

#[tokio::test]
async fn a_reader_sees_what_is_committed_unless_it_asks_for_all() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let (mut one, mut other) = (producer(&client, "one").await, producer(&client, "other").await);
    send(&one, "aborted").await;
    send(&other, "committed").await;
    send(&one, "aborted too").await;
    one.abort().await.unwrap();
    other.commit().await.unwrap();
    send(&one, "committed later").await;
    one.commit().await.unwrap();
    send(&other, "open").await;
    send(&one, "behind it").await;
    one.commit().await.unwrap();
    let from = |at: Position| FetchFrom::new("t", 0, at);
    let all = Isolation::ReadUncommitted;

    let data = client.fetch(from(Position::Earliest).into()).await.unwrap().remove(0);
    assert_eq!(texts(&data), ["committed", "committed later"]);
    assert_eq!(
        (data.next_offset, data.last_stable_offset, data.end_offset),
        (Offset(7), Offset(7), Offset(10))
    );
    let batches = data.chunks.iter().flat_map(logmill_client::Chunk::batches).map(Result::unwrap);
    let aborted =
        batches.filter(|batch| data.is_aborted(batch.header())).map(|it| it.header().base_offset.get());
    assert_eq!(aborted.collect::<Vec<_>>(), [0, 2, 3], "its marker too");

    let fetch = Fetch { isolation: all, ..from(Position::Earliest).into() };
    let data = client.fetch(fetch).await.unwrap().remove(0);
    let six = ["aborted", "committed", "aborted too", "committed later", "open", "behind it"];
    assert_eq!((texts(&data), data.next_offset), (six.map(str::to_owned).to_vec(), Offset(10)));

    let mut subscription = client.subscribe(from(Position::Earliest).into()).await.unwrap();
    let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((texts(&data).len(), data.next_offset), (2, Offset(7)));
    let nothing = timeout(Duration::from_millis(200), subscription.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    let subscribe = Subscribe { isolation: all, ..from(Position::Earliest).into() };
    let mut subscription = client.subscribe(subscribe).await.unwrap();
    let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(texts(&data), six);
}

#[tokio::test]
async fn the_latest_place_is_the_end_of_what_the_reader_sees() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let open = producer(&client, "one").await;
    send(&open, "open").await;
    let latest = [(0, Position::Latest)];
    assert_eq!(client.list_offsets("t", &latest).await.unwrap()[0].offset, Offset(0));
    let found = client.list_offsets_with("t", &latest, Isolation::ReadUncommitted).await.unwrap();
    assert_eq!(found[0].offset, Offset(1));
}
