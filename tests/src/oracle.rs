//! The quickstart's table, computed by a program that shares nothing with Logmill.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::finish;

/// The feed that the program embeds, as a file.
#[must_use]
pub fn embedded_feed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/cli/data/earthquakes.json")
}

/// Compares the table in `sqlite` with what `oracle/quakes_per_day.py` computes from `feed`:
/// counts and maxima exactly, means within 1e-9. Returns the script's summary, such as
/// "78 rows, 1679 events: equal", or `None` where there is no Python to ask.
///
/// # Panics
/// If they differ.
#[expect(clippy::must_use_candidate, reason = "it asserts by itself")]
pub fn check_table(feed: &Path, sqlite: &Path) -> Option<String> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!(
            "SKIPPED: python3 is not installed, so {} was not compared with the oracle",
            sqlite.display()
        );
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("oracle/quakes_per_day.py");
    let mut command = Command::new("python3");
    command.arg("-B").arg(script).arg(feed).arg("--check").arg(sqlite);
    let outcome = finish(command, b"");
    assert_eq!(outcome.code, 0, "the table differs from the oracle's: {}{}", outcome.stderr, outcome.stdout);
    Some(outcome.stdout.trim().to_owned())
}
