//! What a group costs its readers: the same records through a member of a group and through a plain subscription.
//!
//! The member commits by itself, as it does unless told otherwise; a row without commits tells what of the difference is
//! theirs. Each round is a new group, which begins at the first record; both times begin before the first message and end
//! with the last record, so the join is part of the one, and the last commit, which comes when the member leaves, is not.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use logmill_bench::{Aim, Node, Row, Run, Unit, Values, compare};
use logmill_client::{
    Chunk, Client, Consumer, ConsumerBuilder, ConsumerEvent, FetchFrom, PartitionData, Position,
    ProducerOptions, ProducerRecord, Subscribe,
};
use logmill_record::Inflater;
use tokio::runtime::Runtime;

const NODE: &str = env!("CARGO_BIN_EXE_logmill-bench-node");
const RECORD_LEN: usize = 1024;

fn main() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let run = Run::begin("records to members of groups, beside subscriptions", dir, 1 << 30);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let records = run.pick(512 * 1024, 2_000);
    for partitions in [1, 16] {
        consume(&run, &runtime, records, partitions);
    }
}

fn consume(run: &Run, runtime: &Runtime, records: usize, partitions: u32) {
    let dir = run.directory();
    let node = Node::start(NODE, &dir.path().join("data"));
    let topic = Topic { name: "readings".into(), partitions, records };
    runtime.block_on(topic.fill(&node));
    let row = Row {
        title: &format!("consume of {partitions} partitions, warm"),
        conditions: &format!(
            "{records} records of 1 KiB in batches of up to 64 KiB, credit 4 MiB, each looked at; one connection; the \
             client on the same two cores"
        ),
        unit: Unit::MegabytesPerS,
        aim: Aim::RatioAtLeast(0.9),
    };
    let connect = || runtime.block_on(Client::connect(node.url())).expect("the node can be reached");
    let groups = Cell::new(0);
    let member = |commits| {
        let client = connect();
        groups.set(groups.get() + 1);
        let consumer = client.consumer(&format!("readers-{}", groups.get())).auto_commit(commits);
        let mut member = None;
        let rate = run.megabytes_per_s(records * RECORD_LEN, || {
            member = Some(runtime.block_on(topic.read_as_member(consumer)));
        });
        let left = member.map(|member| runtime.block_on(member.close()));
        left.expect("it was one").expect("what it has read is committed");
        rate
    };
    let subscriber = || {
        let client = connect();
        run.megabytes_per_s(records * RECORD_LEN, || runtime.block_on(topic.read_by_subscription(&client)))
    };
    let (our_name, base_name) = ("Consumer::next", "Subscription::next");
    compare(run, &row, (our_name, || member(true)), (base_name, subscriber));
    let row = Row { title: "the same without commits", aim: Aim::None, ..row };
    compare(run, &row, (our_name, || member(false)), (base_name, subscriber));
}

struct Topic {
    name: Arc<str>,
    partitions: u32,
    records: usize,
}

impl Topic {
    async fn fill(&self, node: &Node) {
        let client = Client::connect(node.url()).await.expect("the node can be reached");
        client.create_topic(&self.name, Some(self.partitions)).await.expect("the topic is new");
        let producer = client.producer(ProducerOptions::default()).expect("the options are good");
        let mut values = Values::default();
        for partition in (0..self.partitions).cycle().take(self.records) {
            let record =
                ProducerRecord::new(Arc::clone(&self.name), values.next(RECORD_LEN)).partition(partition);
            let _delivery = producer.send(record).await.expect("the node takes records");
        }
        producer.close().await.expect("every record was appended");
    }

    async fn read_by_subscription(&self, client: &Client) {
        let from = |partition| FetchFrom::new(&*self.name, partition, Position::Earliest);
        let subscribe = Subscribe::from((0..self.partitions).map(from).collect::<Vec<_>>());
        let mut subscription = client.subscribe(subscribe).await.expect("the topic is there");
        let (mut inflater, mut seen) = (Inflater::default(), 0);
        while seen < self.records {
            let data = subscription.next().await.expect("it goes on").expect("the records can be read");
            seen += look_at(&data, &mut inflater);
        }
    }

    async fn read_as_member(&self, consumer: ConsumerBuilder) -> Consumer {
        let mut consumer = consumer.topics([&*self.name]).join().await.expect("it may join");
        let (mut inflater, mut seen) = (Inflater::default(), 0);
        while seen < self.records {
            let event = consumer.next().await.expect("it goes on").expect("it stays a member");
            if let ConsumerEvent::Records(records) = event {
                seen += look_at(&records.data, &mut inflater);
            }
        }
        consumer
    }
}

/// How many records there are.
fn look_at(data: &PartitionData, inflater: &mut Inflater) -> usize {
    let mut count = 0;
    for batch in data.chunks.iter().flat_map(Chunk::batches) {
        let batch = batch.expect("the batch is good");
        for record in batch.records_with(inflater).expect("it is not compressed") {
            let value = record.expect("the record is good").value;
            assert_eq!(value.map(<[u8]>::len), Some(RECORD_LEN));
            count += 1;
        }
    }
    count
}
