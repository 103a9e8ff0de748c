//! Power cuts, kills, full disks and failed syncs, simulated: one seed is one run.
//!
//! The oracle: acknowledged ⊆ recovered ⊆ written, contiguous but for what compaction may take,
//! and what a reader once saw stays (of a relaxed log: no more than its tail goes, and the epoch
//! moves on). `LOGMILL_CRASH_SEEDS` sets how many seeds are run, `LOGMILL_CRASH_SEED` runs one
//! alone; a failure prints its seed. `LOGMILL_BOUNDARY_SUBSETS` sets how many ways of losing what
//! is unsynced are tried at each call.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod boundaries;
mod machine;
mod model;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use logmill_log::sim::Sim;
use machine::Run;
use model::End;

type Counts = BTreeMap<String, u64>;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Runs each case, on as many threads as there are cores, and adds up what they count. Each case
/// has a machine of its own, so the threads change nothing in it.
fn in_parallel<T: std::fmt::Debug + Sync>(cases: &[T], run: impl Fn(&T) -> Counts + Sync) -> Counts {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut total = Counts::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let counts = catch_unwind(AssertUnwindSafe(|| run(case))).unwrap_or_else(|_| {
                // One failure is enough for the other threads too.
                next.store(cases.len(), Ordering::Relaxed);
                panic!("seed {case:?} failed; run it alone to debug")
            });
            add(&mut total, counts);
        }
        total
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let mut total = Counts::new();
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().for_each(|thread| match thread.join() {
            Ok(counts) => add(&mut total, counts),
            Err(panic) => std::panic::resume_unwind(panic),
        });
        total
    })
}

fn add(total: &mut Counts, counts: Counts) {
    counts.into_iter().for_each(|(what, count)| *total.entry(what).or_default() += count);
}

/// Runs one seed; returns its counts and a fingerprint of all that happened to the disk.
fn run(seed: u64, prepare: impl Fn(&Sim)) -> (Counts, u64) {
    let mut run = Run::new(Sim::new(seed), seed);
    prepare(&run.sim);
    for _round in 0..4 {
        let steps = 20 + run.below(120);
        let within = 1 + run.below(150);
        let kill = run.below(3) == 0;
        match (run.below(2), kill) {
            (0, true) => run.sim.fs.die_at(within),
            (0, false) => run.sim.fs.power_off_at(within),
            _ => {}
        }
        let off = (0..steps).any(|_| !run.step(true));
        let how = if kill { End::Kill } else { End::Power };
        let point = run.sim.fs.went_off_in().filter(|_| off);
        let between = "between calls".to_owned();
        let point = point.map_or(between, |(op, _)| format!("in {op:?}"));
        run.count(format!("{how:?} {point}"));
        run.end(how, true);
    }
    (run.counts, run.sim.fs.history())
}

#[test]
fn nothing_acknowledged_or_seen_is_lost_by_power_cuts_kills_and_faults() {
    let seeds: Vec<u64> = match std::env::var("LOGMILL_CRASH_SEED") {
        Ok(seed) => vec![seed.parse().expect("LOGMILL_CRASH_SEED is a number")],
        Err(_) => (0..setting("LOGMILL_CRASH_SEEDS", 10_000)).collect(),
    };
    let total = in_parallel(&seeds, |seed| run(*seed, |_| ()).0);
    println!("seeds {}, violations 0: {total:#?}", seeds.len());
    if seeds.len() < 100 {
        return;
    }
    for what in [
        "appends",
        "waits",
        "rolls",
        "trims",
        "retentions",
        "compactions",
        "reopened",
        "failed syncs",
        "failed directory syncs",
        "read-only, then opened again",
        "sidecars deleted",
        "ends in recovery",
        "faults in recovery",
        "Power in SyncData",
        "Power in Rename",
        "Kill in Write",
        "Power between calls",
    ] {
        assert!(total.get(what).copied().unwrap_or(0) > 0, "the workload never had: {what}");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 77, 4242] {
        assert_eq!(run(seed, |_| ()), run(seed, |_| ()), "seed {seed}");
    }
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    let caught = (0..40).filter(|seed| {
        let run = || run(*seed, |sim| sim.fs.lie_about_sync(true));
        catch_unwind(AssertUnwindSafe(run)).is_err()
    });
    let caught = caught.count();
    assert!(caught > 20, "only {caught} of 40 runs noticed that nothing was ever synced");
}
