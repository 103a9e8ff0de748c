//! A write that the disk does not answer: who waits for it, and who does not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;
#[path = "common/hook_fs.rs"]
mod hook_fs;

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use common::{batch, batch_at, texts};
use hook_fs::{Call, HookFs};
use logmill_log::env::Env;
use logmill_log::{Durability, Log, LogOptions, LogSet, LogState, SetOptions, Step};
use logmill_record::{Offset, TimestampMs};
use parking_lot::{Condvar, Mutex};

/// Holds the next write to a segment of log `a`.
#[derive(Default)]
struct Hold {
    armed: AtomicBool,
    /// Whether a write is there, and whether it may go on.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Hold {
    fn ask(&self, call: Call, path: &Path) {
        let of_a = path.parent().and_then(Path::file_name) == Some("a".as_ref());
        if call == Call::Write && of_a && self.armed.swap(false, Ordering::SeqCst) {
            let mut state = self.state.lock();
            state.0 = true;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |(_, goes_on)| !*goes_on);
        }
    }

    fn wait_for_it(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |(is_there, _)| !*is_there);
    }

    fn let_go(&self) {
        self.state.lock().1 = true;
        self.changed.notify_all();
    }
}

/// Runs `meanwhile` while an append to log `a` of the set hangs in its write.
fn while_a_writes(
    options: impl FnOnce(Env) -> SetOptions,
    log: LogOptions,
    meanwhile: impl FnOnce(&LogSet, &Log),
) {
    let dir = tempfile::tempdir().unwrap();
    let hold = Arc::new(Hold::default());
    let asked = Arc::clone(&hold);
    let fs = HookFs::asking(move |call, path| {
        asked.ask(call, path);
        Ok(())
    });
    let env = Env { fs, ..Env::real() };
    let set = LogSet::open(dir.path(), options(env)).unwrap();
    let a = set.create("a", b"", log).unwrap();
    a.append(&[batch_at(5, &[b"sealed"])]).unwrap().wait().unwrap();
    a.roll().unwrap();
    a.append(&[batch_at(7, &[b"active"])]).unwrap().wait().unwrap();
    hold.armed.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let appended = scope.spawn(|| a.append(&[batch(&[b"late"])]).unwrap().wait());
        hold.wait_for_it();
        meanwhile(&set, &a);
        hold.let_go();
        appended.join().unwrap().unwrap();
    });
    assert_eq!(texts(&a, 0), ["sealed", "active", "late"]);
    set.close().unwrap();
}

#[test]
fn what_a_log_shows_does_not_wait_for_a_write() {
    while_a_writes(SetOptions::new, LogOptions::default(), |set, a| {
        let end = Offset(2);
        assert_eq!((a.start_offset(), a.end_offset(), a.written_end()), (Offset(0), end, end));
        assert_eq!(a.last_stable_offset(), end);
        let stats = a.stats();
        assert_eq!((stats.segments, stats.end_offset), (2, end));
        assert!(matches!(stats.state, LogState::Open));
        assert_eq!((a.epoch_before(end).unwrap(), a.end_of_epoch(1).unwrap()), (Some(1), end));
        assert!(a.read(end, 100).unwrap().chunks.is_empty());
        assert_eq!(a.read(Offset(0), 100).unwrap().next_offset, Offset(1));
        assert_eq!(a.find_time(TimestampMs(5)).unwrap(), Some((Offset(0), TimestampMs(5))));
        assert!(!a.wait_beyond(end, Duration::ZERO).unwrap());
        assert_eq!(set.stats().logs, 1);
    });
}

#[test]
fn a_future_that_is_polled_does_not_wait_for_a_write() {
    let flush_interval = Duration::from_hours(24);
    let relaxed = LogOptions::default().durability(Durability::Relaxed { flush_interval });
    while_a_writes(SetOptions::new, relaxed, |_, a| {
        let mut on_disk = pin!(a.on_disk(Offset(2)));
        assert!(on_disk.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    });
}

#[test]
fn the_other_logs_of_the_set_do_not_wait() {
    while_a_writes(SetOptions::new, LogOptions::default(), |set, _| {
        let b = set.create("b", b"", LogOptions::default()).unwrap();
        b.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
        b.close().unwrap();
        let b = set.open_log("b", LogOptions::default()).unwrap();
        assert_eq!(texts(&b, 0), ["x"]);
        b.retire();
    });
}

#[test]
fn who_wants_room_that_the_log_has_is_told_to_wait_and_not_held() {
    let flush_interval = Duration::from_hours(24);
    let relaxed = LogOptions::default().durability(Durability::Relaxed { flush_interval });
    let few_files = |env| SetOptions::new(env).max_open_files(1);
    let few_bytes = |env| SetOptions::new(env).max_dirty_bytes(100);
    for options in [few_files as fn(Env) -> SetOptions, few_bytes] {
        while_a_writes(options, relaxed, |set, _| {
            let b = set.create("b", b"", relaxed).unwrap();
            let Step::Wait(room) = b.try_append(&[batch(&[b"x"])]).unwrap() else {
                panic!("the log that is written has the room")
            };
            drop(room);
        });
    }
}
