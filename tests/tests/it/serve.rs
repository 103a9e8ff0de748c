//! A node as a process: how it starts, refuses and stops.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use logmill_broker::Limit;
use logmill_log::{LogOptions, LogSet, Recovered, SetOptions};
use logmill_tests::{Node, pause};
use rustix::process::Signal;

use crate::{logmill, node};

#[test]
fn it_prints_one_line_when_it_is_ready_and_exits_0_when_asked_to_stop() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = logmill().command(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(dir.path().join("data")).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line)
            .unwrap();
        assert!(line.starts_with("logmill is ready at http://127.0.0.1:"), "{line}");
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn an_address_that_others_could_reach_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for address in ["0.0.0.0:7070", "[::]:7070", "192.0.2.1:7070"] {
        let mut command = logmill().command(["serve", "--listen", address, "--data-dir"]);
        command.arg(dir.path().join("data"));
        let outcome = logmill_tests::finish(command, b"");
        let sentence = outcome.refused(2);
        assert!(sentence.contains(address) && sentence.contains("authentication"), "{sentence}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

/// The partitions that a directory holds, and what opening them has to mend.
fn recovered(data: &Path) -> (usize, Recovered) {
    let scanned = Arc::new(AtomicUsize::new(0));
    let hears = Arc::clone(&scanned);
    let options = SetOptions::default().on_scan(move |_| {
        hears.fetch_add(1, Ordering::SeqCst);
    });
    let set = LogSet::open(data, options).unwrap();
    let mut partitions = 0;
    for topic in std::fs::read_dir(data.join("topics")).unwrap() {
        for partition in std::fs::read_dir(topic.unwrap().path()).unwrap() {
            let path = partition.unwrap().path();
            set.open_log(path.strip_prefix(data).unwrap(), LogOptions::default()).unwrap();
            partitions += 1;
        }
    }
    let recovered = set.stats().recovered;
    set.close().unwrap();
    assert_eq!(scanned.load(Ordering::SeqCst), 0, "nothing had to be read");
    (partitions, recovered)
}

#[test]
fn every_limit_can_be_set_by_option_and_environment_and_a_wrong_one_is_refused() {
    let help = logmill().ok(["serve", "--help"]);
    for limit in Limit::ALL {
        assert!(help.contains(&format!("{limit} ({}", limit.unit())), "{limit} is not in the help");
    }
    let dir = tempfile::tempdir().unwrap();
    let serve = |args: &[&str]| {
        let mut command = logmill().command(["serve", "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(dir.path().join("data")).args(args);
        command
    };
    for (wrong, says) in [
        ("max_connections", "NAME=NUMBER"),
        ("max_connections=0", "at least 1"),
        ("max_nonsense=1", "max_topics"),
        ("max_batch_bytes=1000", "max.message.bytes"),
    ] {
        let outcome = logmill_tests::finish(serve(&["--limit", wrong]), b"");
        assert!(outcome.refused(2).contains(says), "{outcome:?}");
    }
    assert!(!dir.path().join("data").exists(), "nothing was made");

    let mut command = serve(&["--limit", "max_partitions=3"]);
    command.env("LOGMILL_LIMITS", "max_topics=1");
    let node = Node::from_command(command);
    let program = logmill().at(node.url());
    let refused = program.run(["topic", "create", "t", "--partitions", "4"]);
    assert!(refused.stderr.contains("max_partitions of 3"), "{refused:?}");
    drop(node);
    let mut command = serve(&[]);
    command.env("LOGMILL_LIMITS", "max_topics=1,max_partitions=3");
    let node = Node::from_command(command);
    let program = logmill().at(node.url());
    program.ok(["topic", "create", "t", "--partitions", "3"]);
    let refused = program.run(["topic", "create", "u"]);
    assert!(refused.stderr.contains("max_topics of 1"), "{refused:?}");
    assert_eq!(node.terminate(), 0);
}

#[test]
fn a_fifo_in_the_place_of_a_file_of_its_own_ends_the_start_at_once() {
    for name in ["set", "checkpoint", "internal/metadata/meta"] {
        let (dir, node, _program) = node();
        assert_eq!(node.terminate(), 0);
        let path = dir.path().join("data").join(name);
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut command = logmill().command(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(dir.path().join("data"));
        let outcome = logmill_tests::finish(command, b"");
        let sentence = outcome.refused(1);
        assert!(sentence.contains("FIFO") && sentence.contains(path.to_str().unwrap()), "{sentence}");
    }
}

#[test]
fn stopped_under_load_it_exits_0_and_keeps_what_it_acknowledged() {
    let (dir, node, program) = node();
    program.ok(["topic", "create", "t", "--partitions", "2"]);
    let mut producers = Vec::new();
    for partition in ["0", "1"] {
        let mut lines = String::new();
        for number in 0..400_000 {
            writeln!(lines, "{number}").unwrap();
        }
        let input = dir.path().join(partition);
        std::fs::write(&input, lines).unwrap();
        let output = dir.path().join(format!("{partition}.out"));
        let mut command =
            program.command(["produce", "t", "--json", "--timeout", "2", "--partition", partition]);
        command.stdin(std::fs::File::open(&input).unwrap()).stderr(Stdio::null());
        let child = command.stdout(std::fs::File::create(&output).unwrap()).spawn().unwrap();
        producers.push((child, output));
    }
    // In the middle: something is acknowledged, and more is under way.
    while producers.iter().any(|(_, output)| output.metadata().unwrap().len() == 0) {
        pause(Duration::from_millis(1));
    }
    assert_eq!(node.terminate(), 0);
    assert_eq!(recovered(&dir.path().join("data")), (2, Recovered::default()));

    let node = Node::start(&logmill(), &dir.path().join("data"));
    let program = logmill().at(node.url());
    for (partition, (mut child, output)) in ["0", "1"].into_iter().zip(producers) {
        child.wait().unwrap();
        let acknowledged = std::fs::read_to_string(output).unwrap().lines().count();
        let stored = program.ok(["consume", "t", "--partition", partition]);
        assert!(stored.lines().count() >= acknowledged, "{acknowledged} acknowledged");
        for (number, line) in stored.lines().enumerate() {
            assert_eq!(line, number.to_string(), "in order, once");
        }
    }
}

#[test]
fn what_damage_took_is_missed_at_every_start_and_by_every_reader() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Node::start(&logmill(), &data);
    let here = logmill().at(node.url());
    here.ok(["topic", "create", "a"]);
    here.ok_with(["produce", "a"], b"1\n2\n");
    here.ok_with(["produce", "a"], b"3\n4\n");
    assert_eq!(node.terminate(), 0);
    let topic = std::fs::read_dir(data.join("topics")).unwrap().next().unwrap().unwrap().path();
    let segment = topic.join("0/00000000000000000000.log");
    let cut = std::fs::metadata(&segment).unwrap().len() - 10;
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(cut).unwrap();
    for _start in 0..2 {
        let node = Node::start(&logmill(), &data);
        let here = logmill().at(node.url());
        for args in [&["consume", "a"][..], &["consume", "a", "--from", "2"]] {
            let outcome = here.run(args);
            assert_ne!(outcome.code, 0, "{outcome:?}");
            assert!(outcome.stderr.contains("offsets 2 to 3 cannot be read"), "{outcome:?}");
            assert_eq!(outcome.stdout, if args.len() == 2 { "1\n2\n" } else { "" });
        }
        assert_eq!(here.ok(["consume", "a", "-n", "2"]), "1\n2\n");
        assert_ne!(here.run_with(["produce", "a"], b"x\n").code, 0);
        assert_eq!(node.terminate(), 0);
    }
    assert_eq!(std::fs::metadata(&segment).unwrap().len(), cut, "nothing was cut off");
}
