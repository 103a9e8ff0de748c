//! Kafka's own tool reads our segment files. Run by name, with the command of Kafka's
//! `DumpLogSegments --deep-iteration --print-data-log --files` in `LOGMILL_KAFKA_DUMP`; the file's
//! path is added as its last argument.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and damages a file by hand"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{batch, produced};
use logmill_log::env::Env;
use logmill_log::inspect::plan_repair;
use logmill_log::{Log, LogOptions, SetOptions};
use logmill_record::{
    BatchBuilder, BatchOptions, Compression, ControlRecord, ControlType, NewRecord, TimestampMs,
};

/// Appends a batch of each kind; returns how many.
fn write(log: &Log) -> usize {
    let mut batches = vec![
        batch(&[b"Castaic", b"Hualien"]),
        produced(7, 0, 0, false, &[b"Anchorage"]),
        produced(8, 0, 0, true, &[b"Ridgecrest"]),
        ControlRecord { kind: ControlType::Commit, coordinator_epoch: 0 }
            .batch(8, 0, TimestampMs(1_000))
            .unwrap(),
        batch(&[b"to be damaged"]),
    ];
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let built = || {
            let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(compression), 0);
            for n in 0..50 {
                let value = format!("Ridgecrest {n}");
                let (timestamp, value) = (TimestampMs(n), Some(value.as_bytes()));
                builder.push(&NewRecord { timestamp, key: Some(b"k"), value, headers: &[] })?;
            }
            builder.build()
        };
        // A compression that this build is without.
        batches.extend(built().ok());
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
    }
}
