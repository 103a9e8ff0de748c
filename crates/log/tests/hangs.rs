//! Files that do not answer: what of the set goes on meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod common;
#[path = "common/hook_fs.rs"]
mod hook_fs;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{batch, texts};
use hook_fs::{Call, HookFs};
use logmill_log::env::Env;
use logmill_log::{Log, LogOptions, LogSet, SetOptions};
use logmill_record::Offset;
use parking_lot::{Condvar, Mutex};

/// A kind of call, and the end of the path that it is made for.
type Which = (Call, &'static str);

/// A disk that holds calls, refuses calls, and notes which were made since it was told to.
#[derive(Default)]
struct Disk {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    holds: Vec<Which>,
    refuses: Vec<Which>,
    made: Vec<(Call, String)>,
}

fn is((call, end): &Which, made: Call, path: &str) -> bool {
    *call == made && path.ends_with(end)
}

impl Disk {
    fn new() -> (Arc<Self>, Env) {
        let disk = Arc::new(Self::default());
        let asked = Arc::clone(&disk);
        let fs = HookFs::asking(move |call, path| asked.ask(call, path));
        (disk, Env { fs, ..Env::real() })
    }

    fn ask(&self, call: Call, path: &Path) -> io::Result<()> {
        let path = path.to_string_lossy().into_owned();
        let mut state = self.state.lock();
        state.made.push((call, path.clone()));
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.holds.iter().any(|held| is(held, call, &path)));
        match state.refuses.iter().any(|refused| is(refused, call, &path)) {
            true => Err(io::ErrorKind::Other.into()),
            false => Ok(()),
        }
    }

    /// Holds such calls from now on.
    fn hold(&self, which: Which) {
        let mut state = self.state.lock();
        state.holds.push(which);
        state.made.clear();
    }

    fn refuse(&self, which: Which) {
        self.state.lock().refuses.push(which);
    }

    /// From now on everything goes on.
    fn let_go(&self) {
        let mut state = self.state.lock();
        state.holds.clear();
        state.refuses.clear();
        self.changed.notify_all();
    }

    /// Waits until such a call has been made since the last hold.
    fn wait_for(&self, which: Which) {
        let has_come = |state: &State| state.made.iter().any(|(call, path)| is(&which, *call, path));
        self.changed.wait_while(&mut self.state.lock(), |state| !has_come(state));
    }
}

fn append(log: &Log) {
    log.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
}

const WRITE_TO_A: Which = (Call::Write, "/a/00000000000000000000.log");

#[test]
fn a_log_that_hangs_does_not_keep_the_others_from_being_looked_after() {
    let (dir, (disk, env)) = (tempfile::tempdir().unwrap(), Disk::new());
    let often = SetOptions::new(env).maintenance_interval(Duration::from_millis(1));
    let set = LogSet::open(dir.path(), often).unwrap();
    let [a, b] = ["a", "b"].map(|name| set.create(name, b"", LogOptions::default()).unwrap());
    append(&b);
    b.roll().unwrap();
    append(&b);
    disk.hold(WRITE_TO_A);
    thread::scope(|scope| {
        let appended = scope.spawn(|| append(&a));
        disk.wait_for(WRITE_TO_A);
        b.set_options(LogOptions::default().retention_bytes(Some(0)));
        disk.wait_for((Call::Change, "/b/00000000000000000000.log"));
        disk.let_go();
        appended.join().unwrap();
    });
    set.close().unwrap();
}

#[test]
fn a_log_that_hangs_does_not_keep_the_others_from_being_closed() {
    let (dir, (disk, env)) = (tempfile::tempdir().unwrap(), Disk::new());
    let set = LogSet::open(dir.path(), SetOptions::new(env)).unwrap();
    let [a, b] = ["a", "b"].map(|name| set.create(name, b"", LogOptions::default()).unwrap());
    append(&b);
    disk.hold(WRITE_TO_A);
    thread::scope(|scope| {
        let appended = scope.spawn(|| append(&a));
        disk.wait_for(WRITE_TO_A);
        let closed = scope.spawn(|| set.close());
        disk.wait_for((Call::Change, "/b/00000000000000000000.index"));
        disk.let_go();
        appended.join().unwrap();
        closed.join().unwrap().unwrap();
    });
}

/// A start that is being moved when the log is poisoned is where the log starts when it is opened again.
#[test]
fn a_log_that_is_opened_again_starts_where_it_was_told_to_meanwhile() {
    let (dir, (disk, env)) = (tempfile::tempdir().unwrap(), Disk::new());
    let set = LogSet::open(dir.path(), SetOptions::new(env)).unwrap();
    let a = set.create("a", b"", LogOptions::default()).unwrap();
    append(&a);
    append(&a);
    let rename = (Call::Change, "/a/meta");
    disk.hold(rename);
    disk.refuse((Call::Sync, "/a/00000000000000000000.log"));
    thread::scope(|scope| {
        let moved = scope.spawn(|| a.set_start_offset(Offset(1)));
        disk.wait_for(rename);
        a.append(&[batch(&[b"x"])]).unwrap().wait().unwrap_err();
        let opened = scope.spawn(|| set.open_log("a", LogOptions::default()));
        disk.wait_for((Call::Read, "/a/meta"));
        disk.let_go();
        assert_eq!(moved.join().unwrap().unwrap(), Offset(1));
        let a = opened.join().unwrap().unwrap();
        assert_eq!(a.start_offset(), Offset(1));
        assert_eq!(texts(&a, 1)[..1], ["x"]);
    });
    set.close().unwrap();
}
