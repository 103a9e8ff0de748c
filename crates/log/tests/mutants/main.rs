//! Mistakes that somebody could make in the log, and the test that must notice each.
//!
//! What a mutant is, and how it is run, is said in [`harness`]. By name, each is built and run:
//!
//! ```sh
//! cargo test -p logmill-log --features sim --test mutants -- --ignored --nocapture every_mutant_is_caught
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and this one copies files and runs cargo"
)]

mod appending;
mod damaging;
mod harness;
mod knowing;
mod merging;
mod opening;
mod removing;
mod telling;

use harness::{Catcher, Mutant, Suite};

static SUITE: Suite = Suite {
    package: "logmill-log",
    dir: "crates/log",
    features: &["--features", "sim"],
    crates: &["crates/record", "crates/log"],
    besides: &[],
    mutants: &[
        appending::MUTANTS,
        opening::MUTANTS,
        damaging::MUTANTS,
        removing::MUTANTS,
        merging::MUTANTS,
        knowing::MUTANTS,
        telling::MUTANTS,
    ],
};

/// The simulation, with fewer seeds than the default suite has.
pub(crate) const CRASH: Catcher = Catcher {
    setting: Some(("LOGMILL_CRASH_SEEDS", "3000")),
    ..Catcher::new("crash", "nothing_acknowledged_or_seen_is_lost_by_power_cuts_kills_and_faults")
};

#[test]
fn every_mutant_applies_and_its_test_is_there() {
    SUITE.check();
}

#[test]
#[ignore = "a quarter of an hour; run it by name"]
fn every_mutant_is_caught() {
    SUITE.catch_all();
}
