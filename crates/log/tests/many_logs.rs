//! Ten thousand logs in one process that may have 1,024 files open.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and starts a process of its own"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{batch, texts};
use logmill_log::{Log, LogOptions, LogSet, SetOptions};

const LOGS: usize = 10_000;
/// Set for the process whose limit is low: the directory to work in.
const DIR: &str = "LOGMILL_MANY_LOGS_DIR";

#[test]
fn ten_thousand_logs_work_under_a_limit_of_1024_open_files() {
    if let Some(dir) = std::env::var_os(DIR) {
        return work(&PathBuf::from(dir));
    }
    // In memory where that can be had: what is limited are descriptors, not the disk.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let script = r#"ulimit -n 1024 && test "$(ulimit -n)" = 1024 && exec "$0" --exact "$1" --nocapture"#;
    let outcome = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg("ten_thousand_logs_work_under_a_limit_of_1024_open_files")
        .env(DIR, dir.path())
        .status()
        .unwrap();
    assert!(outcome.success(), "{outcome}");
}

fn work(dir: &Path) {
    let path = |n: usize| format!("part-{}/log-{n}", n % 10);
    let set = LogSet::open(dir, SetOptions::default()).unwrap();
    let logs: Vec<Log> =
        (0..LOGS).map(|n| set.create(path(n), b"", LogOptions::default()).unwrap()).collect();
    for round in 0..2 {
        let receipts: Vec<_> = logs
            .iter()
            .enumerate()
            .map(|(n, log)| log.append(&[batch(&[format!("{n} {round}").as_bytes()])]).unwrap())
            .collect();
        receipts.into_iter().for_each(|receipt| receipt.wait().unwrap());
    }
    assert!(set.stats().open_files.used <= set.stats().open_files.most);
    check(&logs);
    set.close().unwrap();
    drop((logs, set));

    let set = LogSet::open(dir, SetOptions::default()).unwrap();
    let logs: Vec<Log> = (0..LOGS).map(|n| set.open_log(path(n), LogOptions::default()).unwrap()).collect();
    check(&logs);
    for log in &logs {
        log.roll().unwrap();
    }
    check(&logs);
}

fn check(logs: &[Log]) {
    for (n, log) in logs.iter().enumerate() {
        assert_eq!(texts(log, 0), [format!("{n} 0"), format!("{n} 1")]);
    }
}
