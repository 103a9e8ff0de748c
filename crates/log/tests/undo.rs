//! A failed append that is being taken back while its log ends for another reason: its file belongs to
//! nobody else until that is over.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and waits for threads"
)]

mod common;
#[path = "common/hook_fs.rs"]
mod hook_fs;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use common::{batch, read_all};
use hook_fs::{Call, HookFs};
use logmill_log::env::Env;
use logmill_log::{Log, LogOptions, LogSet, SetOptions};
use logmill_record::Offset;

const EIO: i32 = 5;
const HOLD_NEXT: u8 = 1;
const HELD: u8 = 2;
const RELEASED: u8 = 3;

/// Holds the next call of one kind.
#[derive(Default)]
struct Gate(AtomicU8);

impl Gate {
    fn pass(&self) -> bool {
        let held = self.0.compare_exchange(HOLD_NEXT, HELD, SeqCst, SeqCst).is_ok();
        while held && self.0.load(SeqCst) != RELEASED {
            thread::sleep(Duration::from_millis(1));
        }
        held
    }

    fn hold_next(&self) {
        self.0.store(HOLD_NEXT, SeqCst);
    }

    fn wait_until_held(&self) {
        while self.0.load(SeqCst) != HELD {
            thread::yield_now();
        }
    }

    fn release(&self) {
        self.0.store(RELEASED, SeqCst);
    }
}

/// A disk whose next write, and then a sync beside it, fail.
#[derive(Default)]
struct Dying {
    sync: Gate,
    cut: Gate,
    write_fails: AtomicBool,
}

impl Dying {
    fn answer(&self, call: Call, path: &Path) -> io::Result<()> {
        if path.extension().is_none_or(|ending| ending != "log") {
            return Ok(());
        }
        let failed = match call {
            Call::Sync => self.sync.pass(),
            Call::Write => self.write_fails.swap(false, SeqCst),
            Call::SetLen => {
                self.cut.pass();
                false
            }
            _ => false,
        };
        if failed { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }
}

/// Poisons a log while it takes an append back, lets `reopen` begin, and only then ends the undo.
fn end_while_undoing(reopen: impl FnOnce(&Path, LogSet) -> (LogSet, Log) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Dying::default());
    let asked = Arc::clone(&disk);
    let fs = HookFs::asking(move |call, path| asked.answer(call, path));
    let set = LogSet::open(dir.path(), SetOptions::new(Env { fs, ..Env::real() })).unwrap();
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    log.append(&[batch(&[b"before"])]).unwrap().wait().unwrap();
    disk.sync.hold_next();
    let lost = log.append(&[batch(&[b"its sync fails"])]).unwrap();
    disk.sync.wait_until_held();
    disk.cut.hold_next();
    disk.write_fails.store(true, SeqCst);
    thread::scope(|scope| {
        let undoing = scope.spawn(|| log.append(&[batch(&[b"its write fails"])]).map(drop));
        disk.cut.wait_until_held();
        disk.sync.release();
        lost.wait().unwrap_err();
        let (done, acknowledged) = mpsc::channel();
        let path = dir.path();
        let opening = scope.spawn(move || {
            let (set, fresh) = reopen(path, set);
            for n in 0..5 {
                fresh.append(&[batch(&[format!("acknowledged {n}").as_bytes()])]).unwrap().wait().unwrap();
            }
            done.send(()).unwrap();
            (set, fresh)
        });
        // Long enough for whoever does not wait for the undo.
        let _ = acknowledged.recv_timeout(Duration::from_millis(300));
        disk.cut.release();
        undoing.join().unwrap().unwrap_err();
        let (_set, fresh) = opening.join().unwrap();
        let read = read_all(&fresh, Offset(0)).unwrap();
        assert!(read.len() >= 6, "acknowledged records are gone: {} are left", read.len());
    });
}

#[test]
fn a_log_is_not_opened_again_before_its_failed_append_is_taken_back() {
    end_while_undoing(|_, set| {
        let fresh = set.open_log("a", LogOptions::default()).unwrap();
        (set, fresh)
    });
}

#[test]
fn a_directory_is_not_given_back_before_a_failed_append_is_taken_back() {
    end_while_undoing(|path, set| {
        set.close().unwrap_err();
        let next = LogSet::open(path, SetOptions::default()).unwrap();
        let fresh = next.open_log("a", LogOptions::default()).unwrap();
        (next, fresh)
    });
}
