//! The directory's own small files, `set` and `checkpoint`.

use std::path::Path;

use super::super::finding::{Finding, FindingKind, Severity};
use super::{damage, of_frame};
use crate::env::Fs;
use crate::error::Error;
use crate::format::atomic;
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::set_file::SetFile;
use crate::set::{CHECKPOINT, SET};

/// What is known of a directory as a whole while its logs are looked at.
#[derive(Debug)]
pub(in crate::inspect) struct Frame {
    pub(in crate::inspect) set: Option<SetFile>,
    /// `None` if there should be one and it cannot be read.
    pub(in crate::inspect) checkpoint: Option<Checkpoint>,
}

impl Frame {
    /// Reads them, and reports what is missing or damaged.
    pub(super) fn read(fs: &dyn Fs, dir: &Path, findings: &mut Vec<Finding>) -> Result<Self, Error> {
        let set = read_set(fs, dir, findings)?;
        let checkpoint = read_checkpoint(fs, dir, set, findings)?;
        Ok(Self { set, checkpoint })
    }

    pub(super) fn clean(&self) -> bool {
        self.set.is_some_and(|set| set.clean)
    }
}

fn read_set(fs: &dyn Fs, dir: &Path, findings: &mut Vec<Finding>) -> Result<Option<SetFile>, Error> {
    let path = dir.join(SET);
    let read = atomic::read(fs, &path);
    let read = read.and_then(|bytes| bytes.map(|bytes| SetFile::decode(&path, &bytes)).transpose());
    let what = match read {
        Ok(Some(set)) => return Ok(Some(set)),
        Ok(None) => "the file that says what the directory is is missing".to_owned(),
        Err(error) => damage(error)?,
    };
    let advice = "it can be made again, under a new identity";
    findings.push(of_frame(Severity::Sidecar, FindingKind::SetFile, path, what, advice));
    Ok(None)
}

fn read_checkpoint(
    fs: &dyn Fs,
    dir: &Path,
    set: Option<SetFile>,
    findings: &mut Vec<Finding>,
) -> Result<Option<Checkpoint>, Error> {
    let path = dir.join(CHECKPOINT);
    let read = atomic::read(fs, &path);
    let read = read.and_then(|bytes| bytes.map(|bytes| checkpoint::decode(&path, &bytes)).transpose());
    let kind = FindingKind::Checkpoint;
    let (what, advice) = match (read, set) {
        (Ok(Some(checkpoint)), _) => return Ok(Some(checkpoint)),
        (Ok(None), Some(set)) if !set.clean => {
            let what = "it is not there: the directory was not open for long enough to write it";
            let advice = "the next open reads the newest segment of each log whole";
            findings.push(of_frame(Severity::Note, kind, path, what.into(), advice));
            return Ok(Some(Checkpoint::new()));
        }
        (Ok(None), Some(_)) => (
            "it is missing, though the directory was closed cleanly".to_owned(),
            "the next open makes it again from the logs, all of whose bytes count as acknowledged",
        ),
        (Ok(None), None) => (
            "it is missing".to_owned(),
            "a repair makes it again from the logs, all of whose bytes count as acknowledged",
        ),
        (Err(error), _) => (damage(error)?, "it can be made again; until then the directory does not open"),
    };
    findings.push(of_frame(Severity::Sidecar, kind, path, what, advice));
    Ok(None)
}
