//! Kafka's own tool reads our segment files. Run by name, with the command of Kafka's
//! `DumpLogSegments --deep-iteration --print-data-log --files` in `LOGMILL_KAFKA_DUMP`; the file's
//! path is added as its last argument. With `--all-features`: a batch of each codec is looked at.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and damages a file by hand"
)]

mod common;
#[path = "common/keyed.rs"]
mod keyed;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{batch, produced};
use logmill_log::env::Env;
use logmill_log::inspect::plan_repair;
use logmill_log::{CompactionOptions, Log, LogOptions, Receipt, SetOptions};
use logmill_record::{
    Batch, BatchBuilder, BatchOptions, Compression, ControlRecord, ControlType, NewRecord, TimestampMs,
};

fn marker(kind: ControlType, id: i64) -> Batch {
    ControlRecord { kind, coordinator_epoch: 0 }.batch(id, 0, TimestampMs(1_000)).unwrap()
}

/// Appends a batch of each kind; returns how many.
fn write(log: &Log) -> usize {
    let mut batches = vec![
        batch(&[b"Castaic", b"Hualien"]),
        produced(7, 0, 0, false, &[b"Anchorage"]),
        produced(8, 0, 0, true, &[b"Ridgecrest"]),
        marker(ControlType::Commit, 8),
        produced(9, 0, 0, true, &[b"Loma Prieta"]),
        marker(ControlType::Abort, 9),
        batch(&[b"at the time of append"]).into_log_append_time(TimestampMs(5_000)),
        batch(&[b"to be damaged"]),
    ];
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(compression), 0);
        for n in 0..50 {
            let value = format!("Ridgecrest {n}");
            let (timestamp, value) = (TimestampMs(n), Some(value.as_bytes()));
            builder.push(&NewRecord { timestamp, key: Some(b"k"), value, headers: &[] }).unwrap();
        }
        batches.push(builder.build().expect("run with --all-features, for every codec"));
    }
    log.append(&batches).unwrap().wait().unwrap();
    batches.len()
}

fn dump(file: &Path) -> String {
    let command =
        std::env::var("LOGMILL_KAFKA_DUMP").expect("LOGMILL_KAFKA_DUMP says how to run Kafka's tool");
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).arg(file).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs Kafka: LOGMILL_KAFKA_DUMP"]
fn kafka_finds_every_batch_of_a_segment_valid_also_after_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default()).unwrap();
    let batches = write(&log);
    log.set().close().unwrap();
    drop(log);
    let file = dir.path().join("00000000000000000000.log");
    for repaired in [false, true] {
        if repaired {
            let mut bytes = fs::read(&file).unwrap();
            let at = bytes.windows(5).position(|window| window == b"to be").unwrap();
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
            assert!(dump(&file).contains("isvalid: false"), "Kafka sees the damage too");
            plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap().execute().unwrap();
        }
        let said = dump(&file);
        println!("{said}");
        assert_eq!(said.matches("isvalid: true").count(), batches, "{said}");
        assert!(!said.contains("isvalid: false"), "{said}");
        for what in ["endTxnMarker: COMMIT", "endTxnMarker: ABORT", "LogAppendTime: 5000"] {
            assert!(said.contains(what), "{what}: {said}");
        }
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            assert!(said.to_lowercase().contains(&format!("compresscodec: {codec}")), "{codec}: {said}");
        }
    }
}

#[test]
#[ignore = "needs Kafka: LOGMILL_KAFKA_DUMP"]
fn kafka_finds_every_batch_of_a_compacted_segment_valid() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions::default().compaction(Some(CompactionOptions::default()));
    let log = Log::open(dir.path(), SetOptions::default(), options).unwrap();
    for n in 0..20 {
        let codec = if n % 2 == 0 { Compression::None } else { Compression::Zstd };
        log.append(&[keyed::compressed(&[(Some(n % 3), Some(n.into())), (Some(n), None)], codec)])
            .and_then(Receipt::wait)
            .unwrap();
    }
    log.append(&[produced(9, 0, 0, true, &[b"Loma Prieta"]), marker(ControlType::Abort, 9)])
        .and_then(Receipt::wait)
        .unwrap();
    log.roll().unwrap();
    let compacted = log.compact().unwrap();
    assert!(compacted.segments == 1 && compacted.bytes_after < compacted.bytes_before);
    log.close().unwrap();
    let file = dir.path().join("00000000000000000000.log");
    let (mut rest, mut batches) = (fs::read(&file).unwrap().into(), 0);
    while Batch::split_from(&mut rest).unwrap().is_some() {
        batches += 1;
    }
    let said = dump(&file);
    println!("{said}");
    assert_eq!(said.matches("isvalid: true").count(), batches, "{said}");
    assert!(!said.contains("isvalid: false"), "{said}");
}
