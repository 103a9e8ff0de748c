//! Producing to a real node.

use bytes::Bytes;
use logmill_client::{
    Acks, Chunk, Client, Delivery, ErrorKind, Fetch, FetchFrom, FetchedRecord, Position, ProducerOptions,
    ProducerRecord, SettingChange,
};
use logmill_record::{BatchBuilder, Compression, NewRecord, Offset, TimestampMs};
use tokio::time::timeout;

use super::{Node, SOON};

async fn all_records(client: &Client, partition: u32) -> Vec<FetchedRecord> {
    let mut records = Vec::new();
    let mut at = Position::Earliest;
    loop {
        let data = client.fetch(FetchFrom::new("t", partition, at).into()).await.unwrap().remove(0);
        if data.chunks.is_empty() {
            return records;
        }
        records.extend(data.records().map(Result::unwrap));
        at = Position::Offset(data.next_offset);
    }
}

#[tokio::test]
async fn a_record_comes_back_as_it_was_sent() {
    let node = Node::start().await;
    let client = node.client_with_topic(2).await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let full = ProducerRecord {
        topic: "t".into(),
        partition: Some(1),
        key: Some(Bytes::from("key")),
        value: Some(Bytes::from("value")),
        timestamp: Some(TimestampMs(-5)),
        headers: vec![("h".into(), Some(Bytes::from("1"))), ("h".into(), None)],
    };
    let empty = ProducerRecord { topic: "t".into(), partition: Some(1), ..Default::default() };
    let first = producer.send(full.clone()).await.unwrap();
    let second = producer.send(empty).await.unwrap();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.partition, first.offset, second.offset), (1, Offset(0), Offset(1)));

    let records = all_records(&client, 1).await;
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].timestamp, TimestampMs(-5));
    assert_eq!(records[0].appended_at, first.appended_at);
    assert_eq!((&records[0].key, &records[0].value), (&full.key, &full.value));
    assert_eq!(records[0].headers, full.headers);
    assert_eq!((&records[1].key, &records[1].value), (&None, &None));
    assert!(records[1].timestamp.get() > 1_700_000_000_000, "stamped when it was sent");
}

#[tokio::test]
async fn order_holds_through_a_small_buffer_shared_by_many_senders() {
    const SENDERS: u32 = 8;
    const RECORDS: u32 = 1_000;
    let node = Node::start().await;
    let client = node.client_with_topic(3).await;
    let options =
        ProducerOptions { max_buffered_bytes: 20_000, max_batch_bytes: 4_000, ..ProducerOptions::default() };
    let producer = std::sync::Arc::new(client.producer(options).unwrap());
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let producer = std::sync::Arc::clone(&producer);
        senders.spawn(async move {
            for i in 0..RECORDS {
                let record = ProducerRecord::new("t", format!("{sender} {i}")).key(format!("{sender}"));
                drop(producer.send(record).await.unwrap());
            }
        });
    }
    timeout(SOON, senders.join_all()).await.unwrap();
    timeout(SOON, producer.close()).await.unwrap().unwrap();

    let mut next = vec![0; SENDERS as usize];
    for partition in 0..3 {
        for record in all_records(&client, partition).await {
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            let (sender, i) = value.split_once(' ').unwrap();
            let next = &mut next[sender.parse::<usize>().unwrap()];
            assert_eq!(i.parse::<u32>().unwrap(), *next, "sender {sender}");
            *next += 1;
        }
    }
    assert_eq!(next, [RECORDS; SENDERS as usize]);
}

#[tokio::test]
async fn many_tiny_messages_on_one_stream_do_not_end_it() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    // A batch per record: h2 before 0.4.19 took so many small frames for an attack.
    let options = ProducerOptions { max_batch_bytes: 1, acks: Acks::Written, ..ProducerOptions::default() };
    let producer = client.producer(options).unwrap();
    let mut last: Option<Delivery> = None;
    for i in 0..20_000_u32 {
        last = Some(producer.send(ProducerRecord::new("t", i.to_string())).await.unwrap());
    }
    timeout(SOON, producer.flush()).await.unwrap().unwrap();
    assert_eq!(last.unwrap().await.unwrap().offset, Offset(19_999));
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused_and_one_below_it_arrives() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    // The limit counts the batch: a value of 1 MiB and its batch's header are more than 1 MiB and 12 bytes.
    for bytes in [1 << 20, 2 << 20, 9 << 20] {
        let error = producer.send(ProducerRecord::new("t", vec![7; bytes])).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::TooLarge, "MESSAGE_TOO_LARGE"));
        assert!(error.to_string().contains("max.message.bytes is 1048588"), "{error}");
    }
    let fitting = producer.send(ProducerRecord::new("t", vec![7; (1 << 20) - 100])).await.unwrap();
    assert_eq!(fitting.await.unwrap().offset, Offset(0));
}

/// What a topic of one partition stores: the codec of each batch, and all values.
async fn stored(client: &Client, topic: &str) -> (Vec<Compression>, Vec<Bytes>) {
    let (mut codecs, mut values) = (Vec::new(), Vec::new());
    let mut from = FetchFrom::new(topic, 0, Position::Earliest);
    loop {
        let data = client.fetch(from.into()).await.unwrap().remove(0);
        if data.chunks.is_empty() {
            return (codecs, values);
        }
        let batches = data.chunks.iter().flat_map(Chunk::batches);
        codecs.extend(batches.map(|batch| batch.unwrap().header().attributes.compression()));
        values.extend(data.records().map(|record| record.unwrap().value.unwrap()));
        from = data.go_on();
    }
}

/// Bytes that no codec shrinks, the same in every run.
fn noise(count: usize, bytes: usize) -> Vec<Bytes> {
    let mut state = 1_u64;
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..count).map(|_| (0..bytes).map(|_| byte()).collect()).collect()
}

async fn send_all(client: &Client, topic: &str, values: &[Bytes], options: ProducerOptions) {
    let producer = client.producer(options).unwrap();
    for value in values {
        drop(producer.send(ProducerRecord::new(topic, value.clone())).await.unwrap());
    }
    timeout(SOON, producer.close()).await.unwrap().unwrap();
}

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

#[tokio::test]
async fn batches_are_compressed_as_the_topic_says_or_else_the_producer() {
    let node = Node::start().await;
    let client = node.client().await;
    let values: Vec<Bytes> = (0..500).map(|i| format!("value {i} ").repeat(20).into()).collect();
    for (codec, other) in CODECS.into_iter().zip(CODECS.into_iter().cycle().skip(1)) {
        let named = codec.to_string();
        let cases = [
            ("by-topic", named.as_str(), Compression::None, codec),
            ("above-another", named.as_str(), other, codec),
            ("by-producer", "producer", codec, codec),
            ("forbidden", "uncompressed", codec, Compression::None),
        ];
        for (case, setting, compression, expected) in cases {
            let topic = format!("{case}-{codec}");
            client.create_topic_with(&topic, Some(1), &[("compression.type", setting)]).await.unwrap();
            for idempotent in [true, false] {
                let options = ProducerOptions {
                    compression,
                    max_batch_bytes: 20_000,
                    idempotent,
                    ..Default::default()
                };
                send_all(&client, &topic, &values, options).await;
            }
            let (codecs, found) = stored(&client, &topic).await;
            assert!(codecs.iter().all(|codec| *codec == expected), "{topic}: {codecs:?}");
            assert!(codecs.len() > 2, "{topic}");
            assert_eq!(found, [&values[..], &values[..]].concat(), "{topic}");
        }
    }
}

#[tokio::test]
async fn batches_stay_below_what_the_topic_takes_whatever_becomes_of_them() {
    let node = Node::start().await;
    let client = node.client().await;
    // Six of them come to 1,993 bytes or a few more, and more than 2,000 when they do not shrink.
    let values = noise(300, 313);
    for codec in CODECS.into_iter().chain([Compression::None]) {
        let topic = format!("small-{codec}");
        client.create_topic_with(&topic, Some(1), &[("max.message.bytes", "2000")]).await.unwrap();
        let options = ProducerOptions { compression: codec, ..ProducerOptions::default() };
        send_all(&client, &topic, &values, options).await;
        let (codecs, found) = stored(&client, &topic).await;
        assert_eq!(found, values, "{codec}");
        assert!(codecs.iter().all(|found| *found == codec), "{codecs:?}");
        assert!(codecs.len() < values.len(), "{codec}: a batch has several records where there is room");
    }
}

#[tokio::test]
async fn a_compressed_record_may_be_larger_than_the_topic_takes() {
    let node = Node::start().await;
    let client = node.client().await;
    client.create_topic_with("t", Some(1), &[("max.message.bytes", "2000")]).await.unwrap();
    let options = ProducerOptions { compression: Compression::Zstd, ..ProducerOptions::default() };
    let producer = client.producer(options).unwrap();
    let zeros = producer.send(ProducerRecord::new("t", vec![0; 900_000])).await.unwrap();
    assert_eq!(timeout(SOON, zeros).await.unwrap().unwrap().offset, Offset(0));
    let noise = noise(1, 5_000).remove(0);
    let refused = producer.send(ProducerRecord::new("t", noise)).await.unwrap();
    let error = timeout(SOON, refused).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::TooLarge, "MESSAGE_TOO_LARGE"));
    let next = producer.send(ProducerRecord::new("t", "next")).await.unwrap();
    assert_eq!(timeout(SOON, next).await.unwrap().unwrap().offset, Offset(1));
}

#[tokio::test]
async fn a_setting_that_is_changed_fails_what_follows_the_old_one_and_nothing_after() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let send = async |bytes: usize| {
        let delivery = producer.send(ProducerRecord::new("t", vec![7; bytes])).await?;
        timeout(SOON, delivery).await.unwrap()
    };
    send(10).await.unwrap();
    client.alter_topic("t", &[SettingChange::set("compression.type", "zstd")]).await.unwrap();
    let error = send(10).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Invalid, "RECORD_REFUSED"));
    assert_eq!(error.metadata("setting"), Some("compression.type"));
    send(10).await.unwrap();
    assert_eq!(stored(&client, "t").await.0, [Compression::None, Compression::Zstd]);

    let plain = [SettingChange::set("compression.type", "uncompressed")];
    client.alter_topic("t", &plain).await.unwrap();
    assert_eq!(send(10).await.unwrap_err().reason(), "RECORD_REFUSED");
    send(3_000).await.unwrap();
    client.alter_topic("t", &[SettingChange::set("max.message.bytes", "2000")]).await.unwrap();
    let said_by_the_node = send(3_000).await.unwrap_err();
    assert_eq!(
        (said_by_the_node.kind(), said_by_the_node.metadata("value")),
        (ErrorKind::TooLarge, Some("2000"))
    );
    send(1_800).await.unwrap();
    let said_here = send(3_000).await.unwrap_err();
    assert!(said_here.to_string().contains("was not sent"), "{said_here}");
    client.alter_topic("t", &[SettingChange::set("max.message.bytes", "4000")]).await.unwrap();
    send(3_000).await.unwrap();
}

#[tokio::test]
async fn a_single_batch_larger_than_grpcs_default_limit_goes_both_ways() {
    let node = Node::with_max_message_bytes(8 << 20).await;
    let client = node.client_with_topic(1).await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let large = Bytes::from(vec![7; 6 << 20]);
    let delivery = producer.send(ProducerRecord::new("t", large.clone())).await.unwrap();
    assert_eq!(timeout(SOON, delivery).await.unwrap().unwrap().offset, Offset(0));
    let records = all_records(&client, 0).await;
    assert_eq!(records[0].value.as_ref(), Some(&large));
    let careful = Client::builder(client.url()).max_reply_bytes(1 << 20).connect().await.unwrap();
    let error = careful.fetch(FetchFrom::new("t", 0, Offset(0)).into()).await.unwrap_err();
    assert!(error.to_string().contains("max_reply_bytes"), "{error}");
}

#[tokio::test]
async fn a_topic_that_takes_more_than_the_nodes_default_gets_it() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    client.alter_topic("t", &[SettingChange::set("max.message.bytes", "4000000")]).await.unwrap();
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let delivery = producer.send(ProducerRecord::new("t", vec![7; 3 << 20])).await.unwrap();
    assert_eq!(timeout(SOON, delivery).await.unwrap().unwrap().offset, Offset(0));
    assert_eq!(all_records(&client, 0).await[0].value.as_ref().unwrap().len(), 3 << 20);
}

#[tokio::test]
async fn ready_batches_are_appended_whole() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let mut builder = BatchBuilder::new();
    for i in 0..3 {
        let value = [i; 4];
        let record =
            NewRecord { timestamp: TimestampMs(i.into()), key: None, value: Some(&value), headers: &[] };
        builder.push(&record).unwrap();
    }
    let batch = builder.build().unwrap();
    for first in [0, 3] {
        let delivered = client.produce_batch("t", 0, batch.clone(), Acks::Durable).await.unwrap();
        assert_eq!((delivered.partition, delivered.offset), (0, Offset(first)));
    }
    let fetched = client.fetch(Fetch::from(FetchFrom::new("t", 0, Offset(4)))).await.unwrap().remove(0);
    let offsets: Vec<u64> = fetched.records().map(|record| record.unwrap().offset.get()).collect();
    assert_eq!(offsets, [4, 5], "the stored batch begins at 3");

    let error = client.produce_batch("t", 7, batch.clone(), Acks::Durable).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, "PARTITION_NOT_FOUND"));
    let error = client.produce_batch("nowhere", 0, batch, Acks::Durable).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, "TOPIC_NOT_FOUND"));
}
