//! What an idle partition takes: 2,000 logs of ten segments each, open in a process of its own.

use std::path::Path;
use std::thread;

use logmill_bench::{
    Aim, Memory, Part, Row, Run, Series, Unit, Values, batch_of_bytes, compare, fill, memory_of,
};
use logmill_log::{LogOptions, LogSet, SetOptions};

const LOGS: u64 = 2_000;
const SEGMENTS: u64 = 10;
const WRITERS: u64 = 16;

fn main() {
    if let Some((name, dir, numbers)) = Part::of_this_process() {
        return match name.as_str() {
            "write" => write_logs(&dir, numbers[0]),
            _ => hold_logs(&dir, numbers[0]),
        };
    }
    let run = Run::begin("memory of idle logs", Path::new(env!("CARGO_TARGET_TMPDIR")), 0);
    let logs = run.pick(LOGS, 20);
    let dir = run.directory();
    let _ = Part::run("write", dir.path(), &[logs]);
    let mut mapped = Vec::new();
    let ours = || {
        let line = Part::run("hold", dir.path(), &[logs]);
        mapped.push(line[2] / 1024.0);
        per_log(line[1], logs)
    };
    let baseline = || per_log(Part::run("hold", dir.path(), &[logs])[0], logs);
    let row = Row {
        title: "anonymous memory per idle log of ten segments",
        conditions: &format!(
            "RssAnon of a process with {logs} open logs of {SEGMENTS} segments, after all logs were opened \
             less before, by the log"
        ),
        unit: Unit::Kibibytes,
        aim: Aim::AtMost(16.0),
    };
    compare(&run, &row, ("Log, open and idle", ours), ("the process before, by the log", baseline));
    println!("beside it mapped files (RssFile, the program itself): {} MiB", Series::new(mapped));
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_log(kib: f64, logs: u64) -> f64 {
    kib / logs as f64
}

fn name(n: u64) -> String {
    format!("log-{n}")
}

/// The part that makes the logs.
fn write_logs(dir: &Path, logs: u64) {
    let set = LogSet::open(dir, SetOptions::default()).expect("a set opens");
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let set = &set;
            scope.spawn(move || {
                let mut values = Values::default();
                for n in (writer..logs).step_by(index(WRITERS)) {
                    let log = set.create(name(n), b"", LogOptions::default()).expect("a log can be made");
                    for segment in 0..SEGMENTS {
                        fill(&log, [batch_of_bytes(&mut values, 2048, 100, 0)], 1 << 20);
                        if segment + 1 < SEGMENTS {
                            log.roll().expect("a segment can be sealed");
                        }
                    }
                    log.close().expect("the log closes");
                }
            });
        }
    });
    set.close().expect("the set closes");
    println!("{logs}");
}

/// The part that holds them open: what it takes before, what they take, and its mapped files, in KiB.
fn hold_logs(dir: &Path, logs: u64) {
    let set = LogSet::open(dir, SetOptions::default()).expect("the set opens");
    let before = memory();
    let opened = set.open_logs((0..logs).map(name), LogOptions::default(), |_| {});
    let opened: Vec<_> = opened.into_iter().map(|log| log.expect("the log opens")).collect();
    let after = memory();
    let segments: usize = opened.iter().map(|log| log.stats().segments).sum();
    assert_eq!(segments as u64, logs * SEGMENTS);
    let kib = |bytes: u64| bytes / 1024;
    let taken = after.anonymous_bytes.saturating_sub(before.anonymous_bytes);
    println!("{} {} {}", kib(before.anonymous_bytes), kib(taken), kib(after.mapped_bytes));
    set.close().expect("the set closes");
}

fn memory() -> Memory {
    memory_of(std::process::id()).expect("the kernel says it")
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("it fits")
}
