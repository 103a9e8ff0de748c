//! How logs take turns with the workers that sync: on real threads, each sync held until the test lets
//! it go.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and waits for threads"
)]

mod common;
#[path = "common/hook_fs.rs"]
mod hook_fs;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::batch;
use hook_fs::{Call, HookFs};
use logmill_log::env::Env;
use logmill_log::{Log, LogOptions, LogSet, Receipt, SetOptions};
use parking_lot::{Condvar, Mutex};

/// As many as the set starts.
const WORKERS: usize = 64;
const LOGS: usize = WORKERS + 36;

/// Holds each sync of a segment once it is shut.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Default)]
struct State {
    shut: bool,
    /// Logs whose next sync may go on.
    allowed: Vec<PathBuf>,
    /// The logs whose syncs have begun, in that order.
    begun: Vec<PathBuf>,
    inside: usize,
    most_inside: usize,
}

impl Gate {
    fn pass(&self, log: &Path) {
        let mut state = self.state.lock();
        if !state.shut {
            return;
        }
        state.begun.push(log.to_owned());
        state.inside += 1;
        state.most_inside = state.most_inside.max(state.inside);
        loop {
            if let Some(place) = state.allowed.iter().position(|allowed| allowed == log) {
                state.allowed.remove(place);
                break;
            }
            if !state.shut {
                break;
            }
            self.opened.wait(&mut state);
        }
        state.inside -= 1;
    }

    /// Waits until so many syncs have begun; returns their logs.
    fn begun(&self, count: usize) -> Vec<PathBuf> {
        for _ in 0..2_000 {
            let begun = self.state.lock().begun.clone();
            if begun.len() >= count {
                return begun;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let begun = self.state.lock().begun.len();
        self.open();
        assert_eq!(begun, count, "syncs begun within ten seconds");
        Vec::new()
    }

    fn allow(&self, log: &Path) {
        self.state.lock().allowed.push(log.to_owned());
        self.opened.notify_all();
    }

    fn open(&self) {
        self.state.lock().shut = false;
        self.opened.notify_all();
    }
}

/// A set of which every log is open and synced, and the gate that is shut since.
fn set(dir: &Path) -> (Arc<Gate>, LogSet, Vec<Log>) {
    let gate = Arc::new(Gate::default());
    let hook = Arc::clone(&gate);
    let fs = HookFs::asking(move |call, path| {
        if call == Call::Sync && path.extension().is_some_and(|ending| ending == "log") {
            hook.pass(path.parent().unwrap());
        }
        Ok(())
    });
    let set = LogSet::open(dir, SetOptions::new(Env { fs, ..Env::real() })).unwrap();
    let create = |n| set.create(format!("log-{n:03}"), b"", LogOptions::default()).unwrap();
    let logs: Vec<Log> = (0..LOGS).map(create).collect();
    gate.state.lock().shut = true;
    (gate, set, logs)
}

fn append(log: &Log) -> Receipt {
    log.append(&[batch(&[b"x"])]).unwrap()
}

#[test]
fn as_many_logs_are_synced_at_the_same_time_as_there_are_workers_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, _set, logs) = set(dir.path());
    let receipts: Vec<_> = logs.iter().map(append).collect();
    gate.begun(WORKERS);
    thread::sleep(Duration::from_millis(100));
    let held = gate.state.lock().inside;
    gate.open();
    assert_eq!(held, WORKERS);
    receipts.into_iter().for_each(|receipt| receipt.wait().unwrap());
    assert_eq!(gate.state.lock().most_inside, WORKERS);
}

#[test]
fn a_log_that_is_written_all_the_time_is_synced_again_after_those_that_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, _set, logs) = set(dir.path());
    let dirs: Vec<_> = logs.iter().map(|log| log.dir().to_owned()).collect();
    let (hot, waiting) = (&logs[0], &dirs[WORKERS..]);
    for (count, log) in logs.iter().enumerate() {
        drop(append(log));
        // Each has its worker before the next comes.
        gate.begun((count + 1).min(WORKERS));
    }
    drop(append(hot));
    let mut done = WORKERS;
    let mut let_go = vec![hot.dir().to_owned()];
    for _ in 0..=waiting.len() {
        gate.allow(&let_go.remove(0));
        done += 1;
        let_go.push(gate.begun(done)[done - 1].clone());
    }
    let begun = gate.begun(done);
    gate.open();
    assert_eq!(&begun[WORKERS..done - 1], waiting, "in the order in which they were written");
    assert_eq!(begun[done - 1], hot.dir(), "and then the hot one again");
}
