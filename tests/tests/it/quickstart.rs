//! `logmill quickstart` on its own feed: the table is what an independent program computes.

use std::path::{Path, PathBuf};
use std::process::Command;

use logmill_tests::{Node, Outcome, check_table, embedded_feed, finish, free_port};
use serde_json::Value;

use crate::logmill;

/// Runs it and returns its document.
pub(crate) fn quickstart(dir: &Path, more: &[&str]) -> Value {
    let outcome = quickstart_outcome(dir, more);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    serde_json::from_str(&outcome.stdout).unwrap()
}

pub(crate) fn quickstart_outcome(dir: &Path, more: &[&str]) -> Outcome {
    let mut command = logmill().command(["quickstart", "--json", "--data-dir"]);
    command.arg(dir).args(more);
    finish(command, b"")
}

pub(crate) fn path(document: &Value, name: &str) -> PathBuf {
    PathBuf::from(document[name].as_str().unwrap())
}

/// Asserts that two tables are the same: counts and maxima exactly, means within 1e-9.
pub(crate) fn assert_same_table(one: &Value, other: &Value) {
    let (one, other) = (one["table"].as_array().unwrap(), other["table"].as_array().unwrap());
    assert_eq!(one.len(), other.len());
    for (a, b) in one.iter().zip(other) {
        for column in ["net", "day", "count", "max_mag"] {
            assert_eq!(a[column], b[column], "{a} {b}");
        }
        let mean = |row: &Value| row["mean_mag"].as_f64().unwrap();
        assert!((mean(a) - mean(b)).abs() <= 1e-9, "{a} {b}");
    }
}

#[test]
fn the_table_is_what_an_independent_program_computes() {
    let dir = tempfile::tempdir().unwrap();
    let document = quickstart(&dir.path().join("data"), &[]);
    assert_eq!(document["records"], 1_707);
    assert_eq!(document["produced"], 1_707);
    assert_eq!(document["dead"], 0);
    assert_eq!(document["late"], 0);
    assert_eq!(document["rows"], 78);
    let counts: i64 =
        document["table"].as_array().unwrap().iter().map(|row| row["count"].as_i64().unwrap()).sum();
    assert_eq!(counts, 1_679);
    if let Some(summary) = check_table(&embedded_feed(), &path(&document, "sqlite")) {
        assert_eq!(summary, "78 rows, 1679 events: equal");
    }
    let figures = [
        &document["rate_per_s"],
        &document["processing_rate_per_s"],
        &document["delay_ms"]["stored"]["p50"],
        &document["delay_ms"]["stored"]["p99"],
        &document["delay_ms"]["processed"]["p99"],
        &document["capacity"]["mean_stored_bytes"],
        &document["capacity"]["disk_available_bytes"],
        &document["capacity"]["seconds_until_full"],
        &document["throughput_bytes_per_s"]["in"],
        &document["throughput_bytes_per_s"]["out"],
    ];
    assert!(figures.iter().all(|figure| figure.as_f64().is_some_and(|figure| figure > 0.0)), "{document:#}");
}

#[test]
fn a_second_run_produces_nothing_and_shows_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let first = quickstart(&data, &[]);
    let second = quickstart(&data, &[]);
    assert_same_table(&first, &second);
    assert_eq!((&second["records"], &second["produced"]), (&first["records"], &Value::from(0)));
    for unmeasured in [
        &second["rate_per_s"],
        &second["delay_ms"]["stored"]["p50"],
        &second["capacity"]["seconds_until_full"],
        &second["throughput_bytes_per_s"]["in"],
    ] {
        assert!(unmeasured.is_null(), "{second:#}");
    }
}

/// Writes a feed of only the oldest features, byte for byte as they are in the whole.
pub(crate) fn write_oldest(path: &Path, count: usize) {
    const BETWEEN: &str = "{\"type\":\"Feature\",";
    let feed = std::fs::read_to_string(embedded_feed()).unwrap();
    let (_, features) = feed.split_once("\"features\":[").unwrap();
    let (features, _) = features.rsplit_once("],\"bbox\"").unwrap();
    let features: Vec<&str> =
        features.split(BETWEEN).skip(1).map(|feature| feature.trim_end_matches([',', '\n'])).collect();
    assert_eq!(features.len(), 1_707);
    // The feed is newest first.
    let oldest = &features[features.len() - count..];
    let body: Vec<String> = oldest.iter().map(|feature| format!("{BETWEEN}{feature}")).collect();
    std::fs::write(path, format!("{{\"features\":[{}]}}", body.join(","))).unwrap();
}

#[test]
fn a_part_of_the_feed_first_and_the_whole_later_is_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let part = dir.path().join("part.json");
    // Each part ends in the middle of a day, so every run finds open windows of the run before.
    for (count, produced) in [(1, 1), (400, 399), (401, 1), (1_000, 599), (1_000, 0)] {
        write_oldest(&part, count);
        let document = quickstart(&data, &["--input", part.to_str().unwrap()]);
        assert_eq!(
            (&document["records"], &document["produced"]),
            (&Value::from(count), &Value::from(produced))
        );
        check_table(&part, &path(&document, "sqlite"));
    }
    let whole = quickstart(&data, &[]);
    assert_eq!(
        (&whole["records"], &whole["produced"], &whole["late"]),
        (&1_707.into(), &707.into(), &0.into())
    );
    check_table(&embedded_feed(), &path(&whole, "sqlite"));
}

#[test]
fn without_a_directory_it_makes_one_here_and_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    for number in 1..=2 {
        let mut command = logmill().command(["quickstart"]);
        command.current_dir(dir.path());
        let outcome = finish(command, b"");
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let data = dir.path().join(format!("logmill-quickstart-{number}"));
        assert!(outcome.stdout.contains("2018-02-06") && outcome.stdout.contains("█"), "{}", outcome.stdout);
        assert!(outcome.stdout.contains(data.join("quakes.db").to_str().unwrap()), "{}", outcome.stdout);
        assert!(data.join("quakes.db").exists());
        assert_eq!(outcome.stderr, "", "no progress bar off a terminal");
    }
}

#[test]
fn the_three_commands_work_when_pasted_into_a_shell() {
    let dir = tempfile::tempdir().unwrap();
    let document = quickstart(&dir.path().join("it's a \"directory\""), &[]);
    let commands: Vec<&str> =
        document["next"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    let [serve, consume, describe] = commands[..] else { panic!("{commands:?}") };
    // The port that everyone uses may be taken here: only the environment changes, not the commands.
    let address = format!("127.0.0.1:{}", free_port());
    let pasted = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(dir.path());
        command.env("LOGMILL_LISTEN", &address).env("LOGMILL_SERVER", format!("http://{address}"));
        command
    };
    assert!(serve.contains(" serve "), "{serve}");
    let node = Node::from_command(pasted(&format!("exec {serve}")));
    assert_eq!(node.url(), format!("http://{address}"));
    let consumed = finish(pasted(consume), b"");
    assert_eq!((consumed.code, consumed.stdout.lines().count()), (0, 5), "{consumed:?}");
    assert!(consumed.stdout.lines().all(|line| line.contains("\"max_mag\":")), "{consumed:?}");
    let described = finish(pasted(describe), b"");
    assert_eq!(described.code, 0, "{described:?}");
    assert!(described.stdout.contains("earthquakes") && described.stdout.contains("1,707"), "{described:?}");
    assert_eq!(node.terminate(), 0);
}

#[test]
fn the_topic_holds_the_features_and_the_results() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let document = quickstart(&data, &[]);
    let node = Node::start(&logmill(), &data);
    let program = logmill().at(node.url());
    let feed = std::fs::read_to_string(embedded_feed()).unwrap();
    let mut last_times = [i64::MIN; 4];
    let events = program.ok(["consume", "earthquakes", "--json"]);
    assert_eq!(events.lines().count(), 1_707);
    for line in events.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let value = record["value"].as_str().unwrap();
        assert!(feed.contains(value), "the feature as it stands in the feed");
        let feature: Value = serde_json::from_str(value).unwrap();
        assert_eq!(record["key"], feature["id"]);
        assert_eq!(record["timestamp"], feature["properties"]["time"]);
        let partition = usize::try_from(record["partition"].as_u64().unwrap()).unwrap();
        let time = record["timestamp"].as_i64().unwrap();
        assert!(time >= last_times[partition], "in order of time");
        last_times[partition] = time;
    }
    let results = program.ok(["consume", "quakes-per-day", "--json"]);
    let mut latest = std::collections::BTreeMap::new();
    for line in results.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let row: Value = serde_json::from_str(record["value"].as_str().unwrap()).unwrap();
        latest.insert(record["key"].as_str().unwrap().to_owned(), row);
    }
    let rows: Vec<Value> = latest.into_values().collect();
    assert_same_table(&serde_json::json!({ "table": rows }), &document);
}
