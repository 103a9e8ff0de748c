//! What holds for every batch: it comes back as it went in, no damage goes unseen, no bytes cause a panic.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; the lints know only the tests themselves"
)]

mod common;

use bytes::Bytes;
use common::{RawBatch, RawRecord, crc32c, fix_crc};
use logmill_record::{Batch, BatchBuilder, BatchErrorKind, BatchHeader, NewRecord, Offset, TimestampMs};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn some_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(vec(any::<u8>(), 0..200))
}

fn records() -> impl Strategy<Value = Vec<Owned>> {
    // Any two of these are less than 2^63 apart.
    let timestamp = prop_oneof![Just(-1), 0..2_000_000_000_000_i64, (i64::MIN / 4)..(i64::MAX / 4)];
    let headers = vec((".{0,20}", some_bytes()), 0..4);
    let record = (timestamp, some_bytes(), some_bytes(), headers)
        .prop_map(|(timestamp, key, value, headers)| Owned { timestamp, key, value, headers });
    vec(record, 1..80)
}

fn build(records: &[Owned]) -> Batch {
    let mut builder = BatchBuilder::new();
    for record in records {
        let headers: Vec<_> =
            record.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let record = NewRecord {
            timestamp: TimestampMs(record.timestamp),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        };
        let announced = builder.size_with(&record);
        builder.push(&record).unwrap();
        assert_eq!(builder.size_bytes(), announced);
    }
    let announced = builder.size_bytes();
    let batch = builder.build().unwrap();
    assert_eq!(batch.bytes().len(), announced);
    batch
}

/// Everything that can be asked of some bytes, for its panics.
fn walk(bytes: &Bytes) {
    let _ = BatchHeader::parse(bytes);
    let _ = Batch::split_from(&mut bytes.clone());
    if let Ok(batch) = Batch::parse(bytes.clone()) {
        walk_records(&batch);
    }
}

fn walk_records(batch: &Batch) {
    let checked = batch.check_records();
    let Ok(records) = batch.records() else {
        assert_eq!(checked.unwrap_err().kind(), BatchErrorKind::Unsupported);
        return;
    };
    let mut read = 0;
    let mut all_right = true;
    for record in records {
        all_right &= record.is_ok();
        if let Ok(record) = record {
            assert!(
                record.offset >= batch.header().base_offset && record.offset <= batch.header().last_offset()
            );
            assert_eq!(record.headers().len(), record.headers().count());
            read += 1;
        }
    }
    assert!(read <= batch.header().record_count);
    if checked.is_ok() {
        assert!(all_right, "the check accepted what the iterator refuses");
        assert_eq!(read, batch.header().last_offset_delta + 1);
    }
}

proptest! {
    #[test]
    fn a_batch_comes_back_as_it_went_in(records in records()) {
        let built = build(&records);
        let batch = Batch::parse(built.bytes().clone()).unwrap();
        prop_assert_eq!(batch.header(), built.header());
        prop_assert_eq!(batch.header().crc, crc32c(&batch.bytes()[21..]));
        batch.check_records().unwrap();

        prop_assert_eq!(batch.header().record_count as usize, records.len());
        prop_assert_eq!(batch.header().base_timestamp, TimestampMs(records[0].timestamp));
        let max = records.iter().map(|record| record.timestamp).max().unwrap();
        prop_assert_eq!(batch.header().max_timestamp, TimestampMs(max));
        let mut read = batch.records().unwrap();
        for (i, expected) in records.iter().enumerate() {
            let record = read.next().unwrap().unwrap();
            prop_assert_eq!(record.offset, Offset(i as u64));
            prop_assert_eq!(record.timestamp, TimestampMs(expected.timestamp));
            prop_assert_eq!(record.key, expected.key.as_deref());
            prop_assert_eq!(record.value, expected.value.as_deref());
            let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
            let expected: Vec<_> =
                expected.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            prop_assert_eq!(headers, expected);
        }
        prop_assert!(read.next().is_none());
    }

    #[test]
    fn a_changed_byte_under_the_crc_is_seen(records in records(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = build(&records).bytes().to_vec();
        let at = 17 + at.index(bytes.len() - 17);
        bytes[at] ^= flip;
        prop_assert!(Batch::parse(bytes.into()).is_err());
    }

    #[test]
    fn a_batch_cut_anywhere_is_truncated(records in records(), at in any::<prop::sample::Index>()) {
        let whole = build(&records).bytes().clone();
        let cut = whole.slice(..at.index(whole.len()));
        prop_assert_eq!(Batch::parse(cut).unwrap_err().kind(), BatchErrorKind::Truncated);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        walk(&bytes.clone().into());
        // And with a magic that lets them past the first question.
        let mut bytes = bytes;
        if let Some(magic) = bytes.get_mut(16) {
            *magic = 2;
        }
        walk(&bytes.into());
    }

    #[test]
    fn arbitrary_records_under_a_right_crc_never_panic(count in 0..20_i32, records in vec(any::<u8>(), 0..400)) {
        let count = count.min(i32::try_from(records.len() / 7).unwrap());
        let mut raw = RawBatch::new(count.max(1), records);
        raw.record_count = count;
        if let Ok(batch) = Batch::parse(raw.bytes()) {
            walk_records(&batch);
        }
    }

    /// Damage that a checksum cannot see, because whoever did it also made the checksum.
    #[test]
    fn a_change_with_the_crc_made_right_again_never_panics(
        records in records(), changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = build(&records).bytes().to_vec();
        for (at, byte) in changes {
            let at = 21 + at.index(bytes.len() - 21);
            bytes[at] = byte;
        }
        fix_crc(&mut bytes);
        walk(&bytes.into());
    }

    #[test]
    fn arbitrary_fields_in_a_well_formed_record_never_panic(
        timestamp_delta in any::<i64>(), offset_delta in -2..3_i32, key_len in -2..6_i32,
        value_len in -2..6_i32, header_count in -1..4_i32, headers in vec(-2..6_i8, 0..12),
        base_timestamp in any::<i64>(),
    ) {
        let record = RawRecord {
            timestamp_delta: timestamp_delta.into(),
            offset_delta: offset_delta.into(),
            key_len: key_len.into(),
            key: vec![b'k'; 3],
            value_len: value_len.into(),
            value: vec![b'v'; 3],
            header_count: header_count.into(),
            headers: headers.iter().flat_map(|&n| common::varint(n.into())).collect(),
        };
        let mut raw = RawBatch::new(1, record.bytes());
        raw.base_timestamp = base_timestamp;
        raw.max_timestamp = base_timestamp.saturating_add(timestamp_delta);
        walk_records(&Batch::parse(raw.bytes()).unwrap());
    }
}

/// Not a sample: every byte of a small batch, changed in every way.
#[test]
fn every_change_of_every_byte_is_seen_or_harmless() {
    let record = |value: &str| Owned {
        timestamp: 1_700_000_000_000,
        key: Some(b"key".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: vec![("h".to_owned(), None)],
    };
    let batch = build(&[record("first"), record("second")]);
    let good = batch.bytes();
    for at in 0..good.len() {
        for flip in 1..=255_u8 {
            let mut bytes = good.to_vec();
            bytes[at] ^= flip;
            let parsed = Batch::parse(bytes.into());
            match at {
                // Base offset, but for its sign, and leader epoch are the log's to change.
                0 if flip >= 0x80 => assert!(parsed.is_err()),
                0..8 | 12..16 => assert!(parsed.unwrap().check_records().is_ok()),
                _ => assert!(parsed.is_err(), "byte {at} xor {flip:#x} went unseen"),
            }
        }
    }
}
