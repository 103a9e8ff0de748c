//! Compaction of ten million keys within its budget of memory, against a raw copy of the same bytes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use logmill_bench::{Aim, Part, Row, Run, Series, Unit, compare, files_below, fill, memory_of};
use logmill_log::{CompactionOptions, Log, LogOptions, SetOptions};
use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};

const KEYS: u64 = 10_000_000;
/// One record in six has the key of an earlier one.
const RECORDS_PER_TEN_KEYS: u64 = 12;
const RECORDS_PER_BATCH: u64 = 1_000;
const BUDGET_BYTES: usize = 64 << 20;
/// What a run may take beside its table: a batch, a piece to write, an index.
const BESIDE_BYTES: f64 = 16.0 * 1_048_576.0;

fn main() {
    if let Some((_, dir, _)) = Part::of_this_process() {
        return compact(&dir);
    }
    let run = Run::begin("compaction by key", Path::new(env!("CARGO_TARGET_TMPDIR")), 1 << 30);
    let keys = run.pick(KEYS, 20_000);
    let (mut peaks, mut passes, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    let ours = || {
        let dir = run.directory();
        write_log(dir.path(), keys);
        let line = Part::run("compact", dir.path(), &[]);
        passes.push(line[1]);
        peaks.push(line[2] / 1_048_576.0);
        rates.push(line[3] / line[0] / 1e6);
        line[0]
    };
    let raw_copy = || {
        let dir = run.directory();
        write_log(dir.path(), keys);
        run.time(|| copy_files(dir.path())).as_secs_f64()
    };
    let row = Row {
        title: "Log::compact of ten million keys",
        conditions: &format!(
            "{} records of an 8-byte key and a 16-byte value, {RECORDS_PER_BATCH} in a batch, every sixth with \
             the key of an earlier one; {} MiB for keys",
            keys * RECORDS_PER_TEN_KEYS / 10,
            BUDGET_BYTES >> 20,
        ),
        unit: Unit::Seconds,
        aim: Aim::None,
    };
    compare(&run, &row, ("Log::compact", ours), ("one copy of the same files, synced", raw_copy));
    let peak = Series::new(peaks);
    let most = (f64::from(u32::try_from(BUDGET_BYTES).expect("64 MiB")) + BESIDE_BYTES) / 1_048_576.0;
    println!("passes over the log: {}; MB/s of log: {}", Series::new(passes), Series::new(rates));
    println!("most anonymous memory in the run, less before: {peak} MiB");
    let met = if peak.spread().1 <= most { "met" } else { "MISSED" };
    println!("  aim: at most {most} MiB, the table and 16 MiB beside it   {met}");
}

/// Every key once, and then every fifth again.
fn write_log(dir: &Path, keys: u64) {
    let log = Log::open(dir, SetOptions::default(), options()).expect("a log opens");
    let again = (0..keys * (RECORDS_PER_TEN_KEYS - 10) / 10).map(|n| n * 5);
    let mut all = (0..keys).chain(again).peekable();
    let batches = std::iter::from_fn(|| {
        all.peek()?;
        Some(batch(all.by_ref().take(usize::try_from(RECORDS_PER_BATCH).expect("it is small"))))
    });
    fill(&log, batches, 16 << 20);
    log.roll().expect("the last segment can be sealed");
    log.set().close().expect("the set closes");
}

fn batch(keys: impl Iterator<Item = u64>) -> Batch {
    let mut batch = BatchBuilder::new();
    for key in keys {
        // As far apart as hashes are.
        let name = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let value = [key.to_be_bytes(), name].concat();
        let record =
            NewRecord { timestamp: TimestampMs(0), key: Some(&name), value: Some(&value), headers: &[] };
        batch.push(&record).expect("a small record");
    }
    batch.build().expect("a batch of small records")
}

fn options() -> LogOptions {
    LogOptions::default().compaction(Some(CompactionOptions::default().key_map_bytes(BUDGET_BYTES)))
}

/// The part that compacts: seconds, passes, most anonymous bytes beyond what it had before, bytes of
/// the log before.
fn compact(dir: &Path) {
    let run = Run::quietly(dir);
    // Never by itself.
    let set = SetOptions::default().maintenance_interval(Duration::from_hours(24));
    let log = Log::open(dir, set, options()).expect("the log opens");
    let before = anonymous_bytes();
    let stored = log.stats().stored_bytes;
    let (most, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut compacted = None;
    let seconds = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                most.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                #[expect(clippy::disallowed_methods, reason = "a look at the memory every few milliseconds")]
                thread::sleep(Duration::from_millis(5));
            }
        });
        let took = run.time(|| compacted = Some(log.compact().expect("the log can be compacted")));
        done.store(true, Ordering::Relaxed);
        took.as_secs_f64()
    });
    let compacted = compacted.expect("it has just been compacted");
    let taken = most.load(Ordering::Relaxed).saturating_sub(before);
    println!("{seconds} {} {taken} {stored}", compacted.passes);
    log.set().close().expect("the set closes");
}

fn anonymous_bytes() -> u64 {
    memory_of(std::process::id()).expect("the kernel says it").anonymous_bytes
}

fn copy_files(dir: &Path) {
    for path in files_below(dir).iter().filter(|path| path.extension().is_some_and(|ending| ending == "log"))
    {
        let bytes = fs::read(path).expect("the file can be read");
        let copy = path.with_extension("copy");
        #[expect(clippy::disallowed_methods, reason = "the raw side")]
        let mut file = File::create(copy).expect("a file can be made");
        file.write_all(&bytes).and_then(|()| file.sync_data()).expect("it can be written");
    }
}
