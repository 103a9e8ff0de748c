//! Mistakes that somebody could make, and the test that must notice each.
//!
//! A test of durability that nothing fails is worth nothing. Each [`Mutant`] is one edit that takes
//! a guarantee away, and names the test that has to fail then. Here it is only checked that every
//! edit still applies and every test is still there; by name, each is built and run:
//!
//! ```sh
//! cargo test -p logmill-log --features sim --test mutants -- --ignored --nocapture every_mutant_is_caught
//! ```
//!
//! It prints how long each test took to notice, and fails if one does not. `LOGMILL_MUTANT=name`
//! takes one mutant alone, `LOGMILL_MUTANT=group-` those whose names begin so. A mutant that
//! survives is a hole in the tests: make them stronger, do not take the mutant out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and this one copies files and runs cargo"
)]

mod appending;
mod damaging;
mod knowing;
mod merging;
mod opening;
mod removing;
mod telling;
mod workspace;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use logmill_log::env::{Clock as _, SystemClock};
use workspace::{Outcome, Workspace};

/// One mistake.
#[derive(Debug)]
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    /// What it takes away.
    pub(crate) breaks: &'static str,
    /// Below `crates`.
    pub(crate) file: &'static str,
    /// Text that the file holds exactly once, and what stands there instead.
    pub(crate) find: &'static str,
    pub(crate) replace: &'static str,
    pub(crate) caught_by: Catcher,
}

/// A test of the log that must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Catcher {
    /// The test program: a file or a folder of `crates/log/tests`.
    pub(crate) program: &'static str,
    pub(crate) test: &'static str,
    /// Bounds how many seeds it runs, if it runs many.
    pub(crate) setting: Option<(&'static str, &'static str)>,
}

impl Catcher {
    pub(crate) const fn new(program: &'static str, test: &'static str) -> Self {
        Self { program, test, setting: None }
    }
}

/// The simulation, with fewer seeds than the default suite has.
pub(crate) const CRASH: Catcher = Catcher {
    setting: Some(("LOGMILL_CRASH_SEEDS", "3000")),
    ..Catcher::new("crash", "nothing_acknowledged_or_seen_is_lost_by_power_cuts_kills_and_faults")
};

fn mutants() -> impl Iterator<Item = &'static Mutant> {
    let groups = [
        appending::MUTANTS,
        opening::MUTANTS,
        damaging::MUTANTS,
        removing::MUTANTS,
        merging::MUTANTS,
        knowing::MUTANTS,
        telling::MUTANTS,
    ];
    groups.into_iter().flatten()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/log lies in a workspace").into()
}

#[test]
fn every_mutant_applies_and_its_test_is_there() {
    let mut names = BTreeSet::new();
    for mutant in mutants() {
        assert!(names.insert(mutant.name), "two mutants are called {}", mutant.name);
        let file = root().join("crates").join(mutant.file);
        let source = std::fs::read_to_string(&file).unwrap();
        let found = source.matches(mutant.find).count();
        assert_eq!(
            found, 1,
            "{}: its text is in {} so often; write it anew, it makes this mistake: {}",
            mutant.name, mutant.file, mutant.breaks
        );
        assert_ne!(mutant.find, mutant.replace);
        let Catcher { program, test, .. } = mutant.caught_by;
        let name = test.rsplit("::").next().unwrap_or(test);
        let sources = sources(program);
        assert!(
            sources.iter().any(|source| source.contains(&format!("#[test]\nfn {name}()"))),
            "{}: there is no test {name} in {program}",
            mutant.name
        );
    }
}

/// The sources of a test program.
fn sources(program: &str) -> Vec<String> {
    let tests = root().join("crates/log/tests");
    match std::fs::read_dir(tests.join(program)) {
        Ok(entries) => entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect(),
        Err(_) => vec![std::fs::read_to_string(tests.join(format!("{program}.rs"))).unwrap()],
    }
}

#[test]
#[ignore = "a quarter of an hour; run it by name"]
fn every_mutant_is_caught() {
    let only = std::env::var("LOGMILL_MUTANT").unwrap_or_default();
    let chosen: Vec<_> = mutants()
        .filter(|mutant| {
            mutant.name == only || only.is_empty() || (only.ends_with('-') && mutant.name.starts_with(&only))
        })
        .collect();
    assert!(!chosen.is_empty(), "no mutant is called {only}");
    let clock = SystemClock::new();
    let workspace = Workspace::copy(&root());
    let catchers: BTreeSet<Catcher> = chosen.iter().map(|mutant| mutant.caught_by).collect();
    for catcher in catchers {
        let outcome = workspace.run(catcher);
        assert_eq!(outcome, Outcome::Passed, "{}::{} without any mutant", catcher.program, catcher.test);
    }
    println!("not mutated, all of their tests pass ({:.0} s)", clock.monotonic().as_secs_f64());
    let mut wrong = Vec::new();
    for mutant in &chosen {
        let begun = clock.monotonic();
        let _restored = workspace.mutate(mutant);
        let outcome = workspace.run(mutant.caught_by);
        let seconds = clock.monotonic().saturating_sub(begun).as_secs_f64();
        let Catcher { program, test, .. } = mutant.caught_by;
        println!("{:<40} {outcome:<10} {program}::{test} {seconds:>6.1} s", mutant.name);
        if !matches!(outcome, Outcome::Failed | Outcome::Hung) {
            wrong.push(format!("{}, {outcome}: {}", mutant.name, mutant.breaks));
        }
    }
    assert!(wrong.is_empty(), "not caught:\n{}", wrong.join("\n"));
    println!("mutants {}, caught {}, survived 0", chosen.len(), chosen.len());
}

/// No test takes nearly as long; a mutant for which one does is caught.
pub(crate) const LIMIT: Duration = Duration::from_mins(3);
