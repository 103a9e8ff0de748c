//! Readers on threads of their own while segments are replaced and removed under them, on a real
//! file system.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test may stop where it fails")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use logmill_log::{CompactionOptions, ErrorKind, Log, LogOptions, SetOptions};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

/// Three records of ten keys in all; each value is the record's own offset.
fn batch(first: u64) -> Batch {
    let mut builder = BatchBuilder::new();
    for offset in first..first + 3 {
        let (key, value) = ([(offset * 7 % 10) as u8], offset.to_be_bytes());
        let record =
            NewRecord { timestamp: TimestampMs(0), key: Some(&key), value: Some(&value), headers: &[] };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

/// Reads the log once from its start to its end; returns how many records it saw.
fn read_through(log: &Log) -> u64 {
    let (mut next, mut seen) = (log.start_offset(), 0);
    while next < log.end_offset() {
        let out = match log.read(next, 500) {
            Ok(out) => out,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
                assert!(next < log.start_offset(), "only what is below the start is out of range");
                next = log.start_offset();
                continue;
            }
        };
        assert!(out.next_offset > next);
        for chunk in out.chunks {
            let mut rest = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    assert_eq!(record.value.unwrap(), record.offset.get().to_be_bytes());
                    seen += 1;
                }
            }
        }
        next = out.next_offset;
    }
    seen
}

#[test]
fn readers_read_on_while_segments_are_replaced_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions::default().segment_bytes(600).compaction(Some(CompactionOptions::default()));
    let log = Log::open(dir.path(), SetOptions::default(), options).unwrap();
    let (ended, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut replaced = 0;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    seen.fetch_add(read_through(&log), Ordering::Relaxed);
                }
            });
        }
        // Also when an assertion here fails, the readers must end.
        let work = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..40_u64 {
                for n in 0..10 {
                    drop(log.append(&[batch(round * 30 + n * 3)]).unwrap());
                }
                log.roll().unwrap();
                replaced += log.compact().unwrap().segments;
                if round % 5 == 4 {
                    log.set_start_offset(Offset(round * 15)).unwrap();
                }
            }
        }));
        ended.store(true, Ordering::Relaxed);
        work.unwrap();
    });
    assert!(replaced > 40 && seen.load(Ordering::Relaxed) > 0, "{replaced}");
    assert!(read_through(&log) < 1_200 / 10);
}
