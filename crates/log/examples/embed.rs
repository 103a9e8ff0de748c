//! A program that keeps its events in a log, as it would keep rows in SQLite.
//!
//! ```console
//! cargo run -p logmill-log --example embed            # in a temporary directory
//! cargo run -p logmill-log --example embed -- events  # in ./events; run it twice, and it goes on
//! ```

use std::error::Error;
use std::path::PathBuf;

use logmill_log::env::Env;
use logmill_log::{Log, LogOptions, SetOptions};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let dir = std::env::args_os().nth(1).map_or_else(|| temporary.path().join("events"), PathBuf::from);

    let env = Env::real();
    let log = Log::open(&dir, SetOptions::new(env.clone()), LogOptions::default())?;
    println!("{} holds offsets {} to {}", dir.display(), log.start_offset(), log.end_offset());

    // One batch, one write, one sync: all three events are there after a power cut, or none.
    let now = env.clock.now();
    let first = log.end_offset();
    let receipt = log.append(&[events(now, first, &["login", "search", "order"])?])?;
    receipt.wait()?;
    println!("on disk: offsets {first} to {}", log.end_offset().get() - 1);

    println!("from the front:");
    print_from(&log, log.start_offset())?;

    if let Some((offset, at)) = log.find_time(now)? {
        println!("the first event at or after {} ms is at offset {offset}, of {} ms", now.0, at.0);
    }

    let stats = log.stats();
    println!("{} bytes in {} segment file(s)", stats.stored_bytes, stats.segments);
    log.close()?; // the next open reads next to nothing
    Ok(())
}

/// A batch of events, keyed by their number.
fn events(at: TimestampMs, first: Offset, names: &[&str]) -> Result<Batch, Box<dyn Error>> {
    let mut batch = BatchBuilder::new();
    for (number, name) in (first.get()..).zip(names) {
        let key = number.to_string();
        let headers = [("source", Some(&b"example"[..]))];
        let (key, value) = (Some(key.as_bytes()), Some(name.as_bytes()));
        batch.push(&NewRecord { timestamp: at, key, value, headers: &headers })?;
    }
    Ok(batch.build()?)
}

/// Prints every record from `next` to the end.
fn print_from(log: &Log, mut next: Offset) -> Result<(), Box<dyn Error>> {
    while next < log.end_offset() {
        let out = log.read(next, 1 << 20)?;
        for chunk in out.chunks {
            let mut batches = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut batches)? {
                for record in batch.records()? {
                    let record = record?;
                    let name = String::from_utf8_lossy(record.value.unwrap_or_default());
                    println!("  {}: {name} at {} ms", record.offset, record.timestamp.0);
                }
            }
        }
        next = out.next_offset;
    }
    Ok(())
}
