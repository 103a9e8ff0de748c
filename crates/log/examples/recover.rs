//! What is left when things go wrong: a process that is killed while it appends, and a disk that
//! gives back other bytes than were written.
//!
//! ```console
//! cargo run -p logmill-log --example recover
//! ```
#![allow(clippy::disallowed_methods, reason = "it damages a file behind the log's back")]

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use logmill_log::env::Env;
use logmill_log::inspect::{plan_repair, verify};
use logmill_log::{ErrorKind, Log, LogOptions, SetOptions};
use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = std::env::args_os().nth(1) {
        return append_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir()?;
    let acknowledged = kill_in_mid_append(dir.path())?;
    let log = open(dir.path())?;
    println!("killed after {acknowledged} acknowledged records; {} are there", log.end_offset());
    assert!(log.end_offset().get() >= acknowledged);
    log.roll()?;
    log.close()?;

    damage(&dir.path().join(format!("{:020}.log", 0)))?;
    let env = Env::real();
    let report = verify(&env, dir.path(), &mut |_| ())?;
    for finding in &report.findings {
        println!("verify: {finding}");
    }

    // The log opens, and readers are told what is gone and read on behind it.
    let log = open(dir.path())?;
    println!("readable: {} of {} records", readable(&log)?, log.end_offset());
    log.close()?;

    let plan = plan_repair(&env, dir.path(), &mut |_| ())?;
    for step in plan.steps() {
        println!("repair: {step}");
    }
    plan.execute()?;
    assert!(!verify(&env, dir.path(), &mut |_| ())?.is_damaged());
    Ok(())
}

fn open(dir: &Path) -> Result<Log, logmill_log::Error> {
    Log::open(dir, SetOptions::default(), LogOptions::default())
}

/// Starts this program again, lets it append, and kills it; returns how many records it had been
/// told were on disk.
fn kill_in_mid_append(dir: &Path) -> Result<u64, Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?).arg(dir).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let lines = BufReader::new(output).lines().take(100).count();
    child.kill()?;
    child.wait()?;
    Ok(lines as u64)
}

/// Appends one record after the other, and prints each once it is on disk.
fn append_for_ever(dir: &Path) -> Result<(), Box<dyn Error>> {
    let log = open(dir)?;
    for number in 0.. {
        let mut batch = BatchBuilder::new();
        let value = format!("reading {number}");
        let (timestamp, value) = (TimestampMs(number), Some(value.as_bytes()));
        batch.push(&NewRecord { timestamp, key: None, value, headers: &[] })?;
        log.append(&[batch.build()?])?.wait()?;
        println!("{number}");
    }
    Ok(())
}

/// Turns a bit over in the middle of a file.
fn damage(file: &Path) -> std::io::Result<()> {
    let mut bytes = std::fs::read(file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes)
}

/// How many offsets can be read.
fn readable(log: &Log) -> Result<u64, logmill_log::Error> {
    let (mut next, mut readable) = (Offset(0), 0);
    while next < log.end_offset() {
        match log.read(next, 1 << 20) {
            Ok(out) => {
                readable += out.next_offset.get() - next.get();
                next = out.next_offset;
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                println!("read: {error}");
                next = error.offsets().map_or(log.end_offset(), |lost| lost.end);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(readable)
}
