//! Whether a data directory is a node's, and whole enough to be opened: said before anything in it is changed.
//!
//! A directory that has lost what it held looks like a new one, and a node that started in it would be empty
//! without a word.

use std::io;
use std::path::Path;

use logmill_log::env::{Env, Fs};
use logmill_log::inspect::{FindingKind, Report, Severity, list, verify};

use super::directories::{INTERNAL, LOG_META, TOPICS, holds_topic};
use super::metadata::METADATA;
use crate::error::OpenError;

/// The files of a data directory that say what it is, and how far its logs are known to be on disk.
const SET: &str = "set";
pub(super) const CHECKPOINT: &str = "checkpoint";

/// Refuses a directory in which a node would find nothing of what it has, or somebody else's.
pub(crate) fn check(env: &Env, dir: &Path) -> Result<(), OpenError> {
    let fs = &*env.fs;
    let entries = match fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(OpenError::no_directory(dir));
        }
        // There is none, or it is not ours to read: opening it makes one, or says so.
        Err(_) => return Ok(()),
    };
    let holds = |name: &str| entries.iter().any(|entry| entry.name == name);
    // An embedding program writes there: topics beside its segments would be found by nobody.
    if holds(LOG_META) {
        return Err(OpenError::single_log(dir));
    }
    for name in [INTERNAL, TOPICS] {
        refuse_file(fs, &dir.join(name))?;
    }
    let is_nodes = fs.list(&dir.join(METADATA)).is_ok_and(|files| !files.is_empty())
        || holds_topic(fs, &dir.join(TOPICS))?;
    match (holds(SET), holds(CHECKPOINT)) {
        (false, has_checkpoint) if is_nodes => Err(OpenError::set_missing(dir, has_checkpoint)),
        (true, true) if !is_nodes => refuse_emptied(env, dir),
        _ => Ok(()),
    }
}

/// Refuses a file where the node has a directory.
fn refuse_file(fs: &dyn Fs, path: &Path) -> Result<(), OpenError> {
    match fs.list(path) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(OpenError::file_in_place(path)),
        // Whoever needs it says what is the matter.
        _ => Ok(()),
    }
}

/// Refuses a directory without logs whose checkpoint speaks of some.
fn refuse_emptied(env: &Env, dir: &Path) -> Result<(), OpenError> {
    if !list(env, dir).map_err(OpenError::from_log)?.logs.is_empty() {
        return Ok(());
    }
    let report = verify(env, dir, &mut |_| ()).map_err(OpenError::from_log)?;
    match lost_logs(&report) {
        0 => Ok(()),
        lost => Err(OpenError::emptied(dir, lost)),
    }
}

/// Of how many logs the checkpoint speaks that are not there. The directory has a checkpoint: that it has none
/// is a note of the same kind.
pub(super) fn lost_logs(report: &Report) -> usize {
    let is_lost = |kind, severity| kind == FindingKind::Checkpoint && severity == Severity::Note;
    report.findings.iter().filter(|found| is_lost(found.kind, found.severity)).count()
}
