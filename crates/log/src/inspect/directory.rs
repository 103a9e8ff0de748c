//! Taking a data directory for a look: is it one, has somebody else got it, and which logs are in it.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::{Entry, Fs, Lock, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::meta::FILE as META;
use crate::segment::base_of;
use crate::set::{CHECKPOINT, LOCK, RESERVE, SET, take_lock};

/// Logs lie no deeper below the data directory than this.
const MOST_LEVELS: usize = 16;
/// So many levels above a log's directory its data directory is looked for, for the advice.
const LEVELS_ABOVE: usize = 4;

/// A data directory that nobody else has open.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// The logs' paths below it, in order.
    pub(super) logs: Vec<PathBuf>,
    _lock: Option<Box<dyn Lock>>,
}

impl Directory {
    /// Takes the lock and finds the logs. Changes nothing: a directory without a lock file is in
    /// nobody's hands, and none is made in it.
    pub(super) fn open(fs: &dyn Fs, path: &Path) -> Result<Self, Error> {
        let entries = fs.list(path).map_err(|error| cannot_list(fs, path, error))?;
        let holds = |name: &str| entries.iter().any(|entry| entry.name == name);
        let lock = if holds(LOCK) { Some(take_lock(fs, path)?) } else { None };
        let logs = logs_in(fs, path)?;
        if !holds(SET) {
            refuse_foreign(fs, path, &logs)?;
        }
        Ok(Self { path: path.to_owned(), logs, _lock: lock })
    }
}

fn cannot_list(fs: &dyn Fs, path: &Path, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotADirectory || fs.open(path, OpenMode::Read).is_ok() {
        let message =
            format!("{} is not a directory; give the data directory that holds the logs", path.display());
        return Error::new(ErrorKind::Invalid, message).at_path(path).because(error);
    }
    Error::io("list", path, error)
}

/// A directory without `set` is a damaged data directory, a part of one, or somebody's photographs.
fn refuse_foreign(fs: &dyn Fs, path: &Path, logs: &[PathBuf]) -> Result<(), Error> {
    let above = path.ancestors().skip(1).take(LEVELS_ABOVE);
    let holds_set = |dir: &&Path| fs.open(&dir.join(SET), OpenMode::Read).is_ok();
    let data_dir = above.filter(|dir| !dir.as_os_str().is_empty()).find(holds_set);
    let message = match data_dir {
        Some(data_dir) => format!(
            "{} is a part of the data directory {}; give that one",
            path.display(),
            data_dir.display()
        ),
        None if logs.is_empty() => format!(
            "{} is not a data directory: it holds neither a file named {SET:?} nor a log; check the path",
            path.display()
        ),
        None => return Ok(()),
    };
    Err(Error::new(ErrorKind::Invalid, message).at_path(path))
}

/// Whether a directory with these entries is a log's.
fn is_log(entries: &[Entry]) -> bool {
    entries.iter().any(|entry| !entry.is_dir && (entry.name == META || base_of(&entry.name).is_some()))
}

/// The paths of the logs below `root`, in order.
pub(crate) fn logs_in(fs: &dyn Fs, root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut logs = Vec::new();
    find_logs(fs, root, Path::new(""), MOST_LEVELS, &mut logs)?;
    Ok(logs)
}

fn find_logs(
    fs: &dyn Fs,
    root: &Path,
    below: &Path,
    levels: usize,
    logs: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    let dir = root.join(below);
    let entries = fs.list(&dir).map_err(|error| Error::io("list", &dir, error))?;
    if is_log(&entries) {
        logs.push(below.to_owned());
    }
    for entry in entries {
        let path = below.join(&entry.name);
        if entry.is_dir {
            if levels > 0 {
                find_logs(fs, root, &path, levels - 1, logs)?;
            }
        } else if is_linked_log(fs, &root.join(&path), &entry.name) {
            logs.push(path);
        }
    }
    Ok(())
}

/// A link to a log's directory is followed, one level deep: links can lead in circles.
fn is_linked_log(fs: &dyn Fs, path: &Path, name: &str) -> bool {
    // Every other file of a data directory has one of these names, and is not worth the call.
    if [SET, META, LOCK, CHECKPOINT, RESERVE].contains(&name) || name.contains('.') {
        return false;
    }
    fs.list(path).is_ok_and(|entries| is_log(&entries))
}
