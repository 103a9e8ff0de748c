//! Transactions and groups on a simulated machine, all at once, under a ledger of what everyone was told.
//!
//! As in the program `simulation` one seed is one identical run. Producers write transactions under transactional ids,
//! are taken over, go on as zombies, and leave transactions open; members of groups come, go, are lost and come back,
//! commit one call behind the other, or with a step, or with a client's transaction, or with an epoch that is over;
//! static members succeed each other; an operator has groups go on elsewhere; a topic is deleted and made again, another
//! grows; readers read what is committed. Meanwhile syncs, writes and reads fail, disks
//! fill and hang, the power goes, the program is killed. What must hold is said in [`ledger`].
//!
//! ```sh
//! LOGMILL_SIMULATION_SEEDS=100000 cargo test -p logmill-broker --test simulation_groups -- --nocapture
//! LOGMILL_SIMULATION_SEED=7 cargo test -p logmill-broker --test simulation_groups -- --nocapture
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod chain;
mod client;
mod commits;
mod finish;
mod ledger;
mod member;
mod operator;
mod owners;
mod passes;
mod reading;
mod run;
mod standing;
mod steps;
mod succession;
mod topics;
mod trouble;
mod world;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use run::Run;

/// So many lines of a run that failed are printed, unless only its seed is run.
const LAST_LINES: usize = 80;

/// How often something happened.
pub(crate) type Tally = BTreeMap<String, u64>;

/// What has to happen so often in each hundred runs, so that nothing holds because nothing is done.
const COVERAGE: &[(&str, u64)] = &[
    ("commit of an owner: answered", 500),
    ("commits of a former owner", 10),
    ("commits that go back to before a restart or a break", 2),
    ("delete group: answered", 2),
    ("delete offsets: answered", 2),
    ("ends of a fenced producer", 50),
    ("growth of a topic: answered", 40),
    ("growths under members", 40),
    ("look at a reset: answered", 60),
    ("new partitions assigned", 300),
    ("records by key in new partitions", 100),
    ("reset: GROUP_NOT_EMPTY", 60),
    ("reset: chain", 5),
    ("reset: plain", 5),
    ("reset: steps", 5),
    ("reset: units", 5),
    ("sends of a fenced producer", 150),
    ("static successions", 300),
    ("step: STALE_ASSIGNMENT", 20),
    ("step: answered", 1_000),
    ("successions at rest, with units", 50),
];

/// Runs one seed; what happened, or why it failed.
fn run(seed: u64) -> Result<(Tally, Vec<String>), String> {
    let mut run = Run::new(seed);
    let worked = catch_unwind(AssertUnwindSafe(|| run.work()));
    let world = &mut run.world;
    match worked {
        Ok(()) => Ok((std::mem::take(&mut world.tally), std::mem::take(&mut world.lines))),
        Err(panic) => {
            let why = match panic.downcast_ref::<String>() {
                Some(message) => message.clone(),
                None => panic.downcast_ref::<&str>().map_or_else(String::new, ToString::to_string),
            };
            let most = if setting("LOGMILL_SIMULATION_SEED").is_some() { usize::MAX } else { LAST_LINES };
            let from = world.lines.len().saturating_sub(most);
            Err(format!("LOGMILL_SIMULATION_SEED={seed}: {why}\n{}", world.lines[from..].join("\n")))
        }
    }
}

/// Runs each seed on as many threads as there are cores: each has a machine of its own.
fn in_parallel(seeds: &[u64]) -> Result<Tally, String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut total = Tally::new();
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            // One failure is enough for the other threads too.
            let (tally, _) = run(*seed).inspect_err(|_| next.store(seeds.len(), Ordering::Relaxed))?;
            merge(&mut total, tally);
        }
        Ok::<_, String>(total)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut total = Tally::new();
        for thread in running {
            merge(&mut total, thread.join().expect("a run's panics are caught")?);
        }
        Ok(total)
    })
}

fn merge(total: &mut Tally, more: Tally) {
    for (what, count) in more {
        *total.entry(what).or_default() += count;
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn transactions_are_whole_units_have_one_owner_and_steps_one_effect() {
    let seeds: Vec<u64> = match setting("LOGMILL_SIMULATION_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("LOGMILL_SIMULATION_SEEDS").unwrap_or(800)).collect(),
    };
    let tally = in_parallel(&seeds).unwrap_or_else(|failure| panic!("{failure}"));
    let many = seeds.len() as u64 / 100;
    let mut report = format!("histories: {}\n", seeds.len());
    for (what, count) in &tally {
        let _ = writeln!(report, "{what}: {count}");
    }
    println!("{report}anomalies: 0");
    for (what, least) in COVERAGE {
        let count = tally.get(*what).copied().unwrap_or(0);
        assert!(count >= least * many, "{what}: {count} times is too seldom to say anything\n{report}");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [3, 77] {
        let [one, other] = [run(seed).unwrap(), run(seed).unwrap()];
        assert!(one == other, "seed {seed}: what everyone was told");
        assert!(one.1.len() > 200, "much happens in seed {seed}");
    }
}
