//! Mistakes that somebody could make in the broker, or in the log below it, and the test that must notice each.
//!
//! What a mutant is, and how it is run, is said in [`harness`]. By name, each is built and run:
//!
//! ```sh
//! cargo test -p logmill-broker --test mutants -- --ignored --nocapture every_mutant_is_caught
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and this one copies files and runs cargo"
)]

#[path = "../../../log/tests/mutants/harness/mod.rs"]
mod harness;
mod producing;
mod transactions;

use harness::{Catcher, Suite};

static SUITE: Suite = Suite {
    package: "logmill-broker",
    dir: "crates/broker",
    features: &[],
    crates: &["crates/record", "crates/log", "crates/proto", "crates/broker"],
    besides: &["docs", "proto", "tests/src/history"],
    mutants: &[producing::MUTANTS, transactions::MUTANTS],
};

/// The simulation, with fewer seeds than the default suite has.
pub(crate) const SIMULATION: Catcher = Catcher {
    setting: Some(("LOGMILL_SIMULATION_SEEDS", "1000")),
    ..Catcher::new(
        "simulation",
        "nothing_acknowledged_is_lost_doubled_or_reordered_and_nothing_read_vanishes",
    )
};

#[test]
fn every_mutant_applies_and_its_test_is_there() {
    SUITE.check();
}

#[test]
#[ignore = "five minutes; run it by name"]
fn every_mutant_is_caught() {
    SUITE.catch_all();
}
