//! Reading allocates nothing: not for what a batch claims, and not for what it holds.

#![expect(unsafe_code, reason = "a counting allocator is the one way to see that nothing was allocated")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{RawBatch, RawRecord, varint};
use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};

struct Counting;

thread_local! {
    /// Of this thread only: the test harness allocates on its own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> u64 {
    let before = ALLOCATIONS.get();
    let result = work();
    let after = ALLOCATIONS.get();
    drop(result);
    after - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| vec![1_u8; 100]), 1);
}

#[test]
fn a_good_batch_is_parsed_checked_and_read_without_allocating() {
    let mut builder = BatchBuilder::new();
    for i in 0..1_000 {
        let record = NewRecord {
            timestamp: TimestampMs(i),
            key: Some(b"key"),
            value: Some(&[0; 300]),
            headers: &[("a", Some(b"1")), ("a", None)],
        };
        builder.push(&record).unwrap();
    }
    let batch = builder.build().unwrap();
    // The first use of a Bytes made of a vector gives it its count of owners.
    let mut run = batch.bytes().clone();
    let count = allocations(|| {
        let batch = Batch::split_from(&mut run).unwrap().unwrap();
        batch.check_records().unwrap();
        for record in batch.records().unwrap() {
            assert_eq!(record.unwrap().headers().count(), 2);
        }
        batch
    });
    assert_eq!(count, 0);
}

#[test]
fn hostile_claims_are_refused_without_allocating() {
    let max = i128::from(i32::MAX);
    let base = RawRecord::new(0);
    let one = |record: RawRecord| RawBatch::new(1, record.bytes()).bytes();
    let many = RawBatch::new(i32::MAX, base.bytes()).bytes();
    let mut long = RawBatch::new(1, base.bytes());
    long.batch_length = Some(i32::MAX);
    let hostile = [
        many,
        long.bytes(),
        RawBatch::new(1, [varint(max), base.body()].concat()).bytes(),
        one(RawRecord { key_len: max, ..base.clone() }),
        one(RawRecord { value_len: max, ..base.clone() }),
        one(RawRecord { header_count: max, headers: vec![0; 64], ..base.clone() }),
        one(RawRecord { header_count: 1, headers: varint(max), ..base.clone() }),
    ];
    for bytes in hostile {
        let given = bytes.clone();
        let count = allocations(|| {
            let checked = Batch::parse(given).and_then(|batch| batch.check_records());
            assert!(checked.is_err());
        });
        assert_eq!(count, 0, "{bytes:?}");
    }
}
