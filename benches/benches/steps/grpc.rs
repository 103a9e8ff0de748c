//! The same steps through the public client, at a node in a process of its own on the same two cores.

use logmill_bench::{Aim, Node, Row, Run, Unit, compare, percentile};
use logmill_client::{
    Acks, Client, Consumer, ConsumerEvent, OffsetToCommit, ProducerRecord, Step, UnitEpoch,
};
use logmill_record::{Batch, Offset};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{MIB, PARTITIONS, batches};

const NODE: &str = env!("CARGO_BIN_EXE_logmill-bench-node");

/// A node with the topics `in`, of one partition, and `out`; and a member that has the unit of `in`.
struct Scene {
    runtime: Runtime,
    client: Client,
    unit: UnitEpoch,
    _consumer: Consumer,
    _node: Node,
    _dir: TempDir,
}

impl Scene {
    fn open(run: &Run) -> Self {
        let runtime = Runtime::new().expect("a runtime starts");
        let dir = run.directory();
        let node = Node::start(NODE, &dir.path().join("data"));
        let (client, consumer, unit) = runtime.block_on(join(node.url()));
        Self { runtime, client, unit, _consumer: consumer, _node: node, _dir: dir }
    }

    fn step(&self, sequence: usize, batches: &[Batch]) {
        let sequence = i64::try_from(sequence).expect("it is small");
        let mut step =
            Step::new("g", self.unit.clone(), sequence).offset(OffsetToCommit::new("in", 0, Offset(1)));
        for (partition, batch) in (0..PARTITIONS).cycle().zip(batches) {
            step = step.batch("out", partition, batch).expect("there is such a partition");
        }
        self.runtime.block_on(self.client.commit_step(&step)).expect("it is committed");
    }

    /// All at once, and then waits for all.
    fn produce(&self, batches: &[Batch]) {
        self.runtime.block_on(async {
            let mut produced = tokio::task::JoinSet::new();
            for (partition, batch) in (0..PARTITIONS).cycle().zip(batches) {
                let (client, batch) = (self.client.clone(), batch.clone());
                produced.spawn(async move {
                    let delivered = client.produce_batch("out", partition, batch, Acks::Durable).await;
                    delivered.expect("it is on disk");
                });
            }
            produced.join_all().await;
        });
    }
}

async fn join(url: &str) -> (Client, Consumer, UnitEpoch) {
    let client = Client::connect(url).await.expect("the node can be reached");
    for (topic, partitions) in [("in", 1), ("out", PARTITIONS)] {
        client.create_topic(topic, Some(partitions)).await.expect("it is new");
    }
    let producer = client.producer(Default::default()).expect("the options are good");
    let delivery = producer.send(ProducerRecord::new("in", "x")).await.expect("it takes records");
    delivery.await.expect("it is on disk");
    let consumer = client.consumer("g").topics(["in"]).auto_commit(false).credit_bytes(0);
    let mut consumer = consumer.join().await.expect("it may join");
    loop {
        let event = consumer.next().await.expect("it is a member").expect("it goes on");
        if let ConsumerEvent::Assigned(assignment) = event {
            return (client, consumer, assignment.unit);
        }
    }
}

pub(super) fn large(run: &Run, steps: usize) {
    let batches = batches();
    let row = Row {
        title: "the same over gRPC, loopback, the client on the same two cores",
        conditions: &format!("{steps} steps as above; one connection; the baseline has 16 calls under way"),
        unit: Unit::MegabytesPerS,
        aim: Aim::None,
    };
    let ours = || {
        let scene = Scene::open(run);
        run.megabytes_per_s(steps * MIB, || (0..steps).for_each(|n| scene.step(n, &batches)))
    };
    let plain = || {
        let scene = Scene::open(run);
        run.megabytes_per_s(steps * MIB, || (0..steps).for_each(|_| scene.produce(&batches)))
    };
    compare(run, &row, ("Client::commit_step", ours), ("Client::produce_batch, durable", plain));
}

/// How long a step of an offset alone takes, in µs.
pub(super) fn empty(run: &Run, steps: usize, percent: usize) -> f64 {
    let scene = Scene::open(run);
    percentile(&run.each_in_us(steps, |n| scene.step(n, &[])), percent)
}
