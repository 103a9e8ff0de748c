//! A key-value table that is a log: every change is appended, compaction keeps the last one of each
//! key, and reading the log from its front gives the table back.
//!
//! ```console
//! cargo run --release -p logmill-log --example compact
//! ```

use std::collections::BTreeMap;
use std::error::Error;

use logmill_log::{CompactionOptions, Log, LogOptions, SetOptions};
use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};

const CHANGES: u32 = 100_000;
const KEYS: u32 = 1_000;

type Table = BTreeMap<Vec<u8>, Vec<u8>>;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // A set compacts its logs by itself once enough is new; here it is asked to.
    let compacted =
        LogOptions::default().segment_bytes(1 << 20).compaction(Some(CompactionOptions::default()));
    let log = Log::open(dir.path(), SetOptions::default(), compacted)?;

    let mut table = Table::new();
    for changes in (0..CHANGES).collect::<Vec<_>>().chunks(100) {
        let mut batch = BatchBuilder::new();
        for change in changes {
            let key = format!("account-{}", change.wrapping_mul(7_919) % KEYS).into_bytes();
            // One change in ten deletes: a key without a value is a tombstone.
            let value = (change % 10 != 0).then(|| format!("balance {change}").into_bytes());
            let (timestamp, headers) = (TimestampMs(i64::from(*change)), &[]);
            batch.push(&NewRecord { timestamp, key: Some(&key), value: value.as_deref(), headers })?;
            apply(&mut table, &key, value.as_deref());
        }
        drop(log.append(&[batch.build()?])?);
    }
    log.roll()?; // only sealed segments are compacted, and everything in them is on disk

    let before = log.stats().stored_bytes;
    let done = log.compact()?;
    let after = log.stats().stored_bytes;
    println!("{CHANGES} changes of {KEYS} keys: {before} bytes before, {after} after");
    println!(
        "{} segments replaced in {} pass(es); {} bytes for the keys",
        done.segments, done.passes, done.key_map_bytes
    );

    let (read, records) = read_table(&log)?;
    assert!(read == table, "the table is the same");
    println!("the table has {} keys, read back from {records} records", read.len());
    log.close()?;
    Ok(())
}

fn apply(table: &mut Table, key: &[u8], value: Option<&[u8]>) {
    match value {
        Some(value) => drop(table.insert(key.to_vec(), value.to_vec())),
        None => drop(table.remove(key)),
    }
}

/// The table, and how many records it took.
fn read_table(log: &Log) -> Result<(Table, u64), Box<dyn Error>> {
    let (mut table, mut records, mut next) = (Table::new(), 0, log.start_offset());
    while next < log.end_offset() {
        let out = log.read(next, 1 << 20)?;
        for chunk in out.chunks {
            let mut batches = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut batches)? {
                for record in batch.records()? {
                    let record = record?;
                    records += 1;
                    apply(&mut table, record.key.unwrap_or_default(), record.value);
                }
            }
        }
        next = out.next_offset;
    }
    Ok((table, records))
}
