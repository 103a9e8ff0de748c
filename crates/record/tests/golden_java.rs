//! Batches that Kafka's own Java code made (`golden/MakeGolden.java` says which and how), with every codec and by its
//! compaction: read as they were written, and written byte for byte the same where no codec is between.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; the lints know only the tests themselves"
)]

use logmill_record::{
    Batch, BatchBuilder, BatchOptions, ControlRecord, ControlType, Inflater, NewRecord, Offset, TimestampMs,
    stamped_prefix,
};

const T0: i64 = 1_700_000_000_000;
const BASE: u64 = 7_000;
const COUNT: u64 = 3_000;
/// The time of compaction and the retention of tombstones.
const HORIZON: TimestampMs = TimestampMs(T0 + 1_000_000 + 86_400_000);

fn golden(name: &str) -> Batch {
    let path = format!("{}/tests/golden/java/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    Batch::parse(std::fs::read(path).unwrap().into()).unwrap()
}

fn codecs() -> Vec<&'static str> {
    let built_in = [
        ("none", true),
        ("gzip", cfg!(feature = "gzip")),
        ("snappy", cfg!(feature = "snappy")),
        ("lz4", cfg!(feature = "lz4")),
        ("zstd", cfg!(feature = "zstd")),
    ];
    built_in.into_iter().filter(|(_, there)| *there).map(|(codec, _)| codec).collect()
}

/// Calls `with` for what the generator put in at `index`.
fn put(index: u64, with: impl FnOnce(&NewRecord<'_>)) {
    let key = format!("key-{}", index % 100);
    let value = format!("value {index}, and so on and so on");
    let headers: &[(&str, Option<&[u8]>)] =
        if index % 11 == 10 { &[("a", Some(b"1")), ("a", None)] } else { &[] };
    with(&NewRecord {
        timestamp: TimestampMs(T0 + index.cast_signed() * 10),
        key: (index % 5 != 4).then_some(key.as_bytes()),
        value: (index % 7 != 6).then_some(value.as_bytes()),
        headers,
    });
}

fn assert_records(batch: &Batch, kept: impl Fn(u64) -> bool, name: &str) {
    let mut inflater = Inflater::default();
    let mut records = batch.records_with(&mut inflater).unwrap();
    for index in (0..COUNT).filter(|index| kept(BASE + index)) {
        let record = records.next().unwrap().unwrap();
        put(index, |expected| {
            assert_eq!(record.offset, Offset(BASE + index), "{name}");
            assert_eq!(record.timestamp, expected.timestamp, "{name}");
            assert_eq!((record.key, record.value), (expected.key, expected.value), "{name}");
            let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
            assert_eq!(headers, expected.headers, "{name}");
        });
    }
    assert!(records.next().is_none(), "{name}");
}

/// As the log stores it: what this crate builds and a golden stamp differently is no part of the batch.
fn stamped_as(golden: &Batch, batch: &Batch) -> Batch {
    let header = golden.header();
    let prefix = stamped_prefix(batch.header(), header.base_offset, header.leader_epoch);
    Batch::parse([&prefix[..], &batch.bytes()[prefix.len()..]].concat().into()).unwrap()
}

#[test]
fn every_codec_of_kafkas_client_is_read() {
    for codec in codecs() {
        let batch = golden(codec);
        assert_eq!(batch.header().attributes.compression().to_string(), codec);
        assert_eq!((batch.header().producer_id, batch.header().base_sequence), (4711, 77));
        batch.check_records().unwrap();
        assert_records(&batch, |_| true, codec);
    }
}

#[test]
fn the_builder_writes_what_kafkas_client_writes() {
    let last = Offset(BASE + COUNT - 1);
    let options = BatchOptions::new().producer(4711, 3, 77).transactional().offsets(Offset(BASE), last);
    let mut builder = BatchBuilder::with_options(options, 0);
    for index in 0..COUNT {
        put(index, |record| builder.push(record).unwrap());
    }
    let expected = golden("none");
    assert!(stamped_as(&expected, &builder.build().unwrap()) == expected);
}

#[test]
fn compaction_leaves_what_kafkas_leaves() {
    let third = |offset: u64| offset.is_multiple_of(3);
    let mut inflater = Inflater::default();
    for codec in codecs() {
        let expected = golden(&format!("compacted_{codec}"));
        assert_eq!(expected.header().delete_horizon(), Some(HORIZON));
        expected.check_stored_with(&mut inflater).unwrap();
        assert_records(&expected, third, codec);

        let kept = golden(codec)
            .retain_records(&mut inflater, Some(HORIZON), |record| third(record.offset.get()))
            .unwrap();
        assert_records(&kept, third, codec);
        let limits = inflater.limits();
        assert!(kept.inflate(&limits).unwrap() == expected.inflate(&limits).unwrap(), "{codec}");
        if codec == "none" {
            assert!(kept == expected, "not a byte differs");
        }
        let emptied = golden(codec).retain_records(&mut inflater, None, |_| false).unwrap();
        assert!(emptied == golden("emptied"), "{codec}");
    }
}

#[test]
fn markers_are_those_of_kafkas_coordinator() {
    for (name, kind) in [("commit", ControlType::Commit), ("abort", ControlType::Abort)] {
        let expected = golden(name);
        let marker = ControlRecord { kind, coordinator_epoch: 12 };
        assert_eq!(expected.control_record(), Ok(Some(marker)));
        let built = marker.batch(4711, 3, TimestampMs(T0)).unwrap();
        assert!(stamped_as(&expected, &built) == expected, "{name}");
    }
}
