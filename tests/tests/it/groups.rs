//! `group`, and `consume --group`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::node;

fn document(output: &str) -> Value {
    serde_json::from_str(output).unwrap()
}

#[test]
fn a_group_reads_on_where_it_was_and_is_reset_and_deleted() {
    let (_dir, _node, program) = node();
    assert!(program.ok(["group", "ls"]).contains("there are no groups yet"));
    assert_eq!(program.ok(["group", "ls", "--json"]), "");
    program.ok(["topic", "create", "t"]);
    program.ok_with(["produce", "t"], b"a\nb\nc\nd\n");
    let consume = ["consume", "t", "--group", "g", "-n", "2"];
    assert_eq!(program.ok(consume), "a\nb\n");
    assert_eq!(program.ok(consume), "c\nd\n");
    program.ok_with(["produce", "t"], b"e\n");

    let listed = program.ok(["group", "ls"]);
    assert!(listed.lines().nth(1).unwrap().starts_with("g "), "{listed}");
    let described = program.ok(["group", "describe", "g"]);
    assert!(
        described.contains("state    empty\n") && described.contains("lag      at most 1 record\n"),
        "{described}"
    );
    let offsets = &document(&program.ok(["group", "describe", "g", "--json"]))["offsets"];
    assert_eq!((&offsets[0]["offset"], &offsets[0]["lag_records"]), (&json!(4), &json!(1)));

    let planned = program.ok(["group", "reset", "g", "--to", "earliest"]);
    assert!(planned.ends_with("nothing was changed: add --execute to do it\n"), "{planned}");
    assert_eq!(program.ok(["consume", "t", "--group", "g", "-n", "1"]), "e\n");
    let done = program.ok(["group", "reset", "g", "--to", "1", "--topic", "t/0", "--execute", "--json"]);
    let expected = json!({ "topic": "t", "partition": 0, "from": 5, "to": 1, "executed": true });
    assert_eq!(document(&done), expected);
    assert_eq!(program.ok(consume), "b\nc\n");

    let delete_offsets = || program.ok(["group", "delete", "g", "--topic", "t"]);
    assert_eq!(delete_offsets(), "deleted what group g had committed for 1 partition of topic t\n");
    let described = program.ok(["group", "describe", "g"]);
    assert!(described.contains("lag      unknown: no offset is committed\n"), "{described}");
    assert_eq!(delete_offsets(), "group g had committed nothing for topic t\n");
    assert_eq!(program.ok(["group", "delete", "g"]), "deleted group g\n");
    assert_eq!(program.ok(["group", "ls", "--json"]), "");

    for (args, exit, says) in [
        (&["group", "describe", "g"][..], 5, "g"),
        (&["group", "reset", "g", "--to", "soon"], 2, "earliest"),
        (&["group", "reset", "g"], 2, "--to"),
        (&["consume", "t", "--group", "g", "--from", "7"], 2, "logmill group reset"),
        (&["consume", "t", "--group", "g", "--partition", "0"], 2, "cannot be used with"),
        (&["consume", "t", "--group", "g", "--session-timeout", "0.5"], 2, "from 1 to 1800"),
        (&["consume", "t", "--group", "g", "--session-timeout", "9999999"], 2, "from 1 to 1800"),
        (&["consume", "t", "--session-timeout", "5"], 2, "--group"),
        (&["consume", "nowhere", "--group", "g"], 5, "nowhere"),
    ] {
        let outcome = program.run(args);
        let sentence = outcome.refused(exit);
        assert!(sentence.contains(says), "{args:?}: {sentence}");
    }
}

#[test]
fn a_member_that_is_interrupted_leaves_and_another_goes_on_at_once() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t"]);
    program.ok_with(["produce", "t"], b"one\n");
    let mut command = program.command(["consume", "t", "--group", "g", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    for value in ["one", "two"] {
        line.clear();
        output.read_line(&mut line).unwrap();
        assert_eq!(document(&line)["value"], value);
        if value == "one" {
            program.ok_with(["produce", "t"], b"two\n");
        }
    }
    let described = document(&program.ok(["group", "describe", "g", "--json"]));
    assert_eq!(described["members"][0]["units"][0]["unit"], "t/0");
    let refused = program.run(["group", "delete", "g"]);
    assert!(refused.refused(6).contains('g'));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status:?}");
    let described = document(&program.ok(["group", "describe", "g", "--json"]));
    assert_eq!(described["members"], json!([]), "it has left");
    program.ok_with(["produce", "t"], b"three\n");
    assert_eq!(program.ok(["consume", "t", "--group", "g", "-n", "1"]), "three\n", "nothing twice");
}
