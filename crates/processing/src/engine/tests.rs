//! The engine on a broker in memory, with a virtual clock and real SQLite files.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Engine, Gathered, Mode, Stop};
use crate::clock::Clock;
use crate::error::Error;
use crate::stats::RunReport;
use crate::testing::{EPOCH_MS, Memory};
use crate::{Pipeline, Plan, Sqlite, Topic, Tumbling, mins, secs};

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

fn hits(db: &Path) -> Plan {
    let hits = Pipeline::new("hits");
    let rows = hits
        .source(Topic::json::<Hit>("hits").time(|hit| hit.at).disorder(secs(5)).idle(secs(10)))
        .key_by(|hit| hit.page.clone())
        .window(Tumbling::of(mins(1)))
        .count("per_minute")
        .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value });
    rows.clone().to("out", Topic::json::<PerMinute>("hits.out").key(|row| format!("{}/{}", row.page, row.start)));
    rows.sink("stats", Sqlite::upsert::<PerMinute>(db, "hits").key(["page", "start"]));
    hits.build().unwrap()
}

fn open(plan: &Plan, memory: &Arc<Memory>, bounded: bool) -> Result<(Engine, Arc<Mutex<RunReport>>), Error> {
    let report = Arc::new(Mutex::new(RunReport::new(plan)));
    let clock: Arc<dyn Clock> = Arc::clone(&memory.clock) as _;
    let mode = Mode { every: secs(1), bounded };
    let engine = Engine::open(plan, Arc::clone(memory) as _, clock, mode, Arc::<Stop>::default(), Arc::clone(&report))?;
    Ok((engine, report))
}

fn run_to_end(plan: &Plan, memory: &Arc<Memory>) -> Result<RunReport, Error> {
    let (mut engine, report) = open(plan, memory, true)?;
    engine.run()?;
    let report = report.lock().clone();
    Ok(report)
}

fn table(db: &Path) -> Vec<(String, i64, i64)> {
    let db = Connection::open(db).unwrap();
    let mut rows = db.prepare("SELECT page, start, hits FROM hits ORDER BY page, start").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn hit(page: &str, at: i64) -> String {
    serde_json::to_string(&Hit { page: page.to_owned(), at: EPOCH_MS + at }).unwrap()
}

#[test]
fn a_source_becomes_rows() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = Memory::new();
    memory.create("hits", 2);
    for (partition, at) in [(0, 0), (0, 10_000), (1, 5_000), (1, 70_000), (0, 61_000)] {
        memory.put("hits", partition, 0, &hit("/", at));
    }
    memory.put("hits", 0, 0, "nonsense");

    let report = run_to_end(&hits(&db), &memory).unwrap();

    assert_eq!(
        table(&db),
        [("/".to_owned(), EPOCH_MS, 3), ("/".to_owned(), EPOCH_MS + 60_000, 2)]
    );
    assert_eq!(report.records_in(), 6);
    assert_eq!(report.dead(), 1);
    let dead = memory.all("hits.dead");
    assert_eq!(dead[0].value.as_deref(), Some("nonsense"));
    println!("{dead:?} {report:#?}");
}
