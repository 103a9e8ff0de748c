//! Batches made from batches: what compaction leaves of one, and one with the time of append.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; the lints know only the tests themselves"
)]

use logmill_record::{
    Batch, BatchBuilder, BatchError, BatchOptions, ControlRecord, ControlType, HEADER_LEN, Inflater,
    NewRecord, Offset, TimestampMs, TimestampType,
};

const T0: i64 = 1_700_000_000_000;

/// Offsets 100 to 104 at `T0`, `T0 + 10` …, with keys `k0` and so on.
fn batch(options: BatchOptions) -> Batch {
    let mut builder = BatchBuilder::with_options(options.offsets(Offset(100), Offset(104)), 0);
    for i in 0..5 {
        let key = format!("k{i}");
        let record = NewRecord {
            timestamp: TimestampMs(T0 + 10 * i),
            key: Some(key.as_bytes()),
            value: (i != 3).then_some(b"value"),
            headers: &[("h", Some(b"1")), ("h", None)],
        };
        builder.push(&record).unwrap();
    }
    builder.build().unwrap()
}

fn retain(batch: &Batch, horizon: Option<i64>, offsets: &[u64]) -> Batch {
    let mut inflater = Inflater::default();
    let keep = |offset: Offset| offsets.contains(&offset.get());
    let kept =
        batch.retain_records(&mut inflater, horizon.map(TimestampMs), |record| keep(record.offset)).unwrap();
    // What was made is whole, and what a log may hold.
    assert_eq!(Batch::parse(kept.bytes().clone()).unwrap(), kept);
    kept.check_stored_with(&mut inflater).unwrap();
    kept
}

/// Offset, time and key of each record, all with value and headers as they went in.
fn records(batch: &Batch) -> Vec<(u64, i64, String)> {
    let mut inflater = Inflater::default();
    let mut seen = Vec::new();
    for record in batch.records_with(&mut inflater).unwrap() {
        let record = record.unwrap();
        let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
        assert_eq!(record.value, (key != "k3").then_some(&b"value"[..]));
        let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
        assert_eq!(headers, [("h", Some(&b"1"[..])), ("h", None)]);
        seen.push((record.offset.get(), record.timestamp.get(), key));
    }
    seen
}

#[test]
fn kept_records_stay_where_they_were_and_the_batch_covers_the_same_offsets() {
    let whole = batch(BatchOptions::new().producer(4711, 3, 77).transactional());
    let kept = retain(&whole, None, &[101, 103]);
    assert_eq!(records(&kept), [(101, T0 + 10, "k1".to_owned()), (103, T0 + 30, "k3".to_owned())]);

    let (was, is) = (whole.header(), kept.header());
    assert_eq!((is.base_offset, is.last_offset()), (Offset(100), Offset(104)));
    assert_eq!((is.producer_id, is.producer_epoch, is.base_sequence), (4711, 3, 77));
    assert_eq!((is.attributes, is.base_timestamp), (was.attributes, was.base_timestamp));
    assert_eq!((is.record_count, is.max_timestamp), (2, TimestampMs(T0 + 30)));

    // And again: gaps may grow.
    assert_eq!(records(&retain(&kept, None, &[103])), [(103, T0 + 30, "k3".to_owned())]);
}

#[test]
fn a_batch_that_keeps_everything_is_the_same_memory() {
    let whole = batch(BatchOptions::new());
    let kept = retain(&whole, None, &[100, 101, 102, 103, 104]);
    assert_eq!(kept.bytes().as_ptr(), whole.bytes().as_ptr());
}

#[test]
fn a_batch_that_keeps_nothing_is_a_header_that_covers_its_offsets() {
    let whole = batch(BatchOptions::new().producer(4711, 3, 77).transactional());
    for horizon in [None, Some(T0 + 5_000)] {
        let empty = retain(&whole, horizon, &[]);
        assert_eq!((empty.bytes().len(), empty.header().record_count), (HEADER_LEN, 0));
        assert_eq!((empty.header().base_offset, empty.header().next_offset()), (Offset(100), Offset(105)));
        assert_eq!((empty.header().producer_id, empty.header().base_sequence), (4711, 77));
        assert_eq!(empty.header().max_timestamp, TimestampMs(T0 + 40));
        assert_eq!(empty.header().delete_horizon(), None);
        assert!(empty.header().attributes.is_transactional());
        assert_eq!(empty.records().unwrap().count(), 0);
        assert!(empty.check_records().is_err(), "no producer sends it");
        // Once more, by a second compaction.
        assert_eq!(retain(&empty, None, &[]), empty);
    }
}

#[test]
fn a_delete_horizon_changes_no_records_time() {
    let whole = batch(BatchOptions::new());
    let horizon = T0 + 86_400_000;
    let kept = retain(&whole, Some(horizon), &[100, 103]);
    assert_eq!(kept.header().delete_horizon(), Some(TimestampMs(horizon)));
    assert_eq!(records(&kept), [(100, T0, "k0".to_owned()), (103, T0 + 30, "k3".to_owned())]);
    assert_eq!(kept.header().max_timestamp, TimestampMs(T0 + 30));

    // It stays with the batch, may be moved, and setting the same again is no change.
    let fewer = retain(&kept, None, &[103]);
    assert_eq!(fewer.header().delete_horizon(), Some(TimestampMs(horizon)));
    assert_eq!(records(&fewer), [(103, T0 + 30, "k3".to_owned())]);
    let same = retain(&fewer, Some(horizon), &[103]);
    assert_eq!(same.bytes().as_ptr(), fewer.bytes().as_ptr());
    let moved = retain(&fewer, Some(-5), &[103]);
    assert_eq!(moved.header().delete_horizon(), Some(TimestampMs(-5)));
    assert_eq!(records(&moved), [(103, T0 + 30, "k3".to_owned())]);
}

#[test]
fn the_builder_writes_the_horizon_that_compaction_would() {
    let horizon = TimestampMs(T0 + 86_400_000);
    let built = batch(BatchOptions::new().delete_horizon(horizon));
    let made = retain(&batch(BatchOptions::new()), Some(horizon.get()), &[100, 101, 102, 103, 104]);
    assert_eq!(built, made);
    let error = built.check_records().unwrap_err();
    assert_eq!(error, BatchError::NotForProducers { what: "delete horizons" });
}

#[test]
fn a_horizon_too_far_from_a_record_is_refused() {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: TimestampMs(i64::MAX), key: None, value: None, headers: &[] };
    builder.push(&record).unwrap();
    let batch = builder.build().unwrap();
    let error = batch.retain_records(&mut Inflater::default(), Some(TimestampMs(-2)), |_| true).unwrap_err();
    assert_eq!(error, BatchError::TimestampSpan { base: -2, timestamp: i64::MAX });
}

#[test]
fn records_that_cannot_be_read_are_an_error_and_not_dropped() {
    let whole = batch(BatchOptions::new());
    let mut bytes = whole.bytes().to_vec();
    bytes[HEADER_LEN] = 0x7F; // a length past the end
    let Err(BatchError::CrcMismatch { computed, .. }) = Batch::parse(bytes.clone().into()) else {
        panic!("the CRC speaks for the records");
    };
    bytes[17..21].copy_from_slice(&computed.to_be_bytes());
    let batch = Batch::parse(bytes.into()).unwrap();
    let error = batch.retain_records(&mut Inflater::default(), None, |_| false).unwrap_err();
    assert!(matches!(error, BatchError::Record { index: 0, .. }), "{error}");
}

#[test]
fn append_time_stands_for_all_records_and_survives_compaction() {
    let at = TimestampMs(T0 + 3_600_000);
    let sent = batch(BatchOptions::new().producer(4711, 3, 77));
    let stored = sent.clone().into_log_append_time(at);
    assert_eq!(Batch::parse(stored.bytes().clone()).unwrap(), stored);
    assert_eq!(stored.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(stored.header().base_timestamp, sent.header().base_timestamp);
    assert!(records(&stored).iter().all(|(_, timestamp, _)| *timestamp == at.get()));
    assert_eq!(stored, batch(BatchOptions::new().producer(4711, 3, 77).log_append_time(at)));
    // The one that was sent is not changed beneath those who hold it.
    assert_eq!(records(&sent)[1].1, T0 + 10);

    let kept = retain(&stored, Some(T0 + 7_200_000), &[102]);
    assert_eq!(records(&kept), [(102, at.get(), "k2".to_owned())]);
    assert_eq!(kept.header().max_timestamp, at);
}

#[test]
fn append_time_is_written_in_place_where_nobody_else_looks() {
    let sent = batch(BatchOptions::new());
    let memory = sent.bytes().as_ptr();
    assert_eq!(sent.into_log_append_time(TimestampMs(5)).bytes().as_ptr(), memory);
}

#[test]
fn a_marker_that_is_removed_leaves_its_batch() {
    let marker = ControlRecord { kind: ControlType::Abort, coordinator_epoch: 9 };
    let batch = marker.batch(4711, 3, TimestampMs(T0)).unwrap();
    let waiting =
        batch.retain_records(&mut Inflater::default(), Some(TimestampMs(T0 + 9)), |_| true).unwrap();
    assert_eq!(waiting.control_record(), Ok(Some(marker)));
    let gone = waiting.retain_records(&mut Inflater::default(), None, |_| false).unwrap();
    assert_eq!(gone.control_record(), Ok(None));
    assert!(gone.header().attributes.is_control());
}

#[test]
fn builders_refuse_offsets_out_of_order_or_range() {
    let record = NewRecord { timestamp: TimestampMs(0), key: None, value: None, headers: &[] };
    let options = BatchOptions::new().offsets(Offset(10), Offset(12));
    let mut builder = BatchBuilder::with_options(options, 0);
    builder.push_at(Offset(11), &record).unwrap();
    for offset in [9, 11, 10 + (1 << 31)] {
        let error = builder.push_at(Offset(offset), &record).unwrap_err();
        let value = offset.cast_signed();
        let max = 10 + i64::from(i32::MAX);
        assert_eq!(error, BatchError::OutOfRange { field: "offset", value, min: 12, max });
    }
    assert_eq!(builder.len(), 1);
    builder.push(&record).unwrap();
    let batch = builder.clone().build().unwrap();
    assert_eq!(batch.records().unwrap().map(|r| r.unwrap().offset.get()).collect::<Vec<_>>(), [11, 12]);
    // One more than the options have room for.
    builder.push(&record).unwrap();
    let max = 10 + i64::from(i32::MAX);
    let error = BatchError::OutOfRange { field: "last offset", value: 12, min: 13, max };
    assert_eq!(builder.build().unwrap_err(), error);

    let past = BatchOptions::new().offsets(Offset(10), Offset(9));
    assert!(BatchBuilder::with_options(past, 0).build().is_err());
    let last = BatchOptions::new().offsets(Offset::MAX, Offset::MAX);
    assert!(BatchBuilder::with_options(last, 0).build().is_err(), "no offset is left for what follows");
}

#[test]
fn a_batch_numbered_anew_is_the_one_that_would_have_been_built() {
    let plain = batch(BatchOptions::new());
    let shared = plain.clone();
    let numbered = plain.with_producer(4711, 3, i32::MAX);
    assert_eq!(numbered, batch(BatchOptions::new().producer(4711, 3, i32::MAX)));
    assert_eq!(Batch::parse(numbered.bytes().clone()).unwrap(), numbered, "its CRC is right");
    assert_eq!(shared, batch(BatchOptions::new()), "one that shares the bytes is as it was");

    let at = numbered.bytes().as_ptr();
    let again = numbered.with_producer(4711, 4, 0);
    assert_eq!(again.bytes().as_ptr(), at, "in place");
    assert_eq!(again.with_producer(-1, -1, -1), shared);
}
