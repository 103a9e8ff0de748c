//! The broker's core on a simulated machine, under a checker of histories.
//!
//! No sockets, no threads, no real time: clock, disk, randomness and the order of all background work come
//! from [`logmill_log::sim`], so that one seed is one identical run. Idempotent producers send batches on
//! streams and send them again as the client does, others send once; readers fetch and subscribe from many
//! partitions; settings change, partitions are added, records removed, while syncs, writes and reads fail,
//! disks fill and hang, the power goes, the program is killed and starts again. What everyone was told, and
//! what partitions hold in the end, is then compared by [`history`].
//!
//! ```sh
//! LOGMILL_SIMULATION_SEEDS=100000 cargo test -p logmill-broker --test simulation -- --nocapture
//! LOGMILL_SIMULATION_SEED=7 cargo test -p logmill-broker --test simulation -- --nocapture
//! ```
//!
//! A seed that fails is printed with its anomalies and its last operations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod batch;
/// The end-to-end tests' own, which use all of it: this package cannot depend on theirs.
#[allow(dead_code, unreachable_pub, reason = "the end-to-end tests use the rest")]
#[path = "../../../../tests/src/history/mod.rs"]
mod history;
mod idempotent;
mod numbering;
mod plain;
mod reading;
mod run;
mod topics;
mod trouble;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use history::{Report, Tally};
use run::Run;
use world::World;

/// So many of a run that failed are printed.
const LAST_OPERATIONS: usize = 60;

/// Why a run failed.
type Failure = String;

/// Runs one seed; returns what the checker found, or why the run could not go on.
fn run(seed: u64, prepare: impl Fn(&World)) -> (Result<Report, Failure>, Run) {
    let mut run = Run::new(seed, prepare);
    let worked = catch_unwind(AssertUnwindSafe(|| run.work()));
    let worked = worked.map_err(|panic| match panic.downcast_ref::<String>() {
        Some(message) => message.clone(),
        None => panic.downcast_ref::<&str>().map_or_else(|| "it panicked".to_owned(), ToString::to_string),
    });
    (worked, run)
}

/// What is wrong with a run, if anything is.
fn verdict(seed: u64, outcome: &Result<Report, Failure>, run: &Run) -> Result<(), Failure> {
    let what = match outcome {
        Ok(report) if report.anomalies.is_empty() => return Ok(()),
        Ok(report) => report.anomalies.iter().map(|anomaly| format!("{anomaly}\n")).collect(),
        Err(failure) => format!("{failure}\n"),
    };
    let last = run.world.history.last(LAST_OPERATIONS);
    Err(format!("LOGMILL_SIMULATION_SEED={seed}: {what}its last operations:\n{last}"))
}

/// Runs each seed on as many threads as there are cores: each has a machine of its own.
fn in_parallel(seeds: &[u64]) -> Result<Tally, Failure> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut tally = Tally::default();
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (outcome, run) = run(*seed, |_| ());
            // One failure is enough for the other threads too.
            verdict(*seed, &outcome, &run).inspect_err(|_| next.store(seeds.len(), Ordering::Relaxed))?;
            tally.add(&outcome?);
        }
        Ok::<_, Failure>(tally)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut total = Tally::default();
        for thread in running {
            total.merge(&thread.join().expect("a run's panics are caught")?);
        }
        Ok(total)
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_reordered_and_nothing_read_vanishes() {
    let seeds: Vec<u64> = match setting("LOGMILL_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("LOGMILL_SIMULATION_SEEDS").unwrap_or(3_000)).collect(),
    };
    match in_parallel(&seeds) {
        Ok(tally) => println!("{tally}"),
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn one_seed_is_one_run() {
    let trace = |seed| {
        let (outcome, run) = run(seed, |_| ());
        verdict(seed, &outcome, &run).unwrap();
        (run.world.sim.fs.history(), run.world.history.last(usize::MAX))
    };
    for seed in [1, 77, 4242] {
        let (one, other) = (trace(seed), trace(seed));
        assert_eq!(one.0, other.0, "seed {seed}: its calls to the disk");
        assert!(one.1 == other.1, "seed {seed}: what everyone was told");
        assert!(one.1.lines().count() > 200, "much happens in seed {seed}");
    }
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    let lie = |world: &World| world.sim.fs.lie_about_sync(true);
    let caught = (0..40).filter(|seed| {
        let (outcome, run) = run(*seed, lie);
        verdict(*seed, &outcome, &run).is_err()
    });
    let caught = caught.count();
    assert!(caught > 20, "only {caught} of 40 runs noticed that nothing was ever synced");
}
