//! Append against what lies below it: writing, checking and syncing the same bytes without a log.
//!
//! *Durable* means that `fdatasync` has returned. *Relaxed* is answered from the page cache, on both
//! sides. The raw side writes to one new file, with nothing between it and the system calls.

use std::collections::VecDeque;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use logmill_bench::{
    Aim, Row, Run, Unit, Values, WARM, batch_of_bytes, compare, fill, open, percentile, raw_append,
    single_record_batch, wait_for_oldest,
};
use logmill_log::{Log, LogOptions, LogSet, SetOptions};
use logmill_record::Batch;

const RECORD_LEN: usize = 1024;
const BATCH_LEN: usize = 64 * 1024;
const IN_FLIGHT_BYTES: usize = 1 << 20;
/// Distinct batches, taken again and again: more than the processor's caches hold.
const DISTINCT: usize = 512;
const LOGS: usize = 64;

fn main() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let run = Run::begin("append, against the system calls below it", dir, 768 << 20);
    let mut values = Values::default();
    let distinct: Vec<Batch> =
        (0..run.pick(DISTINCT, 16)).map(|_| batch_of_bytes(&mut values, BATCH_LEN, RECORD_LEN, 0)).collect();
    relaxed(&run, &distinct);
    durable(&run, &distinct);
    one_writer(&run, &mut values);
    many_logs(&run, &mut values);
}

/// Both sides check the CRC of bytes as they would come from a client, and write them.
fn relaxed(run: &Run, distinct: &[Batch]) {
    let count = run.pick(4096, 32);
    let arrived: Vec<Bytes> = distinct.iter().map(|batch| batch.bytes().clone()).collect();
    let total = arrived.iter().cycle().take(count).map(Bytes::len).sum();
    let raw = || {
        let dir = run.directory();
        let file = raw_append(&dir.path().join("raw"));
        run.megabytes_per_s(total, || {
            let mut position = 0;
            for bytes in arrived.iter().cycle().take(count) {
                // A batch's CRC covers what follows it.
                let crc = checksum(CrcAlgorithm::Crc32Iscsi, &bytes[21..]).to_be_bytes();
                assert_eq!(crc[4..], bytes[17..21], "the batch is whole");
                file.write_all_at(bytes, position).expect("the file can be written");
                position += bytes.len() as u64;
            }
        })
    };
    let ours = |options: LogOptions| {
        let dir = run.directory();
        let set = SetOptions::default().max_dirty_bytes(u64::MAX);
        let log = Log::open(dir.path(), set, options).expect("a log opens");
        run.megabytes_per_s(total, || {
            for bytes in arrived.iter().cycle().take(count) {
                let batch = Batch::parse(bytes.clone()).expect("the batch is whole");
                // Nobody waits for the disk.
                drop(log.append(&[batch]).expect("the log takes it"));
            }
        })
    };
    let megabytes = total / 1_000_000;
    let mut row = Row {
        title: "append 64 KiB batches, relaxed",
        conditions: &format!(
            "{megabytes} MB in batches of 63 records of 1 KiB, CRC checked; one log, one segment; neither \
             side syncs while the clock runs"
        ),
        unit: Unit::MegabytesPerS,
        aim: Aim::RatioAtLeast(0.8),
    };
    let unsynced = LogOptions::default()
        .durability(WARM)
        .max_unsynced_bytes(u64::MAX)
        .segment_bytes(LogOptions::MAX_SEGMENT_BYTES);
    let base_name = "CRC-32C + pwrite";
    compare(run, &row, ("Batch::parse + Log::append", || ours(unsynced)), (base_name, raw));
    row.title = "the same with the default limits of a log";
    row.conditions = "16 MiB unsynced at most, segments of 128 MiB sealed and synced: the log goes to \
                      the disk, the raw side does not";
    row.aim = Aim::None;
    let limited = LogOptions::default().durability(WARM);
    compare(run, &row, ("Batch::parse + Log::append", || ours(limited)), (base_name, raw));
}

fn durable(run: &Run, distinct: &[Batch]) {
    let count = run.pick(4096, 32);
    let total: usize = distinct.iter().cycle().take(count).map(|batch| batch.bytes().len()).sum();
    let ours = || {
        let dir = run.directory();
        let log = open(dir.path(), LogOptions::default());
        run.megabytes_per_s(total, || {
            fill(&log, distinct.iter().cycle().take(count).cloned(), IN_FLIGHT_BYTES);
        })
    };
    let at_once = IN_FLIGHT_BYTES / distinct[0].bytes().len();
    let chunks: Vec<Vec<u8>> = distinct
        .chunks(at_once)
        .map(|batches| batches.iter().flat_map(|batch| batch.bytes().to_vec()).collect())
        .collect();
    let raw = || {
        let dir = run.directory();
        let file = raw_append(&dir.path().join("raw"));
        run.megabytes_per_s(total, || {
            let mut position = 0;
            for chunk in chunks.iter().cycle() {
                let left = total - position;
                if left == 0 {
                    break;
                }
                let chunk = &chunk[..chunk.len().min(left)];
                file.write_all_at(chunk, position as u64).expect("the file can be written");
                file.sync_data().expect("the sync succeeds");
                position += chunk.len();
            }
        })
    };
    let row = Row {
        title: "durable append, 1 MiB in flight",
        conditions: &format!(
            "{} MB in batches of 63 records of 1 KiB; one log, segments of 128 MiB; at most 1 MiB appended \
             and not on disk",
            total / 1_000_000
        ),
        unit: Unit::MegabytesPerS,
        aim: Aim::RatioAtLeast(0.85),
    };
    compare(
        run,
        &row,
        ("Log::append, waiting for the oldest receipt", ours),
        ("write + fdatasync of 1 MiB at a time", raw),
    );
}

fn one_writer(run: &Run, values: &mut Values) {
    let count = run.pick(1000, 20);
    let batches: Vec<Batch> = (0..count).map(|_| single_record_batch(values, RECORD_LEN, 0)).collect();
    let ours = |percent| {
        let dir = run.directory();
        let log = open(dir.path(), LogOptions::default());
        let took = run.each_in_us(count, |n| {
            let receipt = log.append(&batches[n..=n]).expect("the log takes it");
            receipt.wait().expect("the sync succeeds");
        });
        percentile(&took, percent)
    };
    let page = values.next(4096);
    let raw = |percent| {
        let dir = run.directory();
        let file = raw_append(&dir.path().join("raw"));
        let took = run.each_in_us(count, |n| {
            file.write_all_at(&page, 4096 * n as u64).expect("the file can be written");
            file.sync_data().expect("the sync succeeds");
        });
        percentile(&took, percent)
    };
    let row = Row {
        title: "durable append, one writer, one 1 KiB record at a time, p50",
        conditions: &format!("{count} appends of one batch of one record, each waited for; one log"),
        unit: Unit::Microseconds,
        aim: Aim::RatioAtMost(1.3),
    };
    let (our_name, base_name) = ("Log::append + Receipt::wait", "append of 4 KiB + fdatasync");
    compare(run, &row, (our_name, || ours(50)), (base_name, || raw(50)));
    let row = Row { title: "the same, p99", aim: Aim::None, ..row };
    compare(run, &row, (our_name, || ours(99)), (base_name, || raw(99)));
}

fn many_logs(run: &Run, values: &mut Values) {
    let rounds = run.pick(20, 2);
    let batch = single_record_batch(values, 100, 0);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let per_s = |work: &mut dyn FnMut()| (rounds * LOGS) as f64 / run.time(work).as_secs_f64();

    let dir = run.directory();
    let set = LogSet::open(dir.path(), SetOptions::default()).expect("a set opens");
    let create = |n| set.create(format!("log-{n}"), b"", LogOptions::default()).expect("a log can be made");
    let logs: Vec<Log> = (0..LOGS).map(create).collect();
    let files: Vec<_> = (0..LOGS).map(|n| raw_append(&dir.path().join(format!("raw-{n}")))).collect();
    let ours = || {
        per_s(&mut || {
            for _ in 0..rounds {
                let append = |log: &Log| (log.append(std::slice::from_ref(&batch)).expect("it is taken"), 0);
                let mut receipts: VecDeque<_> = logs.iter().map(append).collect();
                while !receipts.is_empty() {
                    wait_for_oldest(&mut receipts);
                }
            }
        })
    };
    let mut position = 0;
    let raw = || {
        per_s(&mut || {
            for _ in 0..rounds {
                for file in &files {
                    file.write_all_at(batch.bytes(), position).expect("the file can be written");
                    file.sync_data().expect("the sync succeeds");
                }
                position += batch.bytes().len() as u64;
            }
        })
    };
    let row = Row {
        title: "64 logs of one set, one small durable append each",
        conditions: &format!(
            "one batch of one record of 100 bytes to each log, then all receipts waited for; {rounds} times"
        ),
        unit: Unit::PerS,
        aim: Aim::RatioAtLeast(5.0),
    };
    compare(
        run,
        &row,
        ("Log::append to each, then Receipt::wait", ours),
        ("write + fdatasync of one file after another", raw),
    );
    set.close().expect("the set closes");
}
