//! A node with ten thousand partitions: how soon it answers after a clean stop and after a kill, and what it takes in
//! memory while nobody asks for anything.
//!
//! The clock starts before the process does and stops when a client has connected and the node has answered its
//! first request. The baseline is the same with one partition.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use logmill_bench::{Aim, Node, Row, Run, Unit, compare, memory_of};
use logmill_client::{Client, ProducerOptions, ProducerRecord};
use logmill_log::env::{Clock as _, SystemClock};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const NODE: &str = env!("CARGO_BIN_EXE_logmill-bench-node");
const TOPIC: &str = "many";
const RECORD_LEN: usize = 100;
/// Until threads that found no work have ended and what the start left is gone.
const IDLE: Duration = Duration::from_secs(6);

fn main() {
    let run = Run::begin("a node with many partitions", Path::new(env!("CARGO_TARGET_TMPDIR")), 1 << 30);
    // Its worker ends connections when nobody waits for it: a node that stops waits for them.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime starts");
    let count = run.pick(10_000, 20);
    let clock = SystemClock::new();
    let many = fill(&run, &runtime, count);
    println!("made and filled in {:.1} s: {count} partitions\n", clock.monotonic().as_secs_f64());
    let one = fill(&run, &runtime, 1);

    let conditions =
        format!("{count} partitions with a record of {RECORD_LEN} bytes each; to the first answer");
    let row =
        |title| Row { title, conditions: &conditions, unit: Unit::Milliseconds, aim: Aim::AtMost(2_000.0) };
    let start = |dir: &TempDir, ends: fn(Node)| {
        let (node, took) = start(&runtime, dir);
        ends(node);
        took
    };
    let (ours, baseline) = (|| start(&many, drop), || start(&one, drop));
    compare(&run, &row("start after a clean stop"), ("many partitions", ours), ("one partition", baseline));
    // Each finds what the one before it left; the first round is not counted.
    let (ours, baseline) = (|| start(&many, Node::kill), || start(&one, Node::kill));
    compare(&run, &row("start after a kill"), ("many partitions", ours), ("one partition", baseline));

    let row = Row {
        title: "idle",
        conditions: &format!("{count} partitions; RssAnon {IDLE:?} after the first answer"),
        unit: Unit::Mebibytes,
        aim: Aim::AtMost(200.0),
    };
    let (ours, baseline) = (|| idle(&runtime, &many), || idle(&runtime, &one));
    compare(&run, &row, ("many partitions", ours), ("one partition", baseline));
}

/// A data directory with a topic of so many partitions, and a record in each.
fn fill(run: &Run, runtime: &Runtime, partitions: u32) -> TempDir {
    let dir = run.directory();
    let node = Node::start(NODE, &dir.path().join("data"));
    runtime.block_on(async {
        let client = Client::connect(node.url()).await.expect("the node can be reached");
        client.create_topic(TOPIC, Some(partitions)).await.expect("the topic is new");
        let producer = client.producer(ProducerOptions::default()).expect("the options are good");
        let value = Some(Bytes::from(vec![b'x'; RECORD_LEN]));
        for partition in 0..partitions {
            let topic = TOPIC.into();
            let record = ProducerRecord {
                topic,
                partition: Some(partition),
                value: value.clone(),
                ..Default::default()
            };
            let _delivery = producer.send(record).await.expect("the node takes records");
        }
        producer.close().await.expect("every record was appended");
    });
    dir
}

/// Starts the node, to its first answer; how long that took, in milliseconds.
fn start(runtime: &Runtime, dir: &TempDir) -> (Node, f64) {
    let clock = SystemClock::new();
    let node = Node::start(NODE, &dir.path().join("data"));
    runtime.block_on(async {
        let client = Client::connect(node.url()).await.expect("the node can be reached");
        client.describe_node().await.expect("the node answers");
    });
    let took = clock.monotonic().as_secs_f64() * 1e3;
    (node, took)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn idle(runtime: &Runtime, dir: &TempDir) -> f64 {
    let (node, _) = start(runtime, dir);
    runtime.block_on(async { tokio::time::sleep(IDLE).await });
    memory_of(node.pid()).expect("the node runs").anonymous_bytes as f64 / f64::from(1 << 20)
}
