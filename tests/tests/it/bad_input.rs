//! What a person gets wrong, or their machine: always one clear sentence and an exit code that says
//! what kind of mistake it is, and nothing is lost.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use logmill_client::Client;
use logmill_tests::{Node, Outcome, Program, finish, free_port};
use tempfile::TempDir;

use crate::older::older_node;
use crate::{logmill, node};

fn serve(dir: &Path) -> Outcome {
    let mut command = logmill().command(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(dir);
    finish(command, b"")
}

fn says(sentence: &str, words: &[&str]) {
    for word in words {
        assert!(sentence.contains(word), "{sentence:?} does not say {word:?}");
    }
}

#[test]
fn a_data_directory_in_use() {
    let (dir, node, program) = node();
    let data = dir.path().join("data");
    program.ok(["topic", "create", "t"]);
    says(serve(&data).refused(6), &[data.to_str().unwrap()]);
    let quickstart =
        logmill().run([&"quickstart".into(), &"--data-dir".into(), &data.clone().into_os_string()]);
    says(quickstart.refused(6), &[data.to_str().unwrap()]);
    // The one who had it goes on undisturbed.
    program.ok_with(["produce", "t"], b"x\n");
    assert_eq!(program.ok(["consume", "t"]), "x\n");
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_data_directory_that_cannot_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    says(serve(&file).refused(2), &[file.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.tex"), "precious").unwrap();
    says(serve(&other).refused(2), &[other.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(other.join("thesis.tex")).unwrap(), "precious");

    let below = file.join("below");
    says(serve(&below).refused(2), &[below.to_str().unwrap()]);

    let dangling = dir.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    assert_ne!(serve(&dangling).code, 0);
}

#[test]
fn a_data_directory_that_is_not_writable() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    for data in [&closed, &closed.join("below")] {
        let Some(mut command) = unprivileged() else {
            eprintln!("SKIPPED: permissions do not bind this user, and setpriv cannot give its rights away");
            return;
        };
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        says(finish(command, b"").refused(4), &[data.to_str().unwrap()]);
    }
}

/// The program as a user whom permissions bind.
fn unprivileged() -> Option<Command> {
    let program = logmill();
    if !rustix::process::geteuid().is_root() {
        return Some(Command::new(program.path()));
    }
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program.path());
        command
    };
    let works = as_nobody().arg("--version").output().is_ok_and(|output| output.status.success());
    works.then(as_nobody)
}

#[test]
fn a_data_directory_of_a_newer_version() {
    let (dir, node, program) = node();
    let data = dir.path().join("data");
    program.ok(["topic", "create", "t"]);
    program.ok_with(["produce", "t"], b"x\n");
    assert_eq!(node.terminate(), 0);
    let set = data.join("set");
    let original = fs::read(&set).unwrap();
    fs::write(&set, newer_format(&original)).unwrap();
    says(serve(&data).refused(1), &["newer"]);
    fs::write(&set, original).unwrap();
    let node = Node::start(&logmill(), &data);
    assert_eq!(logmill().at(node.url()).ok(["consume", "t"]), "x\n");
}

/// A file like this one, of the next format version, which follows the four bytes of the magic.
fn newer_format(bytes: &[u8]) -> Vec<u8> {
    let mut newer = bytes.to_vec();
    newer[4] += 1;
    newer
}

#[test]
fn a_port_in_use() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let mut command = logmill().command(["serve", "--listen", &address, "--data-dir"]);
    command.arg(dir.path().join("data"));
    says(finish(command, b"").refused(6), &[&address, "--listen"]);
    assert!(!dir.path().join("data").exists(), "the data directory was not touched");
}

#[test]
fn topics_that_are_not_there_or_cannot_be() {
    let (_dir, _node, program) = node();
    for args in [
        &["topic", "describe", "nowhere"][..],
        &["topic", "delete", "nowhere"],
        &["consume", "nowhere"],
        &["produce", "nowhere"],
    ] {
        says(program.run_with(args, b"x\n").refused(5), &["nowhere"]);
    }
    program.ok(["topic", "create", "t", "--partitions", "2"]);
    says(program.run(["topic", "create", "t"]).refused(6), &["t"]);

    let long = "x".repeat(250);
    for name in ["../x", "", ".", "a b", "a/b", "__x", &long, "\u{1b}[31m"] {
        let outcome = program.run(["topic", "create", "--", name]);
        let sentence = outcome.refused(2);
        assert!(sentence.len() < 600 && !sentence.contains('\u{1b}'), "{sentence}");
    }
    for partitions in ["0", "10001", "10000000"] {
        says(
            program.run(["topic", "create", "p", "--partitions", partitions]).refused(2),
            &[partitions, "10000"],
        );
    }
    for partitions in ["-1", "many", "99999999999999", "1.5", ""] {
        program.run(["topic", "create", "p", "--partitions", partitions]).refused(2);
    }
    assert_eq!(program.ok(["topic", "list", "--json"]).lines().count(), 1, "none of them was made");
}

#[test]
fn places_that_are_not_there() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t", "--partitions", "2"]);
    program.ok_with(["produce", "t", "--partition", "0"], b"x\n");
    says(program.run(["consume", "t", "--partition", "0", "--from", "2"]).refused(5), &["2"]);
    says(program.run(["consume", "t", "--from", "1"]).refused(5), &["1"]);
    says(program.run(["consume", "t", "--partition", "2"]).refused(5), &["partition 2", "0 to 1"]);
    says(
        program.run_with(["produce", "t", "--partition", "7"], b"x\n").refused(5),
        &["partition 7", "0 to 1"],
    );
    for from in ["soon", "-1", "1.5", "2018-13-01T00:00:00Z", "99999999999999999999", ""] {
        program.run(["consume", "t", "--from", from]).refused(2);
    }
    program.run(["consume", "t", "--partition", "-1"]).refused(2);
    program.run(["consume", "t", "-n", "few"]).refused(2);
}

#[test]
fn a_record_over_the_limit() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t"]);
    let mut input = b"before\n".to_vec();
    input.extend(std::iter::repeat_n(b'x', 2 << 20));
    input.extend(b"\nafter\n");
    let outcome = program.run_with(["produce", "t"], &input);
    let sentence = outcome.refused(2);
    says(sentence, &["line 2 of the input", "1048588"]);
    assert!(program.ok(["consume", "t"]).starts_with("before\n"), "what was acknowledged is there");
}

#[test]
fn feeds_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let feed = fs::read(logmill_tests::embedded_feed()).unwrap();
    let cases: [(&str, &[u8], &[&str]); 6] = [
        ("not.json", b"<html>", &["is not JSON"]),
        ("none.json", b"{\"type\":\"FeatureCollection\",\"features\":[]}", &["no features"]),
        ("other.json", b"{\"rows\":[]}", &["features", "GeoJSON"]),
        ("half.json", &feed[..feed.len() / 2], &["cut off", "line "]),
        ("empty.json", b"", &["is empty"]),
        ("binary.json", b"\x00\xff\xfe", &["is not JSON"]),
    ];
    for (name, contents, words) in cases {
        let path = dir.path().join(name);
        fs::write(&path, contents).unwrap();
        let outcome = quickstart_in(dir.path(), &path);
        let sentence = outcome.refused(1);
        says(sentence, &[name]);
        says(sentence, words);
    }
    says(quickstart_in(dir.path(), &dir.path().join("missing.json")).refused(5), &["missing.json"]);
    assert_ne!(quickstart_in(dir.path(), dir.path()).code, 0, "a directory is no feed");
    let made =
        fs::read_dir(dir.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(made, 0, "no directory was made for a node");
}

fn quickstart_in(dir: &Path, feed: &Path) -> Outcome {
    let mut command = logmill().command(["quickstart", "--input"]);
    command.arg(feed).current_dir(dir);
    finish(command, b"")
}

#[test]
fn a_server_that_is_not_there() {
    let program = logmill().at(&format!("http://127.0.0.1:{}", free_port()));
    for args in [&["topic", "list"][..], &["consume", "t"], &["produce", "t"], &["topic", "create", "t"]] {
        says(program.run_with(args, b"x\n").refused(3), &["logmill serve"]);
    }
    for url in ["", "http://", "ftp://127.0.0.1:1", "127.0.0.1", "https://127.0.0.1:7070"] {
        logmill().run(["topic", "list", "--server", url]).refused(2);
    }
}

#[test]
fn a_server_that_does_not_answer() {
    let (_dir, node, program) = node();
    node.freeze();
    let outcome = program.run(["topic", "list", "--timeout", "0.3"]);
    node.resume();
    assert!(matches!(outcome.code, 3 | 124), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}

/// A node with a topic `t` that is told this besides.
fn node_with(args: &[&str]) -> (TempDir, Node, Program) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = logmill().command(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(dir.path().join("data")).args(args);
    let node = Node::from_command(command);
    let program = logmill().at(node.url());
    program.ok(["topic", "create", "t"]);
    (dir, node, program)
}

#[test]
fn a_server_on_a_full_disk() {
    let (_dir, _node, program) = node_with(&["--low-space-bytes", "9000000000000000000"]);
    let outcome = loop {
        // It takes a moment until it has looked at the disk.
        let outcome = program.run_with(["produce", "t"], b"x\n");
        if outcome.code != 0 {
            break outcome;
        }
    };
    says(outcome.refused(1), &["9000000000000000000 bytes left", "free some space"]);
    assert!(program.ok(["topic", "list"]).contains('t'), "what can be done is done");
}

#[test]
fn a_server_of_which_a_limit_is_used_up() {
    let (_dir, _node, program) = node_with(&["--limit", "max_topics=1"]);
    says(program.run(["topic", "create", "u"]).refused(1), &["max_topics", "1"]);
    let (_dir, node, program) = node_with(&["--limit", "max_connections=1"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _other = runtime.block_on(the_only_client(node.url()));
    says(program.run(["topic", "list"]).refused(1), &["max_connections", "1"]);
}

/// A client that has the node's only place for a connection: the one before it may not have given it back yet.
async fn the_only_client(url: &str) -> Client {
    loop {
        let client = Client::connect(url).await;
        match client.map_err(|error| error.reason().to_owned()) {
            Ok(client) => return client,
            Err(reason) => assert_eq!(reason, "LIMIT_EXCEEDED"),
        }
    }
}

#[test]
fn a_server_of_another_version() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let program = logmill().at(&format!("http://{}", runtime.block_on(older_node())));
    for args in [&["topic", "list"][..], &["topic", "create", "t"], &["consume", "t"], &["produce", "t"]] {
        says(program.run_with(args, b"x\n").refused(1), &["version"]);
    }
}

#[test]
fn a_server_that_is_something_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // Takes the connection and says nothing.
    let outcome = logmill().run(["topic", "list", "--timeout", "0.3", "--server", &url]);
    assert_eq!(outcome.refused(3).lines().count(), 1);
}

#[test]
fn an_unknown_command_is_refused_in_a_sentence_and_none_gets_the_help() {
    for args in [&[][..], &["topic"], &["bench"]] {
        let outcome = logmill().run(args);
        assert!(outcome.code == 2 && outcome.stdout.is_empty(), "{outcome:?}");
        assert!(outcome.stderr.contains("Usage: logmill"), "{outcome:?}");
    }
    says(logmill().run(["qickstart"]).refused(2), &["no command 'qickstart'", "quickstart", "--help"]);
    says(logmill().run(["topic", "frob"]).refused(2), &["no command 'frob'", "describe", "topic --help"]);
    logmill().run(["topic", "list", "--frob"]).refused(2);
    logmill().run(["bench", "produce", "--rate", "0"]).refused(2);
    let mut command = logmill().command(["topic", "list"]);
    command.env("LOGMILL_LOG", "=,=");
    says(finish(command, b"").refused(2), &["LOGMILL_LOG"]);
}
