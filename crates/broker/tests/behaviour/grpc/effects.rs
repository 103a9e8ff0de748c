//! Clients that consume, process and produce, and are killed at any point: each record that comes in has one effect.

use std::time::Duration;

use logmill_broker::Limits;
use logmill_log::sim::SimRandom;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v1::commit_step_request::Request as Sent;

use super::member::{Member, records_in, topics};
use super::*;
use crate::common::config;

const RECORDS: i64 = 40;

/// A node with topic `in` of so many records, and with `out`.
async fn start(dir: &tempfile::TempDir) -> Served {
    let served = Served::start(config(dir)).await;
    served.create("in", 1).await;
    served.create("out", 1).await;
    for number in 0..RECORDS {
        served.say("in", 0, &number.to_string()).await;
    }
    served
}

/// What readers of committed records see of `out`.
async fn effects(served: &Served) -> Vec<String> {
    let context = logmill_broker::RequestContext::embedded();
    let (mut next, mut values) = (logmill_broker::Position::Earliest, Vec::new());
    loop {
        let from = logmill_broker::FetchFrom::new("out", 0, next);
        let fetch = logmill_broker::Fetch::new(vec![from]);
        let data = served.broker.fetch(&context, fetch).await.unwrap().remove(0);
        assert!(data.error.is_none(), "{data:?}");
        assert_eq!(data.last_stable_offset, data.end_offset, "nothing is left open");
        values.extend(crate::common::text(&data));
        if data.next_offset == data.end_offset {
            return values;
        }
        next = logmill_broker::Position::Offset(data.next_offset);
    }
}

/// A member on a connection of its own, and what it has got.
struct Worker {
    channel: Channel,
    member: Member,
    assigned: v1::UnitAssigned,
    /// Those that are not processed yet.
    records: std::vec::IntoIter<(i64, String)>,
    next: i64,
}

impl Worker {
    async fn come(channel: Channel, member_id: &mut Option<String>) -> Self {
        let join = v1::JoinGroup { member_id: member_id.clone(), ..topics("g", &["in"]) };
        let mut member = Member::join(&channel, join).await.unwrap();
        *member_id = Some(member.id.clone());
        let assigned = member.assigned().await;
        let next = assigned.partitions[0].committed_offset.unwrap_or(0);
        Self { channel, member, assigned, records: Vec::new().into_iter(), next }
    }

    /// The next record; `None` if all were processed.
    async fn record(&mut self) -> Option<String> {
        if self.next == RECORDS {
            return None;
        }
        loop {
            if let Some((offset, value)) = self.records.next() {
                assert_eq!(offset, self.next, "what comes begins at the commit, without a gap");
                self.next += 1;
                return Some(value);
            }
            self.records = records_in(&self.member.data().await).into_iter();
        }
    }

    fn read(&self) -> v1::OffsetToCommit {
        v1::OffsetToCommit { topic: "in".into(), offset: self.next, ..v1::OffsetToCommit::default() }
    }
}

/// How far a client gets before it is killed.
fn fate(random: &SimRandom, points: u64) -> u64 {
    // Every other time it lives on.
    if random.one_in(2) { points } else { random.below(points) }
}

/// The messages of a step that makes `value` of the last record.
fn step(worker: &Worker, sequence: i64, value: &str) -> [Sent; 2] {
    let header = v1::StepHeader {
        group: "g".into(),
        unit: worker.assigned.unit.clone(),
        sequence,
        offsets: vec![worker.read()],
        topics: vec!["out".into()],
        total_bytes: value.len() as i64,
    };
    let payload = Some(v1::step_records::Payload::Records(v1::RecordSet { records: vec![record(value)] }));
    [
        Sent::Header(header),
        Sent::Records(v1::StepRecords { topic: "out".into(), partition: Some(0), payload }),
    ]
}

/// Sends a step, up to a point: before its header, behind it, behind its records, or to its answer.
async fn commit_step(worker: &Worker, sequence: i64, value: &str, point: u64) {
    let (requests, outgoing) = mpsc::channel(4);
    let mut client = Transactions::new(worker.channel.clone());
    let answer = tokio::spawn(async move { client.commit_step(ReceiverStream::new(outgoing)).await });
    for (at, request) in (1..).zip(step(worker, sequence, value)) {
        if at <= point {
            requests.send(v1::CommitStepRequest { request: Some(request) }).await.unwrap();
        }
    }
    if point == 3 {
        drop(requests);
        answer.await.unwrap().unwrap();
        return;
    }
    if point == 2 {
        // All of it is on its way when the client is killed, or most.
        drop(requests);
        tokio::task::yield_now().await;
    }
    answer.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_a_client_that_is_killed_at_any_point_have_one_effect_for_each_record() {
    for seed in 0..4 {
        let random = SimRandom::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let served = start(&dir).await;
        let (mut member_id, mut killed) = (None, 0);
        'alive: loop {
            let channel = connect(served.address).await;
            let mut worker = Worker::come(channel, &mut member_id).await;
            let mut sequence = worker.assigned.last_step.map_or(0, |last| last + 1);
            while let Some(value) = worker.record().await {
                let point = fate(&random, 4);
                commit_step(&worker, sequence, &value, point.min(3)).await;
                if point < 4 {
                    killed += 1;
                    continue 'alive;
                }
                sequence += 1;
            }
            break;
        }
        let expected: Vec<_> = (0..RECORDS).map(|number| number.to_string()).collect();
        assert_eq!(effects(&served).await, expected, "seed {seed}, killed {killed} times");
        assert!(killed > 5, "seed {seed}");
        served.stop().await;
    }
}

/// Writes a transaction with the record and how far was read, up to a point.
async fn transact(worker: &Worker, producer: &mut v1::ProducerEpoch, value: &str, point: u64) {
    let mut client = Transactions::new(worker.channel.clone());
    let state =
        v1::ProducerState { id: producer.id, epoch: producer.epoch, base_sequence: 0, transactional: true };
    let produce = v1::ProduceRequest { producer: Some(state), ..records("out", Some(0), [value]) };
    if point > 0 {
        Produces::new(worker.channel.clone()).produce(produce).await.unwrap();
    }
    let add = v1::AddOffsetsRequest {
        transactional_id: "x".into(),
        producer: Some(*producer),
        group: "g".into(),
        unit: worker.assigned.unit.clone(),
        offsets: vec![worker.read()],
    };
    if point > 1 {
        client.add_offsets(add).await.unwrap();
    }
    let (transactional_id, outcome) = ("x".into(), v1::Outcome::Commit.into());
    let end = v1::EndTransactionRequest { transactional_id, producer: Some(*producer), outcome };
    if point == 3 {
        let answer = tokio::spawn(async move { client.end_transaction(end).await });
        tokio::task::yield_now().await;
        answer.abort();
    } else if point > 3 {
        *producer = client.end_transaction(end).await.unwrap().into_inner().producer.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_a_client_that_is_killed_at_any_point_have_one_effect_for_each_record() {
    for seed in 0..4 {
        let random = SimRandom::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let served = start(&dir).await;
        let (mut member_id, mut killed) = (None, 0);
        'alive: loop {
            let channel = connect(served.address).await;
            // First: what the one before has left is decided when it is answered.
            let init = v1::InitTransactionsRequest { transactional_id: "x".into(), timeout_ms: None };
            let begun = Transactions::new(channel.clone()).init_transactions(init).await.unwrap();
            let mut producer = begun.into_inner().producer.unwrap();
            let mut worker = Worker::come(channel, &mut member_id).await;
            while let Some(value) = worker.record().await {
                let point = fate(&random, 5);
                transact(&worker, &mut producer, &value, point).await;
                if point < 5 {
                    killed += 1;
                    continue 'alive;
                }
            }
            break;
        }
        let expected: Vec<_> = (0..RECORDS).map(|number| number.to_string()).collect();
        assert_eq!(effects(&served).await, expected, "seed {seed}, killed {killed} times");
        assert!(killed > 5, "seed {seed}");
        served.stop().await;
    }
}

/// Half sent, a step holds room that others wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_which_no_more_comes_gives_back_its_room() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { max_step_bytes: 1_000, ..Limits::default() };
    let config = Config { limits, stall_timeout: Duration::from_millis(200), ..config(&dir) };
    let served = Served::start(config).await;
    for topic in ["in", "out"] {
        served.create(topic, 1).await;
    }
    served.say("in", 0, "x").await;
    let mut worker = Worker::come(connect(served.address).await, &mut None).await;
    worker.record().await.unwrap();
    let [Sent::Header(header), records] = step(&worker, 0, "x") else { panic!("the header is first") };
    let (requests, outgoing) = mpsc::channel(4);
    let all = v1::StepHeader { total_bytes: 1_000, ..header.clone() };
    requests.send(v1::CommitStepRequest { request: Some(Sent::Header(all)) }).await.unwrap();
    let mut client = Transactions::new(worker.channel.clone());
    let refused = client.commit_step(ReceiverStream::new(outgoing)).await.unwrap_err();
    assert_eq!(reason(&refused).1, "REQUEST_INVALID", "{refused:?}");
    let requests =
        [Sent::Header(header), records].map(|request| v1::CommitStepRequest { request: Some(request) });
    client.commit_step(tokio_stream::iter(requests)).await.unwrap();
    served.stop().await;
}
