//! A partition that loses what was read from it, and files that stall, as a client has them.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use logmill_client::{
    Acks, Client, ErrorKind, FetchFrom, FetchedRecord, PartitionData, Position, ProducerOptions,
    ProducerRecord, SettingChange,
};
use logmill_record::Offset;
use tokio::time::timeout;

use super::hook_fs::{Call, Gate, hooked};
use super::{Node, SOON};

/// Whether it is a segment file of that partition.
fn is_of(path: &Path, partition: &str) -> bool {
    path.parent().and_then(Path::file_name) == Some(partition.as_ref())
        && path.extension() == Some("log".as_ref())
}

fn values(data: &PartitionData) -> Vec<String> {
    let value = |record: FetchedRecord| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
    data.records().map(|record| value(record.unwrap())).collect()
}

async fn send(client: &Client, acks: Acks, value: &str) {
    let producer = client.producer(ProducerOptions { acks, ..ProducerOptions::default() }).unwrap();
    let record = ProducerRecord::new("t", value.to_owned()).partition(0);
    timeout(SOON, producer.send(record).await.unwrap()).await.unwrap().unwrap();
    producer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_told_where_what_it_has_ends_when_a_failed_sync_took_the_rest() {
    let fails = Arc::new(AtomicBool::new(false));
    let hook = {
        let fails = Arc::clone(&fails);
        move |call, path: &Path| {
            if call == Call::Sync && is_of(path, "0") && fails.swap(false, Ordering::SeqCst) {
                return Err(io::Error::other("a fault that this test plants"));
            }
            Ok(())
        }
    };
    let node = Node::with(logmill_broker::DEFAULT_MAX_MESSAGE_BYTES, hooked(hook)).await;
    let client = node.client_with_topic(1).await;
    let changes = [SettingChange::set("durability", "relaxed"), SettingChange::set("flush.ms", "86400000")];
    client.alter_topic("t", &changes).await.unwrap();
    send(&client, Acks::Durable, "kept").await;
    send(&client, Acks::Written, "lost").await;
    send(&client, Acks::Written, "lost too").await;

    let from = FetchFrom::new("t", 0, Position::Earliest);
    let mut subscription = client.subscribe(from.into()).await.unwrap();
    let mut seen = Vec::new();
    let last = loop {
        let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
        seen.extend(values(&data));
        if data.next_offset == Offset(3) {
            break data;
        }
    };
    assert_eq!(seen, ["kept", "lost", "lost too"]);

    // An idempotent producer sends again what it is not told about; what nobody waits for is gone.
    fails.store(true, Ordering::SeqCst);
    for value in ["a", "b", "c", "d"] {
        send(&client, Acks::Durable, value).await;
    }
    // What is only written it may see before that is lost as well.
    let told = loop {
        let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
        if let Some(error) = data.error {
            break error;
        }
    };
    assert_eq!((told.kind(), told.diverging_offset()), (ErrorKind::Truncated, Some(Offset(1))), "{told}");
    assert!(timeout(SOON, subscription.next()).await.unwrap().is_none());
    let answer = client.fetch(last.go_on().into()).await.unwrap().remove(0);
    assert_eq!(answer.error.unwrap().diverging_offset(), Some(Offset(1)));
    let refused = client.subscribe(last.go_on().into()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Truncated);

    let again = client.fetch(FetchFrom::new("t", 0, Offset(1)).into()).await.unwrap().remove(0);
    assert_eq!(values(&again), ["a", "b", "c", "d"]);
    assert!(client.fetch(again.go_on().into()).await.unwrap()[0].error.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_stalls_holds_up_neither_new_clients_nor_other_partitions() {
    let (gate, armed) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
    let hook = {
        let (gate, armed) = (Arc::clone(&gate), Arc::clone(&armed));
        move |call, path: &Path| {
            if call == Call::Write && is_of(path, "0") && armed.load(Ordering::SeqCst) {
                gate.pass();
            }
            Ok(())
        }
    };
    let node = Node::with(logmill_broker::DEFAULT_MAX_MESSAGE_BYTES, hooked(hook)).await;
    let client = node.client_with_topic(2).await;
    armed.store(true, Ordering::SeqCst);
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let stalled = producer.send(ProducerRecord::new("t", "during").partition(0)).await.unwrap();
    tokio::task::spawn_blocking({
        let gate = Arc::clone(&gate);
        move || gate.wait_for_someone()
    })
    .await
    .unwrap();

    let other = node.client().await;
    let record = ProducerRecord::new("t", "past it").partition(1);
    let sends = other.producer(ProducerOptions::default()).unwrap();
    timeout(SOON, sends.send(record).await.unwrap()).await.unwrap().unwrap();
    let from = FetchFrom::new("t", 1, Position::Earliest);
    assert_eq!(values(&other.fetch(from.into()).await.unwrap()[0]), ["past it"]);
    assert_eq!(other.describe_topic("t").await.unwrap().partitions[0].end_offset, Offset(0));

    gate.open();
    timeout(SOON, stalled).await.unwrap().unwrap();
}
