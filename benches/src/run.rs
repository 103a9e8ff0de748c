//! One run of a bench: how much of it is to be done, where, and how long things took.

use std::path::{Path, PathBuf};
use std::time::Duration;

use logmill_log::env::{Clock as _, SystemClock};
use tempfile::TempDir;

use crate::machine::{describe_file_system, describe_machine, load, touch_memory};

/// How often A and B take turns, after a round that warms up.
const ROUNDS: usize = 7;

/// One run of a bench.
#[derive(Debug)]
pub struct Run {
    /// It is only to be shown that the bench works.
    pub is_quick: bool,
    dir: PathBuf,
    clock: SystemClock,
}

impl Run {
    /// Takes the command line, and prints what the figures to come belong to. `dir` is where files
    /// are made, unless `LOGMILL_BENCH_DIR` says another; `memory_bytes` is about what the bench fills
    /// with them.
    #[must_use]
    pub fn begin(subject: &str, dir: &Path, memory_bytes: usize) -> Self {
        let elsewhere = std::env::var_os("LOGMILL_BENCH_DIR").map(PathBuf::from);
        let dir = &*elsewhere.unwrap_or_else(|| dir.to_owned());
        let run = Self::quietly(dir);
        println!("{subject}");
        println!("on {}; {}; load {}", describe_machine(), describe_file_system(dir), load());
        let rounds = run.rounds();
        if run.is_quick {
            println!("QUICK: shows that it works; these are no figures\n");
        } else {
            println!("median (least–most) of {rounds} rounds, taken in turns after one that warms up\n");
            touch_memory(memory_bytes);
        }
        run
    }

    /// The same without a word: for a process that a bench starts.
    #[must_use]
    pub fn quietly(dir: &Path) -> Self {
        // Cargo hands on `--bench`, which says nothing that is not known.
        let is_quick = std::env::args().any(|arg| arg == "--quick");
        Self { is_quick, dir: dir.to_owned(), clock: SystemClock::new() }
    }

    /// How often A and B take turns.
    #[must_use]
    pub fn rounds(&self) -> usize {
        if self.is_quick { 1 } else { ROUNDS }
    }

    /// A number that is small in a quick run.
    #[must_use]
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// A directory that goes when it is dropped.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn directory(&self) -> TempDir {
        tempfile::tempdir_in(&self.dir).expect("a directory can be made")
    }

    /// What times are taken with.
    #[must_use]
    pub fn clock(&self) -> &SystemClock {
        &self.clock
    }

    /// How long `work` takes.
    pub fn time(&self, work: impl FnOnce()) -> Duration {
        let begun = self.clock.monotonic();
        work();
        self.clock.monotonic().saturating_sub(begun)
    }

    /// At which rate `work` goes over so many bytes, in MB/s.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    pub fn megabytes_per_s(&self, bytes: usize, work: impl FnOnce()) -> f64 {
        bytes as f64 / 1e6 / self.time(work).as_secs_f64()
    }

    /// How long `work` takes, `times` over, each in microseconds.
    pub fn each_in_us(&self, times: usize, mut work: impl FnMut(usize)) -> Vec<f64> {
        (0..times).map(|n| self.time(|| work(n)).as_secs_f64() * 1e6).collect()
    }
}
