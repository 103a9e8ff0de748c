//! `examples/`: clients in other languages, as their users run them. Each is tested where its `setup` has been run;
//! with `LOGMILL_EXAMPLES=all`, as `.ci/run` has it, all of them have to be there.

use std::path::{Path, PathBuf};
use std::process::Command;

use logmill_tests::{Node, Outcome, Program, Running, finish, free_port};
use serde_json::Value;

use crate::{logmill, node, node_at};

/// The programs of one language.
struct Language {
    folder: &'static str,
    /// What its `setup` leaves when it has come to its end.
    proof: &'static str,
    /// How a program of it is called.
    call: fn(&Path, &str) -> Command,
}

const PYTHON: Language = Language {
    folder: "python",
    proof: ".venv/stamp",
    call: |folder, program| Command::new(folder.join(format!("{program}.py"))),
};

const GO: Language = Language {
    folder: "go",
    proof: "bin/exactly_once",
    call: |folder, program| Command::new(folder.join("bin").join(program)),
};

const TYPESCRIPT: Language = Language {
    folder: "typescript",
    proof: "dist/.built",
    call: |folder, program| {
        let mut node = Command::new("node");
        node.arg(folder.join("dist").join(format!("{program}.js")));
        node
    },
};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// Whether something may be left out: it is not set up, and does not have to be.
fn is_missing(proof: &Path) -> bool {
    let missing = !proof.exists();
    if missing {
        assert!(std::env::var_os("LOGMILL_EXAMPLES").is_none(), "{} is not there", proof.display());
        println!("left out: {} is not there; its setup makes it", proof.display());
    }
    missing
}

impl Language {
    fn is_missing(&self) -> bool {
        is_missing(&examples().join(self.folder).join(self.proof))
    }

    fn command(&self, node: &Node, args: &[&str]) -> Command {
        let mut command = (self.call)(&examples().join(self.folder), args[0]);
        command.args(&args[1..]).args(["--server", node.url()]);
        command
    }

    fn run(&self, node: &Node, args: &[&str], input: &str) -> Outcome {
        finish(self.command(node, args), input.as_bytes())
    }

    fn ok(&self, node: &Node, args: &[&str], input: &str) -> String {
        let outcome = self.run(node, args, input);
        assert_eq!(outcome.code, 0, "{} {args:?}: {}", self.folder, outcome.stderr);
        outcome.stdout
    }

    fn start(&self, node: &Node, args: &[&str]) -> Running {
        Running::start(self.command(node, args))
    }

    /// What is produced is consumed, by a group once; and what is wrong is said in a sentence.
    fn produces_and_consumes(&self) {
        if self.is_missing() {
            return;
        }
        let (_dir, node, program) = node();
        program.ok(["topic", "create", "t", "--partitions", "3"]);
        // Long ones too, so that requests are full in the middle of them.
        let lines = lines(2_000, |n| format!("{n} {}", "x".repeat(n % 7 * 1_500)));
        let told = self.ok(&node, &["produce", "t"], &lines);
        assert_eq!(json(&told)["produced"], 2_000);
        let first = self.ok(&node, &["consume", "t", "--group", "g", "-n", "1500"], "");
        let rest = self.ok(&node, &["consume", "t", "--group", "g", "-n", "500"], "");
        assert_eq!(sorted(&(first + &rest)), sorted(&lines));

        self.ok(&node, &["produce", "t", "--key", "k"], "a\nb\n");
        let keyed = program.ok(["consume", "t", "--json"]);
        let places = keyed.lines().map(json).filter(|record| record["key"] == "k");
        let places: Vec<u64> = places.filter_map(|record| record["partition"].as_u64()).collect();
        // Where the node puts that key, too.
        program.ok_with(["produce", "t", "--key", "k"], b"c\n");
        let last = program.ok(["consume", "t", "--json"]);
        let by_node = last.lines().map(json).find(|record| record["value"] == "c").unwrap();
        assert_eq!(places, [by_node["partition"].as_u64().unwrap(); 2]);

        let missing = self.run(&node, &["consume", "nowhere", "--group", "g"], "");
        assert_eq!(missing.code, 1, "{missing:?}");
        assert!(missing.stderr.contains("nowhere") && !missing.stderr.contains("Traceback"), "{missing:?}");
    }

    /// Killed in the middle, and the node too, what is written is written once.
    fn copies_exactly_once(&self) {
        if self.is_missing() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (data, port) = (dir.path().join("data"), free_port());
        let mut node = node_at(&data, port);
        let program = logmill().at(node.url());
        for topic in ["from", "to"] {
            program.ok(["topic", "create", topic, "--partitions", "2"]);
        }
        let all =
            lines(20_000, |n| if n % 10 == 0 { String::new() } else { format!("n{n} {}", "x".repeat(200)) });
        self.ok(&node, &["produce", "from"], &all);
        let expected = sorted(&all.to_uppercase()).into_iter().filter(|line| !line.is_empty());
        let expected: Vec<String> = expected.collect();

        let written = || sorted(&program.ok(["consume", "to"]));
        let args = ["exactly_once", "from", "to", "--group", "g"];
        let mut copies = self.start(&node, &args);
        copies.wait_until("a copy", |_| !written().is_empty());
        copies.kill();
        let before = written().len();
        println!("{}: killed after {before} of {} copies", self.folder, expected.len());
        let copies = self.start(&node, &args);
        // It takes over when the killed one's session is over.
        copies.wait_until("a copy more", |_| written().len() > before || before == expected.len());
        node.kill();
        let node = node_at(&data, port);
        self.ok(&node, &["produce", "from"], "last\n");
        copies.wait_until("all copies", |_| written().len() > expected.len());
        assert_eq!(copies.terminate(), 0, "it ends in order");
        let written: Vec<String> = written().into_iter().filter(|line| line != "LAST").collect();
        assert_eq!(written.len(), expected.len());
        assert!(written == expected, "each once");
    }
}

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(|n| line(n) + "\n").collect()
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

#[test]
fn python_produces_and_consumes() {
    PYTHON.produces_and_consumes();
}

#[test]
fn python_copies_exactly_once() {
    PYTHON.copies_exactly_once();
}

#[test]
fn go_produces_and_consumes() {
    GO.produces_and_consumes();
}

#[test]
fn go_copies_exactly_once() {
    GO.copies_exactly_once();
}

#[test]
fn typescript_produces_and_consumes() {
    TYPESCRIPT.produces_and_consumes();
}

#[test]
fn typescript_copies_exactly_once() {
    TYPESCRIPT.copies_exactly_once();
}

/// The classic program of the field, twice; every figure that can be known beforehand is computed here.
#[test]
fn realtime_counts_what_it_did_and_goes_on_in_a_second_run() {
    if PYTHON.is_missing() {
        return;
    }
    let (dir, node, program) = node();
    let at = dir.path().join("realtime");
    let at = at.to_str().unwrap();
    let kept: Vec<u64> = (0..1_000).map(|n| n * 37 % 101).filter(|value| *value >= 50).collect();
    for run in 1..=2 {
        let told = json(&PYTHON.ok(&node, &["realtime", "--count", "1000", "--json", "--dir", at], ""));
        assert_eq!((&told["produced"], &told["consumed"]), (&1_000.into(), &1_000.into()), "{told}");
        for name in ["kept", "stored", "forwarded"] {
            assert_eq!(told[name], kept.len(), "{name}: {told}");
        }
        assert_eq!(told["sum"], kept.iter().map(|value| value * 10).sum::<u64>(), "{told}");
        assert!(told["rate_per_s"].as_f64().is_some_and(|it| it > 0.0), "{told}");
        // In whole milliseconds, and a disk may be faster.
        assert!(told["delay_ms_p50"].as_f64().is_some_and(|it| it >= 0.0), "{told}");
        assert_eq!(count(&program, "test_topic"), run * 1_000);
        assert_eq!(count(&program, "test_results"), run * kept.len());
        assert_eq!(rows(Path::new(at)), run * kept.len());
    }
}

fn count(program: &Program, topic: &str) -> usize {
    program.ok(["consume", topic]).lines().count()
}

/// The rows in the database that is in the directory.
fn rows(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let database = files.into_iter().find(|path| path.extension().is_some_and(|it| it == "db")).unwrap();
    let database = rusqlite::Connection::open(database).unwrap();
    let count: u32 = database.query_row("SELECT COUNT(*) FROM results", [], |row| row.get(0)).unwrap();
    count as usize
}

#[test]
fn grpcurl_works_by_reflection_alone() {
    if is_missing(&examples().join("go/bin/grpcurl")) {
        return;
    }
    let (_dir, node, _program) = node();
    let mut command = Command::new(examples().join("grpcurl"));
    command.args(["--server", node.url().trim_start_matches("http://")]);
    let outcome = finish(command, b"");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("logmill.v1.GroupService"), "{outcome:?}");

    // The details of an error too.
    let mut command = Command::new(examples().join("go/bin/grpcurl"));
    command.args(["-plaintext", "-d", r#"{"group": "nobody's"}"#, node.url().trim_start_matches("http://")]);
    command.arg("logmill.v1.GroupService/DescribeGroup");
    let refused = finish(command, b"");
    assert!(refused.code != 0 && refused.stderr.contains("\"reason\": \"GROUP_NOT_FOUND\""), "{refused:?}");
}
