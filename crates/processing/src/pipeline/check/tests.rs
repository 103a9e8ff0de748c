use serde::{Deserialize, Serialize};

use crate::{BuildError, KeyedStream, Pipeline, Plan, Sqlite, Stream, Topic, Tumbling, UpsertTable, mins};

#[derive(Clone, Serialize, Deserialize)]
struct Row {
    key: String,
    value: Option<i64>,
}

fn table(file: &str, table: &str) -> UpsertTable<Row> {
    Sqlite::upsert::<Row>(file, table).key(["key"])
}

fn source(pipeline: &Pipeline) -> Stream<Row> {
    pipeline.source(Topic::json::<Row>("in"))
}

fn keyed(pipeline: &Pipeline) -> KeyedStream<String, Row> {
    source(pipeline).key_by(|row| row.key.clone())
}

/// Builds what `describe` makes of a pipeline named `p`.
fn build(describe: impl FnOnce(&Pipeline)) -> Result<Plan, BuildError> {
    let pipeline = Pipeline::new("p");
    describe(&pipeline);
    pipeline.build()
}

fn refused(describe: impl FnOnce(&Pipeline)) -> BuildError {
    build(describe).unwrap_err()
}

#[test]
fn a_plan_shows_its_steps() {
    let plan = build(|p| {
        let rows = keyed(p)
            .window(Tumbling::of(mins(1)))
            .count("per_minute")
            .map(|w| Row { key: w.key, value: Some(0) });
        rows.clone().sink("rows", table("a.db", "t"));
        rows.to("out", Topic::json("out"));
    })
    .unwrap();

    let steps: Vec<_> = plan
        .steps()
        .map(|step| (step.name.as_str(), step.kind, step.input.as_deref().unwrap_or("-")))
        .collect();
    assert_eq!(
        steps,
        [
            ("source:in", "source", "-"),
            ("key_by:1", "key_by", "source:in"),
            ("per_minute", "count", "key_by:1"),
            ("map:3", "map", "per_minute"),
            ("rows", "sqlite", "map:3"),
            ("out", "topic", "map:3"),
        ]
    );
    let window = plan.steps().find(|step| step.name == "per_minute").unwrap();
    assert_eq!(window.parameters["size"], "60s");
    assert_eq!(window.parameters["late_to"], "p.per_minute.late");
    assert_eq!(plan.dead_topic(), "p.dead");

    fn is_shareable<T: Send + Sync + Clone>(_: &T) {}
    is_shareable(&plan);
}

#[test]
fn names_are_those_of_topics() {
    for name in ["", ".", "..", "../x", "a b", "ä", &"x".repeat(250)] {
        let error = Pipeline::new(name).build().unwrap_err();
        assert!(matches!(error, BuildError::Name { what: "pipeline", .. }), "{error}");
    }
    let error = refused(|p| source(p).to("no/step", Topic::json("out")));
    assert!(matches!(error, BuildError::Name { what: "step", .. }), "{error}");
    let error = refused(|p| {
        p.source(Topic::json::<Row>("a/b")).sink("rows", table("a.db", "t"));
    });
    assert!(matches!(error, BuildError::Name { what: "topic", .. }), "{error}");

    let pipeline = Pipeline::new("x".repeat(249));
    source(&pipeline).sink("rows", table("a.db", "t"));
    assert!(matches!(pipeline.build().unwrap_err(), BuildError::TooLong { .. }));
}

#[test]
fn every_step_has_a_name_of_its_own() {
    let error = refused(|p| {
        let rows = source(p);
        rows.clone().sink("same", table("a.db", "t"));
        rows.to("same", Topic::json("out"));
    });
    assert_eq!(error, BuildError::DuplicateStep { name: "same".to_owned() });
}

#[test]
fn a_stream_has_to_come_from_somewhere_and_lead_somewhere() {
    assert_eq!(refused(|_| {}), BuildError::NoSource { pipeline: "p".to_owned() });

    let error = refused(|p| {
        let rows = source(p);
        rows.clone().sink("rows", table("a.db", "t"));
        drop(rows.map(|row| row.key));
    });
    assert_eq!(error, BuildError::Dangling { step: "map:2".to_owned() });

    // A clone that was not needed is no loose end.
    build(|p| {
        let rows = source(p);
        drop(rows.clone());
        rows.sink("rows", table("a.db", "t"));
    })
    .unwrap();
}

#[test]
fn a_topic_is_read_once_and_not_written_by_its_reader() {
    let error = refused(|p| {
        source(p).sink("a", table("a.db", "t"));
        source(p).sink("b", table("a.db", "t"));
    });
    assert_eq!(error, BuildError::DuplicateSource { topic: "in".to_owned() });

    let error = refused(|p| {
        let rows = source(p);
        rows.clone().sink("rows", table("a.db", "t"));
        rows.to("back", Topic::json("in"));
    });
    let writer = "step \"back\"".to_owned();
    assert_eq!(error, BuildError::Cycle { topic: "in".to_owned(), writer });

    let error = refused(|p| p.source(Topic::json::<Row>("p.dead")).sink("rows", table("a.db", "t")));
    assert!(matches!(error, BuildError::Cycle { .. }), "{error}");
}

#[test]
fn the_position_has_exactly_one_file() {
    let error = refused(|p| source(p).to("out", Topic::json("out")));
    assert_eq!(error, BuildError::NoDatabase { pipeline: "p".to_owned() });
    assert!(error.to_string().contains("every run would start at the beginning. Add `sink("), "{error}");

    let error = refused(|p| {
        let rows = source(p);
        rows.clone().sink("a", table("a.db", "t"));
        rows.sink("b", table("b.db", "t"));
    });
    assert!(matches!(error, BuildError::TwoDatabases { .. }));
    assert!(error.to_string().starts_with("the sinks write to two SQLite files, a.db and b.db: "), "{error}");

    build(|p| {
        let rows = source(p);
        rows.clone().sink("a", table("a.db", "t"));
        rows.sink("b", table("./a.db", "u"));
    })
    .unwrap();
}

#[test]
fn a_table_has_a_name_columns_and_a_key_of_them() {
    #[derive(Serialize, Deserialize)]
    struct Nested {
        list: Vec<i64>,
    }
    let reason = |describe: fn(&Pipeline)| match refused(describe) {
        BuildError::Table { step, reason, .. } => {
            assert_eq!(step, "rows");
            reason
        }
        other => panic!("{other}"),
    };
    let no_key = reason(|p| source(p).sink("rows", Sqlite::upsert::<Row>("a.db", "t")));
    assert!(no_key.starts_with("it has no key"), "{no_key}");
    let unknown = reason(|p| source(p).sink("rows", Sqlite::upsert::<Row>("a.db", "t").key(["id"])));
    assert_eq!(unknown, "its key names column \"id\", and its columns are key, value");
    let optional = reason(|p| source(p).sink("rows", Sqlite::upsert::<Row>("a.db", "t").key(["value"])));
    assert!(optional.starts_with("key column \"value\" is an Option"), "{optional}");
    let ours = reason(|p| source(p).sink("rows", table("a.db", "Logmill_rows")));
    assert!(ours.starts_with("names that start with sqlite_ or logmill_ are taken"), "{ours}");
    let nested = reason(|p| {
        source(p)
            .map(|_| Nested { list: Vec::new() })
            .sink("rows", Sqlite::upsert::<Nested>("a.db", "t").key(["list"]));
    });
    assert!(nested.contains("column \"list\": a list does not fit into one column"), "{nested}");
}

#[test]
fn windows_have_a_size_and_stand_alone() {
    let count = |p: &Pipeline, size| {
        keyed(p).window(Tumbling::of(size)).count("first").map(|w| Row { key: w.key, value: None })
    };
    let error = refused(|p| count(p, std::time::Duration::from_micros(999)).sink("rows", table("a.db", "t")));
    assert_eq!(error, BuildError::WindowSize { step: "first".to_owned() });

    let error = refused(|p| {
        count(p, mins(1))
            .key_by(|row| row.key.clone())
            .window(Tumbling::of(mins(10)))
            .count("second")
            .map(|w| Row { key: w.key, value: None })
            .sink("rows", table("a.db", "t"));
    });
    assert_eq!(error, BuildError::WindowOfWindows { step: "second".to_owned(), of: "first".to_owned() });
}
