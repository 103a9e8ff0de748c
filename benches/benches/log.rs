//! The log against what lies below it: append against writing and syncing the same bytes, read
//! against checking the CRCs of the same bytes.
//!
//! Durable means that `fdatasync` has returned. Both sides of the append write 64 KiB batches of 1 KiB
//! records and have at most 1 MiB that is not yet durable: the raw side by writing 1 MiB and syncing,
//! the log by waiting for its oldest receipt.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use logmill_bench::{Unit, alternate, describe_machine, touch_memory};
use logmill_log::env::{Clock as _, SystemClock};
use logmill_log::{Log, LogOptions, SetOptions};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

const RECORD_BYTES: usize = 1024;
const BATCH_BYTES: usize = 64 * 1024;
const IN_FLIGHT_BYTES: usize = 1 << 20;
const TOTAL_BYTES: usize = 256 << 20;

fn main() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    println!("{}", describe_machine());
    println!(
        "256 MiB in {BATCH_BYTES}-byte batches of {RECORD_BYTES}-byte records; median (least–most) of 7\n"
    );
    touch_memory(2 * TOTAL_BYTES);
    let batch = batch();
    let count = TOTAL_BYTES / batch.bytes().len();

    println!("append, durable, 1 MiB in flight, one log");
    alternate(
        Unit::MegabytesPerS,
        ("Log::append, waiting for receipts", || append(dir, &batch, count)),
        ("write + fdatasync", || raw_append(dir, &batch, count)),
    );

    println!("read from the start, 1 MiB at a time, in the page cache");
    let set = tempfile::tempdir_in(dir).expect("a directory can be made");
    let log = Log::open(set.path(), SetOptions::default(), LogOptions::default()).expect("a log opens");
    fill(&log, &batch, count);
    let run: Bytes = batch.bytes().repeat(count).into();
    alternate(
        Unit::MegabytesPerS,
        ("Log::read", || read(&log)),
        ("CRC-32C of the same bytes in memory", || check(run.clone())),
    );
    log.close().expect("a log closes");
}

/// A batch of records with values that differ.
fn batch() -> Batch {
    let mut builder = BatchBuilder::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    loop {
        let mut value = Vec::with_capacity(RECORD_BYTES);
        while value.len() < RECORD_BYTES {
            // xorshift64: no structure that a disk could profit from.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend_from_slice(&state.to_le_bytes());
        }
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(&value), headers: &[] };
        builder.push(&record).expect("the record fits");
        if builder.size_bytes() + RECORD_BYTES > BATCH_BYTES {
            return builder.build().expect("the batch is well formed");
        }
    }
}

fn append(dir: &Path, batch: &Batch, count: usize) -> f64 {
    let set = tempfile::tempdir_in(dir).expect("a directory can be made");
    let log = Log::open(set.path(), SetOptions::default(), LogOptions::default()).expect("a log opens");
    let rate = megabytes_per_s(batch.bytes().len() * count, || fill(&log, batch, count));
    log.close().expect("a log closes");
    rate
}

fn fill(log: &Log, batch: &Batch, count: usize) {
    let most = IN_FLIGHT_BYTES / batch.bytes().len();
    let mut receipts = VecDeque::new();
    for _ in 0..count {
        if receipts.len() == most {
            wait_for_first(&mut receipts);
        }
        receipts.push_back(log.append(std::slice::from_ref(batch)).expect("the log takes it"));
    }
    while !receipts.is_empty() {
        wait_for_first(&mut receipts);
    }
}

fn wait_for_first(receipts: &mut VecDeque<logmill_log::Receipt>) {
    let receipt = receipts.pop_front().expect("there is one under way");
    receipt.wait().expect("the sync succeeds");
}

fn raw_append(dir: &Path, batch: &Batch, count: usize) -> f64 {
    let dir = tempfile::tempdir_in(dir).expect("a directory can be made");
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).open(dir.path().join("raw")).expect("a file can be made");
    let at_once = IN_FLIGHT_BYTES / batch.bytes().len();
    let chunk = batch.bytes().repeat(at_once);
    megabytes_per_s(batch.bytes().len() * count, || {
        let mut position = 0;
        let mut left = count;
        while left > 0 {
            let bytes = &chunk[..at_once.min(left) * batch.bytes().len()];
            file.write_all_at(bytes, position).expect("the file can be written");
            file.sync_data().expect("the sync succeeds");
            position += bytes.len() as u64;
            left -= at_once.min(left);
        }
    })
}

fn read(log: &Log) -> f64 {
    let bytes = usize::try_from(log.stats().stored_bytes).expect("it fits in memory");
    megabytes_per_s(bytes, || {
        let mut next = Offset(0);
        let mut seen = 0;
        while next < log.end_offset() {
            let out = log.read(next, IN_FLIGHT_BYTES).expect("the log can be read");
            seen += out.chunks.iter().map(|chunk| chunk.batches.len()).sum::<usize>();
            next = out.next_offset;
        }
        assert_eq!(seen, bytes, "every byte was read once");
    })
}

fn check(mut run: Bytes) -> f64 {
    megabytes_per_s(
        run.len(),
        || {
            while Batch::split_from(&mut run).expect("the batches are whole").is_some() {}
        },
    )
}

fn megabytes_per_s(bytes: usize, work: impl FnOnce()) -> f64 {
    let clock = SystemClock::new();
    work();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let megabytes = bytes as f64 / 1e6;
    megabytes / clock.monotonic().as_secs_f64()
}
