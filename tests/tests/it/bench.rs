//! `logmill bench`, shortly: that it measures, and leaves nothing behind.

use std::fs;

use logmill_tests::finish;
use serde_json::Value;

use crate::{logmill, node};

/// Long enough for a machine that builds and tests meanwhile.
const SHORT: [&str; 4] = ["--time", "1.5", "--warm-up", "0.5"];

fn assert_measured(document: &Value, server_too: bool) {
    for figure in ["records_per_s", "mb_per_s", "p50_ms", "p99_ms", "p999_ms"] {
        assert!(document[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {document:#}");
    }
    for cost in ["cpu_s_per_gb", "rss_anon_mb", "rss_file_mb"] {
        assert!(document[cost]["client"].is_f64(), "{cost}: {document:#}");
        assert_eq!(document[cost]["server"].is_f64(), server_too, "{cost}: {document:#}");
    }
    assert_eq!(document["durability"], "durable");
}

#[test]
fn with_a_node_of_its_own_it_measures_both_sides_and_removes_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut command =
        logmill().command(["bench", "produce", "--json", "--connections", "2", "--partitions", "3"]);
    command.args(SHORT).current_dir(dir.path());
    let outcome = finish(command, b"");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_measured(&document, true);
    assert_eq!((&document["connections"], &document["batch_bytes"]), (&2.into(), &65_536.into()));
    assert_eq!(document["compression"], "uncompressed");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn every_load_measures_the_same_figures_and_removes_what_it_made() {
    for (work, more) in [("consume", &["--backlog-bytes", "3000000"][..]), ("e2e", &["--rate", "2000"])] {
        let dir = tempfile::tempdir().unwrap();
        let mut command =
            logmill().command(["bench", work, "--json", "--connections", "2", "--partitions", "2"]);
        command.args(SHORT).args(more).args(["--compression", "lz4"]).current_dir(dir.path());
        let outcome = finish(command, b"");
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_measured(&document, true);
        assert_eq!((&document["work"], &document["connections"]), (&work.into(), &2.into()));
        assert_eq!(document["compression"], "lz4");
        assert_eq!(document["credit_bytes"], 4 << 20);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[test]
fn on_a_node_that_runs_already_it_measures_and_deletes_its_topic() {
    let (_dir, node, program) = node();
    program.ok(["topic", "create", "mine"]);
    let pid = node.pid().to_string();
    for more in [&[][..], &["--server-pid", &pid]] {
        let args = [&["bench", "produce", "--json", "--rate", "2000"], &SHORT[..], more].concat();
        let document: Value = serde_json::from_str(&program.ok(args)).unwrap();
        assert_measured(&document, !more.is_empty());
        // What a busy machine makes of it is not this test's matter.
        assert_eq!(document["rate"], 2_000.0);
    }
    assert_eq!(program.ok(["topic", "list", "--json"]).lines().count(), 1);
    let text = program.ok(["bench", "produce", "--time", "0.3", "--warm-up", "0.1", "--compression", "zstd"]);
    for says in ["p99.9", ", zstd, ", "peak anonymous", "peak of mapped files"] {
        assert!(text.contains(says), "{text}");
    }
}
