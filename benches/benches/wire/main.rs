//! Records over gRPC, against an empty server: the same messages through tonic to and from a process
//! that does nothing with them.
//!
//! Ours is the whole way: one call of the public client per record produced, every record consumed
//! looked at. The empty server takes or sends made-up messages of the size that ours have, and its
//! client counts their bytes.

mod empty;

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logmill_bench::{Aim, Node, Part, Row, Run, Unit, Values, compare, percentile, raw_append};
use logmill_client::{
    Acks, Chunk, Client, FetchFrom, Position, Producer, ProducerOptions, ProducerRecord, Subscribe,
};
use logmill_record::{BatchBuilder, Inflater, NewRecord, TimestampMs};
use tokio::runtime::Runtime;

const NODE: &str = env!("CARGO_BIN_EXE_logmill-bench-node");
const RECORD_LEN: usize = 1024;
const SMALL_LEN: usize = 100;
const MESSAGE_LEN: usize = 1 << 20;
const BATCH_LEN: usize = 64 << 10;
const TOPIC: &str = "wire";

fn main() {
    if let Some((_, dir, _)) = Part::of_this_process() {
        return empty::serve(&Run::quietly(&dir));
    }
    let run = Run::begin("records over gRPC", Path::new(env!("CARGO_TARGET_TMPDIR")), 1 << 30);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("it starts");
    let records = run.pick(512 * 1024, 2_000);
    produce(&run, &runtime, records);
    durable(&run, &runtime, records);
    small(&run, &runtime, run.pick(5_000_000, 2_000));
    one_by_one(&run, &runtime, run.pick(3_000, 50));
    consume(&run, &runtime, records);
}

fn produce(run: &Run, runtime: &Runtime, records: usize) {
    let row = Row {
        title: "produce, answered from the page cache",
        conditions: &format!(
            "{records} records of 1 KiB, all distinct, in batches of up to 1 MiB, 8 MiB in flight; one connection, \
             one partition; the client on the same two cores"
        ),
        unit: Unit::MegabytesPerS,
        aim: Aim::RatioAtLeast(0.7),
    };
    let ours = || {
        let took = time_to_produce(run, runtime, (MESSAGE_LEN, Acks::Written), (records, RECORD_LEN));
        megabytes(records * RECORD_LEN) / took.as_secs_f64()
    };
    let empty = || {
        let server = empty::Server::start(run);
        let messages = records * RECORD_LEN / BATCH_LEN + 1;
        run.megabytes_per_s(messages * BATCH_LEN, || {
            runtime.block_on(empty::send(&server.url(), messages, BATCH_LEN));
        })
    };
    compare(run, &row, ("Producer::send", ours), ("an empty tonic server's stream in", empty));
}

/// What the wait for the disk costs.
fn durable(run: &Run, runtime: &Runtime, records: usize) {
    let row = Row {
        title: "produce, answered when it is on disk",
        conditions: &format!(
            "{records} records of 1 KiB, all distinct, in batches of up to 64 KiB, 8 MiB in flight; one connection, \
             one partition; the client on the same two cores"
        ),
        unit: Unit::MegabytesPerS,
        aim: Aim::RatioAtLeast(0.8),
    };
    let produce = |acks| {
        let took = time_to_produce(run, runtime, (BATCH_LEN, acks), (records, RECORD_LEN));
        megabytes(records * RECORD_LEN) / took.as_secs_f64()
    };
    let (ours, baseline) = (|| produce(Acks::Durable), || produce(Acks::Written));
    compare(
        run,
        &row,
        ("Producer::send, durable", ours),
        ("the same, answered from the page cache", baseline),
    );
}

/// What a record costs, besides its bytes.
fn small(run: &Run, runtime: &Runtime, records: usize) {
    let row = Row {
        title: "small records, answered when they are on disk",
        conditions: &format!(
            "{records} records of {SMALL_LEN} bytes, all distinct, in batches of up to 64 KiB, 8 MiB in flight; one \
             connection, one partition; the client on the same two cores"
        ),
        unit: Unit::PerS,
        aim: Aim::AtLeast(2_000_000.0),
    };
    let per_s =
        |took: Duration| f64::from(u32::try_from(records).expect("it is little")) / took.as_secs_f64();
    let ours = || per_s(time_to_produce(run, runtime, (BATCH_LEN, Acks::Durable), (records, SMALL_LEN)));
    let baseline = || {
        let values = values(records, SMALL_LEN);
        per_s(run.time(|| build(&values)))
    };
    compare(run, &row, ("Producer::send, durable", ours), ("BatchBuilder alone, on one core", baseline));
}

/// How long one record takes that nobody shares a sync with.
fn one_by_one(run: &Run, runtime: &Runtime, records: usize) {
    let values = values(records, SMALL_LEN);
    let ours = |percent| {
        let dir = run.directory();
        let node = Node::start(NODE, &dir.path().join("data"));
        let producer = runtime.block_on(producer(&node, BATCH_LEN, Acks::Durable));
        let topic: Arc<str> = TOPIC.into();
        let took = run.each_in_us(records, |n| {
            let value = Some(values[n].clone());
            let record = ProducerRecord { topic: Arc::clone(&topic), value, ..Default::default() };
            runtime.block_on(async {
                let delivery = producer.send(record).await.expect("the node takes records");
                delivery.await.expect("the record is on disk");
            });
        });
        percentile(&took, percent)
    };
    let page = Values::default().next(4096);
    let raw = |percent| {
        let dir = run.directory();
        let file = raw_append(&dir.path().join("raw"));
        let took = run.each_in_us(records, |n| {
            file.write_all_at(&page, 4096 * n as u64).expect("the file can be written");
            file.sync_data().expect("the sync succeeds");
        });
        percentile(&took, percent)
    };
    let row = Row {
        title: "one durable record after the other, p50",
        conditions: &format!(
            "{records} records of {SMALL_LEN} bytes, each acknowledged before the next is sent; one connection, one \
             partition; the client on the same two cores"
        ),
        unit: Unit::Microseconds,
        aim: Aim::None,
    };
    let (our_name, base_name) = ("Producer::send and its delivery", "append of 4 KiB + fdatasync");
    compare(run, &row, (our_name, || ours(50)), (base_name, || raw(50)));
    let row = Row { title: "the same, p99", ..row };
    compare(run, &row, (our_name, || ours(99)), (base_name, || raw(99)));
}

/// Puts the values into batches, and drops them.
fn build(values: &[Bytes]) {
    let timestamp = TimestampMs(1);
    let mut builder = BatchBuilder::new();
    for value in values {
        let record = NewRecord { timestamp, key: None, value: Some(value), headers: &[] };
        if builder.size_with(&record) > BATCH_LEN {
            drop(std::mem::take(&mut builder).build().expect("it is not empty"));
        }
        builder.push(&record).expect("there is room");
    }
}

fn consume(run: &Run, runtime: &Runtime, records: usize) {
    let dir = run.directory();
    let node = Node::start(NODE, &dir.path().join("data"));
    runtime.block_on(async {
        let producer = producer(&node, BATCH_LEN, Acks::Durable).await;
        send(&producer, values(records, RECORD_LEN)).await;
    });
    let row = Row {
        title: "consume, warm",
        conditions: &format!(
            "{records} records of 1 KiB in batches of 64 KiB, credit 4 MiB, each looked at; one connection, one \
             partition; the client on the same two cores"
        ),
        unit: Unit::MegabytesPerS,
        aim: Aim::RatioAtLeast(0.8),
    };
    let ours = || {
        let client = runtime.block_on(Client::connect(node.url())).expect("the node can be reached");
        run.megabytes_per_s(records * RECORD_LEN, || runtime.block_on(receive(&client, records)))
    };
    let empty = || {
        let server = empty::Server::start(run);
        let messages = records * RECORD_LEN / MESSAGE_LEN + 1;
        run.megabytes_per_s(messages * MESSAGE_LEN, || {
            runtime.block_on(empty::receive(&server.url(), messages, MESSAGE_LEN));
        })
    };
    compare(run, &row, ("Subscription::next", ours), ("an empty tonic server's stream out", empty));
}

/// Through a node of its own, from the first record to the last acknowledgement.
fn time_to_produce(
    run: &Run,
    runtime: &Runtime,
    (max_batch_bytes, acks): (usize, Acks),
    (records, len): (usize, usize),
) -> Duration {
    let dir = run.directory();
    let node = Node::start(NODE, &dir.path().join("data"));
    let producer = runtime.block_on(producer(&node, max_batch_bytes, acks));
    let values = values(records, len);
    run.time(|| runtime.block_on(send(&producer, values)))
}

fn megabytes(bytes: usize) -> f64 {
    f64::from(u32::try_from(bytes).expect("it is less than 4 GiB")) / 1e6
}

fn values(records: usize, len: usize) -> Vec<Bytes> {
    let mut values = Values::default();
    (0..records).map(|_| values.next(len).into()).collect()
}

async fn producer(node: &Node, max_batch_bytes: usize, acks: Acks) -> Producer {
    let client = Client::connect(node.url()).await.expect("the node can be reached");
    client.create_topic(TOPIC, Some(1)).await.expect("the topic is new");
    let options = ProducerOptions { acks, max_batch_bytes, ..ProducerOptions::default() };
    client.producer(options).expect("the options are good")
}

async fn send(producer: &Producer, values: Vec<Bytes>) {
    let topic: Arc<str> = TOPIC.into();
    for value in values {
        let record = ProducerRecord { topic: Arc::clone(&topic), value: Some(value), ..Default::default() };
        let _delivery = producer.send(record).await.expect("the node takes records");
    }
    producer.flush().await.expect("every record was appended");
}

async fn receive(client: &Client, records: usize) {
    let subscribe = Subscribe::from(FetchFrom::new(TOPIC, 0, Position::Earliest));
    let mut subscription = client.subscribe(subscribe).await.expect("the topic is there");
    let mut inflater = Inflater::default();
    let mut seen = 0;
    while seen < records {
        let data = subscription.next().await.expect("it goes on").expect("the records can be read");
        for batch in data.chunks.iter().flat_map(Chunk::batches) {
            let batch = batch.expect("the batch is good");
            for record in batch.records_with(&mut inflater).expect("it is not compressed") {
                let value = record.expect("the record is good").value;
                assert_eq!(value.map(<[u8]>::len), Some(RECORD_LEN));
                seen += 1;
            }
        }
    }
}
