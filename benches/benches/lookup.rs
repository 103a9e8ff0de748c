//! Random lookups in a long log that is in the page cache: by offset and by time.
//!
//! `LOGMILL_BENCH_LOG_BYTES` says how long the log is, a GiB unless set. The baseline is the cheapest
//! answer that a file system can give: one `pread` of a record whose position is known.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use logmill_bench::{Aim, Row, Run, Unit, Values, WARM, batch_of_bytes, compare, files_below, percentile};
use logmill_log::{Log, LogOptions, SetOptions};
use logmill_record::{Batch, Offset, TimestampMs};

const RECORD_LEN: usize = 1024;
/// The time of the first record; the others are a millisecond apart.
const FIRST_MS: i64 = 1_700_000_000_000;

fn main() {
    let run = Run::begin("random lookups in a long log", Path::new(env!("CARGO_TARGET_TMPDIR")), 0);
    let bytes = std::env::var("LOGMILL_BENCH_LOG_BYTES").ok().and_then(|bytes| bytes.parse().ok());
    let bytes = bytes.unwrap_or(run.pick(1 << 30, 8 << 20));
    // One record in each batch is the most work for the index; batches of 64 KiB the most for CRCs.
    for batch_len in [0, 64 * 1024] {
        look_up(&run, bytes, batch_len);
    }
}

fn look_up(run: &Run, bytes: u64, batch_len: usize) {
    let dir = run.directory();
    let (log, records) = long_log(dir.path(), bytes, batch_len);
    let files: Vec<(File, u64)> = data_files(dir.path());
    let stats = log.stats();
    let count = run.pick(20_000, 200);
    let conditions = format!(
        "{:.2} GiB of records of 1 KiB in {} segments, {} in a batch, all in the page cache; {count} random lookups",
        gib(stats.stored_bytes),
        stats.segments,
        if batch_len == 0 { "one".to_owned() } else { format!("{} KiB", batch_len / 1024) },
    );
    let raw = |percent| {
        let mut buf = vec![0; RECORD_LEN];
        let mut random = Values::default();
        let took = run.each_in_us(count, |_| {
            let (file, len) = &files[index(random.below(files.len() as u64))];
            file.read_exact_at(&mut buf, random.below(len - RECORD_LEN as u64))
                .expect("the file can be read");
        });
        percentile(&took, percent)
    };
    let by_offset = |percent| {
        let mut random = Values::default();
        let took = run.each_in_us(count, |_| {
            let at = Offset(random.below(records));
            let out = log.read(at, 1).expect("the log can be read");
            assert!(out.next_offset > at && out.chunks.len() == 1, "one batch holds the offset");
        });
        percentile(&took, percent)
    };
    let by_time = |percent| {
        let mut random = Values::default();
        let took = run.each_in_us(count, |_| {
            let n = random.below(records);
            let at = TimestampMs(FIRST_MS + i64::try_from(n).expect("it fits"));
            assert_eq!(log.find_time(at).expect("the log can be searched"), Some((Offset(n), at)));
        });
        percentile(&took, percent)
    };
    // Every segment is looked at once: maps and indexes are there.
    by_offset(50);
    let base_name = "pread of 1 KiB where it is";
    let mut row = Row {
        title: "Log::read of the batch that holds an offset, CRC checked, p50",
        conditions: &conditions,
        unit: Unit::Microseconds,
        aim: Aim::AtMost(5.0),
    };
    compare(run, &row, ("Log::read", || by_offset(50)), (base_name, || raw(50)));
    (row.title, row.aim) = ("the same, p99", Aim::None);
    compare(run, &row, ("Log::read", || by_offset(99)), (base_name, || raw(99)));
    (row.title, row.aim) = ("Log::find_time of a record's timestamp, p50", Aim::AtMost(20.0));
    compare(run, &row, ("Log::find_time", || by_time(50)), (base_name, || raw(50)));
    (row.title, row.aim) = ("the same, p99", Aim::None);
    compare(run, &row, ("Log::find_time", || by_time(99)), (base_name, || raw(99)));
    log.close().expect("the log closes");
}

/// A log of so many bytes, its last segment sealed too, and how many records it has.
fn long_log(dir: &Path, bytes: u64, batch_len: usize) -> (Log, u64) {
    let options = LogOptions::default().durability(WARM);
    let log = Log::open(dir, SetOptions::default(), options).expect("a log opens");
    let mut values = Values::default();
    let (mut written, mut records) = (0, 0);
    while written < bytes {
        let mut group: Vec<Batch> = Vec::new();
        while group.iter().map(|batch| batch.bytes().len()).sum::<usize>() < 1 << 20 {
            let at = FIRST_MS + i64::try_from(records).expect("it fits");
            let batch = batch_of_bytes(&mut values, batch_len, RECORD_LEN, at);
            records += u64::from(batch.header().record_count);
            group.push(batch);
        }
        written += group.iter().map(|batch| batch.bytes().len() as u64).sum::<u64>();
        drop(log.append(&group).expect("the log takes it"));
    }
    log.roll().expect("the last segment can be sealed");
    (log, records)
}

fn data_files(dir: &Path) -> Vec<(File, u64)> {
    let data = files_below(dir).into_iter().filter(|path| path.extension().is_some_and(|end| end == "log"));
    let opened = data.map(|path| {
        let file = std::fs::OpenOptions::new().read(true).open(path).expect("the file can be opened");
        let len = file.metadata().expect("the file is there").len();
        (file, len)
    });
    opened.filter(|(_, len)| *len > RECORD_LEN as u64).collect()
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("an index fits")
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
