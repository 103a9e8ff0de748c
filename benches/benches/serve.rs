//! A node that has just been started: how soon it answers, and how little memory it takes while
//! nobody asks for anything.
//!
//! The clock starts before the process does and stops when a client has connected and the node has
//! answered its first request. The baseline is the same program doing nothing but printing its
//! version: what starting any process of that size costs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use logmill_bench::{Aim, Memory, Node, Row, Run, Series, Unit, compare, memory_of};
use logmill_client::Client;
use logmill_log::env::{Clock as _, SystemClock};
use tokio::runtime::Runtime;

const NODE: &str = env!("CARGO_BIN_EXE_logmill-bench-node");
/// Until threads that found no work have ended and what the start left is gone.
const IDLE: Duration = Duration::from_secs(6);

fn main() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let run = Run::begin("a node over an empty directory, as a process of its own", dir, 0);

    let row = Row {
        title: "cold start",
        conditions: "an empty directory; from before the process starts to its first answer",
        unit: Unit::Milliseconds,
        aim: Aim::AtMost(50.0),
    };
    compare(
        &run,
        &row,
        ("logmill serve, to its first answer", || start_to_first_answer(&runtime, dir)),
        ("logmill --version", version_only),
    );

    println!("idle, {IDLE:?} after the first answer");
    let memory: Vec<Memory> = (0..run.pick(3, 1)).map(|_| idle_memory(&runtime, dir)).collect();
    for (name, of) in [
        ("resident (VmRSS)", (|memory| memory.resident_bytes) as fn(&Memory) -> u64),
        ("  anonymous (RssAnon)", |memory| memory.anonymous_bytes),
        ("  mapped files (RssFile)", |memory| memory.mapped_bytes),
    ] {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let mib = memory.iter().map(|memory| of(memory) as f64 / f64::from(1 << 20)).collect();
        println!("  {name:<44} {} MiB", Series::new(mib));
    }
}

fn first_answer(node: &Node, runtime: &Runtime) {
    runtime.block_on(async {
        let client = Client::connect(node.url()).await.expect("the node can be reached");
        client.describe_node().await.expect("the node answers");
    });
}

fn start_to_first_answer(runtime: &Runtime, dir: &Path) -> f64 {
    let dir = tempfile::tempdir_in(dir).expect("a directory can be made");
    let clock = SystemClock::new();
    let node = Node::start(NODE, &dir.path().join("data"));
    first_answer(&node, runtime);
    clock.monotonic().as_secs_f64() * 1e3
}

fn version_only() -> f64 {
    let clock = SystemClock::new();
    let output = Command::new(NODE).arg("--version").output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    clock.monotonic().as_secs_f64() * 1e3
}

fn idle_memory(runtime: &Runtime, dir: &Path) -> Memory {
    let dir = tempfile::tempdir_in(dir).expect("a directory can be made");
    let node = Node::start(NODE, &dir.path().join("data"));
    first_answer(&node, runtime);
    runtime.block_on(async { tokio::time::sleep(IDLE).await });
    memory_of(node.pid()).expect("the node runs")
}
