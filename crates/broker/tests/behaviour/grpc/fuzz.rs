//! Every rpc against messages that are wrong in every way: each is answered, with a reason if it is refused, none is a
//! fault of the node's, and the node serves on.

use std::time::Duration;

use logmill_broker::{Limits, Reason};
use prost::Message as _;

use super::by_chance::{Make, Random};
use super::*;
use crate::common::config;

/// Requests of each rpc, with another seed each, unless `LOGMILL_FUZZ_RUNS` says how many.
const RUNS: u64 = 100;
/// A call that may wait for records is given up then.
const PATIENCE: Duration = Duration::from_millis(50);
/// And any other is not answered at all.
const NEVER: Duration = Duration::from_secs(60);

const RPCS: [(&str, Make); 27] = [
    ("TopicService/CreateTopic", |random| one(&random.create_topic())),
    ("TopicService/ListTopics", |random| one(&random.list_topics())),
    ("TopicService/DescribeTopic", |random| one(&v1::DescribeTopicRequest { name: random.topic() })),
    ("TopicService/DeleteTopic", |random| one(&v1::DeleteTopicRequest { name: random.topic() })),
    ("TopicService/AlterTopic", |random| one(&random.alter_topic())),
    ("TopicService/AddPartitions", |random| {
        one(&v1::AddPartitionsRequest { name: random.topic(), partition_count: random.int() })
    }),
    ("TopicService/DeleteRecords", |random| one(&random.delete_records())),
    ("TopicService/ListOffsets", |random| one(&random.list_offsets())),
    ("ProduceService/Produce", |random| one(&random.produce())),
    ("ProduceService/ProduceStream", |random| random.many(|random| random.produce_stream().encode_to_vec())),
    ("ProduceService/InitProducerId", |_| one(&v1::InitProducerIdRequest {})),
    ("FetchService/Fetch", |random| one(&random.fetch())),
    ("FetchService/Subscribe", |random| random.many(|random| random.subscribe().encode_to_vec())),
    ("NodeService/DescribeNode", |_| one(&v1::DescribeNodeRequest {})),
    ("TransactionService/InitTransactions", |random| {
        let timeout_ms = random.maybe(Random::int);
        one(&v1::InitTransactionsRequest { transactional_id: random.id(), timeout_ms })
    }),
    ("TransactionService/AddOffsets", |random| one(&random.add_offsets())),
    ("TransactionService/EndTransaction", |random| one(&random.end_transaction())),
    ("TransactionService/ListTransactions", |random| one(&random.list_transactions())),
    ("TransactionService/DescribeTransaction", |random| {
        one(&v1::DescribeTransactionRequest { transactional_id: random.id() })
    }),
    ("TransactionService/AbortTransaction", |random| {
        one(&v1::AbortTransactionRequest { transactional_id: random.id() })
    }),
    ("TransactionService/CommitStep", |random| random.commit_step()),
    ("GroupService/ListGroups", |random| {
        one(&v1::ListGroupsRequest { page_size: random.int(), page_token: random.topic() })
    }),
    ("GroupService/DescribeGroup", |random| one(&v1::DescribeGroupRequest { group: random.group() })),
    ("GroupService/ResetOffsets", |random| one(&random.reset_offsets())),
    ("GroupService/DeleteOffsets", |random| {
        one(&v1::DeleteOffsetsRequest { group: random.group(), topic: random.topic() })
    }),
    ("GroupService/DeleteGroup", |random| one(&v1::DeleteGroupRequest { group: random.group() })),
    ("GroupService/Consume", |random| random.consume()),
];

fn one(message: &impl prost::Message) -> Vec<Vec<u8>> {
    vec![message.encode_to_vec()]
}

/// Checks a failure, wherever it stands.
fn check(what: &str, reason: &str, message: &str) {
    let documented = Reason::ALL.iter().find(|documented| documented.as_str() == reason);
    let documented = documented.unwrap_or_else(|| panic!("{what}: {reason} is not documented: {message}"));
    assert_ne!(*documented, Reason::InternalFault, "{what}: {message}");
    assert!(!message.is_empty(), "{what}: {reason} and no word more");
}

/// Checks the failures in replies.
fn check_replies(what: &str, rpc: &str, mut wire: &[u8]) {
    while let [_, a, b, c, d, rest @ ..] = wire {
        let (message, rest) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        wire = rest;
        let errors: Vec<v1::Error> = match rpc {
            "TopicService/DeleteRecords" => {
                let reply = v1::DeleteRecordsResponse::decode(message).unwrap();
                reply.partitions.into_iter().filter_map(|it| it.error).collect()
            }
            "ProduceService/ProduceStream" => {
                match v1::ProduceStreamResponse::decode(message).unwrap().reply.unwrap() {
                    v1::produce_stream_response::Reply::Started(_) => Vec::new(),
                    v1::produce_stream_response::Reply::Answer(answer) => {
                        answer.results.into_iter().filter_map(error_of).collect()
                    }
                }
            }
            "ProduceService/Produce" => {
                let reply = v1::ProduceResponse::decode(message).unwrap();
                reply.results.into_iter().filter_map(error_of).collect()
            }
            "GroupService/Consume" => match v1::ConsumeResponse::decode(message).unwrap().reply.unwrap() {
                v1::consume_response::Reply::Committed(answer) => answer.error.into_iter().collect(),
                v1::consume_response::Reply::Data(data) => data.data.unwrap().error.into_iter().collect(),
                _ => Vec::new(),
            },
            "FetchService/Fetch" => {
                let reply = v1::FetchResponse::decode(message).unwrap();
                reply.partitions.into_iter().filter_map(|it| it.error).collect()
            }
            _ => Vec::new(),
        };
        for v1::Error { reason, message, .. } in errors {
            check(what, &reason, &message);
        }
    }
}

fn error_of(result: v1::ProduceResult) -> Option<v1::Error> {
    match result.outcome {
        Some(v1::produce_result::Outcome::Error(error)) => Some(error),
        _ => None,
    }
}

/// How calls of one rpc ended.
#[derive(Debug, Default)]
struct Ended {
    ok: u64,
    refused: u64,
    /// Given up while they waited for records, or for credit.
    waited: u64,
}

async fn fuzz(served: &Served, rpc: &str, make: Make, runs: u64) -> Ended {
    let sender = raw::connect(served.address).await;
    let mut ended = Ended::default();
    for seed in 0..runs {
        let what = format!("{rpc}, seed {seed}");
        let producer = if rpc.starts_with("TransactionService/") { begin(served).await } else { None };
        let wire = Random(seed, producer).request(make);
        let (response, mut body) = raw::begin(&sender, &format!("/logmill.v1.{rpc}"), &[]).await;
        body.send_data(wire.into(), true).unwrap();
        let waits = rpc.starts_with("FetchService");
        let answer = raw::answer(response);
        match tokio::time::timeout(if waits { PATIENCE } else { NEVER }, answer).await {
            Ok(answered) => {
                let (replies, status) = answered.unwrap_or_else(|error| panic!("{what}: {error}"));
                check_replies(&what, rpc, &replies);
                if status.code() == Code::Ok {
                    ended.ok += 1;
                } else {
                    check(&what, &reason(&status).1, status.message());
                    ended.refused += 1;
                }
            }
            Err(_) if waits => ended.waited += 1,
            Err(_) => panic!("{what}: no answer"),
        }
    }
    ended
}

/// Who writes transactions as `x` from now on.
async fn begin(served: &Served) -> Option<v1::ProducerEpoch> {
    let init = v1::InitTransactionsRequest { transactional_id: "x".into(), timeout_ms: None };
    served.transactions().init_transactions(init).await.unwrap().into_inner().producer
}

/// A member of group `g`, which has unit `t/0` in epoch 1 unless somebody takes it away.
async fn own(served: &Served) -> Option<logmill_broker::Member> {
    let context = logmill_broker::RequestContext::embedded();
    let join = logmill_broker::JoinGroup::topics("g", ["t"]);
    let mut member = served.broker.join_group(&context, join).ok()?;
    let event = tokio::time::timeout(Duration::from_secs(1), member.next()).await.ok()?;
    assert!(matches!(event, logmill_broker::GroupEvent::Assigned(_)), "{event:?}");
    Some(member)
}

/// The memory of this process that is no file's, in KiB: the node's, and what the test keeps besides.
fn rss_anon_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_answers_whatever_is_sent_and_the_node_serves_on() {
    let runs = std::env::var("LOGMILL_FUZZ_RUNS").ok();
    let runs = runs.map_or(RUNS, |runs| runs.parse().expect("LOGMILL_FUZZ_RUNS is a number"));
    let dir = tempfile::tempdir().unwrap();
    let limits =
        Limits { max_topics: 10, max_partitions: 30, max_partitions_per_topic: 4, ..Limits::default() };
    let served = Served::start(Config { limits, ..config(&dir) }).await;
    let before = rss_anon_kib();
    let mut owner = None;
    for (rpc, make) in RPCS {
        // Some of them delete it.
        let request = v1::CreateTopicRequest { name: "t".into(), partitions: Some(2), settings: Vec::new() };
        let _ = served.topics().create_topic(request).await;
        if owner.is_none() && rpc.starts_with("TransactionService") {
            owner = own(&served).await;
        }
        let ended = fuzz(&served, rpc, make, runs).await;
        println!("{rpc}: {runs} requests, {ended:?}, RssAnon {} KiB", rss_anon_kib());
    }
    println!("RssAnon {before} KiB before, {} KiB after", rss_anon_kib());
    drop(owner);
    served.topics().delete_topic(v1::DeleteTopicRequest { name: "t".into() }).await.unwrap();
    served.create("t", 1).await;
    served.say("t", 0, "served").await;
    let request =
        v1::FetchRequest { partitions: vec![from("t", 0, at_offset(0))], ..v1::FetchRequest::default() };
    let data = served.fetches().fetch(request).await.unwrap().into_inner().partitions.remove(0);
    assert_eq!((data.next_offset, data.error), (1, None));
    served.stop().await;
}
