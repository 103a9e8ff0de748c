//! What `verify` says of logs that are as they should be, and of records that are not.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

#[path = "common/keyed.rs"]
mod keyed;

use keyed::{Records, compressed, fill};
use logmill_log::inspect::{FindingKind, Report, Severity, plan_repair, verify};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{CompactionOptions, Log, LogOptions, SetOptions};
use logmill_record::{Compression, Offset};

fn look(sim: &Sim) -> Report {
    verify(&sim.env(), "/data", &mut |_| ()).unwrap()
}

#[cfg(all(feature = "gzip", feature = "lz4", feature = "snappy", feature = "zstd"))]
mod compressed_batches {
    use logmill_record::{Batch, HEADER_LEN};

    use super::*;

    /// The batch with one record less in its header than in its bytes, under a checksum that is right.
    fn with_a_record_too_many(batch: &Batch) -> Batch {
        let mut bytes = batch.bytes().to_vec();
        let count = batch.header().record_count - 1;
        bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&count.to_be_bytes());
        let crc = crc_fast::crc32_iscsi(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Batch::parse(bytes.into()).unwrap()
    }

    #[test]
    fn records_of_compressed_batches_are_looked_into() {
        let codecs =
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
        for codec in codecs {
            let sim = Sim::new(1);
            let log = Log::open("/data", SetOptions::new(sim.env()), LogOptions::default()).unwrap();
            let good = compressed(&[(Some(1), Some(2)), (Some(3), None)], codec);
            log.append(&[good.clone(), with_a_record_too_many(&good)]).unwrap().wait().unwrap();
            log.set().close().unwrap();
            let findings = look(&sim).findings;
            assert_eq!(findings.len(), 1, "{codec}: {findings:?}");
            assert_eq!((findings[0].severity, findings[0].kind), (Severity::Data, FindingKind::Records));
            assert_eq!(findings[0].position, Some(good.bytes().len() as u64), "{codec}");
        }
    }
}

/// A crash between the renaming of a segment's data and that of its index leaves an index that is
/// not of that data; the next open puts the right one in its place.
#[test]
fn a_compaction_that_a_crash_cut_off_is_no_damage() {
    let options = LogOptions::default().segment_bytes(500).compaction(Some(CompactionOptions::default()));
    for seed in 0..4 {
        for nth in 1.. {
            let mut sim = Sim::new(seed << 32 | nth);
            let log = Log::open("/data", SetOptions::new(sim.env()), options).unwrap();
            fill(&log, &mut Records::new(), &sim.random(), 20, 5);
            log.roll().unwrap();
            sim.fs.power_off_at(nth);
            let outcome = log.compact();
            if !sim.fs.is_off() {
                outcome.unwrap();
                break;
            }
            drop(log);
            sim.crash();
            let report = look(&sim);
            assert!(!report.is_damaged(), "seed {seed}, point {nth}: {:?}", report.findings);
            let plan = plan_repair(&sim.env(), "/data", &mut |_| ()).unwrap();
            assert!(plan.steps().is_empty(), "seed {seed}, point {nth}: {:?}", plan.steps());
        }
    }
}

/// Retention goes on to the next file where it cannot remove one.
#[test]
fn a_segment_below_the_start_that_could_not_be_removed_is_no_damage() {
    let mut sim = Sim::new(1);
    let log = Log::open("/data", SetOptions::new(sim.env()), LogOptions::default()).unwrap();
    for _ in 0..3 {
        log.append(&[compressed(&[(Some(1), Some(2))], Compression::None)]).unwrap().wait().unwrap();
        log.roll().unwrap();
    }
    sim.fs.inject(Rule::new(Fault::Io).on(Op::RemoveFile).path("*/00000000000000000000.log"));
    log.set_start_offset(Offset(2)).unwrap_err();
    sim.kill();
    let report = look(&sim);
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let left =
        report.findings.iter().find(|finding| finding.file.ends_with("00000000000000000000.log")).unwrap();
    assert_eq!((left.severity, left.kind), (Severity::Note, FindingKind::Stray));
    assert!(plan_repair(&sim.env(), "/data", &mut |_| ()).unwrap().steps().is_empty());

    let log = Log::open("/data", SetOptions::new(sim.env()), LogOptions::default()).unwrap();
    assert_eq!((log.start_offset(), log.stats().segments), (Offset(2), 2));
    assert!(!sim.fs.files().contains(&left.file), "the open removes it");
}
