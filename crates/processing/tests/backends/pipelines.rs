//! Whole pipelines, on the machine's clock.

use std::path::Path;
use std::time::Duration;

use logmill_processing::backend::{Backend, TopicSpec};
use logmill_processing::{
    AtLeastOnce, ErrorKind, Mill, Pipeline, Plan, Sqlite, TimestampMs, Topic, Tumbling, millis, mins,
};
use logmill_record::{BatchBuilder, NewRecord};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::node::Node;

#[derive(Serialize, Deserialize)]
struct Hit {
    page: String,
    at: i64,
}

#[derive(Clone, Serialize, Deserialize)]
struct PerMinute {
    page: String,
    start: i64,
    hits: u64,
}

const EVERY: AtLeastOnce = AtLeastOnce::every(millis(20));

fn plan(db: &Path) -> Plan {
    let hits = Pipeline::new("hits");
    let rows = hits
        .source(Topic::json::<Hit>("hits").time(|hit| hit.at))
        .key_by(|hit| hit.page.clone())
        .window(Tumbling::of(mins(1)))
        .count("per_minute")
        .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value });
    rows.clone().to("out", Topic::json::<PerMinute>("hits.out").key(|row| row.page.clone()));
    rows.sink("stats", Sqlite::upsert::<PerMinute>(db, "hits").key(["page", "start"]));
    hits.build().unwrap()
}

async fn create(backend: &dyn Backend, partitions: u32) {
    let spec = TopicSpec { name: "hits".to_owned(), partitions: Some(partitions), internal: false };
    backend.ensure_topics(&[spec]).await.unwrap();
}

async fn put(backend: &dyn Backend, partition: u32, value: &str) {
    let mut builder = BatchBuilder::new();
    let value = Some(value.as_bytes());
    builder.push(&NewRecord { timestamp: TimestampMs(0), key: None, value, headers: &[] }).unwrap();
    backend.produce("hits", partition, builder.build().unwrap()).await.unwrap();
}

async fn put_hit(backend: &dyn Backend, partition: u32, page: &str, at: i64) {
    put(backend, partition, &serde_json::to_string(&Hit { page: page.to_owned(), at }).unwrap()).await;
}

fn rows(db: &Path) -> Vec<(String, i64, i64)> {
    let db = Connection::open(db).unwrap();
    let mut query = db.prepare("SELECT page, start, hits FROM hits ORDER BY page, start").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn row(page: &str, start: i64, hits: i64) -> (String, i64, i64) {
    (page.to_owned(), start, hits)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_run_in_the_same_process() {
    let node = Node::embedded();
    pipelines_run(&node).await;
    node.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_run_over_the_network() {
    let node = Node::remote().await;
    pipelines_run(&node).await;
    node.close().await;
}

async fn pipelines_run(node: &Node) {
    let backend = &*node.backend;
    let mill = Mill::new(node.backend.clone());
    let db = node.dir.path().join("stats.db");
    let plan = plan(&db);
    let error = mill.run_to_end(&plan, EVERY).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    create(backend, 2).await;
    for second in 0..100 {
        put_hit(backend, second % 2, "/", i64::from(second) * 1_000).await;
    }
    put(backend, 0, "nonsense").await;
    let report = mill.run_to_end(&plan, EVERY).await.unwrap();
    assert_eq!(rows(&db), [row("/", 0, 60), row("/", 60_000, 40)]);
    assert_eq!((report.records_in(), report.dead()), (101, 1));
    assert_eq!(report.delay.records(), 101);
    assert!(report.rate_per_s() > 0.0);

    // Live: the same plan goes on, and closes the minute that was open.
    let running = mill.start(&plan, EVERY);
    for partition in 0..2 {
        put_hit(backend, partition, "/", 119_999).await;
        put_hit(backend, partition, "/", 120_000).await;
    }
    until(|| rows(&db) == [row("/", 0, 60), row("/", 60_000, 42)]).await;
    assert!(running.stats().commits > 0);
    assert!(!running.is_finished());
    running.stop();
    let report = running.await.unwrap();
    assert_eq!(report.records_in(), 4);

    a_dropped_run_is_over(node, &mill, &plan).await;
}

async fn a_dropped_run_is_over(node: &Node, mill: &Mill, plan: &Plan) {
    let run = mill.run(plan, EVERY);
    let ended = tokio::time::timeout(Duration::from_millis(100), run).await;
    assert!(ended.is_err(), "it only ends when it is dropped");
    put_hit(&*node.backend, 0, "/", 121_000).await;
    let report = mill.run_to_end(plan, EVERY).await.unwrap();
    assert_eq!(report.records_in(), 1, "the next run does what it had not committed");
}

async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within 10 s");
}

#[test]
fn a_mill_of_its_own_needs_no_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mill = Mill::embedded(&data).unwrap();
    let busy = Mill::embedded(&data).unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");

    let error = mill.start(&plan(&dir.path().join("stats.db")), EVERY).join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    drop(mill);
    Mill::embedded(&data).unwrap();
}

#[tokio::test]
async fn a_node_that_is_not_there_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Mill::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains(&url), "{error}");
}
