//! A log whose directory cannot be written: what is there is read, or the open says why not.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;
#[path = "common/hook_fs.rs"]
mod hook_fs;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{batch, texts};
use hook_fs::{Call, HookFs};
use logmill_log::env::Env;
use logmill_log::{ErrorKind, Log, LogOptions, LogSet, SetOptions};

/// A set in which the directory of log `a` becomes read-only when the switch is thrown.
fn set(dir: &Path) -> (LogSet, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    let (read_only, protected) = (Arc::clone(&switch), dir.join("a"));
    let fs = HookFs::asking(move |call, path| {
        let changes = !matches!(call, Call::Read | Call::Populate);
        if changes && path.starts_with(&protected) && read_only.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    });
    (LogSet::open(dir, SetOptions::new(Env { fs, ..Env::real() })).unwrap(), switch)
}

fn append(log: &Log, value: &str) {
    log.append(&[batch(&[value.as_bytes()])]).unwrap().wait().unwrap();
}

#[test]
fn a_log_in_a_read_only_directory_is_not_opened_and_others_are() {
    let dir = tempfile::tempdir().unwrap();
    let (set, read_only) = set(dir.path());
    for name in ["a", "b"] {
        let log = set.create(name, b"", LogOptions::default()).unwrap();
        append(&log, "kept");
        log.close().unwrap();
    }
    read_only.store(true, Ordering::Relaxed);
    let error = set.open_log("a", LogOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("give this user the rights that this takes"), "{error}");
    assert!(error.path().unwrap().starts_with(dir.path().join("a")));
    append(&set.open_log("b", LogOptions::default()).unwrap(), "and more");

    read_only.store(false, Ordering::Relaxed);
    let log = set.open_log("a", LogOptions::default()).unwrap();
    append(&log, "again");
    assert_eq!(texts(&log, 0), ["kept", "again"]);
    set.close().unwrap();
}

#[test]
fn a_directory_that_becomes_read_only_ends_appends_and_not_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (set, read_only) = set(dir.path());
    let [a, b] = ["a", "b"].map(|name| set.create(name, b"", LogOptions::default()).unwrap());
    append(&a, "kept");
    a.roll().unwrap();
    append(&a, "kept too");
    read_only.store(true, Ordering::Relaxed);
    // The bytes of an append that failed can not be taken back either.
    let error = a.append(&[batch(&[b"refused"])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(a.append(&[batch(&[b"refused"])]).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(texts(&a, 0), ["kept", "kept too"]);
    append(&b, "goes on");

    read_only.store(false, Ordering::Relaxed);
    let a = set.open_log("a", LogOptions::default()).unwrap();
    append(&a, "again");
    assert_eq!(texts(&a, 0), ["kept", "kept too", "again"]);
    set.close().unwrap();
}
