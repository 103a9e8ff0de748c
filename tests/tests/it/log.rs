//! `logmill log`: looking into data directories that no node has open.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use logmill_tests::{Node, Outcome, Program, finish};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::logmill;

/// A data directory with topic `t` of two partitions, closed cleanly.
fn closed_directory() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Node::start(&logmill(), &data);
    let program = logmill().at(node.url());
    program.ok(["topic", "create", "t", "--partitions", "2"]);
    for line in ["one\n", "two\n", "three\n"] {
        program.ok_with(["produce", "t", "--partition", "1", "--key", "k"], line.as_bytes());
    }
    assert_eq!(node.terminate(), 0);
    (dir, data)
}

fn run(program: &Program, action: &str, path: &Path, more: &[&str]) -> Outcome {
    let mut command = program.command(["log", action]);
    command.arg(path).args(more);
    finish(command, b"")
}

fn ok(action: &str, path: &Path, more: &[&str]) -> String {
    let outcome = run(&logmill(), action, path, more);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.stdout
}

fn documents(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The log of partition 1: its path below the directory, and its data file.
fn partition_1(data: &Path) -> (String, PathBuf) {
    let logs = documents(&ok("ls", data, &["--json"]));
    let log = logs.iter().find(|log| log["partition"] == 1).unwrap();
    let name = log["log"].as_str().unwrap().to_owned();
    let file = data.join(&name).join("00000000000000000000.log");
    (name, file)
}

#[test]
fn a_directory_is_listed_with_the_topics_that_its_logs_belong_to() {
    let (_dir, data) = closed_directory();
    let text = ok("ls", &data, &[]);
    assert!(text.contains("closed cleanly") && text.contains("t/1"), "{text}");
    let logs = documents(&ok("ls", &data, &["--json"]));
    let found: Vec<_> = logs.iter().map(|log| (&log["topic"], &log["end_offset"])).collect();
    let own = |end_offset| (Value::Null, json!(end_offset));
    let of_topic = |end_offset| (json!("t"), json!(end_offset));
    let found: Vec<_> = found.into_iter().map(|(topic, end)| (topic.clone(), end.clone())).collect();
    assert_eq!(found, [own(1), own(0), own(0), of_topic(0), of_topic(3)]);
    assert_eq!(logs[4]["checkpoint"]["end_offset"], 3);
}

#[test]
fn batches_and_records_are_dumped_by_log_by_file_and_from_an_offset() {
    let (_dir, data) = closed_directory();
    let (name, file) = partition_1(&data);
    let of_log = documents(&ok("dump", &data, &["--log", &name, "--records", "--json"]));
    assert_eq!(of_log.len(), 3);
    assert_eq!(of_log[2]["records"][0]["value"], "three");
    assert_eq!((&of_log[2]["records"][0]["key"], &of_log[2]["base_offset"]), (&json!("k"), &json!(2)));

    let of_file = documents(&ok("dump", &file, &["--from", "1", "--limit", "1", "--json"]));
    assert_eq!((of_file.len(), &of_file[0]["base_offset"]), (1, &json!(1)));
    assert!(ok("dump", &file, &["--records"]).contains("\"k\" => \"two\""));

    let missing = run(&logmill(), "dump", &data, &["--log", "nowhere"]);
    assert!(missing.refused(5).contains("nowhere"), "{missing:?}");
    run(&logmill(), "dump", &data, &["--from", "-1"]).refused(2);
}

#[test]
fn damage_is_named_with_its_place_and_an_exit_code_of_its_own() {
    let (_dir, data) = closed_directory();
    assert!(ok("verify", &data, &[]).contains("nothing is damaged"));
    let (_, file) = partition_1(&data);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(3).position(|window| window == b"two").unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();

    let outcome = run(&logmill(), "verify", &data, &[]);
    let sentence = outcome.refused(7);
    assert!(sentence.contains("is damaged, 1 of data"), "{sentence}");
    assert!(outcome.stdout.contains("offset 1") && outcome.stdout.contains("t/1"), "{}", outcome.stdout);

    let outcome = run(&logmill(), "verify", &data, &["--json"]);
    let report = &documents(&outcome.stdout)[0];
    let finding = &report["findings"][0];
    assert_eq!((&report["damaged"], &finding["severity"]), (&json!(true), &json!("data")));
    assert_eq!((&finding["first_offset"], &finding["end_offset"]), (&json!(1), &json!(2)));

    let dumped = documents(&ok("dump", &file, &["--json"]));
    let whole: Vec<_> = dumped.iter().map(|batch| batch["crc_ok"].as_bool().unwrap()).collect();
    assert_eq!(whole, [true, false, true], "what is behind the damage is shown");
}

#[test]
fn a_repair_is_shown_first_and_done_when_asked_to() {
    let (_dir, data) = closed_directory();
    assert_eq!(ok("repair", &data, &[]), "there is nothing to repair\n");
    let (_, file) = partition_1(&data);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(3).position(|window| window == b"two").unwrap();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();

    let plan = ok("repair", &data, &[]);
    assert!(plan.contains("gone: offset 1") && plan.contains("nothing was changed"), "{plan}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    let done = documents(&ok("repair", &data, &["--execute", "--json"]));
    assert_eq!(done[0]["executed"], true);
    assert!(ok("verify", &data, &[]).contains("nothing is damaged"));

    let node = Node::start(&logmill(), &data);
    let program = logmill().at(node.url());
    assert_eq!(program.ok(["consume", "t"]), "one\nthree\n");
    program.ok_with(["produce", "t", "--partition", "1"], b"four\n");
    assert_eq!(program.ok(["consume", "t", "--partition", "1", "--from", "3"]), "four\n");
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_directory_that_cannot_be_looked_into_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "precious").unwrap();
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for action in ["ls", "verify", "repair", "rebuild-topics"] {
        let refused = |path: &Path, code: i32, word: &str| {
            let outcome = run(&logmill(), action, path, &[]);
            let sentence = outcome.refused(code);
            assert!(sentence.contains(word) && sentence.contains(path.to_str().unwrap()), "{sentence}");
        };
        refused(&dir.path().join("nowhere"), 5, "check the path");
        refused(&file, 2, "is not a directory");
        refused(&foreign, 2, "is not a data directory");
        refused(&empty, 2, "is not a data directory");
    }
    for path in [&file, &foreign] {
        // A service manager does not try it again.
        let serve = [
            "serve".as_ref(),
            "--listen".as_ref(),
            "127.0.0.1:0".as_ref(),
            "--data-dir".as_ref(),
            path.as_os_str(),
        ];
        logmill().run(serve).refused(2);
    }
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "nothing was written");
}

#[test]
fn a_directory_in_use_is_refused_and_a_link_to_a_free_one_followed() {
    let (dir, data) = closed_directory();
    let link = dir.path().join("link");
    symlink(&data, &link).unwrap();
    assert!(ok("verify", &link, &[]).contains("nothing is damaged"));
    let (name, _) = partition_1(&data);
    let part = run(&logmill(), "verify", &data.join(name), &[]);
    assert!(part.refused(2).contains("is a part of the data directory"), "{part:?}");

    let node = Node::start(&logmill(), &data);
    for action in ["ls", "dump", "verify", "repair"] {
        let outcome = run(&logmill(), action, &data, &[]);
        assert!(outcome.refused(6).contains("in use by another process"), "{outcome:?}");
    }
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_directory_of_a_newer_version_is_refused() {
    let (_dir, data) = closed_directory();
    let set = data.join("set");
    let mut bytes = fs::read(&set).unwrap();
    bytes[4] += 1;
    fs::write(&set, bytes).unwrap();
    assert!(run(&logmill(), "verify", &data, &[]).refused(1).contains("newer Logmill"));
}

#[test]
fn a_partition_of_a_newer_version_is_named_and_the_rest_is_looked_into_and_mended() {
    let (_dir, data) = closed_directory();
    let (name, _) = partition_1(&data);
    let meta = data.join(&name).join("meta");
    let mut bytes = fs::read(&meta).unwrap();
    bytes[4] += 1;
    fs::write(&meta, &bytes).unwrap();
    fs::write(data.join("checkpoint"), "damaged").unwrap();
    let verified = run(&logmill(), "verify", &data, &["--json"]);
    assert!(verified.refused(7).contains("1 of data"), "{verified:?}");
    let report = &documents(&verified.stdout)[0];
    assert_eq!((&report["misplaced"], report["findings"].as_array().unwrap().len()), (&json!([]), 2));
    let repaired = run(&logmill(), "repair", &data, &["--execute"]);
    assert!(repaired.refused(1).contains("1 log that this cannot mend"), "{repaired:?}");
    assert!(
        repaired.stdout.contains("not mended: ") && repaired.stdout.contains("newer Logmill"),
        "{repaired:?}"
    );
    assert_eq!(fs::read(&meta).unwrap(), bytes);
}

#[test]
fn a_lost_list_of_topics_is_made_anew() {
    let (_dir, data) = closed_directory();
    fs::remove_dir_all(data.join("internal")).unwrap();
    let refused = logmill().run(["serve".as_ref(), "--data-dir".as_ref(), data.as_os_str()]);
    assert!(refused.refused(1).contains("logmill log rebuild-topics"), "{refused:?}");

    let shown = ok("rebuild-topics", &data, &[]);
    assert!(
        shown.contains("topic t (")
            && shown.contains("partitions: 2; its settings cannot be read: defaults\n"),
        "{shown}"
    );
    assert!(shown.contains("nothing was changed") && !data.join("internal").exists(), "{shown}");
    let done = &documents(&ok("rebuild-topics", &data, &["--execute", "--json"]))[0];
    assert_eq!((&done["executed"], &done["topics"][0]["name"]), (&json!(true), &json!("t")));
    assert_eq!(done["replaced"], Value::Null);
    let again = ok("rebuild-topics", &data, &["--execute"]);
    assert!(again.ends_with("the list is whole, and these are its topics; nothing to do\n"), "{again}");
    assert!(ok("verify", &data, &[]).contains("nothing is damaged"));

    let node = Node::start(&logmill(), &data);
    assert_eq!(logmill().at(node.url()).ok(["consume", "t"]), "one\ntwo\nthree\n");
    run(&logmill(), "rebuild-topics", &data, &[]).refused(6);
    assert_eq!(node.terminate(), 0);
    run(&logmill(), "rebuild-topics", &data.join("nowhere"), &[]).refused(5);
}

#[test]
fn a_damaged_list_of_topics_keeps_the_settings_that_can_be_read() {
    let (_dir, data) = closed_directory();
    let node = Node::start(&logmill(), &data);
    let program = logmill().at(node.url());
    program.ok(["topic", "create", "week", "--set", "retention.ms=604800000"]);
    program.ok(["topic", "create", "lost", "--set", "retention.ms=1"]);
    assert_eq!(node.terminate(), 0);
    let log = data.join("internal/metadata/00000000000000000000.log");
    let mut bytes = fs::read(&log).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&log, bytes).unwrap();

    let shown = ok("rebuild-topics", &data, &["--execute"]);
    let line = |topic: &str| shown.lines().find(|line| line.starts_with(&format!("topic {topic} "))).unwrap();
    assert!(line("week").ends_with("; settings from the old list"), "{shown}");
    assert!(line("lost").ends_with("; its settings cannot be read: defaults"), "{shown}");
    assert!(shown.contains("the old one is in internal/metadata.replaced-"), "{shown}");
    assert!(ok("verify", &data, &[]).contains("nothing is damaged"));
    let node = Node::start(&logmill(), &data);
    let described = logmill().at(node.url()).ok(["topic", "describe", "week"]);
    assert!(described.contains("604800000"), "{described}");
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_list_of_no_topics_is_not_made() {
    let (_dir, data) = closed_directory();
    for name in ["internal", "topics"] {
        fs::remove_dir_all(data.join(name)).unwrap();
    }
    fs::remove_file(data.join("checkpoint")).unwrap();
    for more in [&[][..], &["--execute"]] {
        let outcome = run(&logmill(), "rebuild-topics", &data, more);
        assert!(outcome.refused(5).contains("holds no topic of which a list could be made"), "{outcome:?}");
        assert_eq!(outcome.stdout, "");
    }
    assert!(!data.join("internal").exists());
}

#[test]
fn a_directory_that_has_lost_its_logs_is_damaged_and_not_served() {
    let (_dir, data) = closed_directory();
    for name in ["internal", "topics"] {
        fs::remove_dir_all(data.join(name)).unwrap();
    }
    let outcome = run(&logmill(), "verify", &data, &[]);
    assert!(outcome.refused(7).contains("is damaged"), "{outcome:?}");
    assert!(
        outcome.stdout.contains("its checkpoint speaks of 5 logs, and none is there"),
        "{}",
        outcome.stdout
    );
    let refused = logmill().run(["serve".as_ref(), "--data-dir".as_ref(), data.as_os_str()]);
    assert!(refused.refused(1).contains("or choose an empty directory"), "{refused:?}");
}

#[test]
fn a_partition_that_is_not_where_it_belongs_is_damage() {
    let (_dir, data) = closed_directory();
    let (name, _) = partition_1(&data);
    let (one, aside) = (data.join(&name), data.join("aside"));
    fs::rename(&one, &aside).unwrap();
    let outcome = run(&logmill(), "verify", &data, &[]);
    assert!(outcome.refused(7).contains("1 of partitions that are not where they belong"), "{outcome:?}");
    assert!(outcome.stdout.contains("partition 1 of topic \"t\" is not there"), "{}", outcome.stdout);
    let report = &documents(&run(&logmill(), "verify", &data, &["--json"]).stdout)[0];
    assert_eq!((&report["damaged"], &report["misplaced"][0]["path"]), (&json!(true), &json!(name)));
    let plan = ok("repair", &data, &[]);
    assert!(
        plan.contains("not mended: ") && plan.contains("there is nothing that can be repaired"),
        "{plan}"
    );
    fs::rename(&aside, &one).unwrap();
    assert!(ok("verify", &data, &[]).contains("nothing is damaged"));
}

#[test]
fn a_partition_whose_meta_is_lost_is_served_again_after_a_repair() {
    let (_dir, data) = closed_directory();
    let (name, _) = partition_1(&data);
    fs::remove_file(data.join(&name).join("meta")).unwrap();
    assert!(ok("ls", &data, &[]).contains("meta is missing\n"));
    let plan = ok("repair", &data, &[]);
    assert!(plan.contains("what its owner keeps with it") && plan.contains("then do 1 step "), "{plan}");
    ok("repair", &data, &["--execute"]);
    assert!(ok("verify", &data, &[]).contains("nothing is damaged"));
    let node = Node::start(&logmill(), &data);
    assert_eq!(logmill().at(node.url()).ok(["consume", "t"]), "one\ntwo\nthree\n");
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_repair_that_loses_topics_from_the_list_names_them() {
    let (_dir, data) = closed_directory();
    let log = data.join("internal/metadata/00000000000000000000.log");
    let mut bytes = fs::read(&log).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&log, bytes).unwrap();
    let plan = ok("repair", &data, &[]);
    let advice =
        format!("records are there: t; 'logmill log rebuild-topics {}' makes it anew", data.display());
    assert!(plan.contains(&advice), "{plan}");
}

#[test]
fn a_file_that_is_no_segment_cannot_be_dumped() {
    let (_dir, data) = closed_directory();
    let set = data.join("set");
    let outcome = run(&logmill(), "dump", &set, &[]);
    assert!(outcome.refused(2).contains("is no segment"), "{outcome:?}");
    let (name, file) = partition_1(&data);
    let outcome = run(&logmill(), "dump", &file, &["--log", &name]);
    assert!(outcome.refused(2).contains("leave --log out"), "{outcome:?}");
}

#[test]
fn a_single_log_of_an_embedding_program_is_not_served() {
    let (_dir, data) = closed_directory();
    let (name, _) = partition_1(&data);
    fs::copy(data.join(name).join("meta"), data.join("meta")).unwrap();
    let before = fs::read(data.join("set")).unwrap();
    let refused = logmill().run(["serve".as_ref(), "--data-dir".as_ref(), data.as_os_str()]);
    assert!(refused.refused(2).contains("a single log of a program that embeds"), "{refused:?}");
    assert_eq!(fs::read(data.join("set")).unwrap(), before);
}
