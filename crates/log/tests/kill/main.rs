//! A real process that appends from several threads and is killed with SIGKILL at a random instant,
//! round after round over one data directory: what it acknowledged through a pipe is there, at its
//! offset, once, in order; nothing is there that it never wrote.
//!
//! The process is this test program itself, started again with [`child::DIR`] set. A short loop
//! runs with the other tests, five hundred rounds by name:
//!
//! ```sh
//! cargo test -p logmill-log --features sim --test kill -- --ignored --nocapture killed_500_times
//! ```
//!
//! The seed of when each is killed is printed; `LOGMILL_KILL_SEED` takes it again.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and this one waits for a real process"
)]

#[path = "../common/mod.rs"]
mod common;

mod child;
mod history;
mod op;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use history::History;
use logmill_log::env::{Clock as _, SystemClock};
use logmill_log::sim::SimRandom;
use logmill_log::{LogSet, SetOptions};
use op::Op;

/// Nothing that is waited for takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);
/// The kill comes at most so long after the process began, or began to append.
const MOST_MS: u64 = 60;

/// The process that is killed. Without its directory it has nothing to do.
#[test]
#[ignore = "the process that the other tests start and kill"]
fn child_process() {
    if let Some(dir) = std::env::var_os(child::DIR) {
        child::run(Path::new(&dir));
    }
}

#[test]
fn what_a_killed_process_acknowledged_is_there_once_and_in_order() {
    rounds(8);
}

#[test]
#[ignore = "a minute; run it by name"]
fn killed_500_times() {
    rounds(500);
}

fn rounds(rounds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let clock = SystemClock::new();
    let seed = std::env::var("LOGMILL_KILL_SEED").map_or_else(
        |_| SystemClock::new().now().0.cast_unsigned(),
        |seed| seed.parse().expect("LOGMILL_KILL_SEED is a number"),
    );
    println!("seed {seed}");
    let random = SimRandom::new(seed);
    let mut history = History::default();
    let mut recoveries = Vec::new();
    for round in 1..=rounds {
        for line in killed(&data, round, &random) {
            history.hear(&line);
        }
        let begun = clock.monotonic();
        let set = LogSet::open(&data, SetOptions::default()).unwrap();
        let logs: Vec<_> = (0..op::LOGS).map(|log| op::open(&set, log)).collect();
        recoveries.push(clock.monotonic().saturating_sub(begun));
        for (which, log) in (0..).zip(&logs) {
            history.check(round, which, log);
        }
        // Every other time the next process finds what a kill left, else a clean close.
        if random.one_in(2) {
            set.close().unwrap();
        }
    }
    recoveries.sort();
    let at = |percent: usize| recoveries[(recoveries.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("rounds {rounds}, {history}, recovery p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
    history.assert_nothing_lost();
}

#[test]
fn a_record_that_is_gone_doubled_or_foreign_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let op = Op { round: 1, thread: 1, number: 0 };
    let log = op::open(&set, op.log());
    let mut history = History::default();
    log.append(&op.batches()).unwrap().wait().unwrap();
    history.hear(&format!("ack {op} 0"));
    history.check(1, op.log(), &log);
    history.assert_nothing_lost();

    history.hear(&format!("ack {op} {}", op.records()));
    history.check(1, op.log(), &log);
    assert!(history.to_string().contains(&format!("lost {}", op.records())), "{history}");
    log.append(&op.batches()).unwrap().wait().unwrap();
    history.check(1, op.log(), &log);
    assert!(history.to_string().contains(&format!("doubled {}", op.records())), "{history}");
    assert_eq!(Op::of(b"1.0.0 0 something else"), None);
}

/// Starts the process, lets it work, kills it, and returns what it said.
fn killed(data: &Path, round: u64, random: &SimRandom) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "child_process"]);
    command.env(child::DIR, data).env(child::ROUND, round.to_string());
    command.stdout(Stdio::piped());
    std::thread::scope(|scope| {
        let mut process = Killed(command.spawn().unwrap());
        let (sender, lines) = channel();
        let output = BufReader::new(process.0.stdout.take().unwrap());
        scope.spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut heard = Vec::new();
        // Now and then in the middle of opening, else while it appends.
        if !random.one_in(5) {
            hear_until(&lines, &mut heard, LIMIT, |line| line == child::READY);
            assert_eq!(heard.last().map(String::as_str), Some(child::READY), "it begins to append");
        }
        hear_until(&lines, &mut heard, Duration::from_micros(random.below(MOST_MS * 1_000)), |_| false);
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        heard.extend(lines);
        heard
    })
}

/// Takes lines until one is the last, or the time is over.
fn hear_until(lines: &Receiver<String>, heard: &mut Vec<String>, limit: Duration, last: fn(&str) -> bool) {
    let clock = SystemClock::new();
    while let Some(rest) = limit.checked_sub(clock.monotonic()) {
        match lines.recv_timeout(rest) {
            Ok(line) => {
                heard.push(line);
                if heard.last().is_some_and(|line| last(line)) {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => panic!("the process ended by itself: {heard:?}"),
        }
    }
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
