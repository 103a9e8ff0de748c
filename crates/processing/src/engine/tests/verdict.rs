//! A record's time is judged once: a replay may be told another time of storing.

use super::*;

const HOUR_MS: i64 = 3_600_000;

/// From now on, the node knows when it stored the batches before `offset` only so far.
fn misdate(memory: &Memory, offset: u64, off_ms: i64) {
    *memory.misdated.lock() =
        Some(Box::new(move |_, batch| if batch.header().base_offset.0 < offset { off_ms } else { 0 }));
}

/// The stored positions: replay offset, read offset, and what was refused.
fn position(db: &Path) -> (i64, i64, Option<String>) {
    let db = Connection::open(db).unwrap();
    db.query_row("SELECT replay_offset, read_offset, refused FROM logmill_positions", [], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
    .unwrap()
}

#[test]
fn what_was_refused_is_not_counted_when_it_seems_to_be_stored_later() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    let plan = hits(&db);
    for at in [1_000, 3 * HOUR_MS, 3 * HOUR_MS, 2_000, 3 * HOUR_MS, 3_000] {
        put_hit(&memory, 0, "/", at);
    }
    let mut run = open(&plan, &memory);
    run.catch_up();
    assert_eq!(run.report().dead(), 3);
    drop(run);
    assert_eq!(position(&db), (0, 6, Some("[[1,3],[4,5]]".to_owned())));

    misdate(&memory, 6, 24 * HOUR_MS);
    put_hit(&memory, 0, "/", 4_000);
    let report = run_to_end(&plan, &memory).unwrap();
    assert_eq!((report.records_in(), report.dead(), report.late()), (1, 0, 0));
    assert_eq!(table(&db), [row("/", 0, 4)]);
    assert_eq!(memory.all("hits.dead").len(), 3, "each has its letter already");
    assert_eq!(position(&db), (0, 7, Some("[[1,3],[4,5]]".to_owned())));

    // Once more, past the end of the window; the next one begins with a record that is refused.
    put_hit(&memory, 0, "/", 3 * HOUR_MS);
    put_hit(&memory, 0, "/", 70_000);
    put_hit(&memory, 0, "/", 3 * HOUR_MS);
    let report = run_to_end(&plan, &memory).unwrap();
    assert_eq!((report.records_in(), report.dead(), report.late()), (3, 2, 0));
    assert_eq!(table(&db), [row("/", 0, 4), row("/", 60_000, 1)]);
    assert_eq!(position(&db), (8, 10, Some("[[9,10]]".to_owned())), "no replay comes to the others again");

    put_hit(&memory, 0, "/", 140_000);
    run_to_end(&plan, &memory).unwrap();
    assert_eq!(position(&db), (10, 11, None));
}

#[test]
fn what_was_counted_is_counted_when_it_seems_to_be_stored_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    let plan = hits(&db);
    for at in [1_000, 2_000, 3_000] {
        put_hit(&memory, 0, "/", at);
    }
    open(&plan, &memory).catch_up();

    misdate(&memory, 3, -24 * HOUR_MS);
    put_hit(&memory, 0, "/", 4_000);
    let report = run_to_end(&plan, &memory).unwrap();

    assert_eq!((report.records_in(), report.dead(), report.late()), (1, 0, 0));
    assert_eq!(table(&db), [row("/", 0, 4)]);
    assert_eq!(memory.all("hits.dead"), []);
}

#[test]
fn a_replay_that_is_cut_short_keeps_what_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    let plan = hits(&db);
    for at in [1_000, 3 * HOUR_MS, 2_000, 3 * HOUR_MS] {
        put_hit(&memory, 0, "/", at);
    }
    open(&plan, &memory).catch_up();
    let committed = position(&db);
    assert_eq!(committed, (0, 4, Some("[[1,2],[3,4]]".to_owned())));

    misdate(&memory, 4, 24 * HOUR_MS);
    *memory.batches_per_fetch.lock() = Some(1);
    for _ in 0..2 {
        let mut run = open_with(&plan, &memory, Mode { every: secs(0), bounded: false }).unwrap();
        for _ in 0..3 {
            assert_eq!(run.gather(), Gathered::Due);
            let output = run.engine.seal(false).unwrap();
            let output = run.engine.publish(output).unwrap();
            run.engine.commit(&output).unwrap();
        }
        assert_eq!(position(&db), committed);
    }

    run_to_end(&plan, &memory).unwrap();
    assert_eq!((table(&db), memory.all("hits.dead").len()), (vec![row("/", 0, 2)], 2));
}
