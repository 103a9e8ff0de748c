//! Batches that lie: every claim is refused by what it claims, before anything follows from it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; the lints know only the tests themselves"
)]

mod common;

use bytes::Bytes;
use common::{RawBatch, RawRecord, varint};
use logmill_record::{
    Batch, BatchBuilder, BatchError, BatchErrorKind, BatchHeader, BatchOptions, Compression, Inflater,
    MAX_BATCH_LEN, NewRecord, RecordProblem, TimestampMs,
};

fn header_error(raw: &RawBatch) -> BatchError {
    BatchHeader::parse(&raw.bytes()).unwrap_err()
}

fn out_of_range(field: &'static str, value: i64, min: i64, max: i64) -> BatchError {
    BatchError::OutOfRange { field, value, min, max }
}

/// One batch of one record; both the check and the iterator must refuse it, for the same reason.
fn problem(record: Vec<u8>) -> RecordProblem {
    let batch = Batch::parse(RawBatch::new(1, record).bytes()).unwrap();
    let checked = batch.check_records().unwrap_err();
    assert_eq!(checked.kind(), BatchErrorKind::Invalid);
    let items: Vec<_> = batch.records().unwrap().collect();
    assert_eq!(items.len(), 1, "an error is the last item");
    assert_eq!(items[0].as_ref().unwrap_err(), &checked);
    match checked {
        BatchError::Record { index: 0, position: 61, problem } => problem,
        other => panic!("not about the record: {other}"),
    }
}

fn two_records() -> Vec<u8> {
    [RawRecord::new(0).bytes(), RawRecord::new(1).bytes()].concat()
}

#[test]
fn a_record_made_by_hand_is_accepted() {
    let mut record = RawRecord { key_len: 1, key: vec![7], value_len: 0, ..RawRecord::new(0) };
    record.header_count = 2;
    record.headers = [&varint(1)[..], b"a", &varint(-1), &varint(0), &varint(2), b"xy"].concat();
    let batch = Batch::parse(RawBatch::new(1, record.bytes()).bytes()).unwrap();
    batch.check_records().unwrap();
    let record = batch.records().unwrap().next().unwrap().unwrap();
    assert_eq!((record.key, record.value), (Some(&[7][..]), Some(&[][..])));
    let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
    assert_eq!(headers, [("a", None), ("", Some(&b"xy"[..]))]);
}

#[test]
fn a_header_that_claims_impossible_numbers_is_refused() {
    let raw = RawBatch::new(2, two_records());
    let claim = |change: fn(&mut RawBatch)| {
        let mut raw = raw.clone();
        change(&mut raw);
        header_error(&raw)
    };
    let max = i64::from(i32::MAX);

    assert_eq!(claim(|b| b.batch_length = Some(-1)), out_of_range("batch length", -1, 49, max));
    assert_eq!(
        claim(|b| b.batch_length = Some(i32::MIN)),
        out_of_range("batch length", i32::MIN.into(), 49, max)
    );
    assert_eq!(claim(|b| b.batch_length = Some(48)), out_of_range("batch length", 48, 49, max));
    assert_eq!(claim(|b| b.base_offset = -1), out_of_range("base offset", -1, 0, i64::MAX));
    assert_eq!(claim(|b| b.last_offset_delta = -1), out_of_range("last offset delta", -1, 0, max));
    assert_eq!(claim(|b| b.record_count = -1), out_of_range("record count", -1, 0, max));
    assert_eq!(claim(|b| b.record_count = 3), out_of_range("record count", 3, 0, 2));
    assert_eq!(claim(|b| b.magic = 1), BatchError::UnsupportedMagic { magic: 1 });
    assert_eq!(claim(|b| b.magic = -1), BatchError::UnsupportedMagic { magic: -1 });
    assert_eq!(claim(|b| b.attributes = 5), BatchError::UnknownCompression { code: 5 });
    assert_eq!(claim(|b| b.attributes = -1), BatchError::UnknownCompression { code: 7 });
}

#[test]
fn as_many_records_as_the_bytes_cannot_hold_are_refused_by_the_header() {
    let mut raw = RawBatch::new(i32::MAX, two_records());
    assert_eq!(raw.records.len(), 14);
    assert_eq!(header_error(&raw), out_of_range("record count", i32::MAX.into(), 0, 2));
    // 7 bytes is the least that a record takes.
    raw.records.resize(20, 0);
    raw.record_count = 3;
    assert_eq!(header_error(&raw), out_of_range("record count", 3, 0, 2));
    raw.records.resize(21, 0);
    assert_eq!(BatchHeader::parse(&raw.bytes()).unwrap().record_count, 3);
    // Compressed, the bytes say nothing about how many there are.
    raw.attributes = 4;
    raw.record_count = i32::MAX;
    assert_eq!(BatchHeader::parse(&raw.bytes()).unwrap().record_count, i32::MAX as u32);
}

#[test]
fn more_records_than_offsets_are_refused_by_the_header() {
    let mut raw = RawBatch::new(2, vec![0; 700]);
    raw.record_count = 3;
    for attributes in 0..=4 {
        raw.attributes = attributes;
        assert_eq!(header_error(&raw), out_of_range("record count", 3, 0, 2));
    }
}

#[test]
fn offsets_may_not_pass_the_largest() {
    let mut raw = RawBatch::new(2, two_records());
    raw.base_offset = i64::MAX - 1;
    assert_eq!(header_error(&raw), out_of_range("base offset", i64::MAX - 1, 0, i64::MAX - 2));
    raw.base_offset = i64::MAX - 2;
    let header = BatchHeader::parse(&raw.bytes()).unwrap();
    assert_eq!(i64::from(header.next_offset()), i64::MAX);
}

#[test]
fn a_batch_longer_than_what_is_there_is_truncated_whatever_it_claims() {
    let mut raw = RawBatch::new(2, two_records());
    raw.batch_length = Some(i32::MAX);
    let bytes = raw.bytes();
    let expected = BatchError::Truncated { what: "batch", needed: MAX_BATCH_LEN, available: bytes.len() };
    assert_eq!(BatchHeader::parse(&bytes).unwrap().total_len, MAX_BATCH_LEN);
    assert_eq!(Batch::parse(bytes.clone()).unwrap_err(), expected);
    assert_eq!(Batch::split_from(&mut bytes.clone()).unwrap_err(), expected);
}

#[test]
fn bytes_after_the_batch_are_refused_where_one_batch_is_expected() {
    let bytes = [&RawBatch::new(2, two_records()).bytes()[..], &[0]].concat();
    let error = Batch::parse(bytes.into()).unwrap_err();
    assert_eq!(error, BatchError::TrailingBytes { what: "batch", extra: 1 });
}

#[test]
fn an_old_message_is_told_from_a_torn_header() {
    // A message set of format v1 can be shorter than a header of v2.
    let mut old = vec![0; 34];
    old[16] = 1;
    assert_eq!(BatchHeader::parse(&old).unwrap_err(), BatchError::UnsupportedMagic { magic: 1 });
    old[16] = 2;
    assert_eq!(BatchHeader::parse(&old).unwrap_err().kind(), BatchErrorKind::Truncated);
}

#[test]
fn a_record_that_claims_more_than_the_batch_has_is_refused() {
    let body = RawRecord::new(0).body();
    let with_length = |length: i128| [varint(length), body.clone()].concat();
    let overrun = |needed| RecordProblem::Overrun { field: "length", needed, available: body.len() };

    assert_eq!(problem(with_length(7)), overrun(7));
    assert_eq!(problem(with_length(i32::MAX.into())), overrun(i32::MAX as u64));
    assert_eq!(problem(with_length(-1)), RecordProblem::Negative { field: "length", value: -1 });
    assert_eq!(
        problem(with_length(i32::MIN.into())),
        RecordProblem::Negative { field: "length", value: i32::MIN }
    );
    assert_eq!(
        problem([vec![0x80; 7], body.clone()].concat()),
        RecordProblem::VarintOverflow { field: "length", bits: 32 }
    );
    assert_eq!(
        problem(vec![0x00; 7]),
        RecordProblem::Overrun { field: "attributes", needed: 1, available: 0 }
    );
}

#[test]
fn keys_values_and_headers_that_claim_more_than_the_record_are_refused() {
    let base = RawRecord::new(0);
    let max = i128::from(i32::MAX);
    let needed = i32::MAX as u64;
    let overrun = |field, needed, available| RecordProblem::Overrun { field, needed, available };
    let negative = |field, value| RecordProblem::Negative { field, value };

    assert_eq!(problem(RawRecord { key_len: max, ..base.clone() }.bytes()), overrun("key", needed, 2));
    assert_eq!(problem(RawRecord { key_len: 3, ..base.clone() }.bytes()), overrun("key", 3, 2));
    assert_eq!(problem(RawRecord { key_len: -2, ..base.clone() }.bytes()), negative("key", -2));
    assert_eq!(problem(RawRecord { value_len: max, ..base.clone() }.bytes()), overrun("value", needed, 1));
    assert_eq!(problem(RawRecord { value_len: -3, ..base.clone() }.bytes()), negative("value", -3));

    let headers =
        |header_count, headers: Vec<u8>| RawRecord { header_count, headers, ..base.clone() }.bytes();
    assert_eq!(problem(headers(max, vec![])), overrun("header count", needed * 2, 0));
    assert_eq!(problem(headers(max, vec![0; 1000])), overrun("header count", needed * 2, 1000));
    assert_eq!(problem(headers(-1, vec![])), negative("header count", -1));
    assert_eq!(problem(headers(1, [varint(max), varint(0)].concat())), overrun("header key", needed, 1));
    assert_eq!(problem(headers(1, [varint(-1), varint(0)].concat())), negative("header key", -1));
    assert_eq!(problem(headers(1, [varint(0), varint(max)].concat())), overrun("header value", needed, 0));
    assert_eq!(problem(headers(1, [varint(0), varint(-2)].concat())), negative("header value", -2));
    assert_eq!(problem(headers(1, vec![4, 0xC3, 0x28, 1])), RecordProblem::HeaderKey);
    assert_eq!(problem(headers(0, vec![0])), RecordProblem::Trailing { extra: 1 });
    assert_eq!(problem(headers(1, vec![0, 0, 0])), RecordProblem::Trailing { extra: 1 });
}

#[test]
fn integers_of_too_many_bits_are_refused_in_every_field() {
    let base = RawRecord::new(0);
    let over32 = 1_i128 << 40;
    let overflow = |field, bits| RecordProblem::VarintOverflow { field, bits };

    let record = RawRecord { timestamp_delta: 1 << 64, ..base.clone() };
    assert_eq!(problem(record.bytes()), overflow("timestamp delta", 64));
    assert_eq!(problem(RawRecord::new(over32).bytes()), overflow("offset delta", 32));
    assert_eq!(problem(RawRecord { key_len: over32, ..base.clone() }.bytes()), overflow("key", 32));
    assert_eq!(problem(RawRecord { value_len: over32, ..base.clone() }.bytes()), overflow("value", 32));
    let record = RawRecord { header_count: over32, ..base.clone() };
    assert_eq!(problem(record.bytes()), overflow("header count", 32));
    // 2^32: dropping the bits beyond 32 would make it 0, and the record would add up.
    let record = RawRecord { header_count: 1 << 31, ..base };
    assert_eq!(problem(record.bytes()), overflow("header count", 32));
}

#[test]
fn a_timestamp_that_does_not_fit_is_refused() {
    let record = RawRecord { timestamp_delta: 1, ..RawRecord::new(0) };
    let mut raw = RawBatch::new(1, record.bytes());
    raw.base_timestamp = i64::MAX;
    raw.max_timestamp = i64::MAX;
    let error = Batch::parse(raw.bytes()).unwrap().check_records().unwrap_err();
    let problem = RecordProblem::Timestamp { base: i64::MAX, delta: 1 };
    assert_eq!(error, BatchError::Record { index: 0, position: 61, problem });
}

#[test]
fn a_largest_timestamp_that_no_record_has_is_refused_on_the_way_in() {
    let later = RawRecord { timestamp_delta: 5, ..RawRecord::new(1) };
    let mut raw = RawBatch::new(2, [RawRecord::new(0).bytes(), later.bytes()].concat());
    for max_timestamp in [4, 6] {
        raw.max_timestamp = max_timestamp;
        let error = Batch::parse(raw.bytes()).unwrap().check_records().unwrap_err();
        assert_eq!(error, BatchError::MaxTimestamp { header: max_timestamp, records: 5 });
    }
    raw.max_timestamp = 5;
    Batch::parse(raw.bytes()).unwrap().check_records().unwrap();
    // With LogAppendTime the header's is the time of append.
    raw.max_timestamp = 1_000;
    raw.attributes = 0b1000;
    Batch::parse(raw.bytes()).unwrap().check_records().unwrap();
}

#[test]
fn offset_deltas_must_be_in_order_on_the_way_in_and_grow_ever_after() {
    let batch = |deltas: &[i128], last: i32| {
        let records = deltas.iter().flat_map(|&delta| RawRecord::new(delta).bytes()).collect();
        let mut raw = RawBatch::new(i32::try_from(deltas.len()).unwrap(), records);
        raw.last_offset_delta = last;
        Batch::parse(raw.bytes()).unwrap()
    };
    let delta_error = |batch: &Batch| match batch.check_records().unwrap_err() {
        BatchError::Record { index, problem: RecordProblem::OffsetDelta { found, .. }, .. } => (index, found),
        other => panic!("not about offset deltas: {other}"),
    };

    assert!(batch(&[0, 1, 2], 2).check_records().is_ok());
    assert_eq!(delta_error(&batch(&[0, 0, 1], 2)), (1, 0));
    assert_eq!(delta_error(&batch(&[0, 2, 1], 2)), (2, 1));
    assert_eq!(delta_error(&batch(&[1, 2, 3], 2)), (2, 3));
    assert_eq!(delta_error(&batch(&[-1, 0, 1], 2)), (0, -1));
    assert_eq!(delta_error(&batch(&[0, i32::MAX.into(), 1], 2)), (1, i32::MAX));

    // As compaction leaves them: to be read, not to be produced.
    let compacted = batch(&[1, 4], 6);
    assert_eq!(compacted.check_records().unwrap_err(), out_of_range("record count", 2, 7, 7));
    let offsets: Vec<u64> = compacted.records().unwrap().map(|record| record.unwrap().offset.get()).collect();
    assert_eq!(offsets, [1, 4]);
}

#[test]
fn an_empty_batch_can_be_read_after_compaction_and_not_produced() {
    let mut raw = RawBatch::new(3, Vec::new());
    raw.record_count = 0;
    let batch = Batch::parse(raw.bytes()).unwrap();
    assert_eq!(batch.records().unwrap().count(), 0);
    assert_eq!(batch.check_records().unwrap_err(), out_of_range("record count", 0, 3, 3));
}

#[test]
fn bytes_after_the_last_record_are_refused() {
    let raw = RawBatch::new(2, [two_records(), vec![0; 9]].concat());
    let batch = Batch::parse(raw.bytes()).unwrap();
    let expected = BatchError::TrailingBytes { what: "last record", extra: 9 };
    assert_eq!(batch.check_records().unwrap_err(), expected);
    let items: Vec<_> = batch.records().unwrap().collect();
    assert_eq!(items.len(), 3);
    assert_eq!(items[2].as_ref().unwrap_err(), &expected);
}

#[test]
fn an_error_in_the_middle_says_which_record_and_where() {
    let bad = RawRecord { key_len: 99, ..RawRecord::new(1) };
    let batch =
        Batch::parse(RawBatch::new(2, [RawRecord::new(0).bytes(), bad.bytes()].concat()).bytes()).unwrap();
    let error = batch.check_records().unwrap_err().to_string();
    assert_eq!(error, "record 1 at byte 68 of the batch: its key needs 99 bytes, 2 remain");
}

#[test]
fn the_builder_stops_exactly_at_the_formats_limit() {
    // 2,047 headers over the same MiB, so that 2 GiB are asked for and none is there.
    let shared = vec![0; 1 << 20];
    let size_with = |last_len: usize| {
        let mut headers = vec![("h", Some(&shared[..])); 2047];
        headers.push(("h", Some(&shared[..last_len])));
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: None, headers: &headers };
        let mut builder = BatchBuilder::new();
        let size = builder.size_with(&record);
        if size == usize::MAX {
            let error = builder.push(&record).unwrap_err();
            assert_eq!(error.kind(), BatchErrorKind::TooLarge);
            assert!(builder.is_empty(), "a refused record leaves nothing behind");
            assert_eq!(builder.size_bytes(), 61);
        }
        size
    };
    let some = size_with(900_000);
    let last_len = 900_000 + (MAX_BATCH_LEN - some);
    assert_eq!(size_with(last_len), MAX_BATCH_LEN);
    assert_eq!(size_with(last_len + 1), usize::MAX);
    assert_eq!(size_with(1 << 20), usize::MAX);
}

#[test]
fn the_builder_refuses_what_a_batch_cannot_say() {
    assert_eq!(BatchBuilder::new().build(), Err(BatchError::Empty));

    let at =
        |timestamp| NewRecord { timestamp: TimestampMs(timestamp), key: None, value: None, headers: &[] };
    let mut builder = BatchBuilder::new();
    builder.push(&at(i64::MIN)).unwrap();
    builder.push(&at(-1)).unwrap();
    let before = builder.size_bytes();
    let error = builder.push(&at(0)).unwrap_err();
    assert_eq!(error, BatchError::TimestampSpan { base: i64::MIN, timestamp: 0 });
    assert_eq!((builder.len(), builder.size_bytes()), (2, before));
    let batch = builder.build().unwrap();
    batch.check_records().unwrap();
    assert_eq!(batch.header().max_timestamp, TimestampMs(-1));
}

#[test]
fn a_run_is_left_as_it_was_when_its_first_batch_is_refused() {
    let good = RawBatch::new(2, two_records()).bytes();
    let mut damaged = good.to_vec();
    damaged[70] ^= 1;
    for bytes in [Bytes::from(damaged), good.slice(..good.len() - 1), good.slice(..60)] {
        let mut run = bytes.clone();
        Batch::split_from(&mut run).unwrap_err();
        assert_eq!(run, bytes);
    }
}

#[test]
fn a_record_without_a_key_is_named_where_every_record_needs_one() {
    let codecs = [
        Compression::None,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
    ];
    for compression in codecs {
        let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(compression), 0);
        for key in [Some(&b"a"[..]), Some(b""), None, None] {
            builder.push(&NewRecord { timestamp: TimestampMs(1), key, value: None, headers: &[] }).unwrap();
        }
        let batch = builder.build().unwrap();
        let mut inflater = Inflater::default();
        batch.check_records_with(&mut inflater).unwrap();
        let error = batch.check_keyed_records_with(&mut inflater).unwrap_err();
        let expected = BatchError::Record { index: 2, position: 76, problem: RecordProblem::NoKey };
        assert_eq!(error, expected, "an empty key is one");
        assert_eq!(error.kind(), BatchErrorKind::Invalid);
    }
}
