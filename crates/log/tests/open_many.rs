//! Opening many logs at the same time.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may stop where it fails")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{batch, texts};
use logmill_log::sim::Sim;
use logmill_log::{ErrorKind, Log, LogOptions, LogSet, SetOptions};
use parking_lot::Mutex;

fn fill(set: &LogSet, logs: usize, segments: usize) -> Vec<String> {
    let paths: Vec<String> = (0..logs).map(|n| format!("log-{n}")).collect();
    for path in &paths {
        let log = set.create(path, b"", LogOptions::default()).unwrap();
        for segment in 0..segments {
            log.append(&[batch(&[format!("{path} {segment}").as_bytes()])]).unwrap().wait().unwrap();
            if segment + 1 < segments {
                log.roll().unwrap();
            }
        }
    }
    paths
}

#[test]
fn a_thousand_logs_of_ten_segments_are_opened_in_order_with_progress() {
    let dir = memory_dir();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let paths = fill(&set, 1_000, 10);
    set.close().unwrap();
    drop(set);
    for round in 0..2 {
        let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
        let mut told = Vec::new();
        let logs = set.open_logs(&paths, LogOptions::default(), |progress| told.push(progress));
        assert!(told.is_sorted_by(|one, next| one.done < next.done));
        let last = told.last().unwrap();
        assert_eq!((last.done, last.failed, last.total), (1_000, 0, 1_000));
        assert_eq!(last.scanned_bytes, 0, "what was closed cleanly is not read");
        for (path, log) in paths.iter().zip(logs) {
            let log = log.unwrap();
            assert_eq!(log.stats().segments, 10);
            if round == 1 {
                assert_eq!(texts(&log, 0).len(), 10);
                assert_eq!(texts(&log, 3)[0], format!("{path} 3"));
            }
        }
        // The last handles go here without a close, so that the next round recovers; the directory
        // is free at once.
    }
}

#[test]
fn each_log_has_its_own_outcome_in_its_place() {
    let sim = Sim::new(1);
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    fill(&set, 3, 1);
    let paths = ["log-2", "gone", "log-0", "log-2"];
    let mut failed = 0;
    let logs = set.open_logs(paths, LogOptions::default(), |progress| failed = progress.failed);
    assert_eq!(failed, 1);
    assert_eq!(texts(logs[0].as_ref().unwrap(), 0), ["log-2 0"]);
    assert_eq!(logs[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(texts(logs[2].as_ref().unwrap(), 0), ["log-0 0"]);
    assert_eq!(logs[3].as_ref().unwrap().id(), logs[0].as_ref().unwrap().id());
    assert!(set.open_logs([""; 0], LogOptions::default(), |_| ()).is_empty());
}

#[test]
fn in_a_simulation_one_seed_opens_in_one_order() {
    let history = |seed| {
        let mut sim = Sim::new(seed);
        let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
        let paths = fill(&set, 40, 2);
        drop(set);
        let set = LogSet::open("/data", SetOptions::new(sim.kill())).unwrap();
        let logs = set.open_logs(&paths, LogOptions::default(), |_| ());
        assert!(logs.iter().all(Result::is_ok));
        sim.fs.history()
    };
    for seed in 0..5 {
        assert_eq!(history(seed), history(seed), "seed {seed}");
    }
    assert_ne!(history(1), history(2));
}

const MIB: u64 = 1 << 20;

/// Appends so many MiB.
fn fill_large(log: &Log, mib: u64) {
    let value = vec![b'x'; 1 << 20];
    for _ in 0..mib {
        log.append(&[batch(&[&value])]).unwrap().wait().unwrap();
    }
}

/// As if a killed process had come to none.
fn remove_checkpoint(dir: &Path) {
    let _ = std::fs::remove_file(dir.join("checkpoint"));
}

fn memory_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

#[test]
fn a_large_log_tells_how_much_of_it_was_read_before_it_is_open() {
    let dir = memory_dir();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.create("large", b"", LogOptions::default()).unwrap();
    fill_large(&log, 100);
    drop((log, set));
    remove_checkpoint(dir.path());

    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let mut told = Vec::new();
    let logs = set.open_logs(["large"], LogOptions::default(), |progress| told.push(progress));
    assert_eq!(texts(logs[0].as_ref().unwrap(), 99).len(), 1);
    assert!(told.is_sorted_by(|one, next| one.scanned_bytes < next.scanned_bytes));
    let (last, before) = told.split_last().unwrap();
    assert!(last.done == 1 && last.scanned_bytes >= 100 * MIB, "{last:?}");
    assert!(!before.is_empty() && before.iter().all(|progress| progress.done == 0), "{before:?}");
}

#[test]
fn a_log_opened_by_itself_tells_its_owner_how_much_was_read() {
    let dir = memory_dir();
    let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default()).unwrap();
    fill_large(&log, 40);
    drop(log);
    remove_checkpoint(dir.path());

    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let options = SetOptions::default()
        .on_scan(move |so_far| heard.lock().push((so_far.log.to_owned(), so_far.scanned_bytes / MIB)));
    let log = Log::open(dir.path(), options.clone(), LogOptions::default()).unwrap();
    let all = std::mem::take(&mut *told.lock());
    assert!(all.len() >= 2 && all.iter().all(|(log, _)| log == dir.path()), "{all:?}");
    assert!(all.is_sorted() && all.last().unwrap().1 >= 32, "{all:?}");
    log.close().unwrap();
    Log::open(dir.path(), options, LogOptions::default()).unwrap();
    assert!(told.lock().is_empty(), "nothing was read");
}
