//! Logs and plain files to fill.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::Duration;

use logmill_log::{Durability, Log, LogOptions, Receipt, SetOptions};
use logmill_record::Batch;

/// Relaxed, and synced so seldom that a run is over before it.
pub const WARM: Durability = Durability::Relaxed { flush_interval: Duration::from_secs(3_600) };

/// Opens a log in a directory of its own.
///
/// # Panics
/// If it cannot be opened.
#[must_use]
pub fn open(dir: &Path, options: LogOptions) -> Log {
    Log::open(dir, SetOptions::default(), options).expect("a log opens")
}

/// Appends `batches`, with at most `in_flight_bytes` of them that are not on disk, until all are.
///
/// # Panics
/// If the log fails.
pub fn fill(log: &Log, batches: impl IntoIterator<Item = Batch>, in_flight_bytes: usize) {
    let mut receipts = VecDeque::new();
    let mut in_flight = 0;
    for batch in batches {
        let len = batch.bytes().len();
        while in_flight > 0 && in_flight + len > in_flight_bytes {
            in_flight -= wait_for_oldest(&mut receipts);
        }
        receipts.push_back((log.append(&[batch]).expect("the log takes it"), len));
        in_flight += len;
    }
    while !receipts.is_empty() {
        wait_for_oldest(&mut receipts);
    }
}

/// Waits until the first append of those under way is on disk; returns its bytes.
///
/// # Panics
/// If the sync fails, or there is none.
pub fn wait_for_oldest(receipts: &mut VecDeque<(Receipt, usize)>) -> usize {
    let (receipt, len) = receipts.pop_front().expect("there is one under way");
    receipt.wait().expect("the sync succeeds");
    len
}

/// A new file to write to without a log.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn raw_append(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).open(path).expect("a file can be made")
}
