//! Records that cannot be processed.

use logmill_record::{NewRecord, TimestampMs};

use super::*;
use crate::Aggregate;

/// A sum that panics where `panics` says so.
struct Fragile {
    add: fn(u64, u64) -> bool,
}

impl Aggregate for Fragile {
    type In = u64;
    type Acc = (u64, u64);
    type Out = u64;

    fn init(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, acc: &mut (u64, u64), value: u64) {
        acc.0 += value;
        assert!(!(self.add)(acc.1, value), "no {value} here");
        acc.1 += 1;
    }

    fn merge(&self, acc: &mut (u64, u64), other: (u64, u64)) {
        acc.0 += other.0;
        acc.1 += other.1;
    }

    fn finish(&self, acc: &(u64, u64)) -> u64 {
        assert!(acc.0 < 1_000_000, "too many to tell");
        acc.0
    }
}

fn sums(db: &Path, add: fn(u64, u64) -> bool) -> Plan {
    let sums = Pipeline::new("sums");
    sums.source(Topic::json::<u64>("hits"))
        .key_by(|_| "/".to_owned())
        .window(Tumbling::of(mins(1)))
        .aggregate("sum", Fragile { add })
        .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value })
        .sink("stats", Sqlite::upsert::<PerMinute>(db, "hits").key(["page", "start"]));
    sums.build().unwrap()
}

#[test]
fn a_record_that_cannot_be_decoded_is_kept_as_it_came() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory_with_hits(2);
    put_hit(&memory, 1, "/", 0);
    let record = NewRecord {
        timestamp: TimestampMs(EPOCH_MS + 7),
        key: Some(b"k"),
        value: Some(b"{\"page\":\"/\"}"),
        headers: &[("trace", Some(b"abc"))],
    };
    memory.append("hits", 1, &[record, NewRecord { value: None, ..record }]);

    let report = run_to_end(&hits(&dir.path().join("stats.db")), &memory).unwrap();

    assert_eq!((report.dead(), report.records_in()), (2, 3));
    let dead = memory.all("hits.dead");
    assert_eq!(dead[0].key.as_deref(), Some("k"));
    assert_eq!(dead[0].value.as_deref(), Some("{\"page\":\"/\"}"));
    assert_eq!(dead[0].timestamp, EPOCH_MS + 7);
    let headers: Vec<_> = dead[0].headers.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("trace", "abc"),
            ("logmill.origin.topic", "hits"),
            ("logmill.origin.partition", "1"),
            ("logmill.origin.offset", "1"),
            ("logmill.step", "source:hits"),
            ("logmill.error", "not the JSON expected: missing field `at` at line 1 column 12"),
        ]
    );
    assert_eq!(dead[1].value, None);
    assert_eq!(dead[1].header("logmill.error"), Some("the record has no value (null)"));
}

#[test]
fn a_closure_that_fails_or_panics_costs_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    for page in ["/a", "/filter", "/b", "/try", "/map", "/key", "/c", "/row"] {
        put_hit(&memory, 0, page, 0);
    }
    let check = |at: &str, hit: &Hit| assert!(!hit.page.ends_with(at), "in {at}");
    let hits = Pipeline::new("hits");
    hits.source(hits_source())
        .filter(move |hit| {
            check("filter", hit);
            true
        })
        .try_map("parse", |hit| if hit.page == "/try" { Err("not this one") } else { Ok(hit) })
        .map(move |hit| {
            check("map", &hit);
            hit
        })
        .key_by(move |hit| {
            check("key", hit);
            hit.page.clone()
        })
        .window(Tumbling::of(mins(1)))
        .count("per_minute")
        .map(|w| {
            assert_ne!(w.key, "/row", "not a row");
            PerMinute { page: w.key, start: w.start.0, hits: w.value }
        })
        .sink("stats", Sqlite::upsert::<PerMinute>(&db, "hits").key(["page", "start"]));

    let report = run_to_end(&hits.build().unwrap(), &memory).unwrap();

    assert_eq!(table(&db), [row("/a", 0, 1), row("/b", 0, 1), row("/c", 0, 1)]);
    assert_eq!(report.dead(), 5);
    let dead = memory.all("hits.dead");
    let mut why: Vec<_> = dead
        .iter()
        .map(|letter| {
            let value = letter.value.as_deref().unwrap_or("null").len().min(4);
            (letter.header("logmill.step").unwrap(), letter.header("logmill.error").unwrap(), value)
        })
        .collect();
    why.sort_unstable();
    assert_eq!(
        why,
        [
            ("filter:1", "panicked: in filter", 4),
            ("key_by:4", "panicked: in key", 4),
            ("map:3", "panicked: in map", 4),
            (
                "map:6",
                "panicked: assertion `left != right` failed: not a row\n  left: \"/row\"\n right: \"/row\"",
                4
            ),
            ("parse", "not this one", 4),
        ]
    );
    let of_window = dead.iter().find(|letter| letter.header("logmill.step") == Some("map:6")).unwrap();
    assert_eq!((&of_window.key, &of_window.value), (&None, &None), "a result is made of many records");
    assert_eq!(of_window.header("logmill.window.start"), Some(&*EPOCH_MS.to_string()));
    assert_eq!(of_window.header("logmill.origin.topic"), Some("hits"));
}

#[test]
fn an_aggregate_that_panics_on_a_record_counts_all_others_once() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    for value in 0..100 {
        memory.put("hits", 0, EPOCH_MS, &value.to_string());
    }
    let report = run_to_end(&sums(&db, |_, value| value % 10 == 3), &memory).unwrap();

    assert_eq!(report.dead(), 10);
    let expected: i64 = (0..100).filter(|value| value % 10 != 3).sum();
    assert_eq!(table(&db), [row("/", 0, expected)]);
    let dead = memory.all("sums.dead");
    assert_eq!(dead.len(), 10);
    assert_eq!(dead[0].value.as_deref(), Some("3"));
    assert_eq!(dead[0].header("logmill.step"), Some("sum"));
    assert_eq!(dead[0].header("logmill.error"), Some("panicked: no 3 here"));
}

#[test]
fn an_aggregate_that_panics_on_what_it_holds_costs_the_records_that_do_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    for _ in 0..5 {
        memory.put("hits", 0, EPOCH_MS, "1");
    }
    // The third record, the first time round; then each record alone, which never panics.
    let report = run_to_end(&sums(&db, |held, _| held == 2), &memory).unwrap();
    assert_eq!(report.dead(), 1);
    assert_eq!(table(&db), [row("/", 0, 4)]);
}

#[test]
fn a_result_that_panics_is_set_aside_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    memory.put("hits", 0, EPOCH_MS, "1000000");
    memory.put("hits", 0, EPOCH_MS + 60_000, "7");
    let report = run_to_end(&sums(&db, |_, _| false), &memory).unwrap();
    assert_eq!(report.dead(), 1);
    assert_eq!(table(&db), [row("/", 60_000, 7)]);
    assert_eq!(memory.all("sums.dead")[0].header("logmill.error"), Some("panicked: too many to tell"));
}

#[test]
fn a_row_that_sqlite_cannot_hold_is_set_aside() {
    #[derive(Serialize, Deserialize)]
    struct Reading {
        page: String,
        at: u64,
        level: f64,
    }
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    for value in ["1", "18446744073709551615", "2"] {
        memory.put("hits", 0, EPOCH_MS, value);
    }
    let readings = Pipeline::new("readings");
    readings
        .source(Topic::json::<u64>("hits"))
        .map(|at| Reading { page: "/".to_owned(), at, level: if at == 2 { f64::NAN } else { 0.5 } })
        .sink("rows", Sqlite::upsert::<Reading>(&db, "readings").key(["page", "at"]));

    let report = run_to_end(&readings.build().unwrap(), &memory).unwrap();

    assert_eq!((report.dead(), report.step("rows").unwrap().records_out), (2, 1));
    let dead = memory.all("readings.dead");
    let errors: Vec<_> = dead.iter().map(|letter| letter.header("logmill.error").unwrap()).collect();
    assert_eq!(
        errors,
        [
            "column \"at\": 18446744073709551615 is beyond SQLite's largest integer, 9223372036854775807",
            "column \"level\": NaN cannot be stored, SQLite would make it NULL",
        ]
    );
}

#[test]
fn a_letter_too_large_for_the_node_goes_without_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory_with_hits(1);
    let large = "x".repeat(900);
    memory.put("hits", 0, EPOCH_MS, &large);
    memory.put("hits", 0, EPOCH_MS, "small");
    let plan = hits(&dir.path().join("stats.db"));
    *memory.max_batch_bytes.lock() = Some(1_000);

    let report = run_to_end(&plan, &memory).unwrap();

    assert_eq!(report.dead(), 2);
    let dead = memory.all("hits.dead");
    assert_eq!(dead[0].value, None);
    assert_eq!(dead[0].header("logmill.value.omitted"), Some("900"));
    assert_eq!(dead[0].header("logmill.origin.offset"), Some("0"));
    assert_eq!(dead[1].value.as_deref(), Some("small"));
}

#[test]
fn a_result_too_large_for_the_node_stops_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory_with_hits(1);
    put_hit(&memory, 0, &"x".repeat(900), 0);
    *memory.max_batch_bytes.lock() = Some(800);
    let error = run_to_end(&hits(&dir.path().join("stats.db")), &memory).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::Invalid);
    assert!(error.to_string().starts_with("topic \"hits.out\" does not take a record"), "{error}");
}
