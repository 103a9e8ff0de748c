//! The engine on a broker in memory, with a virtual clock and real SQLite files.

mod letters;
mod positions;
mod recovery;
mod time;
mod verdict;

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Engine, Gathered, Mode, Stop, Urgency};
use crate::clock::Clock;
use crate::error::Error;
use crate::stats::RunReport;
use crate::testing::{EPOCH_MS, Memory};
use crate::{Pipeline, Plan, SourceTopic, Sqlite, Topic, Tumbling, mins, secs};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Hit {
    page: String,
    at: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PerMinute {
    page: String,
    start: i64,
    hits: u64,
}

fn hits_source() -> SourceTopic<Hit> {
    Topic::json::<Hit>("hits").time(|hit| hit.at).disorder(secs(5)).idle(secs(10))
}

/// Hits per page and minute, into table `hits` and topic `hits.out`.
fn hits(db: &Path) -> Plan {
    let hits = Pipeline::new("hits");
    let rows = hits
        .source(hits_source())
        .key_by(|hit| hit.page.clone())
        .window(Tumbling::of(mins(1)))
        .count("per_minute")
        .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value });
    rows.clone()
        .to("out", Topic::json::<PerMinute>("hits.out").key(|row| format!("{}/{}", row.page, row.start)));
    rows.sink("stats", Sqlite::upsert::<PerMinute>(db, "hits").key(["page", "start"]));
    hits.build().unwrap()
}

/// An engine, with what a test needs beside it.
struct Run {
    engine: Engine,
    report: Arc<Mutex<RunReport>>,
    stop: Arc<Stop>,
}

fn open_with(plan: &Plan, memory: &Arc<Memory>, mode: Mode) -> Result<Run, Error> {
    let report = Arc::new(Mutex::new(RunReport::new(plan)));
    let stop = Arc::<Stop>::default();
    let clock: Arc<dyn Clock> = Arc::clone(&memory.clock) as _;
    let (backend, to_report) = (Arc::clone(memory) as _, Arc::clone(&report));
    let engine = Engine::open(plan, backend, clock, mode, Arc::clone(&stop), to_report)?;
    let to_stop = Arc::clone(&stop);
    *memory.on_empty.lock() = Some(Box::new(move || to_stop.request(Urgency::Soon)));
    Ok(Run { engine, report, stop })
}

/// A run that goes on, as far as the test lets it.
fn open(plan: &Plan, memory: &Arc<Memory>) -> Run {
    open_with(plan, memory, Mode { every: secs(1), bounded: false }).unwrap()
}

impl Run {
    /// Gathers until the step is due, or until there is nothing more to read.
    fn gather(&mut self) -> Gathered {
        self.stop.reset();
        self.engine.gather().unwrap()
    }

    /// Steps until there is nothing more to read.
    fn catch_up(&mut self) {
        loop {
            let gathered = self.gather();
            if self.engine.has_work() {
                let output = self.engine.seal(false).unwrap();
                let output = self.engine.publish(output).unwrap();
                self.engine.commit(&output).unwrap();
            }
            if gathered == Gathered::Stopped {
                return;
            }
        }
    }

    fn report(&self) -> RunReport {
        self.report.lock().clone()
    }
}

fn run_to_end(plan: &Plan, memory: &Arc<Memory>) -> Result<RunReport, Error> {
    let mut run = open_with(plan, memory, Mode { every: secs(1), bounded: true })?;
    *memory.on_empty.lock() = None;
    run.engine.run()?;
    Ok(run.report())
}

fn table(db: &Path) -> Vec<(String, i64, i64)> {
    let db = Connection::open(db).unwrap();
    let mut rows = db.prepare("SELECT page, start, hits FROM hits ORDER BY page, start").unwrap();
    let rows =
        rows.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? - EPOCH_MS, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn row(page: &str, start: i64, hits: i64) -> (String, i64, i64) {
    (page.to_owned(), start, hits)
}

/// Puts a hit of this time, in ms after the epoch of the tests.
fn put_hit(memory: &Memory, partition: usize, page: &str, at: i64) {
    memory.put("hits", partition, 0, &hit_json(page, at));
}

fn hit_json(page: &str, at: i64) -> String {
    serde_json::to_string(&Hit { page: page.to_owned(), at: EPOCH_MS + at }).unwrap()
}

fn memory_with_hits(partitions: usize) -> Arc<Memory> {
    let memory = Memory::new();
    memory.create("hits", partitions);
    memory
}

#[test]
fn a_source_becomes_rows_and_records() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(2);
    for (partition, at) in [(0, 0), (0, 10_000), (1, 5_000), (1, 70_000), (0, 61_000)] {
        put_hit(&memory, partition, "/", at);
    }
    put_hit(&memory, 1, "/a", 71_000);

    let report = run_to_end(&hits(&db), &memory).unwrap();

    assert_eq!(table(&db), [row("/", 0, 3), row("/", 60_000, 2), row("/a", 60_000, 1)]);
    let out = memory.all("hits.out");
    let mut keys: Vec<_> = out.iter().map(|record| record.key.clone().unwrap()).collect();
    keys.sort();
    assert_eq!(
        keys,
        [format!("//{EPOCH_MS}"), format!("//{}", EPOCH_MS + 60_000), format!("/a/{}", EPOCH_MS + 60_000)]
    );
    let first = out.iter().find(|record| record.key.as_deref() == Some(&format!("//{EPOCH_MS}"))).unwrap();
    assert_eq!(first.timestamp, EPOCH_MS + 59_999, "a result has the last millisecond of its window");
    let open = out.iter().find(|record| record.key.as_deref().unwrap().starts_with("/a/")).unwrap();
    assert_eq!(open.timestamp, EPOCH_MS + 71_000, "that of an open window is not from the future");
    assert_eq!(first.value.as_deref(), Some(&*format!("{{\"page\":\"/\",\"start\":{EPOCH_MS},\"hits\":3}}")));

    assert_eq!(report.records_in(), 6);
    assert_eq!(report.records_out(), 6, "three rows and three records");
    assert_eq!(report.delay.records(), 6);
    assert_eq!((report.dead(), report.late()), (0, 0));
    assert!(report.bytes_in() > 0 && report.bytes_out() > 0);
}

#[test]
fn a_later_run_goes_on_with_the_windows_that_an_earlier_one_left_open() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    let plan = hits(&db);
    put_hit(&memory, 0, "/", 0);
    put_hit(&memory, 0, "/", 61_000);
    run_to_end(&plan, &memory).unwrap();
    assert_eq!(table(&db), [row("/", 0, 1), row("/", 60_000, 1)], "open windows show what they have");

    put_hit(&memory, 0, "/", 57_000);
    put_hit(&memory, 0, "/", 62_000);
    put_hit(&memory, 0, "/", 200_000);
    let report = run_to_end(&plan, &memory).unwrap();

    assert_eq!(table(&db), [row("/", 0, 2), row("/", 60_000, 2), row("/", 180_000, 1)]);
    assert_eq!((report.records_in(), report.step("source:hits").unwrap().replayed), (3, 2));

    let report = run_to_end(&plan, &memory).unwrap();
    assert_eq!(report.records_in(), 0, "nothing is new");
    assert_eq!(table(&db).len(), 3);
}

#[test]
fn a_fan_out_gives_both_ways_the_same_records() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    put_hit(&memory, 0, "/a", 0);
    put_hit(&memory, 0, "/b", 1);
    let pipeline = Pipeline::new("two");
    let source = pipeline.source(hits_source());
    let to_row = |hit: Hit| PerMinute { page: hit.page, start: hit.at, hits: 1 };
    let table_of = |name| Sqlite::upsert::<PerMinute>(&db, name).key(["page"]);
    source.clone().filter(|hit| hit.page == "/a").map(to_row).sink("a", table_of("a"));
    source
        .clone()
        .flat_map(|hit| [hit.clone(), hit])
        .map(to_row)
        .to("twice", Topic::json::<PerMinute>("twice"));
    source.map(to_row).sink("all", table_of("hits"));

    let report = run_to_end(&pipeline.build().unwrap(), &memory).unwrap();

    assert_eq!(table(&db), [row("/a", 0, 1), row("/b", 1, 1)]);
    assert_eq!(report.step("a").unwrap().records_out, 1);
    assert_eq!(memory.all("twice").len(), 4);
}

#[test]
fn what_a_node_refuses_for_a_moment_is_tried_again() {
    use crate::backend::BackendErrorKind::{OutcomeUnknown, Unavailable};
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    put_hit(&memory, 0, "/", 0);
    let plan = hits(&db);
    memory.failures.lock().extend([OutcomeUnknown, Unavailable]);

    run_to_end(&plan, &memory).unwrap();

    assert_eq!(table(&db), [row("/", 0, 1)]);
    assert!(memory.failures.lock().is_empty());
}
