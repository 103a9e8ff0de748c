//! Opening many logs at the same time.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test may stop where it fails")]

mod common;

use common::{batch, texts};
use logmill_log::sim::Sim;
use logmill_log::{ErrorKind, LogOptions, LogSet, SetOptions};

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
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
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
