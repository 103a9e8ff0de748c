//! Opening a log whose active segment of 128 MiB is nearly full of 1 KiB batches, from a cold disk:
//! after it was closed, and after its process was killed.
//!
//! Each figure is taken on a copy of its own. The baselines are cold too: what reading the bytes
//! takes that cannot but be read.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use logmill_bench::{
    Aim, Compared, Part, Row, Run, Unit, Values, compare, drop_from_cache, files_below, fill, open,
    single_record_batch,
};
use logmill_log::LogOptions;

/// As many sealed segments as a log of 10 GiB has, beside none.
const SEALED: [u64; 2] = [0, 80];
const ACTIVE_BYTES: u64 = 127 << 20;
const QUICK_ACTIVE_BYTES: u64 = 1 << 20;
const IN_FLIGHT_BYTES: usize = 1 << 20;
/// A record that makes a batch of 1 KiB.
const RECORD_LEN: usize = 950;

fn main() {
    if let Some((_, dir, numbers)) = Part::of_this_process() {
        return write_log(&dir, &numbers);
    }
    let run = Run::begin("open, from a cold disk", Path::new(env!("CARGO_TARGET_TMPDIR")), 512 << 20);
    for (how, aim_ms, killed) in [("a clean shutdown", 10.0, false), ("SIGKILL", 300.0, true)] {
        let medians = SEALED.map(|sealed| measure(&run, how, aim_ms, killed, sealed).ours.median());
        println!(
            "after {how}, {} sealed segments take {:.2} ms more than {}\n",
            SEALED[1],
            medians[1] - medians[0],
            SEALED[0]
        );
    }
}

/// The part: a log that is written, and closed or left to be killed.
fn write_log(dir: &Path, numbers: &[u64]) {
    let &[sealed, active_bytes, killed] = numbers else { return };
    let log = open(dir, LogOptions::default());
    let mut values = Values::default();
    for _ in 0..sealed {
        fill(&log, (0..64).map(|_| single_record_batch(&mut values, RECORD_LEN, 0)), IN_FLIGHT_BYTES);
        log.roll().expect("a segment can be sealed");
    }
    let batch = single_record_batch(&mut values, RECORD_LEN, 0);
    let count = active_bytes / batch.bytes().len() as u64;
    fill(&log, (0..count).map(|_| batch.clone()), IN_FLIGHT_BYTES);
    if killed == 0 {
        log.set().close().expect("the log closes");
    }
    println!("{count}");
    if killed == 1 {
        // Until it is killed.
        let _ = std::io::stdin().read_line(&mut String::new());
    }
}

fn measure(run: &Run, how: &str, aim_ms: f64, killed: bool, sealed: u64) -> Compared {
    let template = run.directory();
    let active_bytes = run.pick(ACTIVE_BYTES, QUICK_ACTIVE_BYTES);
    let mut part = Part::start("write", template.path(), &[sealed, active_bytes, killed.into()]);
    let batches = part.line()[0];
    if killed {
        part.kill();
    } else {
        part.join();
    }
    let how_cold = drop_from_cache(template.path());
    let ours = || {
        let dir = run.directory();
        copy_files(template.path(), dir.path());
        let _ = drop_from_cache(dir.path());
        let mut opened = None;
        let took = run.time(|| opened = Some(open(dir.path(), LogOptions::default())));
        let log = opened.expect("it was opened");
        assert_eq!(log.stats().segments as u64, sealed + 1);
        assert!(log.stats().appended.appends == 0 && log.end_offset().get() > 0, "all is there");
        log.close().expect("the log closes");
        took.as_secs_f64() * 1e3
    };
    let active = active_files(template.path());
    let unavoidable = if killed { &active.0 } else { &active.1 };
    let raw = || {
        let _ = drop_from_cache(template.path());
        run.time(|| read_through(unavoidable)).as_secs_f64() * 1e3
    };
    let mib = active_bytes >> 20;
    let row = Row {
        title: &format!("Log::open after {how}, {sealed} sealed segments before the active one"),
        conditions: &format!("the active segment holds {mib} MiB in {batches} batches; {how_cold}"),
        unit: Unit::Milliseconds,
        aim: Aim::AtMost(aim_ms),
    };
    let base_name =
        if killed { "reading the active segment's data" } else { "reading the active segment's index" };
    compare(run, &row, ("Log::open", ours), (base_name, raw))
}

fn copy_files(from: &Path, to: &Path) {
    for path in files_below(from) {
        fs::copy(&path, to.join(path.file_name().expect("a file has a name"))).expect("it can be copied");
    }
}

/// Data and index of the segment that comes last.
fn active_files(dir: &Path) -> (PathBuf, PathBuf) {
    let data = files_below(dir).into_iter().filter(|path| path.extension().is_some_and(|end| end == "log"));
    let data = data.max().expect("there is a segment");
    let index = data.with_extension("index");
    (data, index)
}

fn read_through(path: &Path) {
    let file = OpenOptions::new().read(true).open(path).expect("the file can be opened");
    let mut buf = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        let read = file.read_at(&mut buf, position).expect("the file can be read");
        if read == 0 {
            return;
        }
        position += read as u64;
    }
}
