//! What holds for every batch: it comes back as it went in, no damage goes unseen, no bytes cause a panic.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; the lints know only the tests themselves"
)]

mod common;

use bytes::Bytes;
use common::{RawBatch, RawRecord, crc32c, fix_crc};
use logmill_record::{
    Batch, BatchBuilder, BatchErrorKind, BatchHeader, BatchOptions, Compression, Inflater, NewRecord, Offset,
    Record, TimestampMs, TimestampType,
};
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
    let (batch, announced) = build_with(records, BatchOptions::new());
    assert_eq!(batch.bytes().len(), announced);
    batch
}

/// And the most bytes that the builder said it would take.
fn build_with(records: &[Owned], options: BatchOptions) -> (Batch, usize) {
    let mut builder = BatchBuilder::with_options(options, 0);
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
    let most = builder.max_size_bytes();
    (builder.build().unwrap(), most)
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
    let mut inflater = Inflater::default();
    let checked = batch.check_records_with(&mut inflater);
    let stored = batch.check_stored_with(&mut inflater);
    let _ = batch.control_record();
    let Ok(records) = batch.records_with(&mut inflater) else {
        checked.unwrap_err();
        stored.unwrap_err();
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
    assert!(stored.is_err() || all_right, "the check accepted what the iterator refuses");
    if checked.is_ok() {
        stored.unwrap();
        assert_eq!(read, batch.header().last_offset_delta + 1);
    }
    let kept = batch.retain_records(&mut inflater, None, |record| record.offset.get() % 2 == 0);
    assert_eq!(kept.is_ok(), all_right);
}

/// Every codec that this build has, and none.
fn codecs() -> impl Strategy<Value = Compression> {
    let built_in = [
        (Compression::None, true),
        (Compression::Gzip, cfg!(feature = "gzip")),
        (Compression::Snappy, cfg!(feature = "snappy")),
        (Compression::Lz4, cfg!(feature = "lz4")),
        (Compression::Zstd, cfg!(feature = "zstd")),
    ];
    let there: Vec<_> = built_in.into_iter().filter(|(_, there)| *there).map(|(codec, _)| codec).collect();
    prop::sample::select(there)
}

fn options() -> impl Strategy<Value = BatchOptions> {
    let producer = proptest::option::of((0..i64::MAX, 0..i16::MAX, 0..i32::MAX));
    let append_time = proptest::option::of(any::<i64>());
    let horizon = proptest::option::of(0..2_000_000_000_000_i64);
    (codecs(), producer, append_time, horizon, any::<bool>()).prop_map(
        |(compression, producer, append_time, horizon, transactional)| {
            let mut options = BatchOptions::new().compression(compression);
            if let Some((id, epoch, sequence)) = producer {
                options = options.producer(id, epoch, sequence);
            }
            if let Some(at) = append_time {
                options = options.log_append_time(TimestampMs(at));
            }
            if let Some(at) = horizon {
                options = options.delete_horizon(TimestampMs(at));
            }
            if transactional { options.transactional() } else { options }
        },
    )
}

fn assert_same(record: &Record<'_>, expected: &Owned) {
    assert_eq!(record.key, expected.key.as_deref());
    assert_eq!(record.value, expected.value.as_deref());
    let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
    let expected: Vec<_> =
        expected.headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
    assert_eq!(headers, expected);
}

proptest! {
    /// Codec, producer, whose time it is, delete horizon: each comes back whatever the others are.
    #[test]
    fn every_kind_of_batch_comes_back_as_it_went_in(records in records(), options in options()) {
        let (built, most) = build_with(&records, options);
        prop_assert!(built.bytes().len() <= most);
        let batch = Batch::parse(built.bytes().clone()).unwrap();
        prop_assert_eq!(batch.header(), built.header());
        let header = batch.header();
        let mut inflater = Inflater::default();
        batch.check_stored_with(&mut inflater).unwrap();
        prop_assert_eq!(batch.check_records_with(&mut inflater).is_ok(), header.delete_horizon().is_none());
        let inflated = batch.inflate(&inflater.limits()).unwrap();
        prop_assert_eq!(&Batch::parse(inflated.bytes().clone()).unwrap(), &inflated);
        let again = build_with(&records, options.compression(Compression::None)).0;
        prop_assert_eq!(inflated, again);

        let append_time = header.attributes.timestamp_type() == TimestampType::LogAppendTime;
        let mut read = batch.records_with(&mut inflater).unwrap();
        for (i, expected) in records.iter().enumerate() {
            let record = read.next().unwrap().unwrap();
            let timestamp = if append_time { header.max_timestamp } else { TimestampMs(expected.timestamp) };
            prop_assert_eq!((record.offset, record.timestamp), (Offset(i as u64), timestamp));
            assert_same(&record, expected);
        }
        prop_assert!(read.next().is_none());
    }

    /// Against the plainest model of it: a list that is filtered.
    #[test]
    fn what_compaction_keeps_is_what_a_list_would_keep(
        records in records(), options in options(), kept in vec(any::<bool>(), 80), horizon in proptest::option::of(0..i64::MAX / 4),
    ) {
        let (batch, _) = build_with(&records, options);
        let mut inflater = Inflater::default();
        let compacted = batch
            .retain_records(&mut inflater, horizon.map(TimestampMs), |record| kept[usize::try_from(record.offset.get()).unwrap()])
            .unwrap();
        prop_assert_eq!(&Batch::parse(compacted.bytes().clone()).unwrap(), &compacted);
        compacted.check_stored_with(&mut inflater).unwrap();
        let (was, is) = (batch.header(), compacted.header());
        prop_assert_eq!((is.base_offset, is.last_offset()), (was.base_offset, was.last_offset()));
        prop_assert_eq!(
            (is.producer_id, is.producer_epoch, is.base_sequence),
            (was.producer_id, was.producer_epoch, was.base_sequence)
        );
        prop_assert_eq!(is.attributes.timestamp_type(), was.attributes.timestamp_type());
        prop_assert_eq!(is.attributes.is_transactional(), was.attributes.is_transactional());

        let mut expected = records.iter().enumerate().filter(|(i, _)| kept[*i]);
        let append_time = is.attributes.timestamp_type() == TimestampType::LogAppendTime;
        let mut largest = i64::MIN;
        for record in compacted.records_with(&mut inflater).unwrap() {
            let (i, expected) = expected.next().unwrap();
            let record = record.unwrap();
            let timestamp = if append_time { was.max_timestamp } else { TimestampMs(expected.timestamp) };
            prop_assert_eq!((record.offset, record.timestamp), (Offset(i as u64), timestamp));
            assert_same(&record, expected);
            largest = largest.max(timestamp.0);
        }
        prop_assert!(expected.next().is_none());
        if is.record_count > 0 {
            prop_assert_eq!(is.attributes.compression(), was.attributes.compression());
            prop_assert_eq!(is.max_timestamp, TimestampMs(largest));
            prop_assert_eq!(is.delete_horizon(), horizon.map(TimestampMs).or(was.delete_horizon()));
        }
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
            assert_same(&record, expected);
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
