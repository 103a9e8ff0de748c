//! A node killed in mid-produce, with a client that goes on: every record is there once and in order. Without
//! idempotence no acknowledged record is gone, none is doubled, order holds, and the client says of every other
//! record whether it may be there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use logmill_client::{
    Client, Delivered, Delivery, ErrorKind, Fetch, FetchFrom, Producer, ProducerOptions, ProducerRecord,
};
use logmill_record::Offset;
use logmill_tests::{Node, free_port};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::node_at;

const PARTITIONS: u32 = 2;
const KILLS: u32 = 6;
/// So many records are acknowledged before the first kill, and again before each other one.
const ACKNOWLEDGED_BEFORE_KILL: u64 = 300;
const TOPIC: &str = "t";
/// Nothing that is waited for takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);

/// What became of a record, as the client told it.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Stored(Offset),
    /// It may be there or not.
    Unknown,
    /// It is not there.
    NotStored,
}

/// Partition and number of a record, and what became of it.
type Ledger = BTreeMap<(u32, u64), Told>;

#[test]
fn a_killed_node_loses_doubles_and_reorders_nothing_and_every_record_comes_through() {
    let [sent, stored, unknown] = through_kills(ProducerOptions::default());
    assert_eq!((stored, unknown), (sent, 0));
}

#[test]
fn without_idempotence_a_killed_node_leaves_outcomes_unknown_and_nothing_else() {
    let [_, _, unknown] = through_kills(ProducerOptions { idempotent: false, ..Default::default() });
    assert!(unknown > 0, "no kill found records under way");
}

/// How many records were sent, acknowledged, and of unknown outcome.
fn through_kills(options: ProducerOptions) -> [usize; 3] {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let port = free_port();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let node = node_at(&data, port);
    let idempotent = options.idempotent;
    let ledger = runtime.block_on(produce_through_kills(node, &data, port, options));

    let count = |told: fn(&Told) -> bool| ledger.values().filter(|value| told(value)).count();
    let stored = count(|told| matches!(told, Told::Stored(_)));
    let unknown = count(|told| *told == Told::Unknown);
    assert!(stored as u64 >= u64::from(KILLS) * ACKNOWLEDGED_BEFORE_KILL, "{stored}");

    let node = node_at(&data, port);
    for partition in 0..PARTITIONS {
        let found = runtime.block_on(read(node.url(), partition));
        check(partition, &found, &ledger);
    }
    println!(
        "idempotent: {idempotent}; {KILLS} kills; {} records sent, {stored} acknowledged, {unknown} of unknown \
         outcome; lost 0, doubled 0, out of order 0",
        ledger.len()
    );
    assert_eq!(node.terminate(), 0);
    [ledger.len(), stored, unknown]
}

/// Sends numbered records all the while, as the node is killed and comes back.
async fn produce_through_kills(mut node: Node, data: &Path, port: u16, options: ProducerOptions) -> Ledger {
    let client = Client::connect(node.url()).await.unwrap();
    client.create_topic(TOPIC, Some(PARTITIONS)).await.unwrap();
    // A batch is only a few records, so that a kill finds many under way.
    let options = ProducerOptions { max_batch_bytes: 4_096, max_buffered_bytes: 1 << 20, ..options };
    let producer = client.producer(options).unwrap();
    let (sender, deliveries) = mpsc::unbounded_channel();
    let (acknowledged, progress) = watch::channel(0);
    let sending = async {
        tokio::select! {
            () = send_forever(&producer, &sender) => {}
            () = kill_and_restart(&mut node, data, port, progress) => {}
        }
        drop(sender);
        // Its own error is one that a delivery reports as well.
        let _ = producer.close().await;
    };
    let ((), ledger) = tokio::join!(sending, gather(deliveries, acknowledged));
    // The last one, too, ends without warning.
    node.kill();
    ledger
}

async fn send_forever(producer: &Producer, sent: &mpsc::UnboundedSender<((u32, u64), Delivery)>) {
    for number in 0.. {
        for partition in 0..PARTITIONS {
            let value = format!("{number} {}", "x".repeat(usize::try_from(number % 300).unwrap()));
            let record = ProducerRecord::new(TOPIC, value).partition(partition);
            if let Ok(delivery) = producer.send(record).await {
                sent.send(((partition, number), delivery)).unwrap();
            }
        }
    }
}

/// Kills the node as soon as it has acknowledged enough: more is always under way then.
async fn kill_and_restart(node: &mut Node, data: &Path, port: u16, mut acknowledged: watch::Receiver<u64>) {
    for _ in 0..KILLS {
        more(&mut acknowledged).await;
        let next = data.to_owned();
        node.kill();
        *node = tokio::task::spawn_blocking(move || node_at(&next, port)).await.unwrap();
    }
    more(&mut acknowledged).await;
}

async fn more(acknowledged: &mut watch::Receiver<u64>) {
    let enough = *acknowledged.borrow_and_update() + ACKNOWLEDGED_BEFORE_KILL;
    let waiting = acknowledged.wait_for(|count| *count >= enough);
    timeout(LIMIT, waiting).await.expect("the node goes on acknowledging").unwrap();
}

async fn gather(
    mut deliveries: mpsc::UnboundedReceiver<((u32, u64), Delivery)>,
    acknowledged: watch::Sender<u64>,
) -> Ledger {
    let mut ledger = Ledger::new();
    while let Some((record, delivery)) = deliveries.recv().await {
        let told = match delivery.await {
            Ok(Delivered { partition, offset, .. }) => {
                assert_eq!(partition, record.0);
                acknowledged.send_modify(|count| *count += 1);
                Told::Stored(offset)
            }
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => Told::Unknown,
            Err(_) => Told::NotStored,
        };
        assert!(ledger.insert(record, told).is_none());
    }
    ledger
}

async fn read(url: &str, partition: u32) -> Vec<(Offset, u64)> {
    let client = Client::connect(url).await.unwrap();
    let mut found = Vec::new();
    let mut next = Offset(0);
    loop {
        let from = FetchFrom::new(TOPIC, partition, next);
        let data = client.fetch(Fetch::from(from)).await.unwrap().remove(0);
        assert!(data.error.is_none(), "{:?}", data.error);
        for record in data.records() {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            found.push((record.offset, value.split(' ').next().unwrap().parse().unwrap()));
        }
        if data.next_offset == data.end_offset {
            return found;
        }
        next = data.next_offset;
    }
}

fn check(partition: u32, found: &[(Offset, u64)], ledger: &Ledger) {
    for (index, (offset, _)) in (0_u64..).zip(found) {
        assert_eq!(offset.get(), index, "offsets are contiguous");
    }
    assert!(found.is_sorted_by_key(|(_, number)| number), "records of one producer keep their order");
    assert!(found.windows(2).all(|pair| pair[0].1 != pair[1].1), "none is doubled");
    for (offset, number) in found {
        match &ledger[&(partition, *number)] {
            Told::Stored(told) => assert_eq!(told, offset, "record {number} of partition {partition}"),
            Told::Unknown => {}
            Told::NotStored => {
                panic!("record {number} of partition {partition} is there, and was told not to be")
            }
        }
    }
    let acknowledged =
        ledger.iter().filter(|((of, _), told)| *of == partition && matches!(told, Told::Stored(_))).count();
    let kept = found.iter().filter(|(_, number)| ledger[&(partition, *number)] != Told::Unknown).count();
    assert_eq!(kept, acknowledged, "every acknowledged record of partition {partition} is there");
}
