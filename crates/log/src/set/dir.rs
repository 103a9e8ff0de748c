//! Opening a data directory: is it one, may we have it, and what does it say.

use std::io;
use std::path::{Component, Path, PathBuf};

use logmill_record::Offset;

use crate::env::{Env, Fs, Lock, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::meta::FILE as META;
use crate::format::set_file::SetFile;
use crate::format::{atomic, atomic::TEMPORARY};

use crate::segment::base_of;

use super::checkpointer::FILE as CHECKPOINT;
use super::remake;
use super::space::RESERVE;

/// The file that says what the directory is.
pub(crate) const SET: &str = "set";
/// The file whose lock is the directory's.
pub(crate) const LOCK: &str = "lock";

/// The directory that a file system may keep at its root for itself.
pub(crate) const LOST_AND_FOUND: &str = "lost+found";

/// The path of a log below the data directory `dir` as the set knows it. One log has one path: two
/// ways to write it would be two writers, and outside the directory nobody holds the lock.
pub(super) fn log_path(dir: &Path, path: &Path) -> Result<PathBuf, Error> {
    let refuse = |why: String| {
        let message = format!("there can be no log at {}: {why}", path.display());
        Error::new(ErrorKind::Invalid, message).at_path(path)
    };
    let mut below = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => match name.to_str() {
                Some(SET | LOCK | CHECKPOINT | RESERVE | META) => {
                    let why = format!("the set has files named {name:?} itself; choose another name");
                    return Err(refuse(why));
                }
                Some(name) if is_done_with(name) => {
                    let why =
                        "directories of such names are being removed, or were replaced; choose another name";
                    return Err(refuse(why.to_owned()));
                }
                Some(name) => below.push(name),
                None => return Err(refuse("its name is not UTF-8; choose another".to_owned())),
            },
            _ => {
                let why = format!("its path has to lead from the data directory {} down", dir.display());
                return Err(refuse(why));
            }
        }
    }
    Ok(below)
}

/// Whether a directory of this name is being removed by its owner, or was replaced by another one. There is no log
/// of the set in it.
pub(crate) fn is_done_with(name: &str) -> bool {
    name.ends_with(".deleted") || name.contains(".replaced-")
}

/// The directory of the log at `below`, without a slash at its end.
pub(super) fn log_dir(dir: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { dir.to_owned() } else { dir.join(below) }
}

/// A single log is not put into a directory of many, where nobody would look for it.
pub(super) fn refuse_many(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    // No directory, or not ours to read: opening it makes one, or says so.
    let Ok(entries) = fs.list(dir) else { return Ok(()) };
    let holds = |name: &str| entries.iter().any(|entry| entry.name == name);
    let other = entries.iter().find(|entry| entry.is_dir && entry.name != LOST_AND_FOUND);
    match other {
        Some(other) if holds(SET) && !holds(META) => {
            let message = format!(
                "{} is a data directory of many logs: it holds the directory {:?}; open it with LogSet::open, or \
                 choose another directory",
                dir.display(),
                other.name
            );
            Err(Error::new(ErrorKind::Invalid, message).at_path(dir))
        }
        _ => Ok(()),
    }
}

/// Refuses a log without `meta` that holds segments: a new `meta` would be another log's, which
/// does not know where this one starts, where compaction has been, and up to where it was promised.
/// What a creation that was cut off leaves is an empty first segment.
pub(super) fn refuse_orphans(fs: &dyn Fs, log_dir: &Path) -> Result<(), Error> {
    let entries = match fs.list(log_dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(Error::io("list", log_dir, error)),
    };
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let Some(base) = base_of(&entry.name) else { continue };
        let data = log_dir.join(&entry.name);
        let status = fs.open(&data, OpenMode::Read).and_then(|file| file.status());
        if base > Offset::ZERO || status.map_err(|error| Error::io("look at", &data, error))?.len > 0 {
            let meta = log_dir.join(META);
            let message = format!(
                "{} is missing, and {} is there: restore it from a backup, or run `logmill log repair`, which \
                 makes a new one; what the log's owner kept in it may then be lost",
                meta.display(),
                data.display(),
            );
            return Err(Error::new(ErrorKind::Corrupt, message).at_path(&meta));
        }
    }
    Ok(())
}

/// Creates `dir` and its missing parents, each synced into the one above.
pub(super) fn create_all(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    match fs.create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.parent().is_some() => {
            create_all(fs, dir.parent().unwrap_or(dir))?;
            fs.create_dir(dir).map_err(|error| Error::io("create the directory", dir, error))?;
        }
        Err(error) => return Err(Error::io("create the directory", dir, error)),
    }
    settle_name(fs, dir)
}

/// Makes the data directory's own name last: who made it may have ended before its sync.
pub(super) fn settle_name(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    match dir.parent() {
        Some(parent) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            fs.sync_dir(parent).map_err(|error| Error::io("sync", parent, error))
        }
        None => Ok(()),
    }
}

/// Refuses a directory that is somebody else's before anything is written into it.
pub(super) fn refuse_foreign(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    match fs.list(dir) {
        Ok(entries) if entries.iter().any(|entry| entry.name == SET) => Ok(()),
        Ok(_) => check_empty(fs, dir),
        // Not a directory, or not ours to read: taking the lock says so.
        Err(_) => Ok(()),
    }
}

/// Whether a temporary file is one that the set may be writing just now. In a set of one log they lie
/// among the log's; who writes them removes what a crash left.
pub(crate) fn is_on_its_way(name: &str) -> bool {
    matches!(name.strip_suffix(TEMPORARY), Some(SET | CHECKPOINT | RESERVE))
}

/// Takes the directory's lock.
pub(crate) fn lock(fs: &dyn Fs, dir: &Path) -> Result<Box<dyn Lock>, Error> {
    fs.lock(&dir.join(LOCK)).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            let message = format!(
                "the data directory {} is in use by another process; stop that one, or choose another directory",
                dir.display()
            );
            Error::new(ErrorKind::Locked, message).at_path(dir)
        }
        io::ErrorKind::NotADirectory => {
            let message = format!("{} is not a directory; choose another path for the data", dir.display());
            Error::new(ErrorKind::Invalid, message).at_path(dir).because(error)
        }
        _ => Error::io("lock", &dir.join(LOCK), error),
    })
}

/// Reads `set` and moves its counter on, or makes a new one in a directory that holds nothing
/// else. Also says whether the directory was closed cleanly.
pub(super) fn open_set_file(env: &Env, dir: &Path) -> Result<(SetFile, bool), Error> {
    let path = dir.join(SET);
    let (file, was_clean) = match atomic::read(&*env.fs, &path)? {
        Some(bytes) => {
            let found = SetFile::decode(&path, &bytes)?;
            let open_counter = next_epoch(&path, found.open_counter)?;
            if found.clean {
                remake::if_lost(&*env.fs, dir)?;
            }
            (SetFile { id: found.id, open_counter, clean: false }, found.clean)
        }
        None => {
            check_empty(&*env.fs, dir)?;
            (SetFile { id: env.new_uuid(), open_counter: 1, clean: false }, false)
        }
    };
    atomic::replace(&*env.fs, &path, &file.encode())?;
    Ok((file, was_clean))
}

/// The epoch after `epoch`: a positive 32-bit number, as it is stamped into batches.
pub(super) fn next_epoch(path: &Path, epoch: u32) -> Result<u32, Error> {
    if epoch >= i32::MAX.unsigned_abs() {
        let message =
            format!("{} has used up its epochs; copy the records to a new directory", path.display());
        return Err(Error::new(ErrorKind::Invalid, message).at_path(path));
    }
    Ok(epoch + 1)
}

/// A directory without `set` must not be somebody's photographs.
fn check_empty(fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
    let entries = fs.list(dir).map_err(|error| Error::io("list", dir, error))?;
    if entries.iter().any(|entry| entry.name == CHECKPOINT) {
        let message = format!(
            "{} has lost its file {SET:?}, and holds a {CHECKPOINT}; run `logmill log repair` on it, which makes {SET:?} \
             again",
            dir.display()
        );
        return Err(Error::new(ErrorKind::Corrupt, message).at_path(&dir.join(SET)));
    }
    let ours = |name: &str| name == LOCK || name == LOST_AND_FOUND || name.ends_with(TEMPORARY);
    match entries.iter().find(|entry| !ours(&entry.name)) {
        None => Ok(()),
        Some(entry) => {
            let message = format!(
                "{} is not a data directory: it holds {:?} but no file named {SET:?}; choose an empty or a new \
                 directory",
                dir.display(),
                entry.name
            );
            Err(Error::new(ErrorKind::Invalid, message).at_path(dir))
        }
    }
}

/// Reads the checkpoint; none is an empty one. No log was closed cleanly if the directory was not,
/// also none that will not be opened before the next clean close: a kill may have left names of
/// its files that are not on disk, or the end of a write.
pub(super) fn read_checkpoint(fs: &dyn Fs, dir: &Path, was_clean: bool) -> Result<Checkpoint, Error> {
    let path = dir.join(CHECKPOINT);
    let mut rows = match atomic::read(fs, &path)? {
        Some(bytes) => checkpoint::decode(&path, &bytes)?,
        None => Checkpoint::new(),
    };
    rows.values_mut().for_each(|row| row.clean &= was_clean);
    Ok(rows)
}
