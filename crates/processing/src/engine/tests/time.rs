//! Windows, watermarks and silence, on a virtual clock.

use logmill_record::{NewRecord, TimestampMs};

use super::*;

#[test]
fn a_window_closes_when_every_partition_has_passed_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(2);
    let plan = hits(&db);
    let mut run = open(&plan, &memory);
    put_hit(&memory, 0, "/", 1_000);
    put_hit(&memory, 1, "/", 2_000);
    put_hit(&memory, 0, "/", 66_000);
    run.catch_up();
    assert_eq!(table(&db), [], "partition 1 is still in the first minute");

    put_hit(&memory, 1, "/", 64_999);
    run.catch_up();
    assert_eq!(table(&db), [], "a record of the first minute may still come: the disorder is 5 s");

    put_hit(&memory, 1, "/", 65_000);
    run.catch_up();
    assert_eq!(table(&db), [row("/", 0, 2)]);
}

#[test]
fn a_silent_partition_and_then_a_silent_source_do_not_hold_windows_open() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(2);
    let plan = hits(&db);
    let mut run = open(&plan, &memory);
    put_hit(&memory, 0, "/", 1_000);
    put_hit(&memory, 0, "/", 70_000);
    run.catch_up();
    assert_eq!(table(&db), [], "nothing was heard of partition 1");

    // Every fetch that finds nothing lets the second pass that it would have waited.
    for _ in 0..12 {
        run.catch_up();
    }
    assert_eq!(table(&db), [row("/", 0, 1)], "partition 1 was silent for 10 s, and is at its end");

    for _ in 0..60 {
        run.catch_up();
    }
    assert_eq!(
        table(&db),
        [row("/", 0, 1), row("/", 60_000, 1)],
        "the source is silent, and the clock goes on"
    );
}

#[test]
fn what_the_clock_has_closed_stays_closed_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    let plan = hits(&db);
    let mut run = open(&plan, &memory);
    put_hit(&memory, 0, "/", 1_000);
    for _ in 0..100 {
        run.catch_up();
    }
    assert_eq!(table(&db), [row("/", 0, 1)]);
    drop(run);

    put_hit(&memory, 0, "/", 2_000);
    let report = run_to_end(&plan, &memory).unwrap();

    assert_eq!(report.late(), 1);
    assert_eq!(table(&db), [row("/", 0, 1)]);
}

#[test]
fn a_run_that_was_held_up_does_not_take_that_for_silence() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(2);
    let plan = hits(&db);
    let mut run = open(&plan, &memory);
    put_hit(&memory, 0, "/", 1_000);
    put_hit(&memory, 1, "/", 1_000);
    for _ in 0..20 {
        run.catch_up();
    }
    assert_eq!(table(&db), []);

    memory.clock.pass(secs(3_000));
    put_hit(&memory, 0, "/", 30_000);
    put_hit(&memory, 1, "/", 30_000);
    run.catch_up();

    assert_eq!((table(&db), run.report().late()), (vec![], 0));
}

#[test]
fn a_run_to_the_end_hears_silence_too_but_not_where_records_came_after_its_end() {
    for (name, comes_after) in [("silent", false), ("not silent", true)] {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("stats.db");
        let memory = memory_with_hits(2);
        *memory.batches_per_fetch.lock() = Some(1);
        for at in [1_000, 70_000, 71_000, 72_000] {
            put_hit(&memory, 0, "/", at);
        }
        put_hit(&memory, 1, "/", 2_000);
        let plan = hits(&db);
        let mut run = open_with(&plan, &memory, Mode { every: secs(0), bounded: true }).unwrap();
        if comes_after {
            put_hit(&memory, 1, "/", 3_000);
        }
        while run.gather() != Gathered::Done {
            let output = run.engine.seal(false).unwrap();
            run.engine.commit(&output).unwrap();
            // Longer than it takes for a partition to be idle; the other one still has records.
            memory.clock.pass(secs(11));
        }
        let closed = if comes_after { vec![] } else { vec![row("/", 0, 2)] };
        assert_eq!(table(&db), closed, "{name}");
    }
}

#[test]
fn a_record_whose_window_is_closed_goes_to_the_late_topic() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    put_hit(&memory, 0, "/", 1_000);
    put_hit(&memory, 0, "/", 70_000);
    put_hit(&memory, 0, "/", 59_999);
    put_hit(&memory, 0, "/", 60_000);
    let plan = hits(&db);

    let report = run_to_end(&plan, &memory).unwrap();

    assert_eq!((report.late(), report.step("per_minute").unwrap().late), (1, 1));
    assert_eq!(table(&db), [row("/", 0, 1), row("/", 60_000, 2)]);
    let late = &memory.all("hits.per_minute.late")[..];
    let [late] = late else { panic!("{late:?}") };
    assert_eq!(late.value.as_deref(), Some(&*format!("{{\"page\":\"/\",\"at\":{}}}", EPOCH_MS + 59_999)));
    assert_eq!(late.header("logmill.step"), Some("per_minute"));
    assert_eq!(late.header("logmill.origin.offset"), Some("2"));
    assert_eq!(late.header("logmill.window.end"), Some(&*(EPOCH_MS + 60_000).to_string()));
}

#[test]
fn a_topic_of_ones_own_takes_late_records() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory_with_hits(1);
    for at in [1_000, 70_000, 0] {
        put_hit(&memory, 0, "/", at);
    }
    let hits = Pipeline::new("hits");
    hits.source(hits_source())
        .key_by(|hit| hit.page.clone())
        .window(Tumbling::of(mins(1)).late_to("too-late"))
        .count("per_minute")
        .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value })
        .sink(
            "stats",
            Sqlite::upsert::<PerMinute>(dir.path().join("stats.db"), "hits").key(["page", "start"]),
        );

    run_to_end(&hits.build().unwrap(), &memory).unwrap();

    assert_eq!(memory.all("too-late").len(), 1);
    assert_eq!(memory.all("hits.per_minute.late").len(), 0);
}

#[test]
fn a_record_from_the_future_is_set_aside_and_closes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    put_hit(&memory, 0, "/", 1_000);
    put_hit(&memory, 0, "/", 3_600_000);
    put_hit(&memory, 0, "/", 3_600_001);
    let plan = hits(&db);

    let report = run_to_end(&plan, &memory).unwrap();

    assert_eq!((report.dead(), report.late()), (1, 0));
    let dead = memory.all("hits.dead");
    assert!(dead[0].header("logmill.error").unwrap().contains("more than an hour after"), "{dead:?}");
    assert_eq!(table(&db), [row("/", 0, 1), row("/", 3_600_000, 1)]);
}

#[test]
fn without_an_extractor_the_time_is_that_of_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    memory.put("hits", 0, EPOCH_MS + 61_000, "\"/\"");
    memory.put("hits", 0, -1, "\"/\"");
    let hits = Pipeline::new("hits");
    hits.source(Topic::json::<String>("hits"))
        .key_by(Clone::clone)
        .window(Tumbling::of(mins(1)))
        .count("per_minute")
        .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value })
        .sink("stats", Sqlite::upsert::<PerMinute>(&db, "hits").key(["page", "start"]));

    run_to_end(&hits.build().unwrap(), &memory).unwrap();

    assert_eq!(table(&db), [row("/", 60_000, 1)]);
    assert_eq!(memory.all("hits.dead")[0].header("logmill.error"), Some("it has no timestamp"));
}

#[test]
fn times_before_1970_have_windows_too() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(1);
    for at in [-EPOCH_MS - 1, -EPOCH_MS - 60_000, -EPOCH_MS] {
        put_hit(&memory, 0, "/", at);
    }
    run_to_end(&hits(&db), &memory).unwrap();
    assert_eq!(table(&db), [row("/", -EPOCH_MS - 60_000, 2), row("/", -EPOCH_MS, 1)]);
}

#[test]
fn a_time_at_the_edge_of_what_a_number_holds_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory_with_hits(1);
    memory.put("hits", 0, 0, &format!("{{\"page\":\"/\",\"at\":{}}}", i64::MIN));
    memory.put("hits", 0, 0, &format!("{{\"page\":\"/\",\"at\":{}}}", i64::MAX));
    let report = run_to_end(&hits(&dir.path().join("stats.db")), &memory).unwrap();
    assert_eq!(report.dead(), 2);
}

#[test]
fn partitions_are_taken_in_order_of_event_time() {
    let dir = tempfile::tempdir().unwrap();
    let memory = memory_with_hits(2);
    *memory.batches_per_fetch.lock() = Some(1);
    // One batch of partition 0 reaches as far as fifty of partition 1.
    let hits_of_0: Vec<String> = (0..50).map(|minute| hit_json("/0", minute * 60_000)).collect();
    let records: Vec<_> = hits_of_0
        .iter()
        .map(|value| NewRecord {
            timestamp: TimestampMs(0),
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        })
        .collect();
    memory.append("hits", 0, &records);
    for minute in 0..50 {
        put_hit(&memory, 1, "/1", minute * 60_000 + 1);
    }
    let plan = hits(&dir.path().join("stats.db"));
    let mut run = open_with(&plan, &memory, Mode { every: secs(0), bounded: false }).unwrap();

    let mut largest = [0_i64; 2];
    while run.gather() == Gathered::Due {
        let output = run.engine.seal(false).unwrap();
        for position in &output.positions {
            largest[position.partition as usize] = position.resume.largest.unwrap_or(EPOCH_MS);
        }
        assert!((largest[0] - largest[1]).abs() <= 60_001, "{largest:?}");
    }
    assert_eq!(largest[1], EPOCH_MS + 49 * 60_000 + 1);
}

#[test]
fn a_restart_remembers_the_time_of_a_partition_whose_records_nobody_needs() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("stats.db");
    let memory = memory_with_hits(2);
    let hits = Pipeline::new("hits");
    hits.source(hits_source())
        .filter(|hit| hit.page != "/skip")
        .key_by(|hit| hit.page.clone())
        .window(Tumbling::of(mins(1)))
        .count("per_minute")
        .map(|w| PerMinute { page: w.key, start: w.start.0, hits: w.value })
        .sink("stats", Sqlite::upsert::<PerMinute>(&db, "hits").key(["page", "start"]));
    let plan = hits.build().unwrap();
    put_hit(&memory, 0, "/", 70_000);
    put_hit(&memory, 1, "/skip", 200_000);
    open(&plan, &memory).catch_up();

    put_hit(&memory, 0, "/", 130_000);
    open(&plan, &memory).catch_up();

    assert_eq!(table(&db), [row("/", 60_000, 1)]);
}
