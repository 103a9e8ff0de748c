//! Steps, in process and over gRPC: what exactly-once costs beside plain durable appends, and beside the disk itself.

mod grpc;

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::Duration;

use logmill_bench::{
    Aim, Row, Run, Series, Unit, Values, batch_of_bytes, compare, memory_of, percentile, raw_append,
};
use logmill_broker::{
    Acks, Assignment, Broker, Config, CreateTopic, GroupEvent, JoinGroup, Member, OffsetToCommit, Payload,
    Produce, ProduceRecord, RequestContext, StepHeader,
};
use logmill_log::env::{Clock as _, block_on};
use logmill_record::{Batch, Offset};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const PARTITIONS: u32 = 4;
const TASKS: u32 = 16;

fn main() {
    let run = Run::begin("steps", Path::new(env!("CARGO_TARGET_TMPDIR")), 1 << 30);
    large(&run, run.pick(256, 2));
    grpc::large(&run, run.pick(256, 2));
    empty(&run, run.pick(2_000, 5));
    together(&run, Duration::from_secs(run.pick(10, 1)));
    idle_groups(&run, run.pick(10_000, 20));
}

/// A broker with the topics `in`, of one partition for each task, and `out`; and somebody who works on all of `in`.
struct Node {
    broker: Broker,
    _dir: TempDir,
}

impl Node {
    fn open(run: &Run) -> Self {
        let dir = run.directory();
        let broker = Broker::open(Config::new(dir.path())).expect("a new directory can be opened");
        let node = Self { broker, _dir: dir };
        for (topic, partitions) in [("in", TASKS), ("out", PARTITIONS)] {
            let create = CreateTopic::new(topic).partitions(partitions);
            node.wait(node.broker.create_topic(&RequestContext::embedded(), create)).expect("it is new");
        }
        for partition in 0..TASKS {
            let record = ProduceRecord { value: Some("x".into()), ..ProduceRecord::default() };
            node.produce("in", partition, Payload::Records(vec![record]));
        }
        node
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        block_on(&*self.broker.config().env.scheduler, future)
    }

    fn produce(&self, topic: &str, partition: u32, payload: Payload) {
        let context = RequestContext::embedded();
        let (topic, partition, acks) = (topic.to_owned(), Some(partition), Acks::Durable);
        let produce = Produce { topic, partition, payload, acks, sent_at: None };
        let mut results = self.wait(self.broker.produce(&context, produce)).expect("the request is good");
        results.remove(0).outcome.expect("the records are on disk");
    }

    fn join(&self) -> (Member, Vec<Assignment>) {
        let join = JoinGroup::topics("g", ["in"]);
        let mut member = self.broker.join_group(&RequestContext::embedded(), join).expect("it may join");
        let mut units = Vec::new();
        while units.len() < TASKS as usize {
            if let GroupEvent::Assigned(unit) = self.wait(member.next()) {
                units.push(unit);
            }
        }
        (member, units)
    }

    fn step(&self, unit: &Assignment, sequence: i64, batches: &[Batch]) {
        let bytes = batches.iter().map(|batch| batch.bytes().len() as u64).sum();
        let header = StepHeader {
            group: "g".to_owned(),
            unit: unit.unit.clone(),
            unit_epoch: unit.epoch,
            sequence,
            offsets: vec![OffsetToCommit::new("in", unit.partitions[0].partition, Offset(1))],
            topics: vec!["out".to_owned()],
            total_bytes: bytes,
        };
        let mut step = self.broker.begin_step(&RequestContext::embedded(), header).expect("it may begin");
        for (partition, batch) in (0..PARTITIONS).cycle().zip(batches) {
            let payload = Payload::Batch(batch.bytes().clone());
            step.append("out", Some(partition), payload).expect("it is what the header says");
        }
        self.wait(step.commit()).expect("it is committed");
    }
}

/// Sixteen batches of 64 KiB, four for each partition.
fn batches() -> Vec<Batch> {
    let mut values = Values::default();
    (0..16).map(|_| batch_of_bytes(&mut values, 64 << 10, 1024, 0)).collect()
}

fn large(run: &Run, steps: usize) {
    let batches = batches();
    let row = Row {
        title: "steps of 1 MiB over 4 partitions, one after the other",
        conditions: &format!(
            "{steps} steps of 16 batches of 64 KiB with records of 1 KiB, and an offset; each committed before the next"
        ),
        unit: Unit::MegabytesPerS,
        aim: Aim::RatioAtLeast(0.7),
    };
    let ours = || {
        let node = Node::open(run);
        let (_member, units) = node.join();
        run.megabytes_per_s(steps * MIB, || {
            for sequence in 0..steps {
                node.step(&units[0], i64::try_from(sequence).expect("it is small"), &batches);
            }
        })
    };
    let plain = || {
        let node = Node::open(run);
        let context = RequestContext::embedded();
        run.megabytes_per_s(steps * MIB, || {
            for _ in 0..steps {
                let produced: Vec<_> = (0..PARTITIONS)
                    .cycle()
                    .zip(&batches)
                    .map(|(partition, batch)| {
                        let payload = Payload::Batch(batch.bytes().clone());
                        let (topic, partition, acks) = ("out".to_owned(), Some(partition), Acks::Durable);
                        let produce = Produce { topic, partition, payload, acks, sent_at: None };
                        node.broker.produce(&context, produce)
                    })
                    .collect();
                for answer in produced {
                    let mut results = node.wait(answer).expect("the request is good");
                    results.remove(0).outcome.expect("the records are on disk");
                }
            }
        })
    };
    compare(run, &row, ("Step::commit", ours), ("the same bytes produced, durable", plain));
}

fn empty(run: &Run, steps: usize) {
    let ours = |percent| {
        let node = Node::open(run);
        let (_member, units) = node.join();
        let took = run.each_in_us(steps, |n| {
            node.step(&units[0], i64::try_from(n).expect("it is small"), &[]);
        });
        percentile(&took, percent)
    };
    let over_grpc = |percent| grpc::empty(run, steps, percent);
    let row = Row {
        title: "steps of an offset alone, one after the other, p50",
        conditions: &format!("{steps} steps, each committed before the next"),
        unit: Unit::Microseconds,
        aim: Aim::RatioAtMost(4.0),
    };
    let (our_name, base_name) = ("Step::commit", "append of 4 KiB + fdatasync");
    compare(run, &row, (our_name, || ours(50)), (base_name, || raw(run, steps, 50)));
    let row = Row { title: "the same, p99", aim: Aim::None, ..row };
    compare(run, &row, (our_name, || ours(99)), (base_name, || raw(run, steps, 99)));
    let row = Row { title: "the same over gRPC, p50", ..row };
    let our_name = "Client::commit_step";
    compare(run, &row, (our_name, || over_grpc(50)), (base_name, || raw(run, steps, 50)));
    let row = Row { title: "the same over gRPC, p99", ..row };
    compare(run, &row, (our_name, || over_grpc(99)), (base_name, || raw(run, steps, 99)));
}

/// How long the disk alone takes, in µs.
fn raw(run: &Run, times: usize, percent: usize) -> f64 {
    let page = Values::default().next(4096);
    let dir = run.directory();
    let file = raw_append(&dir.path().join("raw"));
    let took = run.each_in_us(times, |n| {
        file.write_all_at(&page, 4096 * n as u64).expect("the file can be written");
        file.sync_data().expect("the sync succeeds");
    });
    percentile(&took, percent)
}

/// Sixteen tasks, each of which commits a step of a record whenever it is due.
fn together(run: &Run, lasts: Duration) {
    let every = Duration::from_millis(80);
    println!("16 tasks at once, 12.5 steps a second each, a record of 100 bytes and an offset in each");
    let (mut slowest, mut rates) = (Vec::new(), Vec::new());
    let value = Values::default().next(100);
    for _ in 0..run.rounds() {
        let node = Node::open(run);
        let (_member, units) = node.join();
        let (longest_us, count) = (AtomicI64::new(0), AtomicI64::new(0));
        let took = run.time(|| {
            thread::scope(|scope| {
                for (task, unit) in (0..TASKS).zip(&units) {
                    let (node, value, longest_us, count) = (&node, &value, &longest_us, &count);
                    scope.spawn(move || {
                        let batch = batch_of_bytes(&mut Values::default(), 0, value.len(), 0);
                        wait(every * task / TASKS);
                        let begun = run.clock().monotonic();
                        let elapsed = || run.clock().monotonic().saturating_sub(begun);
                        let mut due = Duration::ZERO;
                        let mut sequence = 0;
                        while due < lasts {
                            wait(due.saturating_sub(elapsed()));
                            node.step(unit, sequence, std::slice::from_ref(&batch));
                            let late = elapsed().saturating_sub(due);
                            let late = i64::try_from(late.as_micros()).unwrap_or(i64::MAX);
                            longest_us.fetch_max(late, Ordering::Relaxed);
                            count.fetch_add(1, Ordering::Relaxed);
                            (sequence, due) = (sequence + 1, due + every);
                        }
                    });
                }
            });
        });
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let (longest, done) = (longest_us.into_inner() as f64 / 1e3, count.into_inner() as f64);
        slowest.push(longest);
        rates.push(done / took.as_secs_f64());
    }
    let (slowest, rates) = (Series::new(slowest), Series::new(rates));
    println!("  steps a second                                       {rates}");
    println!("  the longest step, from when it was due               {slowest} ms");
    let is_met = slowest.spread().1 <= 100.0;
    println!(
        "  aim: none above 100 ms                               {}\n",
        if is_met { "met" } else { "MISSED" }
    );
}

#[expect(clippy::disallowed_methods, reason = "the load waits until it is due, and nobody cancels it")]
fn wait(time: Duration) {
    thread::sleep(time);
}

/// What groups cost that have a member each, and have committed an offset.
fn idle_groups(run: &Run, groups: usize) {
    let node = Node::open(run);
    let anonymous = || memory_of(std::process::id()).expect("there is a /proc").anonymous_bytes;
    let before = anonymous();
    let context = RequestContext::embedded();
    let mut members = Vec::with_capacity(groups);
    let took = run.time(|| {
        for n in 0..groups {
            let join = JoinGroup::topics(format!("g{n}"), ["out"]);
            let mut member = node.broker.join_group(&context, join).expect("it may join");
            if let GroupEvent::Assigned(unit) = node.wait(member.next()) {
                let partition = unit.partitions[0].partition;
                let offset = OffsetToCommit::new("out", partition, Offset(0));
                let commit = member.handle().commit(&unit.unit, unit.epoch, vec![offset]);
                node.wait(commit).expect("it is the owner");
            }
            members.push(member);
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let mib = anonymous().saturating_sub(before) as f64 / MIB as f64;
    println!("{groups} groups, each with a member that owns 4 partitions and has committed one of them");
    println!("  made in                                              {:.1} s", took.as_secs_f64());
    println!("  anonymous memory                                     {mib:.1} MiB");
    println!(
        "  aim: at most 100 MiB                                 {}",
        if mib <= 100.0 { "met" } else { "MISSED" }
    );
}
