//! Mistakes in a copy of the sources, and the tests that must notice them.
//!
//! A test of durability that nothing fails is worth nothing. Each [`Mutant`] is one edit that takes
//! a guarantee away, and names the test that has to fail then. In the default suite it is only
//! checked that every edit still applies and every test is still there. By name each is built and
//! run: it prints how long each test took to notice, and fails if one does not.
//! `LOGMILL_MUTANT=name` takes one mutant alone, `LOGMILL_MUTANT=group-` those whose names begin
//! so. A mutant that survives is a hole in the tests: make them stronger, do not take the mutant
//! out.

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

/// A test that must fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Catcher {
    /// The test program: a file or a folder of the package's `tests`.
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

/// The mutants of one package's tests.
pub(crate) struct Suite {
    /// Of which package the tests are, and where it lies.
    pub(crate) package: &'static str,
    pub(crate) dir: &'static str,
    /// What its tests are built with.
    pub(crate) features: &'static [&'static str],
    /// The packages that it is built from.
    pub(crate) crates: &'static [&'static str],
    /// Other folders that it is built from.
    pub(crate) besides: &'static [&'static str],
    pub(crate) mutants: &'static [&'static [Mutant]],
}

/// No test takes nearly as long; a mutant for which one does is caught.
const LIMIT: Duration = Duration::from_mins(3);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("a package lies in a workspace").into()
}

impl Suite {
    fn mutants(&self) -> impl Iterator<Item = &'static Mutant> {
        self.mutants.iter().copied().flatten()
    }

    /// Every edit applies, and every test is there.
    pub(crate) fn check(&self) {
        let mut names = BTreeSet::new();
        for mutant in self.mutants() {
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
            let sources = self.sources(program);
            assert!(
                sources.iter().any(|source| source.contains(&format!("#[test]\nfn {name}()"))),
                "{}: there is no test {name} in {program}",
                mutant.name
            );
        }
    }

    /// The sources of a test program.
    fn sources(&self, program: &str) -> Vec<String> {
        let tests = root().join(self.dir).join("tests");
        let Ok(entries) = std::fs::read_dir(tests.join(program)) else {
            return vec![std::fs::read_to_string(tests.join(format!("{program}.rs"))).unwrap()];
        };
        let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }

    /// Makes each mistake in turn, and runs its test.
    pub(crate) fn catch_all(&'static self) {
        let only = std::env::var("LOGMILL_MUTANT").unwrap_or_default();
        let is_chosen = |mutant: &&Mutant| {
            mutant.name == only || only.is_empty() || (only.ends_with('-') && mutant.name.starts_with(&only))
        };
        let chosen: Vec<_> = self.mutants().filter(is_chosen).collect();
        assert!(!chosen.is_empty(), "no mutant is called {only}");
        let clock = SystemClock::new();
        let workspace = Workspace::copy(&root(), self);
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
}
