//! What clients of a node see while everything goes wrong: real processes, real sockets, and a proxy that cuts,
//! delays, holds and duplicates connections. The checker of `logmill_tests::history` then looks for what must never be.
//!
//! A seed chooses the faults, their order and what producers do; the machine chooses the rest, so a seed that
//! failed may have to run a few times until it fails again.
#![allow(clippy::unwrap_used, clippy::panic)]
#![expect(clippy::disallowed_methods, reason = "these files are a person's, not the node's")]

mod deadlines;
mod disk;
mod faults;
mod frames;
mod older;
mod planted;
mod producers;
mod proxy;
mod readers;
mod run;
mod server;
mod stop;
mod twin;

use std::time::Duration;

use logmill_tests::history::Tally;
use logmill_tests::{Program, program};
use run::{Plan, run};

/// Nothing that is waited for takes nearly as long.
const LIMIT: Duration = Duration::from_secs(90);

fn logmill() -> Program {
    program!()
}

async fn run_seeds(seeds: impl IntoIterator<Item = (u64, Plan)>) -> Tally {
    let mut tally = Tally::default();
    for (seed, plan) in seeds {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        tally.add(&run(seed, plan, &dir.path().join("data")).await);
    }
    tally
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_lose_double_and_reorder_nothing_whatever_happens_to_node_and_network() {
    let plan = Plan { faults: 16, longest: Duration::from_millis(800) };
    // Together they have every kind of fault. Most of their time they wait, so one does beside the other.
    let (mut tally, other) = tokio::join!(run_seeds([(1_283, plan)]), run_seeds([(3_901, plan)]));
    tally.merge(&other);
    println!("{tally}");
}

/// `LOGMILL_HISTORY_SEEDS` says how many, `LOGMILL_HISTORY_SEED` which one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes"]
async fn many_seeds_of_long_histories() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match number("LOGMILL_HISTORY_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("LOGMILL_HISTORY_SEEDS").unwrap_or(20),
    };
    let many = Plan { faults: 60, longest: Duration::from_secs(4) };
    // Longer than connections take to notice that nobody answers any more.
    let long = Plan { faults: 12, longest: Duration::from_secs(30) };
    let plan = |seed: u64| if seed.is_multiple_of(5) { long } else { many };
    println!("{}", run_seeds(seeds.map(|seed| (seed, plan(seed)))).await);
}
