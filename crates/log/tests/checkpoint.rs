//! The checkpoint comes in time whatever else goes on in the set: on real threads.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and waits for threads"
)]

mod common;
#[path = "common/hook_fs.rs"]
mod hook_fs;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::batch;
use hook_fs::{Call, HookFs};
use logmill_log::env::{Env, Work};
use logmill_log::{Log, LogOptions, ReserveState, SetOptions};
use parking_lot::Mutex;

/// Waits for something that takes a second, for so long at most.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);

fn comes_true(done: impl Fn() -> bool) -> bool {
    (0..PATIENCE.as_millis() / PAUSE.as_millis()).any(|_| {
        thread::sleep(PAUSE);
        done()
    })
}

fn append(log: &Log) {
    log.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
}

fn checkpoint(dir: &Path) -> Option<Vec<u8>> {
    std::fs::read(dir.join("checkpoint")).ok()
}

#[test]
fn a_checkpoint_does_not_wait_for_a_busy_background() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::real();
    let busy = Arc::new(Mutex::new(()));
    let held = busy.lock();
    for _ in 0..10 {
        let busy = Arc::clone(&busy);
        env.scheduler.spawn(Work::Background, Box::new(move || drop(busy.lock())));
    }
    let log = Log::open(dir.path(), SetOptions::new(env), LogOptions::default()).unwrap();
    append(&log);
    let written = comes_true(|| checkpoint(dir.path()).is_some());
    drop(held);
    assert!(written);
}

#[test]
fn a_checkpoint_does_not_wait_for_the_reserve_to_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock();
    let fs = {
        let gate = Arc::clone(&gate);
        HookFs::asking(move |call, path| {
            if call == Call::Write && path.ends_with("reserve.tmp") {
                drop(gate.lock());
            }
            Ok(())
        })
    };
    let options = SetOptions::new(Env { fs, ..Env::real() }).reserve_bytes(1 << 20);
    let log = Log::open(dir.path(), options, LogOptions::default()).unwrap();
    let begun = comes_true(|| dir.path().join("reserve.tmp").exists());
    append(&log);
    let written = comes_true(|| checkpoint(dir.path()).is_some());
    // The numbers of the set do not wait either.
    let reserve = log.set().stats().reserve;
    drop(held);
    assert!(begun && written && reserve == ReserveState::Missing);
    assert!(comes_true(|| log.set().stats().reserve == ReserveState::Held));
}
