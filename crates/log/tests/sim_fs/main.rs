//! The simulated machine keeps its promises: every state that a crash may lead to is reached, and
//! no other.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)]

mod bytes;
mod bytes_random;
mod failed_sync;
mod faults;
mod machine;
mod names;
mod names_random;
mod real;
mod scheduler;

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use logmill_log::env::{File, Fs, OpenMode};
use logmill_log::sim::{FaultFs, Sim};

const SECTOR: usize = 512;

fn p(path: &str) -> &Path {
    Path::new(path)
}

fn create(fs: &dyn Fs, path: &str) -> Arc<dyn File> {
    fs.open(p(path), OpenMode::CreateNew).unwrap()
}

fn open(fs: &dyn Fs, path: &str) -> Arc<dyn File> {
    fs.open(p(path), OpenMode::ReadWrite).unwrap()
}

fn write(file: &dyn File, bytes: &[u8], position: u64) {
    assert_eq!(try_write(file, bytes, position).unwrap(), bytes.len());
}

fn try_write(file: &dyn File, bytes: &[u8], position: u64) -> io::Result<usize> {
    file.write_at(&[IoSlice::new(bytes)], position)
}

fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.status()?.len).unwrap()];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// What a program finds after a crash, over many seeds.
fn outcomes<T: Ord>(seeds: u64, run: impl Fn(&FaultFs), find: impl Fn(&FaultFs) -> T) -> BTreeSet<T> {
    let outcome = |seed| {
        let sim = Sim::new(seed);
        run(&sim.fs);
        sim.fs.crash();
        find(&sim.fs)
    };
    (0..seeds).map(outcome).collect()
}
