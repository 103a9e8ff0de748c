//! Each limit in turn, set small and passed: who passes it is told its name and value, or waits, somebody counts that,
//! and nothing is done of what was refused.

use std::path::Path;
use std::sync::Arc;

use logmill_broker::{Limit, Limits};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v1::position::Edge;
use v1::produce_stream_response::Reply;

use super::limits::{counts, list, send_part, subscribe};
use super::*;
use crate::common::hook_fs::{Call, Gate, hooked};
use crate::common::with_env;

/// What nothing may be made of has this name, or begins with it.
const REFUSED: &str = "refused";

/// A node with one small limit and topic `t`, whose disk can be stopped.
struct Small {
    served: Served,
    gate: Arc<Gate>,
    stopped: Arc<Mutex<Option<Call>>>,
    _dir: tempfile::TempDir,
}

/// What became of the call that passes the limit.
#[derive(Debug)]
enum Outcome {
    Refused(Status),
    /// In its part of a reply.
    InReply(v1::Error),
    /// It waits, and goes on when there is room.
    Waited,
}

impl Small {
    async fn open(limit: Limit) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (gate, stopped) = (Arc::new(Gate::default()), Arc::new(Mutex::new(None)));
        let hook = {
            let (gate, stopped) = (Arc::clone(&gate), Arc::clone(&stopped));
            move |call, _: &Path| {
                if *stopped.lock() == Some(call) {
                    gate.pass();
                }
                Ok(())
            }
        };
        let mut limits = Limits::default();
        limits.set(limit, small(limit));
        let served = Served::start(Config { limits, ..with_env(&dir, hooked(hook)) }).await;
        served.create("t", 1).await;
        served.say("t", 0, &"x".repeat(900_000)).await;
        Self { served, gate, stopped, _dir: dir }
    }

    fn stop_disk(&self, call: Call) {
        *self.stopped.lock() = Some(call);
    }

    /// Until somebody has so much of it.
    async fn until_used(&self, limit: Limit, at_least: usize) {
        while counts(&self.served, limit).0 < at_least {
            tokio::task::yield_now().await;
        }
    }

    async fn until_refused(&self, limit: Limit) {
        while counts(&self.served, limit).1 == 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn check(&self, limit: Limit, outcome: Outcome) {
        let (code, reason, message, metadata) = match outcome {
            Outcome::Waited => (8, "LIMIT_EXCEEDED".to_owned(), limit.to_string(), HashMap::new()),
            Outcome::InReply(v1::Error { code, reason, message, metadata }) => {
                (code, reason, message, metadata)
            }
            Outcome::Refused(status) => {
                let (code, reason, metadata) = reason(&status);
                (code.into(), reason, status.message().to_owned(), metadata)
            }
        };
        assert_eq!((code, reason.as_str()), (8, "LIMIT_EXCEEDED"), "{limit}: {message}");
        assert!(message.contains(limit.as_str()), "{limit}: {message}");
        if !metadata.is_empty() {
            assert_eq!(
                (&*metadata["limit"], &metadata["value"]),
                (limit.as_str(), &small(limit).to_string())
            );
        }
        assert!(counts(&self.served, limit).1 > 0, "{limit}: nobody counted");
        self.nothing_was_done(limit).await;
    }

    async fn nothing_was_done(&self, limit: Limit) {
        let context = logmill_broker::RequestContext::embedded();
        let described = self.served.broker.describe_topic(&context, "t").await.unwrap();
        assert_eq!(described.topic.partition_count, 1, "{limit}");
        assert!(described.topic.settings.iter().all(|it| it.value != "8388609"), "{limit}");
        let topics = self.served.broker.list_topics(&context, logmill_broker::ListTopics::default());
        assert!(topics.await.unwrap().topics.iter().all(|topic| topic.name != REFUSED), "{limit}");
        let groups = self.served.broker.list_groups(&context, logmill_broker::ListGroups::default());
        assert!(groups.await.unwrap().groups.iter().all(|group| group.group != REFUSED), "{limit}");
        let ids = self.served.broker.list_transactions(&context, logmill_broker::ListTransactions::default());
        let ids = ids.await.unwrap().transactions;
        assert!(ids.iter().all(|id| id.transactional_id != REFUSED), "{limit}");
        let mut next = logmill_broker::FetchFrom::new("t", 0, logmill_broker::Position::Earliest);
        loop {
            let data = self.served.broker.fetch(&context, logmill_broker::Fetch::new(vec![next.clone()]));
            // What took the room for replies goes in its own time.
            let Ok(mut data) = data.await else { continue };
            let data = data.remove(0);
            assert!(crate::common::text(&data).iter().all(|value| !value.starts_with(REFUSED)), "{limit}");
            if data.next_offset == data.end_offset {
                break;
            }
            next.position = logmill_broker::Position::Offset(data.next_offset);
        }
    }
}

/// To what each is set: so little that it can be passed, and so much that it lets the rest of the test through.
fn small(limit: Limit) -> usize {
    match limit {
        Limit::MaxQueuedBytes | Limit::MaxPartitionQueuedBytes => 1_000_000,
        Limit::MaxRequestBytes | Limit::MaxConnectionBytes => 950_000,
        Limit::MaxBatchBytes => 8_388_608,
        Limit::MaxStreamsPerConnection => 2,
        _ => 1,
    }
}

fn refused_record(bytes: usize) -> v1::ProduceRequest {
    records("t", Some(0), [format!("{REFUSED}{}", "x".repeat(bytes))])
}

fn create(name: &str, partitions: i32) -> v1::CreateTopicRequest {
    v1::CreateTopicRequest { name: name.into(), partitions: Some(partitions), settings: Vec::new() }
}

async fn fetch(served: &Served, request: v1::FetchRequest) -> Result<v1::FetchResponse, Status> {
    served.fetches().fetch(request).await.map(tonic::Response::into_inner)
}

fn reading(partitions: Vec<v1::FetchPartition>, max_wait_ms: i32) -> v1::FetchRequest {
    v1::FetchRequest { partitions, max_wait_ms, ..v1::FetchRequest::default() }
}

/// What is accepted and waits for the disk.
async fn queued(small: &Small, limit: Limit) -> Outcome {
    small.stop_disk(Call::Write);
    let mut produces = small.served.produces();
    let waits =
        tokio::spawn(async move { produces.produce(records("t", Some(0), ["x".repeat(600_000)])).await });
    small.until_used(limit, 600_000).await;
    let refused = small.served.produces().produce(refused_record(600_000)).await.unwrap_err();
    small.gate.open();
    waits.await.unwrap().unwrap();
    Outcome::Refused(refused)
}

/// Requests that are not whole, of one connection or of two.
async fn half_sent(small: &Small, limit: Limit) -> Outcome {
    let first = raw::connect(small.served.address).await;
    let waits = send_part(&first, 600_000).await;
    small.until_used(limit, 600_000).await;
    let second = match limit {
        Limit::MaxConnectionBytes => first.clone(),
        _ => raw::connect(small.served.address).await,
    };
    let (response, body) = send_part(&second, 600_000).await;
    let (_, status) = raw::answer(response).await.unwrap();
    drop((waits, body));
    Outcome::Refused(status)
}

/// Replies that nobody reads, on the same connection as a fetch.
async fn unread(small: &Small) -> Outcome {
    // More than the client's windows take.
    for _ in 0..5 {
        small.served.say("t", 0, &"x".repeat(900_000)).await;
    }
    let _unread = subscribe(&small.served.channel, "t").await.unwrap();
    loop {
        let request = reading(vec![from("t", 0, at_edge(Edge::Earliest))], 0);
        if let Err(status) = fetch(&small.served, request).await {
            return Outcome::Refused(status);
        }
    }
}

/// A stream with one request under way that cannot be written, and another one behind it.
async fn streamed(small: &Small, second: v1::ProduceRequest) -> tonic::Streaming<v1::ProduceStreamResponse> {
    small.stop_disk(Call::Write);
    let (requests, outgoing) = mpsc::channel(4);
    let answers = small.served.produces().produce_stream(ReceiverStream::new(outgoing)).await.unwrap();
    for (correlation_id, request) in [(1, records("t", Some(0), ["x"])), (2, second)] {
        let request = Some(request);
        requests
            .send(v1::ProduceStreamRequest { correlation_id, request, after_failure: false })
            .await
            .unwrap();
    }
    answers.into_inner()
}

async fn next_answer(answers: &mut tonic::Streaming<v1::ProduceStreamResponse>) -> v1::ProduceStreamAnswer {
    loop {
        if let Some(Reply::Answer(answer)) = answers.message().await.unwrap().unwrap().reply {
            return answer;
        }
    }
}

async fn unanswered(small: &Small, limit: Limit) -> Outcome {
    let mut answers = streamed(small, records("t", Some(0), ["y"])).await;
    small.until_refused(limit).await;
    small.gate.open();
    assert_eq!(next_answer(&mut answers).await.correlation_id, 1);
    assert_eq!(next_answer(&mut answers).await.correlation_id, 2);
    Outcome::Waited
}

async fn stream_partitions(small: &Small) -> Outcome {
    let mut answers = streamed(small, records("t", Some(1), [REFUSED])).await;
    let answer = next_answer(&mut answers).await;
    small.gate.open();
    match answer.results.into_iter().next().unwrap().outcome {
        Some(v1::produce_result::Outcome::Error(error)) => Outcome::InReply(error),
        other => panic!("{other:?}"),
    }
}

async fn waiting_fetches(small: &Small, limit: Limit) -> Outcome {
    let at_end = || reading(vec![from("t", 0, at_edge(Edge::Latest))], 60_000);
    let mut fetches = small.served.fetches();
    let waits = tokio::spawn(async move { fetches.fetch(at_end()).await });
    small.until_used(limit, 1).await;
    let refused = fetch(&small.served, at_end()).await.unwrap_err();
    small.served.say("t", 0, "wakes it").await;
    waits.await.unwrap().unwrap();
    Outcome::Refused(refused)
}

async fn partition_reads(small: &Small, limit: Limit) -> Outcome {
    small.stop_disk(Call::Read);
    let mut fetches = small.served.fetches();
    let first = reading(vec![from("t", 0, at_edge(Edge::Earliest))], 0);
    let waits = tokio::spawn(async move { fetches.fetch(first).await });
    small.until_used(limit, 1).await;
    let by_time = Some(v1::Position { at: Some(v1::position::At::TimestampMs(0)) });
    let refused = fetch(&small.served, reading(vec![from("t", 0, by_time)], 50)).await.unwrap();
    small.gate.open();
    waits.await.unwrap().unwrap();
    Outcome::InReply(refused.partitions[0].error.clone().unwrap())
}

/// Behind a write that the disk does not answer.
async fn partition_deletions(small: &Small, limit: Limit) -> Outcome {
    small.stop_disk(Call::Write);
    let mut produces = small.served.produces();
    let written = tokio::spawn(async move { produces.produce(records("t", Some(0), ["x"])).await });
    let gate = Arc::clone(&small.gate);
    tokio::task::spawn_blocking(move || gate.wait_for_someone()).await.unwrap();
    let all = || {
        let partitions = vec![v1::PartitionDeletion { partition: 0, before_offset: None }];
        v1::DeleteRecordsRequest { topic: "t".into(), partitions }
    };
    let mut topics = small.served.topics();
    let waits = tokio::spawn(async move { topics.delete_records(all()).await });
    small.until_used(limit, 1).await;
    let refused = small.served.topics().delete_records(all()).await.unwrap_err();
    small.gate.open();
    written.await.unwrap().unwrap();
    waits.await.unwrap().unwrap();
    Outcome::Refused(refused)
}

async fn topic_changes(small: &Small, limit: Limit) -> Outcome {
    small.stop_disk(Call::Sync);
    let mut topics = small.served.topics();
    let waits = tokio::spawn(async move { topics.create_topic(create("u", 1)).await });
    small.until_used(limit, 1).await;
    let refused = small.served.topics().create_topic(create(REFUSED, 1)).await.unwrap_err();
    small.gate.open();
    waits.await.unwrap().unwrap();
    Outcome::Refused(refused)
}

async fn too_large_a_setting(small: &Small) -> Outcome {
    let change = Some(v1::setting_change::Change::Set("8388609".into()));
    let changes = vec![v1::SettingChange { name: "max.message.bytes".into(), change }];
    let request = v1::AlterTopicRequest { name: "t".into(), changes };
    Outcome::Refused(small.served.topics().alter_topic(request).await.unwrap_err())
}

async fn connections(small: &Small) -> Outcome {
    Outcome::Refused(list(&connect(small.served.address).await).await.unwrap_err())
}

async fn streams(small: &Small) -> Outcome {
    let channel = connect(small.served.address).await;
    let _two = [subscribe(&channel, "t").await.unwrap(), subscribe(&channel, "t").await.unwrap()];
    Outcome::Refused(list(&channel).await.unwrap_err())
}

async fn subscriptions(small: &Small) -> Outcome {
    let _one = subscribe(&small.served.channel, "t").await.unwrap();
    Outcome::Refused(subscribe(&small.served.channel, "t").await.unwrap_err())
}

/// A member more of a group, as long as what is returned lives.
async fn join(
    small: &Small,
    group: &str,
    topics: &[&str],
) -> Result<(mpsc::Sender<v1::ConsumeRequest>, tonic::Streaming<v1::ConsumeResponse>), Status> {
    let (requests, outgoing) = mpsc::channel(4);
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let join = v1::JoinGroup { group: group.into(), topics, ..v1::JoinGroup::default() };
    let request = Some(v1::consume_request::Request::Join(join));
    requests.send(v1::ConsumeRequest { request }).await.unwrap();
    let replies = small.served.groups().consume(ReceiverStream::new(outgoing)).await?;
    Ok((requests, replies.into_inner()))
}

async fn members(small: &Small, second: &str) -> Outcome {
    let _first = join(small, "g", &["t"]).await.unwrap();
    Outcome::Refused(join(small, second, &["t"]).await.unwrap_err())
}

async fn step(small: &Small, offsets: Vec<v1::OffsetToCommit>) -> Outcome {
    use v1::commit_step_request::Request;
    let (_requests, mut replies) = join(small, "g", &["t"]).await.unwrap();
    let assigned = loop {
        let reply = replies.message().await.unwrap().unwrap().reply;
        if let Some(v1::consume_response::Reply::Assigned(assigned)) = reply {
            break assigned;
        }
    };
    let topics = vec!["t".into()];
    let header = v1::StepHeader {
        group: "g".into(),
        unit: assigned.unit,
        sequence: 0,
        offsets,
        topics,
        total_bytes: REFUSED.len() as i64,
    };
    let records = v1::RecordSet { records: vec![record(REFUSED)] };
    let payload = Some(v1::step_records::Payload::Records(records));
    let records = v1::StepRecords { topic: "t".into(), partition: Some(0), payload };
    let requests = [Request::Header(header), Request::Records(records)];
    let requests = requests.map(|request| v1::CommitStepRequest { request: Some(request) });
    let refused = small.served.transactions().commit_step(tokio_stream::iter(requests)).await;
    Outcome::Refused(refused.unwrap_err())
}

async fn transactional_ids(small: &Small) -> Outcome {
    let init = |id: &str| v1::InitTransactionsRequest { transactional_id: id.into(), timeout_ms: None };
    small.served.transactions().init_transactions(init("a")).await.unwrap();
    Outcome::Refused(small.served.transactions().init_transactions(init(REFUSED)).await.unwrap_err())
}

/// Passes the limit.
async fn pass(small: &Small, limit: Limit) -> Outcome {
    let served = &small.served;
    let created = |name: &str, partitions| {
        let request = create(name, partitions);
        let mut topics = served.topics();
        async move { Outcome::Refused(topics.create_topic(request).await.unwrap_err()) }
    };
    let produced =
        |request| async move { Outcome::Refused(served.produces().produce(request).await.unwrap_err()) };
    match limit {
        Limit::MaxQueuedBytes | Limit::MaxPartitionQueuedBytes => queued(small, limit).await,
        Limit::MaxRequestBytes | Limit::MaxConnectionBytes => half_sent(small, limit).await,
        Limit::MaxUnansweredBytes => unanswered(small, limit).await,
        Limit::MaxReplyBytes | Limit::MaxConnectionReplyBytes => unread(small).await,
        Limit::MaxBatchBytes => too_large_a_setting(small).await,
        Limit::MaxRecordsPerRequest => produced(records("t", Some(0), [REFUSED, REFUSED])).await,
        Limit::MaxHeadersPerRequest => {
            let header = v1::Header { key: "h".into(), value: None };
            let record = v1::Record { headers: vec![header.clone(), header], ..record(REFUSED) };
            let set = v1::RecordSet { records: vec![record] };
            let payload = Some(v1::produce_request::Payload::Records(set));
            produced(v1::ProduceRequest { payload, ..refused_record(0) }).await
        }
        Limit::MaxConnections => connections(small).await,
        Limit::MaxStreamsPerConnection => streams(small).await,
        Limit::MaxTopics | Limit::MaxPartitions => created(REFUSED, 1).await,
        Limit::MaxPartitionsPerTopic => created(REFUSED, 2).await,
        Limit::MaxSubscriptions => subscriptions(small).await,
        Limit::MaxWaitingFetches => waiting_fetches(small, limit).await,
        Limit::MaxFetchPartitions => {
            let two = (0..2).map(|partition| from("t", partition, at_offset(0))).collect();
            Outcome::Refused(fetch(served, reading(two, 0)).await.unwrap_err())
        }
        Limit::MaxPartitionReads => partition_reads(small, limit).await,
        Limit::MaxPartitionDeletions => partition_deletions(small, limit).await,
        Limit::MaxPositions => {
            let place = v1::PartitionPosition { partition: 0, position: at_offset(0) };
            let request =
                v1::ListOffsetsRequest { topic: "t".into(), positions: vec![place, place], isolation: 0 };
            Outcome::Refused(served.topics().list_offsets(request).await.unwrap_err())
        }
        Limit::MaxStreamPartitions => stream_partitions(small).await,
        Limit::MaxQueuedTopicChanges => topic_changes(small, limit).await,
        Limit::MaxStepBytes => step(small, Vec::new()).await,
        Limit::MaxCommitPartitions => {
            let offset = v1::OffsetToCommit { topic: "t".into(), ..v1::OffsetToCommit::default() };
            step(small, vec![offset]).await
        }
        Limit::MaxGroups => members(small, REFUSED).await,
        Limit::MaxGroupMembers => members(small, "g").await,
        Limit::MaxJoinUnits => Outcome::Refused(join(small, REFUSED, &["t", "u"]).await.unwrap_err()),
        Limit::MaxTransactionalIds => transactional_ids(small).await,
        other => panic!("{other} has no case here"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_named_and_counted_when_it_is_passed_and_nothing_is_done() {
    for limit in Limit::ALL {
        let small = Small::open(*limit).await;
        let outcome = pass(&small, *limit).await;
        small.check(*limit, outcome).await;
        let Small { served, .. } = small;
        served.stop().await;
    }
}
