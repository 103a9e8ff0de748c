//! Arbitrary bytes into every reader of this crate: no panic, and no allocation beyond a bound.
//!
//! One function is one fuzz target; each takes bytes and returns nothing. They run over `corpus/batch` and over
//! seeded mutations of it: 20,000 of each target, or as many as `LOGMILL_FUZZ_RUNS` says. A failure names the seed;
//! `LOGMILL_FUZZ_SEED` runs from there. What was found once is kept in the corpus.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; the lints know only the tests themselves"
)]

mod common;

use bytes::Bytes;
use common::allocator::{Counting, LARGEST};
use common::fix_crc;
use common::mutate::Mutator;
use logmill_record::{Batch, BatchHeader, HEADER_LEN, InflateLimits, Inflater, TimestampMs};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMITS: InflateLimits = InflateLimits { max_bytes: 256 << 10, max_ratio: 100 };

fn header(bytes: &[u8]) {
    if let Ok(header) = BatchHeader::parse(bytes) {
        assert!(header.total_len >= HEADER_LEN);
        assert!(header.record_count <= header.last_offset_delta + 1);
        assert!(header.next_offset() > header.base_offset);
    }
}

fn run(bytes: &[u8]) {
    let mut run = Bytes::copy_from_slice(bytes);
    let mut taken = 0;
    while let Ok(Some(batch)) = Batch::split_from(&mut run) {
        taken += batch.bytes().len();
        assert_eq!(Batch::parse(batch.bytes().clone()).as_ref(), Ok(&batch));
    }
    assert_eq!(taken + run.len(), bytes.len());
}

fn records(bytes: &[u8]) {
    let Ok(batch) = Batch::parse(Bytes::copy_from_slice(bytes)) else { return };
    let mut inflater = Inflater::new(LIMITS);
    let produced = batch.check_records_with(&mut inflater).is_ok();
    let stored = batch.check_stored_with(&mut inflater).is_ok();
    assert!(stored || !produced, "a producer is held to more");
    let _ = batch.control_record();
    if let Ok(records) = batch.records_with(&mut inflater) {
        let read = records.map(|record| record.map(|record| record.headers().count()));
        let all: Result<Vec<usize>, _> = read.collect();
        assert!(all.is_ok() || !stored);
    }
    if let Ok(inflated) = batch.inflate(&LIMITS) {
        assert_eq!(Batch::parse(inflated.bytes().clone()).as_ref(), Ok(&inflated));
        assert!(inflated.bytes().len() <= bytes.len().max(HEADER_LEN + LIMITS.max_bytes));
    }
    for horizon in [None, Some(TimestampMs(5))] {
        let kept = batch.retain_records(&mut inflater, horizon, |record| record.offset.get() % 2 == 0);
        if let Ok(kept) = kept {
            assert_eq!(Batch::parse(kept.bytes().clone()).as_ref(), Ok(&kept));
            assert_eq!(kept.header().last_offset(), batch.header().last_offset());
        }
    }
    let _ = batch.into_log_append_time(TimestampMs(7));
}

fn corpus() -> Vec<Vec<u8>> {
    let dir = format!("{}/tests/corpus/batch", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 12);
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// Most mutants would end at length and CRC: three of four get them put right.
fn plausible(bytes: &mut [u8], mutator: &mut Mutator) {
    if bytes.len() >= HEADER_LEN && mutator.below(4) > 0 {
        let length = i32::try_from(bytes.len() - 12).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        fix_crc(bytes);
    }
}

fn fuzz(name: &str, target: fn(&[u8])) {
    let corpus = corpus();
    corpus.iter().for_each(|bytes| target(bytes));
    let first = from_env("LOGMILL_FUZZ_SEED").unwrap_or(0);
    let runs = from_env("LOGMILL_FUZZ_RUNS").unwrap_or(20_000);
    for seed in first..first + runs {
        let mut mutator = Mutator::new(seed);
        let input = &corpus[mutator.below(corpus.len())];
        let other = &corpus[mutator.below(corpus.len())];
        let mut bytes = mutator.mutate(input, other);
        plausible(&mut bytes, &mut mutator);
        LARGEST.set(0);
        if std::panic::catch_unwind(|| target(&bytes)).is_err() {
            panic!("{name}: run again with LOGMILL_FUZZ_SEED={seed} LOGMILL_FUZZ_RUNS=1: {bytes:02x?}");
        }
        // A vector grows by doubling; an inflated batch may be written back compressed, and grow by a little.
        let most = 2 * (HEADER_LEN + LIMITS.max_bytes).max(bytes.len()) + (64 << 10);
        assert!(LARGEST.get() <= most, "{name}, seed {seed}: {} bytes at once", LARGEST.get());
    }
}

#[test]
fn batch_headers_of_arbitrary_bytes() {
    fuzz("header", header);
}

#[test]
fn runs_of_batches_of_arbitrary_bytes() {
    fuzz("run", run);
}

#[test]
fn records_of_arbitrary_bytes() {
    fuzz("records", records);
}
