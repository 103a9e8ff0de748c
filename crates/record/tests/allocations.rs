//! Reading allocates nothing: not for what a batch claims, and not for what it holds.

mod common;

use common::allocator::{ALLOCATIONS, Counting};
use common::{RawBatch, RawRecord, varint};
use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};

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

/// All bytes asked for on the way, given back or not: what is held at once is less.
#[cfg(all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
fn allocated_bytes<T>(work: impl FnOnce() -> T) -> usize {
    use common::allocator::BYTES;

    let before = BYTES.get();
    drop(work());
    BYTES.get() - before
}

/// The bytes that zstd takes are its own allocator's, but for the room for what it inflates.
#[test]
#[cfg(all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
fn a_length_that_is_only_claimed_is_not_allocated() {
    let claims: [(i16, &str, &[u8]); 6] = [
        (1, "a gzip member of nothing", &[0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF, 3, 0]),
        (2, "a snappy block of 4 GiB", b"\xff\xff\xff\xff\x0f\x00a"),
        (2, "a snappy chunk of 2 GiB", b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x7f\xff\xff\xff\x00\x00a"),
        (3, "an lz4 block of 2 GiB", b"\x04\x22\x4d\x18\x60\x70\x73\xff\xff\xff\x7f\x00\x00\x00a"),
        (3, "lz4 blocks of 4 MiB, and one byte", b"\x04\x22\x4d\x18\x60\x70\x73\x01\0\0\x80a\0\0\0\0"),
        (4, "zstd of 1 TiB", b"\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\x01\0\0\x19\0\0abc"),
    ];
    for (attributes, what, payload) in claims {
        let mut raw = RawBatch::new(1, payload.to_vec());
        raw.attributes = attributes;
        let batch = Batch::parse(raw.bytes()).unwrap();
        let allocated = allocated_bytes(|| assert!(batch.check_records().is_err(), "{what}"));
        // Up to the first MiB is a codec's own business: see InflateLimits.
        let most = if attributes == 4 { (1 << 20) + 4_096 } else { 128 << 10 };
        assert!(allocated <= most, "{what}: {allocated} bytes");
    }
}

/// A bomb costs its limit: twice, because a vector grows by doubling, and what a codec needs for itself.
#[test]
#[cfg(all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
fn a_bomb_costs_no_more_than_its_limit() {
    use logmill_record::{BatchOptions, Compression, InflateLimits, Inflater};

    let zeros = vec![0; 8 << 20];
    let max_bytes = 2 << 20;
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let options = BatchOptions::new().compression(compression);
        let mut builder = BatchBuilder::with_options(options, 0);
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(&zeros), headers: &[] };
        builder.push(&record).unwrap();
        let batch = builder.build().unwrap();
        let mut inflater = Inflater::new(InflateLimits { max_bytes, ..InflateLimits::default() });
        let allocated = allocated_bytes(|| assert!(batch.check_records_with(&mut inflater).is_err()));
        assert!(allocated <= 2 * 2 * max_bytes + (128 << 10), "{compression}: {allocated} bytes");
    }
}

#[test]
#[cfg(all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
fn an_inflater_that_is_warm_takes_no_more_memory_for_the_next_batch() {
    use logmill_record::{BatchOptions, Compression, Inflater};

    for compression in [Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(compression), 0);
        for i in 0..1_000 {
            let record = NewRecord {
                timestamp: TimestampMs(i),
                key: Some(b"key"),
                value: Some(&[0; 300]),
                headers: &[],
            };
            builder.push(&record).unwrap();
        }
        let batch = builder.build().unwrap();
        let mut inflater = Inflater::default();
        batch.check_records_with(&mut inflater).unwrap();
        let count = allocations(|| batch.check_records_with(&mut inflater).unwrap());
        assert_eq!(count, 0, "{compression}");
    }
}
