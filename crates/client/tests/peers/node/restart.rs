//! A real node that is stopped and started again under its clients.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use logmill_client::{ErrorKind, FetchFrom, Position, ProducerOptions, ProducerRecord};
use logmill_record::Compression;
use tokio::time::{sleep, timeout};

use super::hook_fs::{Call, hooked};
use super::{Node, SOON};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled_and_readers_go_on() {
    let mut node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let mut subscription = client.subscribe(FetchFrom::new("t", 0, Position::Earliest).into()).await.unwrap();
    let producer = Arc::new(client.producer(ProducerOptions::default()).unwrap());

    let sender = tokio::spawn({
        let producer = Arc::clone(&producer);
        async move {
            let mut deliveries = Vec::new();
            for i in 0..3_000_u32 {
                let record = ProducerRecord::new("t", i.to_string()).partition(0);
                deliveries.push((i, producer.send(record).await.unwrap()));
                if i % 20 == 0 {
                    sleep(Duration::from_millis(5)).await;
                }
            }
            let mut acknowledged = BTreeMap::new();
            for (i, delivery) in deliveries {
                acknowledged.insert(delivery.await.unwrap().offset.get(), i);
            }
            acknowledged
        }
    });
    for _ in 0..3 {
        sleep(Duration::from_millis(150)).await;
        node.stop().await;
        sleep(Duration::from_millis(50)).await;
        node.resume().await;
    }
    let acknowledged = timeout(SOON, sender).await.unwrap().unwrap();
    assert_eq!(acknowledged.len(), 3_000, "every record came through");

    let end = client.describe_topic("t").await.unwrap().partitions[0].end_offset.get();
    let mut stored = Vec::new();
    while (stored.len() as u64) < end {
        let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
        for record in data.records() {
            let record = record.unwrap();
            assert_eq!(record.offset.get(), stored.len() as u64);
            stored.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap().parse::<u32>().unwrap());
        }
    }
    for (offset, i) in &acknowledged {
        assert_eq!(stored.get(usize::try_from(*offset).unwrap()), Some(i), "offset {offset}");
    }
    assert!(stored.is_sorted_by(|a, b| a < b), "in order, and none twice");
}

#[tokio::test]
async fn a_node_that_is_gone_is_named_by_every_call() {
    let mut node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let options = ProducerOptions { delivery_timeout: Duration::from_secs(1), ..ProducerOptions::default() };
    let producer = client.producer(options).unwrap();
    producer.send(ProducerRecord::new("t", "x")).await.unwrap().await.unwrap();
    node.stop().await;
    let delivery = producer.send(ProducerRecord::new("t", "x")).await.unwrap();
    let errors = [
        client.describe_node().await.unwrap_err(),
        client.create_topic("x", None).await.unwrap_err(),
        client.fetch(FetchFrom::new("t", 0, Position::Earliest).into()).await.unwrap_err(),
        client.subscribe(FetchFrom::new("t", 0, Position::Earliest).into()).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains(client.url()), "{error}");
    }
    let error = timeout(SOON, delivery).await.unwrap().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::OutcomeUnknown), "{error:?}");
    assert!(error.to_string().contains(client.url()), "{error}");
}

/// What waited for such a sync is cut off when the partition is opened again, and the producer sends it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_that_fail_cost_a_producer_nothing_but_time() {
    let (syncs, failed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let hook = {
        let (syncs, failed) = (Arc::clone(&syncs), Arc::clone(&failed));
        move |call, path: &Path| {
            let of_a_partition = path.components().any(|part| part.as_os_str() == "topics");
            if call == Call::Sync && of_a_partition && path.extension() == Some("log".as_ref()) {
                // Each time that it is opened again it syncs too, and must get on.
                if syncs.fetch_add(1, Ordering::SeqCst) % 20 == 19 {
                    failed.fetch_add(1, Ordering::SeqCst);
                    return Err(std::io::Error::other("a fault that this test plants"));
                }
            }
            Ok(())
        }
    };
    let node = Node::with(logmill_broker::DEFAULT_MAX_MESSAGE_BYTES, hooked(hook)).await;
    let client = node.client_with_topic(2).await;
    // Compressed, so that batches that go out again are, too.
    let (max_batch_bytes, compression) = (500, Compression::Lz4);
    let options = ProducerOptions { max_batch_bytes, compression, ..ProducerOptions::default() };
    let producer = client.producer(options).unwrap();
    let mut deliveries = Vec::new();
    let mut number = 0_u32;
    while failed.load(Ordering::SeqCst) < 8 {
        let record = ProducerRecord::new("t", number.to_string()).partition(number % 2);
        deliveries.push((number, producer.send(record).await.unwrap()));
        if number.is_multiple_of(10) {
            sleep(Duration::from_millis(1)).await;
        }
        number += 1;
    }
    timeout(SOON, producer.flush()).await.unwrap().unwrap();
    let mut stored = BTreeMap::new();
    for (number, delivery) in deliveries {
        let delivered = delivery.await.unwrap();
        assert!(stored.insert((delivered.partition, delivered.offset), number).is_none());
    }
    let mut found = 0;
    for partition in 0..2 {
        let mut from = Position::Earliest;
        loop {
            let data = client.fetch(FetchFrom::new("t", partition, from).into()).await.unwrap().remove(0);
            for record in data.records() {
                let record = record.unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                assert_eq!(stored[&(partition, record.offset)].to_string(), value);
                found += 1;
            }
            if data.next_offset == data.end_offset {
                break;
            }
            from = Position::Offset(data.next_offset);
        }
    }
    assert_eq!(found, number, "each is there, and once");
    for partition in 0..2 {
        assert!(stored.values().filter(|number| *number % 2 == partition).is_sorted(), "in order");
    }
    let failed = failed.load(Ordering::SeqCst);
    println!("{number} records, {failed} syncs failed; lost 0, doubled 0, out of order 0");
}
