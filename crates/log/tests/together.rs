//! What several threads find of logs that others write, roll, compact and cut at the front, and where a
//! write hangs.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and waits for threads"
)]

mod common;
#[path = "common/hook_fs.rs"]
mod hook_fs;
#[path = "common/keyed.rs"]
mod keyed;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::batch;
use hook_fs::{Call, HookFs};
use logmill_log::env::Env;
use logmill_log::{CompactionOptions, Durability, ErrorKind, Log, LogOptions, LogSet, SetOptions};
use logmill_record::{Offset, TimestampMs};
use parking_lot::{Condvar, Mutex};

/// Holds whoever comes while it is shut.
#[derive(Default)]
struct Gate {
    /// Whether it is shut, and how many stand before it.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock();
        if state.0 {
            state.1 += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| state.0);
        }
    }

    fn set(&self, shut: bool) {
        self.state.lock().0 = shut;
        self.changed.notify_all();
    }

    fn wait_for_one(&self) {
        self.changed.wait_while(&mut self.state.lock(), |state| state.1 == 0);
    }
}

/// Two logs take turns with the one file that is left, which is closed after a sync each time: more turns than
/// there are threads for syncs, and each asks the log that hangs to give way.
#[test]
fn a_write_that_hangs_does_not_use_up_the_threads_that_sync() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let hook = Arc::clone(&gate);
    let fs = HookFs::asking(move |call, path| {
        if call == Call::Write && path.to_string_lossy().contains("log-0/") {
            hook.pass();
        }
        Ok(())
    });
    let set = SetOptions::new(Env { fs, ..Env::real() }).max_open_files(2);
    let set = LogSet::open(dir.path(), set).unwrap();
    let relaxed =
        LogOptions::default().durability(Durability::Relaxed { flush_interval: Duration::from_hours(24) });
    let logs: Vec<_> = (0..3).map(|n| set.create(format!("log-{n}"), b"", relaxed).unwrap()).collect();
    logs[0].append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
    gate.set(true);
    let hung = logs[0].clone();
    let hangs = thread::spawn(move || drop(hung.append(&[batch(&[b"hangs"])])));
    gate.wait_for_one();

    let (turn, turns) = mpsc::channel();
    let others = logs[1..].to_vec();
    let busy = thread::spawn(move || {
        for round in 0..100 {
            for log in &others {
                drop(log.append(&[batch(&[b"x"])]).unwrap());
            }
            turn.send(round).unwrap();
        }
    });
    let mut last = None;
    let stuck = loop {
        // Longer than any turn takes: this ends only a test that fails.
        match turns.recv_timeout(Duration::from_secs(60)) {
            Ok(round) => last = Some(round),
            Err(error) => break error == mpsc::RecvTimeoutError::Timeout,
        }
    };
    gate.set(false);
    busy.join().unwrap();
    hangs.join().unwrap();
    assert!(
        !stuck,
        "the other two logs stood still after round {last:?}, until the write of the first ended"
    );
}

/// What one thread was told, each other thread finds, whatever is rolled, compacted and removed meanwhile.
#[test]
fn nobody_is_told_less_than_before() {
    for durability in [Durability::Durable, Durability::Relaxed { flush_interval: Duration::from_millis(5) }]
    {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions::default()
            .segment_bytes(900)
            .durability(durability)
            .compaction(Some(CompactionOptions::default()));
        let log = Log::open(dir.path(), SetOptions::default(), options).unwrap();
        let relaxed = durability != Durability::Durable;
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| follow(&log, relaxed, &ended));
            }
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    log.compact().unwrap();
                    log.set_start_offset(Offset(log.durable_end().get() / 2)).unwrap();
                }
            });
            let written = catch_unwind(AssertUnwindSafe(|| write(&log, relaxed)));
            ended.store(true, Ordering::Relaxed);
            written.unwrap_or_else(|panic| resume_unwind(panic));
        });
    }
}

fn write(log: &Log, relaxed: bool) {
    for round in 0..60 {
        for key in 0..20 {
            let receipt = log.append(&[keyed::batch(&[(Some(key % 3), Some(round))])]).unwrap();
            let next = receipt.last_offset().next();
            assert!(!relaxed || log.end_offset() >= next, "what is written is seen at once");
            if key % 4 == 0 {
                receipt.wait().unwrap();
                assert!(log.end_offset() >= next && log.durable_end() >= next);
            }
        }
        log.roll().unwrap();
    }
}

fn follow(log: &Log, relaxed: bool, ended: &AtomicBool) {
    let (mut last, mut start) = (log.end_offset(), log.start_offset());
    while !ended.load(Ordering::Relaxed) {
        if !log.wait_beyond(last, Duration::from_millis(50)).unwrap() {
            continue;
        }
        let end = log.end_offset();
        assert!(end > last, "{end} after {last} was told to be visible");
        match log.read(last, 1) {
            Ok(out) => {
                assert!(out.next_offset > last && out.end_offset >= end, "{out:?}");
                assert!(log.end_offset() >= out.end_offset);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
                assert!(last < log.start_offset(), "{error}");
            }
        }
        let begins = log.start_offset();
        assert!(begins >= start);
        start = begins;
        assert!(log.epoch_before(end).unwrap().is_none_or(|epoch| epoch == 1));
        let rise = log.end_of_epoch(1).unwrap();
        assert!(rise >= end && log.end_of_epoch(0).unwrap() <= rise);
        log.find_time(TimestampMs(0)).unwrap();
        let stats = log.stats();
        assert!(stats.durable_end <= stats.written_end);
        assert!(relaxed || stats.end_offset <= stats.durable_end);
        last = end;
    }
}
