use bytes::{Bytes, BytesMut};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, Compression, NewRecord, TimestampMs, stamped_prefix,
};

use super::records::RECORDS_AT_A_TIME;
use super::*;

/// A batch of `count` records, as a node stores it at `base`.
fn stored(base: u64, count: u64) -> Bytes {
    stored_as(Compression::None, base, count)
}

fn stored_as(compression: Compression, base: u64, count: u64) -> Bytes {
    let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(compression), 0);
    for i in base..base + count {
        let value = format!("value {i}");
        let headers: &[(&str, Option<&[u8]>)] = &[("h", Some(b"1")), ("h", None)];
        let key = (i % 2 == 0).then_some(&b"even"[..]);
        builder
            .push(&NewRecord { timestamp: TimestampMs(1_000), key, value: Some(value.as_bytes()), headers })
            .unwrap();
    }
    let batch = builder.build().unwrap();
    let mut bytes = BytesMut::from(&batch.bytes()[..]);
    bytes[..16].copy_from_slice(&stamped_prefix(batch.header(), Offset(base), 1));
    bytes.freeze()
}

fn data(start: i64, floor: u64, chunks: &[&[Bytes]]) -> PartitionData {
    let chunks = chunks
        .iter()
        .enumerate()
        .map(|(i, batches)| v1::Chunk {
            appended_at_ms: 100 + i64::try_from(i).unwrap(),
            appended_at_estimated: false,
            data: Some(Data::Batches(batches.concat().into())),
        })
        .collect();
    let data = v1::PartitionData {
        topic: "orders".into(),
        partition: 2,
        start_offset: start,
        end_offset: 1_000,
        next_offset: 1_000,
        chunks,
        ..v1::PartitionData::default()
    };
    PartitionData::received(data, Offset(floor)).unwrap()
}

fn offsets(data: &PartitionData) -> Vec<u64> {
    data.records().map(|record| record.unwrap().offset.get()).collect()
}

#[test]
fn records_come_in_order_over_batches_and_chunks_with_their_time_of_append() {
    let data = data(0, 10, &[&[stored(10, 3), stored(13, 1)], &[stored(14, 2)]]);
    let records: Vec<FetchedRecord> = data.records().map(Result::unwrap).collect();
    assert_eq!(records.iter().map(|r| r.offset.get()).collect::<Vec<_>>(), [10, 11, 12, 13, 14, 15]);
    assert_eq!(
        records.iter().map(|r| r.appended_at.get()).collect::<Vec<_>>(),
        [100, 100, 100, 100, 101, 101]
    );
    let first = &records[0];
    assert_eq!(first.key.as_deref(), Some(&b"even"[..]));
    assert_eq!(first.value.as_deref(), Some(&b"value 10"[..]));
    assert_eq!(first.headers, [("h".to_owned(), Some(Bytes::from("1"))), ("h".to_owned(), None)]);
    assert_eq!(records[1].key, None);
}

#[test]
fn compressed_batches_are_records_like_any_other() {
    let plain = data(0, 11, &[&[stored(10, 3), stored(13, 3), stored(16, 3), stored(19, 3)]]);
    let compressed = [
        stored_as(Compression::Gzip, 10, 3),
        stored_as(Compression::Snappy, 13, 3),
        stored_as(Compression::Lz4, 16, 3),
        stored_as(Compression::Zstd, 19, 3),
    ];
    let compressed = data(0, 11, &[&compressed]);
    let records = |data: &PartitionData| data.records().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(records(&compressed), records(&plain));
    assert_eq!(records(&plain).len(), 11);
}

#[test]
fn records_of_a_large_batch_are_made_in_parts_and_all_of_them() {
    let data = data(0, 15, &[&[stored_as(Compression::Zstd, 10, 150_000), stored(150_010, 1)]]);
    let mut records = data.records();
    let mut expected = 15..150_011;
    while let Some(record) = records.next() {
        assert_eq!(record.unwrap().offset.get(), expected.next().unwrap());
        assert!(records.records.len() < RECORDS_AT_A_TIME);
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn what_lies_before_the_offset_asked_for_or_before_the_start_is_left_out() {
    assert_eq!(offsets(&data(0, 12, &[&[stored(10, 4)]])), [12, 13]);
    assert_eq!(offsets(&data(13, 0, &[&[stored(10, 4)]])), [13]);
    assert_eq!(offsets(&data(0, 14, &[&[stored(10, 4)], &[stored(14, 1)]])), [14]);
}

#[test]
fn a_damaged_batch_ends_the_records_with_an_error_that_names_the_partition() {
    let mut damaged = BytesMut::from(&stored(12, 2)[..]);
    *damaged.last_mut().unwrap() ^= 1;
    let data = data(0, 10, &[&[stored(10, 2), damaged.freeze()], &[stored(14, 1)]]);
    let mut records = data.records();
    assert!(records.by_ref().take(2).all(|record| record.is_ok()));
    let error = records.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("orders/2"), "{error}");
    assert!(records.next().is_none());

    let batches: Vec<Result<Batch, BatchError>> = data.chunks[0].batches().collect();
    assert_eq!(batches.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn answers_that_make_no_sense_are_refused() {
    let backwards = v1::PartitionData { next_offset: 5, ..v1::PartitionData::default() };
    assert_eq!(PartitionData::received(backwards, Offset(6)).unwrap_err().kind(), ErrorKind::Internal);
    let negative = v1::PartitionData { end_offset: -1, ..v1::PartitionData::default() };
    assert_eq!(PartitionData::received(negative, Offset(0)).unwrap_err().kind(), ErrorKind::Internal);
    let no_batches = v1::PartitionData { chunks: vec![v1::Chunk::default()], ..v1::PartitionData::default() };
    assert_eq!(PartitionData::received(no_batches, Offset(0)).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn a_partition_that_cannot_be_read_says_why_instead_of_seeming_empty() {
    let error = v1::Error { code: 5, reason: "TOPIC_NOT_FOUND".into(), ..v1::Error::default() };
    let data = v1::PartitionData { error: Some(error), ..v1::PartitionData::default() };
    let data = PartitionData::received(data, Offset(7)).unwrap();
    let found: Vec<_> = data.records().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
}
