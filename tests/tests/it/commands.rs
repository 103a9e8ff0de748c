//! `topic`, `produce` and `consume`, as a person or a script uses them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::{logmill, node};

fn documents(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn topics_are_created_listed_described_and_deleted() {
    let (_dir, _node, program) = node();
    assert!(program.ok(["topic", "list"]).contains("no topics yet"));
    assert_eq!(program.ok(["topic", "list", "--json"]), "");

    let created = program.ok(["topic", "create", "hits", "--partitions", "4"]);
    assert!(created.starts_with("created topic hits with 4 partitions\n"), "{created}");
    assert!(created.contains("retention.ms = -1"), "{created}");
    let created = &documents(&program.ok(["topic", "create", "a", "--json"]))[0];
    assert_eq!((&created["name"], &created["partition_count"]), (&json!("a"), &json!(1)));

    let list = program.ok(["topic", "list"]);
    let names: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["NAME", "a", "hits"]);

    program.ok_with(["produce", "hits", "--partition", "2"], b"one\ntwo\n");
    let described = &documents(&program.ok(["topic", "describe", "hits", "--json"]))[0];
    let ends: Vec<_> = described["partitions"].as_array().unwrap().iter().map(|p| &p["end_offset"]).collect();
    assert_eq!(ends, [0, 0, 2, 0]);
    assert!(program.ok(["topic", "describe", "hits"]).contains("records     2\n"));

    assert_eq!(program.ok(["topic", "delete", "hits"]), "deleted topic hits\n");
    assert_eq!(program.ok(["topic", "list", "--json"]).lines().count(), 1);
    program.ok(["topic", "create", "hits"]);
    assert_eq!(program.ok(["consume", "hits"]), "", "a new topic of an old name is empty");
}

#[test]
fn lines_go_in_and_come_out() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t"]);
    assert_eq!(program.ok_with(["produce", "t"], b"a\n\nb c\r\nlast"), "stored 4 records in topic t\n");
    assert_eq!(program.ok(["consume", "t"]), "a\n\nb c\r\nlast\n");
    assert_eq!(program.ok_with(["produce", "t"], b""), "stored 0 records in topic t\n");
}

#[test]
fn lines_are_compressed_as_the_topic_or_the_command_says() {
    let (_dir, _node, program) = node();
    let lines = "a line that repeats itself, and itself, and itself\n".repeat(2_000);
    let stored = |topic: &str, more: &[&str]| {
        let produced = program.ok_with([&["produce", topic], more].concat(), lines.as_bytes());
        assert_eq!(produced, format!("stored 2,000 records in topic {topic}\n"));
        assert_eq!(program.ok(["consume", topic]), lines);
        let described = &documents(&program.ok(["topic", "describe", topic, "--json"]))[0];
        described["partitions"][0]["stored_bytes"].as_u64().unwrap()
    };
    program.ok(["topic", "create", "plain", "--set", "compression.type=uncompressed"]);
    let plain = stored("plain", &["--compression", "gzip"]);
    assert!(plain > lines.len() as u64, "the topic has the last word: {plain}");
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let (by_topic, by_command) = (format!("topic-{codec}"), format!("command-{codec}"));
        program.ok(["topic", "create", &by_topic, "--set", &format!("compression.type={codec}")]);
        program.ok(["topic", "create", &by_command]);
        for bytes in [stored(&by_topic, &[]), stored(&by_command, &["--compression", codec])] {
            assert!(bytes < plain / 3, "{codec}: {bytes} of {plain}");
        }
    }
    let refused = program.run(["produce", "plain", "--compression", "brotli"]);
    assert!(refused.refused(2).contains("brotli"));
}

#[test]
fn each_record_is_acknowledged_with_its_place() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t", "--partitions", "3"]);
    let acknowledged = program.ok_with(["produce", "t", "--key", "k", "--json"], b"x\ny\nz\n");
    let acknowledged = documents(&acknowledged);
    let partition = &acknowledged[0]["partition"];
    let expected: Vec<_> = (0..3).map(|offset| json!({ "partition": partition, "offset": offset })).collect();
    assert_eq!(acknowledged, expected, "one key, one partition");
    let acknowledged = documents(&program.ok_with(["produce", "t", "--partition", "1", "--json"], b"x\n"));
    assert_eq!(acknowledged[0]["partition"], 1);
}

#[test]
fn a_record_is_acknowledged_while_the_input_stays_open() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t"]);
    let mut command = program.command(["produce", "t", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut output = BufReader::new(output);
    for offset in 0..3 {
        input.write_all(b"x\n").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(documents(&line)[0]["offset"], offset);
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn reading_starts_at_an_offset_a_time_or_an_end() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t", "--partitions", "2"]);
    let records: String =
        (0..10).map(|i| format!("{{\"timestamp\":{},\"value\":\"v{i}\"}}\n", 1_000 * i)).collect();
    program.ok_with(["produce", "t", "--input", "json", "--partition", "0"], records.as_bytes());
    program.ok_with(["produce", "t", "--partition", "1"], b"other\n");

    let read = |args: &[&str]| program.ok([&["consume", "t", "--partition", "0"], args].concat());
    assert_eq!(read(&["--from", "8"]), "v8\nv9\n");
    assert_eq!(read(&["--from", "10"]), "", "the end is a place to start at");
    assert_eq!(read(&["--from", "latest"]), "");
    assert_eq!(read(&["--from", "1970-01-01T00:00:07.5Z"]), "v8\nv9\n");
    assert_eq!(read(&["--from", "2500-01-01T00:00:00Z"]), "");
    assert_eq!(read(&["--from", "4", "-n", "2"]), "v4\nv5\n");
    assert_eq!(read(&["-n", "0"]), "");
    assert_eq!(read(&[]).lines().count(), 10);
    assert_eq!(program.ok(["consume", "t"]).lines().count(), 11);
    assert_eq!(
        program.ok(["consume", "t", "--from", "1"]).lines().count(),
        9,
        "an offset is for each partition"
    );
}

#[test]
fn following_goes_on_as_records_arrive() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t"]);
    program.ok_with(["produce", "t"], b"before\n");
    let mut command = program.command(["consume", "t", "--follow", "-n", "3"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for (input, expected) in [(&b""[..], "before\n"), (b"one\n", "one\n"), (b"two\n", "two\n")] {
        if !input.is_empty() {
            program.ok_with(["produce", "t"], input);
        }
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }
    assert!(child.wait().unwrap().success(), "it ends after -n records");
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t"]);
    let lines = "a line that is long enough to fill a pipe soon\n".repeat(20_000);
    program.ok_with(["produce", "t"], lines.as_bytes());
    for args in [&["consume", "t"][..], &["consume", "t", "--json"]] {
        let mut command = program.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn a_topic_gets_settings_partitions_and_loses_records() {
    let (_dir, _node, program) = node();
    let set = ["topic", "create", "hits", "--set", "retention.ms=5000000", "--set", "flush.ms = 50"];
    let created = program.ok(set);
    assert!(created.contains("  retention.ms = 5000000  (set for this topic)\n"), "{created}");
    assert!(created.contains("  durability = durable\n"), "{created}");

    let altered =
        program.ok(["topic", "alter", "hits", "--reset", "flush.ms", "--set", "durability=relaxed"]);
    assert!(altered.starts_with("altered topic hits\n"), "{altered}");
    assert!(altered.contains("  flush.ms = 1000\n"), "{altered}");
    assert!(altered.contains("  durability = relaxed  (set for this topic)\n"), "{altered}");
    let compacted = ["topic", "alter", "hits", "--append", "cleanup.policy=compact", "--json"];
    let compacted = &documents(&program.ok(compacted))[0];
    let policy = &compacted["settings"].as_array().unwrap()[0];
    assert_eq!(*policy, json!({"name": "cleanup.policy", "value": "compact,delete", "source": "topic"}));
    program.ok(["topic", "alter", "hits", "--remove", "cleanup.policy=compact"]);

    let grown = program.ok(["topic", "add-partitions", "hits", "--partitions", "3"]);
    assert_eq!(grown, "topic hits has 3 partitions now\n");
    program.ok_with(["produce", "hits", "--partition", "2"], b"one\ntwo\nthree\n");
    let deleted = program.ok(["topic", "delete-records", "hits", "--before", "2=2", "--before", "0=end"]);
    assert_eq!(deleted, "partition 0 starts at 0\npartition 2 starts at 2\n");
    assert_eq!(program.ok(["consume", "hits"]), "three\n");
    let emptied = documents(&program.ok(["topic", "delete-records", "hits", "--all", "--json"]));
    assert_eq!(emptied[2], json!({"partition": 2, "start_offset": 3}));

    for (args, exit, says) in [
        (&["topic", "alter", "hits"][..], 2, "required"),
        (&["topic", "alter", "hits", "--set", "retention.ms"], 2, "NAME=VALUE"),
        (&["topic", "alter", "hits", "--set", "retention.ms=soon"], 2, "cannot be \"soon\""),
        (&["topic", "alter", "nowhere", "--reset", "retention.ms"], 5, "no topic"),
        (&["topic", "add-partitions", "hits", "--partitions", "2"], 2, "only grows"),
        (&["topic", "delete-records", "hits"], 2, "required"),
        (&["topic", "delete-records", "hits", "--before", "0=7"], 5, "out of range"),
    ] {
        let outcome = program.run(args);
        let sentence = outcome.refused(exit);
        assert!(sentence.contains(says), "{args:?}: {sentence}");
    }
}

#[test]
fn the_server_may_be_given_as_an_argument() {
    let (_dir, node, _program) = node();
    logmill().ok(["topic", "create", "t", "--server", node.url()]);
    let address = node.url().strip_prefix("http://").unwrap();
    assert_eq!(logmill().ok(["topic", "list", "--json", "--server", address]).lines().count(), 1);
}

#[test]
fn help_shows_examples_and_goes_to_standard_output() {
    for args in [&["--help"][..], &["consume", "--help"], &["topic", "create", "--help"]] {
        assert!(logmill().ok(args).contains("\n  logmill "), "{args:?}");
    }
    assert!(logmill().ok(["--version"]).starts_with("logmill "));
}
