//! The program that `tests/power-cut/run` takes the power from: it appends to several logs on a
//! file system and notes elsewhere what was acknowledged, and when; or checks what is left.
//!
//! ```text
//! logmill-power-cut write DIR NOTES WRITE_LOG APPENDS [no-sync]
//! logmill-power-cut check DIR NOTES ENTRIES
//! ```
//!
//! `WRITE_LOG` is the device's record of all writes, in the format of dm-log-writes. It counts
//! its entries in its first sector, and a flush has arrived there before it is answered: what is
//! acknowledged when the count is `n` must be found in every image of `n` entries or more.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod check;
mod no_sync;
mod notes;
mod write;

use std::path::Path;
use std::process::ExitCode;

use logmill_log::LogOptions;

/// Logs of the data directory, and threads that write to each.
const LOGS: usize = 4;
const WRITERS: usize = 2;

/// Small segments, so that rolls and removals are part of it.
fn options() -> LogOptions {
    LogOptions::default().segment_bytes(48 << 10).max_unsynced_bytes(32 << 10)
}

fn name(log: usize) -> String {
    format!("log-{log}")
}

/// The `n`-th record of a writer: who wrote it, and bytes that can be made again from that.
fn value(log: usize, writer: usize, n: u64) -> Vec<u8> {
    let mut random = (n << 8 | (log as u64) << 4 | writer as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value =
        [log as u64, writer as u64, n].iter().flat_map(|part| part.to_le_bytes()).collect::<Vec<_>>();
    for _ in 0..random % 250 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        value.extend(random.to_le_bytes());
    }
    value
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", dir, notes, write_log, appends] => {
            write::run(Path::new(dir), notes, write_log, appends.parse().unwrap(), false);
        }
        ["write", dir, notes, write_log, appends, "no-sync"] => {
            write::run(Path::new(dir), notes, write_log, appends.parse().unwrap(), true);
        }
        ["check", dir, notes, entries] => check::run(Path::new(dir), notes, entries.parse().unwrap()),
        _ => {
            eprintln!("started by tests/power-cut/run, which says what it does");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
