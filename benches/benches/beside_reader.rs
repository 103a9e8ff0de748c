//! Ten thousand records a second, acknowledged when they are on disk, while somebody else reads all that there is
//! from the start, again and again: what a reader that catches up costs those who write.
//!
//! Latencies are open loop, from when a record was due to its acknowledgement. The producers are a process of their
//! own, `logmill bench produce`; the reader is this one. Each row is one run: it is long enough.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use logmill_bench::{Aim, Node, Run, Unit, Values, drop_from_cache};
use logmill_client::{
    Chunk, Client, FetchFrom, Position, ProducerOptions, ProducerRecord, Subscribe, Subscription,
};
use logmill_log::env::{Clock as _, SystemClock};
use logmill_record::Inflater;
use tokio::runtime::Runtime;

const NODE: &str = env!("CARGO_BIN_EXE_logmill-bench-node");
const TOPIC: &str = "backlog";
const RECORD_LEN: usize = 1024;
const READ_MB_PER_S: f64 = 200.0;
const AIM: Aim = Aim::AtMost(3.0);

fn main() {
    let run = Run::begin("writers beside a reader", Path::new(env!("CARGO_TARGET_TMPDIR")), 6 << 30);
    // Its worker ends connections when nobody waits for it: a node that stops waits for them.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("it starts");
    let dir = run.directory();
    let data = dir.path().join("data");
    let backlog = run.pick(5 << 30, 4 << 20) / RECORD_LEN;
    {
        let node = Node::start(NODE, &data);
        runtime.block_on(fill(&node, backlog));
    }
    println!(
        "10,000 records of 1,000 bytes a second over 10 connections, one partition, durable, {} s after a warm-up; \
         the reader takes {} MB of records of 1 KiB at {READ_MB_PER_S} MB/s, over and over; all on the same two cores",
        seconds(&run),
        backlog * RECORD_LEN / 1_000_000,
    );
    let node = Node::start(NODE, &data);
    measure(&run, &runtime, &node, 0, "nobody reads", Aim::None);
    measure(&run, &runtime, &node, backlog, "beside a reader, warm", AIM);
    drop(node);
    let how = drop_from_cache(dir.path());
    let node = Node::start(NODE, &data);
    measure(&run, &runtime, &node, backlog, &format!("beside a reader, cold ({how})"), Aim::None);
}

fn seconds(run: &Run) -> u64 {
    run.pick(60, 1)
}

async fn fill(node: &Node, records: usize) {
    let client = Client::connect(node.url()).await.expect("the node can be reached");
    client.create_topic(TOPIC, Some(1)).await.expect("the topic is new");
    let producer = client.producer(ProducerOptions::default()).expect("the options are good");
    let mut values = Values::default();
    for _ in 0..records {
        let value = Some(values.next(RECORD_LEN).into());
        let record = ProducerRecord { topic: TOPIC.into(), value, ..Default::default() };
        let _delivery = producer.send(record).await.expect("the node takes records");
    }
    producer.close().await.expect("every record was appended");
}

/// One row: the latencies of the producers, beside a reader of so many records.
fn measure(run: &Run, runtime: &Runtime, node: &Node, backlog: usize, title: &str, aim: Aim) {
    let mut command = Command::new(NODE);
    command.args(["bench", "produce", "--json", "--rate", "10000", "--record-bytes", "1000"]);
    command.args(["--connections", "10", "--warm-up", "2", "--server", node.url()]);
    command.args(["--time", &seconds(run).to_string()]).stdout(Stdio::piped());
    let mut producers = command.spawn().expect("the producers start");
    let ended = || producers.try_wait().expect("it can be asked for").is_some();
    let rate = runtime.block_on(read(node, backlog, ended));
    let output = producers.wait_with_output().expect("the producers end");
    assert!(output.status.success(), "the producers failed: their message is above");
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let figure = |name: &str| figures[name].as_f64().expect("it is there");
    let p99 = figure("p99_ms");
    println!("{title}");
    println!(
        "  {:.0} records/s; p50 {:.2} ms, p99 {p99:.2} ms, p99.9 {:.2} ms; read {rate:.0} MB/s",
        figure("records_per_s"),
        figure("p50_ms"),
        figure("p999_ms"),
    );
    if let (Some(is_met), Aim::AtMost(most)) = (aim.is_met(p99, 1.0), aim) {
        let unit = Unit::Milliseconds;
        println!("  aim: a p99 of at most {most} {unit}   {}", if is_met { "met" } else { "MISSED" });
    }
    println!();
}

/// Reads the backlog over and over until `ended`; at how many MB/s.
async fn read(node: &Node, backlog: usize, mut ended: impl FnMut() -> bool) -> f64 {
    let clock = SystemClock::new();
    let client = Client::connect(node.url()).await.expect("the node can be reached");
    let mut inflater = Inflater::default();
    let mut bytes = 0;
    let megabytes =
        |bytes: usize| f64::from(u32::try_from(bytes >> 10).expect("it is little")) * 1_024.0 / 1e6;
    while !ended() {
        if backlog == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let subscribe = Subscribe::from(FetchFrom::new(TOPIC, 0, Position::Earliest));
        let mut subscription = client.subscribe(subscribe).await.expect("the topic is there");
        let mut left = backlog;
        while left > 0 && !ended() {
            let count = next(&mut subscription, &mut inflater).await;
            left = left.saturating_sub(count);
            bytes += count * RECORD_LEN;
            let due = Duration::from_secs_f64(megabytes(bytes) / READ_MB_PER_S);
            tokio::time::sleep(due.saturating_sub(clock.monotonic())).await;
        }
    }
    megabytes(bytes) / clock.monotonic().as_secs_f64()
}

/// Looks at the next records; how many they are.
async fn next(subscription: &mut Subscription, inflater: &mut Inflater) -> usize {
    let data = subscription.next().await.expect("it goes on").expect("the records can be read");
    let mut count = 0;
    for batch in data.chunks.iter().flat_map(Chunk::batches) {
        for record in batch.expect("the batch is good").records_with(inflater).expect("it is not compressed")
        {
            assert_eq!(record.expect("the record is good").value.map(<[u8]>::len), Some(RECORD_LEN));
            count += 1;
        }
    }
    count
}
