use rusqlite::types::Value;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{Sqlite, UpsertTable};

#[derive(Serialize, Deserialize)]
struct Row {
    name: String,
    hits: i64,
    level: Option<f64>,
}

fn rows_of(path: &Path) -> UpsertTable<Row> {
    Sqlite::upsert::<Row>(path, "my \"table\"").key(["name"])
}

fn open(path: &Path) -> Result<Store, Error> {
    let table = rows_of(path);
    Store::open(path, "p", "{}", &[&table.spec], |_| Ok(())).map(|(store, _)| store)
}

fn value(name: &str, hits: i64) -> Vec<Value> {
    vec![Value::Text(name.to_owned()), Value::Integer(hits), Value::Null]
}

fn refused_of(ranges: &[(u64, u64)]) -> Refused {
    Refused::from_ranges(ranges.iter().map(|&(from, to)| Offset(from)..Offset(to)).collect()).unwrap()
}

fn fails(path: &Path) -> Error {
    open(path).unwrap_err()
}

#[test]
fn rows_are_upserted_into_a_table_made_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let mut store = open(&path).unwrap();
    store.commit(&[vec![value("a", 1), value("b", 2), value("a", 3)]], &[]).unwrap();
    store.commit(&[vec![value("b", 4)]], &[]).unwrap();
    drop(store);

    let mut store = open(&path).unwrap();
    store.commit(&[vec![value("c", 5)]], &[]).unwrap();

    let db = Connection::open(&path).unwrap();
    let mut query = db.prepare("SELECT name || hits FROM \"my \"\"table\"\"\" ORDER BY name").unwrap();
    let rows: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, ["a3", "b4", "c5"]);
    let sql: String = db
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'my \"table\"'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(
        sql,
        "CREATE TABLE \"my \"\"table\"\"\" (\"name\" TEXT NOT NULL, \"hits\" INTEGER NOT NULL, \"level\" REAL, \
         PRIMARY KEY (\"name\"))"
    );
}

#[test]
fn positions_come_back_as_they_were_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let position = |topic: &str, partition, largest, closed, ranges| Position {
        topic: topic.to_owned(),
        partition,
        topic_id: "id".to_owned(),
        resume: Resume { read: Offset::MAX, replay: Offset(3), largest, closed, refused: refused_of(ranges) },
    };
    let last = Offset::MAX.0;
    let positions = [
        position("a", 0, Some(-7), i64::MIN, &[(3, 4), (7, 9)]),
        position("a", 1, None, i64::MAX, &[(last - 1, last)]),
        position("b", 0, None, -1, &[]),
    ];
    open(&path).unwrap().commit(&[vec![]], &positions).unwrap();

    let mut checked = Vec::new();
    let check = |found: &[Position]| {
        checked = found.to_vec();
        Ok(())
    };
    let table = rows_of(&path);
    let (_, loaded) = Store::open(&path, "p", "{}", &[&table.spec], check).unwrap();
    assert_eq!(loaded, positions);
    assert_eq!(checked, positions);

    let (_, others) = Store::open(&path, "q", "{}", &[&table.spec], |_| Ok(())).unwrap();
    assert_eq!(others, [], "positions belong to one pipeline");
}

#[test]
fn a_table_that_exists_has_to_have_the_same_columns() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let db = Connection::open(&path).unwrap();
    let make = |columns: &str| {
        let drop = "DROP TABLE IF EXISTS \"my \"\"table\"\"\";";
        db.execute_batch(&format!("{drop} CREATE TABLE \"my \"\"table\"\"\" ({columns})")).unwrap();
    };
    for columns in [
        "name VARCHAR(20) PRIMARY KEY, hits BIGINT, level DOUBLE",
        "level REAL CHECK (level > 0), hits INT NOT NULL, name TEXT, PRIMARY KEY (name)",
    ] {
        make(columns);
        open(&path).unwrap().commit(&[vec![value("a", 1)]], &[]).unwrap();
    }
    for columns in [
        "name TEXT PRIMARY KEY, hits INTEGER",
        "name TEXT PRIMARY KEY, hits INTEGER, level REAL, more TEXT",
        "name TEXT PRIMARY KEY, hits TEXT, level REAL",
        "name TEXT, hits INTEGER, level REAL",
        "name TEXT, hits INTEGER, level REAL, PRIMARY KEY (name, hits)",
    ] {
        make(columns);
        let error = fails(&path);
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    make("name TEXT PRIMARY KEY, hits TEXT");
    let error = fails(&path).to_string();
    assert!(
        error.ends_with(
            "table \"my \\\"table\\\"\" exists with other columns: it has (name TEXT, hits TEXT; key name), the \
             pipeline writes (name TEXT, hits INTEGER, level REAL; key name). Name another table, or drop this one"
        ),
        "{error}"
    );
}

#[test]
fn a_step_that_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "CREATE TABLE \"my \"\"table\"\"\" (name TEXT PRIMARY KEY, hits INTEGER CHECK (hits < 9), level REAL)",
    )
    .unwrap();
    let mut store = open(&path).unwrap();
    let error = store.commit(&[vec![value("a", 1), value("b", 9)]], &[]).unwrap_err();
    assert!(error.to_string().contains("CHECK constraint failed: hits < 9"), "{error}");
    let rows: i64 = db.query_row("SELECT count(*) FROM \"my \"\"table\"\"\"", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 0);
}

#[test]
fn commits_survive_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("rows.db")).unwrap();
    let pragma = |name| store.db.pragma_query_value(None, name, |row| row.get::<_, String>(0));
    let number = |name| store.db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    assert_eq!(pragma("journal_mode").unwrap(), "wal");
    assert_eq!(number("synchronous").unwrap(), 2, "FULL");
}

#[test]
fn what_sqlite_cannot_do_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("nowhere/rows.db");
    let error = fails(&missing);
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        format!(
            "SQLite file {}: cannot open it: it cannot be opened; the directory has to exist and to be writable, and \
             the file not a directory",
            missing.display()
        )
    );
    assert_eq!(fails(dir.path()).kind(), ErrorKind::NotFound, "a directory");

    let text = dir.path().join("text");
    tempfile::NamedTempFile::new_in(dir.path()).unwrap().persist(&text).unwrap();
    let mut file = std::fs::OpenOptions::new().write(true).open(&text).unwrap();
    std::io::Write::write_all(&mut file, &[b'x'; 4096]).unwrap();
    let error = fails(&text);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("it is not an SQLite database"), "{error}");
}

#[test]
fn a_lock_that_is_not_given_back_and_a_full_disk_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let mut store = open(&path).unwrap();

    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.commit(&[vec![value("a", 1)]], &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(fails(&path).kind(), ErrorKind::Busy);
    other.execute_batch("ROLLBACK").unwrap();
    store.commit(&[vec![value("a", 1)]], &[]).unwrap();

    let pages: i64 = store.db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    store.db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    let error = store.commit(&[vec![value(&"x".repeat(100_000), 1)]], &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("the disk is full"), "{error}");
}

#[test]
fn a_newer_format_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    drop(open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    db.execute("UPDATE logmill_pipelines SET format = 2", []).unwrap();
    let error = fails(&path);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("has format 2, and this version knows 1"), "{error}");
}

#[test]
fn refused_offsets_that_cannot_be_read_are_not_taken_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    drop(open(&path).unwrap());
    let db = Connection::open(&path).unwrap();
    db.execute("INSERT INTO logmill_positions VALUES ('p', 't', 0, 'id', 9, 1, NULL, NULL, NULL)", [])
        .unwrap();
    for text in ["", "[1,2]", "[[2,3],[1,2]]", "[[-1,2]]", "[[1,9223372036854775808]]"] {
        db.execute("UPDATE logmill_positions SET refused = ?1", [text]).unwrap();
        let error = fails(&path).to_string();
        assert!(error.contains("cannot read the pipeline's position"), "{text:?}: {error}");
    }
}

#[test]
fn a_table_that_is_gone_is_not_made_anew_without_its_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let position = Position {
        topic: "t".to_owned(),
        partition: 0,
        topic_id: "id".to_owned(),
        resume: Resume {
            read: Offset(1),
            replay: Offset(1),
            largest: None,
            closed: i64::MIN,
            refused: Refused::default(),
        },
    };
    open(&path).unwrap().commit(&[vec![value("a", 1)]], &[position]).unwrap();
    Connection::open(&path).unwrap().execute("DROP TABLE \"my \"\"table\"\"\"", []).unwrap();
    let error = fails(&path);
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("is not there, but the pipeline has a position"), "{error}");
}

/// What the first version has written, word for word: every later one has to go on with it.
#[test]
fn format_1_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.db");
    let written = "
        CREATE TABLE logmill_pipelines (
            pipeline TEXT NOT NULL PRIMARY KEY,
            format INTEGER NOT NULL,
            epoch INTEGER NOT NULL,
            steps TEXT NOT NULL
        );
        CREATE TABLE logmill_positions (
            pipeline TEXT NOT NULL,
            topic TEXT NOT NULL,
            partition INTEGER NOT NULL,
            topic_id TEXT NOT NULL,
            read_offset INTEGER NOT NULL,
            replay_offset INTEGER NOT NULL,
            largest_time_ms INTEGER,
            closed_ms INTEGER,
            refused TEXT,
            PRIMARY KEY (pipeline, topic, partition)
        );
        CREATE TABLE \"my \"\"table\"\"\" (name TEXT PRIMARY KEY, hits INTEGER, level REAL);
        INSERT INTO logmill_pipelines VALUES ('p', 1, 7, '{\"s\":\"count over tumbling windows of 60000 ms\"}');
        INSERT INTO logmill_positions VALUES 
            ('p', 't', 2, 'id', 40, 30, 1000, 900, '[[31,32],[35,40]]'), ('p', 't', 3, 'id', 0, 0, NULL, NULL, NULL);";
    Connection::open(&path).unwrap().execute_batch(written).unwrap();

    let table = rows_of(&path);
    let steps = "{\"s\":\"count over tumbling windows of 60000 ms\"}";
    let (mut store, positions) = Store::open(&path, "p", steps, &[&table.spec], |_| Ok(())).unwrap();

    let resumes: Vec<_> =
        positions.iter().map(|position| (position.partition, position.resume.clone())).collect();
    let resume = |read, replay, largest, closed, ranges| {
        let (read, replay, refused) = (Offset(read), Offset(replay), refused_of(ranges));
        Resume { read, replay, largest, closed, refused }
    };
    assert_eq!(
        resumes,
        [
            (2, resume(40, 30, Some(1_000), 900, &[(31, 32), (35, 40)])),
            (3, resume(0, 0, None, i64::MIN, &[])),
        ]
    );
    assert_eq!(store.epoch, 8);
    store.commit(&[vec![value("a", 1)]], &positions).unwrap();
    let db = Connection::open(&path).unwrap();
    let mut query =
        db.prepare("SELECT sql FROM sqlite_schema WHERE name LIKE 'logmill_%' AND sql NOT NULL").unwrap();
    let found: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let words =
        |sql: &str| sql.replace("IF NOT EXISTS ", "").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        found.iter().all(|sql| words(CREATE).contains(&words(sql))),
        "what is created now is format 1: {found:?}"
    );
    assert_eq!(found.len(), 2);
}
