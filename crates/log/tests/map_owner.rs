//! Bytes of a sealed segment own their map: they are whole, wherever they go and whatever becomes
//! of the log. The simulator's maps lie on the heap, so that Miri can watch this: `tests/miri/run`.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use common::batch;
use logmill_log::sim::Sim;
use logmill_log::{Log, LogOptions, SetOptions};
use logmill_record::{Batch, Offset};

/// A log with a sealed segment of four batches, and one in the next.
fn log(sim: &Sim) -> Log {
    let log = Log::open("/data", SetOptions::new(sim.env()), LogOptions::default()).unwrap();
    for value in [b"a", b"b", b"c", b"d"] {
        log.append(&[batch(&[value])]).unwrap().wait().unwrap();
    }
    log.roll().unwrap();
    log.append(&[batch(&[b"e"])]).unwrap().wait().unwrap();
    log
}

fn values(mut batches: bytes::Bytes) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    while let Some(batch) = Batch::split_from(&mut batches).unwrap() {
        let records = batch.records().unwrap().map(|record| record.unwrap().value.unwrap().to_vec());
        values.extend(records);
    }
    values
}

#[test]
fn bytes_of_a_sealed_segment_outlive_its_files_its_log_and_its_machine() {
    let sim = Sim::new(1);
    let log = log(&sim);
    let chunk = log.read(Offset(1), 1 << 20).unwrap().chunks.remove(0);
    let half = chunk.batches.slice(chunk.batches.len() / 3..);
    log.set_start_offset(Offset(5)).unwrap();
    assert!(sim.fs.read_file("/data/00000000000000000000.log").is_err(), "the file is gone");
    log.close().unwrap();
    drop((log, sim));
    assert_eq!(values(chunk.batches), [b"b", b"c", b"d"]);
    assert_eq!(values(half), [b"c", b"d"], "a part keeps the whole");
}

#[test]
fn readers_on_many_threads_share_one_map() {
    let sim = Sim::new(2);
    let log = log(&sim);
    std::thread::scope(|scope| {
        for from in 0..4 {
            let log = log.clone();
            scope.spawn(move || {
                let chunk = log.read(Offset(from), 1 << 20).unwrap().chunks.remove(0);
                drop(log);
                let expected = &[b"a", b"b", b"c", b"d"][usize::try_from(from).unwrap()..];
                assert_eq!(values(chunk.batches), expected);
            });
        }
        drop(log);
    });
}
