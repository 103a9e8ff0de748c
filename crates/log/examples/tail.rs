//! One thread writes, another follows the end of the log and measures the delay: the time from
//! the moment a record was made until its reader had it, which includes the sync.
//!
//! ```console
//! cargo run --release -p logmill-log --example tail
//! ```
#![allow(clippy::disallowed_methods, reason = "a program has its own clock and threads")]

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use logmill_log::{ErrorKind, Log, LogOptions, SetOptions};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

const RECORDS: u64 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
    let started = Instant::now();

    let reader = thread::spawn({
        let log = log.clone();
        move || follow(&log, started)
    });
    for _ in 0..RECORDS {
        let mut batch = BatchBuilder::new();
        let made = started.elapsed().as_micros().to_string();
        let (timestamp, value) = (TimestampMs(0), Some(made.as_bytes()));
        batch.push(&NewRecord { timestamp, key: None, value, headers: &[] })?;
        // Nobody waits here: appends that come during a sync share the next one.
        drop(log.append(&[batch.build()?])?);
        thread::sleep(Duration::from_millis(1));
    }

    let mut delays = reader.join().map_err(|_| "the reader panicked")??;
    delays.sort_unstable();
    let rate = f64::from(u32::try_from(delays.len())?) / started.elapsed().as_secs_f64();
    let [p50, p99] = [50, 99].map(|percent| delays[(delays.len() - 1) * percent / 100]);
    println!("{} records at {rate:.0}/s; delay p50 {p50} us, p99 {p99} us", delays.len());
    log.close()?;
    Ok(())
}

/// Reads every record as soon as it is on disk; returns the delay of each in microseconds.
fn follow(log: &Log, started: Instant) -> Result<Vec<u128>, logmill_log::Error> {
    let (mut next, mut delays) = (Offset(0), Vec::new());
    while next < Offset(RECORDS) {
        match log.wait_beyond(next, Duration::from_secs(1)) {
            Ok(true) => {}
            Ok(false) => continue, // nothing new: a place to look whether to stop
            Err(error) if error.kind() == ErrorKind::Closed => break,
            Err(error) => return Err(error),
        }
        let out = log.read(next, 1 << 20)?;
        for chunk in out.chunks {
            let mut batches = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut batches).expect("a read has checked it") {
                for record in batch.records().expect("it is not compressed") {
                    let value = record.expect("append got whole records").value.unwrap_or_default();
                    let made: u128 = String::from_utf8_lossy(value).parse().unwrap_or_default();
                    delays.push(started.elapsed().as_micros() - made);
                }
            }
        }
        next = out.next_offset;
    }
    Ok(delays)
}
