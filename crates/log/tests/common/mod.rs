//! What the tests of the log share: batches to append, and reading everything back.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::must_use_candidate,
    unreachable_pub,
    missing_docs,
    reason = "shared by several tests, none of which uses all"
)]

use logmill_log::{Error, Log};
use logmill_record::{Batch, BatchBuilder, BatchOptions, NewRecord, Offset, TimestampMs};

/// The lengths of what an `.index` file is made of, in bytes, as `docs/formats.md` has them.
pub mod index_file {
    pub const PREFIX_LEN: usize = 8;
    pub const ROW_LEN: usize = 32;
    pub const FOOTER_LEN: usize = 92;
}

/// A batch with one record per value, all at `timestamp`.
pub fn batch_at(timestamp: i64, values: &[&[u8]]) -> Batch {
    let mut builder = BatchBuilder::new();
    for value in values {
        let timestamp = TimestampMs(timestamp);
        builder.push(&NewRecord { timestamp, key: None, value: Some(value), headers: &[] }).unwrap();
    }
    builder.build().unwrap()
}

/// A batch of an idempotent producer, in a transaction or not.
pub fn produced(id: i64, epoch: i16, sequence: i32, transactional: bool, values: &[&[u8]]) -> Batch {
    let options = BatchOptions::new().producer(id, epoch, sequence);
    let options = if transactional { options.transactional() } else { options };
    let mut builder = BatchBuilder::with_options(options, 0);
    for value in values {
        let timestamp = TimestampMs(1_000);
        builder.push(&NewRecord { timestamp, key: None, value: Some(value), headers: &[] }).unwrap();
    }
    builder.build().unwrap()
}

pub fn batch(values: &[&[u8]]) -> Batch {
    batch_at(1_000, values)
}

/// Every record from `from` to the end that readers can see, with its offset.
pub fn read_all(log: &Log, from: Offset) -> Result<Vec<(Offset, Vec<u8>)>, Error> {
    let mut records = Vec::new();
    let mut next = from;
    loop {
        let out = log.read(next, 10_000)?;
        if out.chunks.is_empty() {
            assert_eq!(next, out.end_offset, "an empty read is the end");
            return Ok(records);
        }
        for chunk in &out.chunks {
            let mut rest = chunk.batches.clone();
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    if record.offset >= next {
                        records.push((record.offset, record.value.unwrap().to_vec()));
                    }
                }
                assert!(batch.header().next_offset() <= chunk.next_offset);
            }
        }
        assert!(out.next_offset > next, "a read that is not empty goes on");
        next = out.next_offset;
    }
}

/// The values alone, as text.
pub fn texts(log: &Log, from: u64) -> Vec<String> {
    let records = read_all(log, Offset(from)).unwrap();
    records.into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect()
}
