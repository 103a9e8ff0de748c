//! A copy of what a crate is built from, in which one file at a time is changed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use logmill_log::env::{Clock as _, SystemClock};

use super::{Catcher, LIMIT, Mutant, Suite};

/// The copy. It is kept for the next time, with what was compiled for it.
pub(crate) struct Workspace {
    dir: PathBuf,
    suite: &'static Suite,
}

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// It ran for too long.
    Hung,
    DoesNotBuild,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passed => "SURVIVES",
            Self::Failed => "caught",
            Self::Hung => "hangs",
            Self::DoesNotBuild => "NOT BUILT",
        })
    }
}

impl Workspace {
    /// Copies what the suite needs of the workspace at `root`, and makes a workspace of it.
    pub(crate) fn copy(root: &Path, suite: &'static Suite) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants").join(suite.package);
        for part in suite.crates.iter().chain(suite.besides) {
            let _none_yet = fs::remove_dir_all(dir.join(part));
            copy_all(&root.join(part), &dir.join(part));
        }
        let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
        fs::write(dir.join("Cargo.toml"), with_members(&manifest, suite.crates)).unwrap();
        fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
        Self { dir, suite }
    }

    /// Changes one file, until what is returned is dropped.
    pub(crate) fn mutate(&self, mutant: &Mutant) -> Restored {
        let path = self.dir.join("crates").join(mutant.file);
        let source = fs::read_to_string(&path).unwrap();
        assert_eq!(
            source.matches(mutant.find).count(),
            1,
            "{} applies; is another run at it too?",
            mutant.name
        );
        fs::write(&path, source.replace(mutant.find, mutant.replace)).unwrap();
        Restored { path, source }
    }

    /// Builds a test and runs it.
    pub(crate) fn run(&self, catcher: Catcher) -> Outcome {
        let Some(program) = self.build(catcher.program) else { return Outcome::DoesNotBuild };
        let mut command = Command::new(program);
        command.args(["--exact", catcher.test]).current_dir(self.dir.join(self.suite.dir));
        command.stdout(Stdio::null()).stderr(Stdio::null()).env("RUST_BACKTRACE", "0");
        if let Some((name, value)) = catcher.setting {
            command.env(name, value);
        }
        let mut test = command.spawn().unwrap();
        let clock = SystemClock::new();
        while clock.monotonic() < LIMIT {
            if let Some(status) = test.try_wait().unwrap() {
                return if status.success() { Outcome::Passed } else { Outcome::Failed };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        test.kill().unwrap();
        test.wait().unwrap();
        Outcome::Hung
    }

    /// The test program's file, if it can be built.
    fn build(&self, program: &str) -> Option<PathBuf> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["test", "--no-run", "--offline", "--quiet", "--package", self.suite.package]);
        command.args(self.suite.features).args(["--test", program, "--message-format", "json"]);
        command.current_dir(&self.dir).env("CARGO_TARGET_DIR", self.dir.join("target"));
        let built = command.stderr(Stdio::inherit()).output().unwrap();
        let messages = String::from_utf8(built.stdout).unwrap();
        let (_, rest) = messages.rsplit_once("\"executable\":\"").filter(|_| built.status.success())?;
        rest.split_once('"').map(|(path, _)| path.into())
    }
}

/// A file that becomes again what it was.
pub(crate) struct Restored {
    path: PathBuf,
    source: String,
}

impl Drop for Restored {
    fn drop(&mut self) {
        fs::write(&self.path, &self.source).unwrap();
    }
}

/// The manifest of a workspace that has these members and no others.
fn with_members(manifest: &str, crates: &[&str]) -> String {
    let (before, rest) = manifest.split_once("members = [").unwrap();
    let (_, after) = rest.split_once("[workspace.package]").unwrap();
    format!("{before}members = {crates:?}\n\n[workspace.package]{after}")
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy_all(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}
