//! Power cuts, kills, closes, full disks, failing calls and rot, simulated: one seed is one run.
//!
//! The oracle: acknowledged ⊆ recovered ⊆ written, contiguous but for what compaction may take and
//! what a repair has named, and what a reader once saw stays (of a relaxed log: no more than its
//! tail goes, and the epoch moves on). What is on disk of an idempotent producer is known when it is
//! sent again; what is stable, and what was aborted, follows from the records. Nobody waits for ever.
//!
//! `LOGMILL_CRASH_SEEDS` sets how many seeds are run, `LOGMILL_CRASH_SEED` runs one alone; a failure
//! prints its seed. `LOGMILL_BOUNDARY_SUBSETS` sets how many ways of losing what is unsynced are
//! tried at each call.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod boundaries;
mod ending;
mod harm;
mod known;
mod machine;
mod model;
mod produce;
mod reading;
mod trouble;
mod upkeep;
mod writing;

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

/// What the seeds together must have met.
const MET: &[&str] = &[
    "aborts",
    "appends resumed",
    "broken checkpoints",
    "broken indexes",
    "broken metas",
    "broken opens",
    "broken reads",
    "broken removals",
    "broken renames",
    "broken sets",
    "broken states",
    "broken undos",
    "broken writes",
    "clean closes",
    "Closed between calls",
    "commits",
    "compactions",
    "created late",
    "data flipped",
    "disks filled",
    "disks freed",
    "dropped caches",
    "duplicates",
    "ends in a close",
    "ends in a repair",
    "ends in creation",
    "ends in recovery",
    "failed directory syncs",
    "failed syncs",
    "faults in recovery",
    "idle minutes",
    "jumps back",
    "jumps forward",
    "logs left alone",
    "merges",
    "opened late",
    "Power between calls",
    "read-only, then opened again",
    "refused: Fenced",
    "refused: full",
    "refused: OutOfSequence",
    "reopened",
    "repaired",
    "repaired without a loss",
    "reserves spent",
    "retentions",
    "rolls",
    "sidecars cut",
    "sidecars deleted",
    "sidecars flipped",
    "stalls",
    "trims",
    "verified after a close",
    "verified after a crash",
    "waits",
];

/// The calls in which the power must have gone, and the program been killed.
const POINTS: &[&str] = &[
    "Create (checkpoint)",
    "Create (cleaned)",
    "Create (index)",
    "Create (log)",
    "Create (merge)",
    "Create (meta)",
    "Create (set)",
    "Create (state)",
    "CreateDir (directory)",
    "Lock (lock)",
    "RemoveFile (index)",
    "RemoveFile (log)",
    "RemoveFile (merge)",
    "Rename (checkpoint)",
    "Rename (cleaned)",
    "Rename (index)",
    "Rename (merge)",
    "Rename (meta)",
    "Rename (set)",
    "Rename (state)",
    "SetLen (log)",
    "SyncData (checkpoint)",
    "SyncData (cleaned)",
    "SyncData (index)",
    "SyncData (log)",
    "SyncData (merge)",
    "SyncData (meta)",
    "SyncDir (directory)",
    "Write (checkpoint)",
    "Write (cleaned)",
    "Write (index)",
    "Write (log)",
    "Write (merge)",
    "Write (meta)",
    "Write (reserve)",
    "Write (state)",
];

/// Where the machine went off: the call, and the kind of file.
fn point(sim: &Sim) -> Option<String> {
    let (op, path) = sim.fs.went_off_in()?;
    let name = path.file_name().unwrap_or_default().to_str()?;
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let what = match name.split_once('.') {
        None if name.starts_with("log-") || ["", "data"].contains(&name) => "directory",
        None => name,
        Some((_, ending)) => ending.rsplit('.').next()?.split('-').next()?,
    };
    Some(format!("{op:?} ({what})"))
}

/// Runs one seed; returns its counts and a fingerprint of all that happened to the disk.
fn run(seed: u64, prepare: impl Fn(&Sim)) -> (Counts, u64) {
    let mut run = Run::new(Sim::new(seed), seed);
    prepare(&run.sim);
    for round in 0..4 {
        let steps = 20 + run.below(120);
        let within = 1 + run.below(if round == 0 { 90 } else { 150 });
        let kill = run.below(3) == 0;
        match (run.below(2), kill) {
            (0, true) => run.sim.fs.die_at(within),
            (0, false) => run.sim.fs.power_off_at(within),
            _ => {}
        }
        let left = (run.below(3) == 0).then(|| run.index(machine::KINDS.len()));
        let on = (round > 0 || run.begin(left)) && (0..steps).all(|_| run.step(true));
        let mut how = if kill { End::Kill } else { End::Power };
        if on && run.below(3) == 0 {
            how = run.close_set();
        }
        let point = point(&run.sim).filter(|_| run.sim.fs.is_off());
        let point = point.map_or("between calls".to_owned(), |point| format!("in {point}"));
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
    if seeds.len() < 10_000 {
        return;
    }
    for what in MET {
        assert!(total.contains_key(*what), "the workload never had: {what}");
    }
    for how in ["Power", "Kill"] {
        for point in POINTS {
            let what = format!("{how} in {point}");
            assert!(total.contains_key(&what), "nothing ever ended so: {what}");
        }
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
