//! Positions that cannot be gone on from, and two runs at once.

use super::*;
use crate::ErrorKind;

fn refused(plan: &Plan, memory: &Arc<Memory>) -> Error {
    run_to_end(plan, memory).unwrap_err()
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = refused(&hits(&dir.path().join("stats.db")), &Memory::new());
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "pipeline \"hits\" cannot read topic \"hits\": there is no topic \"hits\"");
}

#[test]
fn a_topic_that_was_created_anew_is_not_taken_for_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let plan = hits(&dir.path().join("stats.db"));
    let memory = memory_with_hits(1);
    put_hit(&memory, 0, "/", 0);
    run_to_end(&plan, &memory).unwrap();

    memory.create("hits", 1);
    put_hit(&memory, 0, "/", 0);

    let error = refused(&plan, &memory);
    assert_eq!(error.kind(), ErrorKind::Position);
    assert!(error.to_string().contains("of that name that was deleted (its id was id-1,"), "{error}");
    assert!(error.to_string().contains("give the pipeline another name, or another SQLite file"), "{error}");
}

#[test]
fn a_position_past_the_end_or_before_the_start_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let plan = hits(&dir.path().join("stats.db"));
    let memory = memory_with_hits(1);
    for at in [0, 70_000, 71_000] {
        put_hit(&memory, 0, "/", at);
    }
    run_to_end(&plan, &memory).unwrap();

    memory.delete_before("hits", 2);
    let error = refused(&plan, &memory);
    assert_eq!(error.kind(), ErrorKind::Position);
    assert!(
        error
            .to_string()
            .contains("open windows need partition 0 from offset 1, and the partition starts at 2"),
        "{error}"
    );

    memory.delete_before("hits", 0);
    memory.truncate("hits", 0, 2);
    let error = refused(&plan, &memory);
    assert!(error.to_string().contains("up to offset 3, and the partition ends at 2"), "{error}");
}

#[test]
fn other_windows_are_another_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    put_hit(&memory, 0, "/", 0);
    run_to_end(&hits(&db), &memory).unwrap();

    let changed = Pipeline::new("hits");
    changed
        .source(hits_source())
        .key_by(|hit| hit.page.clone())
        .window(Tumbling::of(mins(2)))
        .count("per_minute")
        .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value })
        .sink("stats", Sqlite::upsert::<PerMinute>(&db, "hits").key(["page", "start"]));

    let error = refused(&changed.build().unwrap(), &memory);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().contains(
            "60000 ms\"} when it last ran, and are {\"per_minute\":\"count over tumbling windows of 120000 ms"
        ),
        "{error}"
    );
}

#[test]
fn a_run_that_was_overtaken_is_told_so_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    let plan = hits(&db);
    let mut stale = open(&plan, &memory);
    put_hit(&memory, 0, "/", 0);
    put_hit(&memory, 0, "/", 70_000);
    stale.gather();

    let mut fresh = open(&plan, &memory);
    fresh.catch_up();
    assert_eq!(table(&db), [row("/", 0, 1)]);

    let output = stale.engine.seal(false).unwrap();
    let output = stale.engine.publish(output).unwrap();
    let error = stale.engine.commit(&output).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("another run has taken over SQLite file"), "{error}");

    put_hit(&memory, 0, "/", 140_000);
    fresh.catch_up();
    assert_eq!(table(&db), [row("/", 0, 1), row("/", 60_000, 1)], "the other run does not notice");
}

#[test]
fn a_run_that_takes_over_sees_how_far_the_other_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    let plan = hits(&db);
    let mut works = open(&plan, &memory);
    let beside = Arc::clone(&memory);
    *memory.after_describe.lock() = Some(Box::new(move || {
        put_hit(&beside, 0, "/", 0);
        works.catch_up();
    }));
    open(&plan, &memory);
}

#[test]
fn a_run_that_is_refused_does_not_fence_the_one_that_works() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    let plan = hits(&db);
    let mut works = open(&plan, &memory);

    let other = Pipeline::new("hits");
    other
        .source(hits_source())
        .map(|hit| PerMinute { page: hit.page, start: hit.at, hits: 1 })
        .sink("stats", Sqlite::upsert::<PerMinute>(&db, "hits").key(["page", "start"]));
    refused(&other.build().unwrap(), &memory);

    put_hit(&memory, 0, "/", 0);
    put_hit(&memory, 0, "/", 70_000);
    let to_stop = Arc::clone(&works.stop);
    *memory.on_empty.lock() = Some(Box::new(move || to_stop.request(Urgency::Soon)));
    works.catch_up();
    assert_eq!(table(&db), [row("/", 0, 1)]);
}

#[test]
fn two_pipelines_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    put_hit(&memory, 0, "/", 0);
    let copy = Pipeline::new("copy");
    copy.source(hits_source())
        .map(|hit| PerMinute { page: hit.page, start: hit.at, hits: 1 })
        .sink("rows", Sqlite::upsert::<PerMinute>(&db, "copy").key(["page", "start"]));
    let copy = copy.build().unwrap();
    for _ in 0..2 {
        run_to_end(&hits(&db), &memory).unwrap();
        run_to_end(&copy, &memory).unwrap();
    }
    let rows: i64 =
        Connection::open(&db).unwrap().query_row("SELECT count(*) FROM copy", [], |row| row.get(0)).unwrap();
    assert_eq!((table(&db).len(), rows), (1, 1));
}
