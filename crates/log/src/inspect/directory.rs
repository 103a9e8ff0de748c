//! Taking a data directory for a look: is it one, has somebody else got it, and what is in it.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::{Entry, Fs, Lock, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic::TEMPORARY;
use crate::format::meta::FILE as META;
use crate::segment::base_of;
use crate::set::{CHECKPOINT, LOCK, LOST_AND_FOUND, RESERVE, SET, take_lock};

/// Logs lie no deeper below the data directory than this.
const MOST_LEVELS: usize = 16;
/// So many links are followed on the way to a log: they can lead in circles.
const MOST_LINKS: usize = 2;
/// So many levels above a log's directory its data directory is looked for, for the advice.
const LEVELS_ABOVE: usize = 4;

/// A data directory that nobody else has open.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) found: Found,
    _lock: Option<Box<dyn Lock>>,
}

impl Directory {
    /// Takes the lock and finds the logs. Changes nothing: a directory without a lock file is in
    /// nobody's hands, and none is made in it.
    pub(super) fn open(fs: &dyn Fs, path: &Path) -> Result<Self, Error> {
        let entries = fs.list(path).map_err(|error| cannot_list(fs, path, error))?;
        let holds = |name: &str| entries.iter().any(|entry| entry.name == name);
        let lock = if holds(LOCK) { Some(take_lock(fs, path)?) } else { None };
        let found = logs_in(fs, path)?;
        if !holds(SET) {
            refuse_foreign(fs, path, &found.logs)?;
        }
        Ok(Self { path: path.to_owned(), found, _lock: lock })
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

/// What lies in a data directory, each by its path below it, in order.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The directories of logs.
    pub(crate) logs: Vec<PathBuf>,
    /// Files outside of those that are none of the set's own.
    pub(crate) strays: Vec<PathBuf>,
}

/// Looks for logs below `root`, behind links too, as an open of a log goes.
pub(crate) fn logs_in(fs: &dyn Fs, root: &Path) -> Result<Found, Error> {
    let mut search = Search { fs, root, found: Found::default() };
    search.look(Path::new(""), MOST_LEVELS, MOST_LINKS)?;
    Ok(search.found)
}

struct Search<'a> {
    fs: &'a dyn Fs,
    root: &'a Path,
    found: Found,
}

impl Search<'_> {
    fn look(&mut self, below: &Path, levels: usize, links: usize) -> Result<(), Error> {
        let dir = self.root.join(below);
        let entries = self.fs.list(&dir).map_err(|error| Error::io("list", &dir, error))?;
        let (is_root, is_log) = (below.as_os_str().is_empty(), is_log(&entries));
        if is_log {
            self.found.logs.push(below.to_owned());
        }
        for entry in entries {
            let (path, name) = (below.join(&entry.name), entry.name.as_str());
            if is_root && (is_own(name) || name == LOST_AND_FOUND) {
                continue;
            }
            let is_link = !entry.is_dir && links > 0 && self.is_linked_dir(&path, name);
            if entry.is_dir || is_link {
                if levels > 0 {
                    self.look(&path, levels - 1, links - usize::from(is_link))?;
                }
            } else if !is_log {
                self.found.strays.push(path);
            }
        }
        Ok(())
    }

    /// Whether this is a link to a directory, which is not a data directory of its own: that one has
    /// another lock, or the link leads back to where the search began.
    fn is_linked_dir(&self, path: &Path, name: &str) -> bool {
        // Nearly every file of a data directory has one of these names, and is not worth the call.
        if name == META || name.ends_with(TEMPORARY) || is_of_segment(name) {
            return false;
        }
        let entries = self.fs.list(&self.root.join(path));
        entries.is_ok_and(|entries| entries.iter().all(|entry| entry.name != SET))
    }
}

/// Whether it is one of the set's own files.
fn is_own(name: &str) -> bool {
    [SET, LOCK, CHECKPOINT, RESERVE].contains(&name)
}

/// Whether the name is that of a segment's file, whatever its ending.
fn is_of_segment(name: &str) -> bool {
    let base = name.split_once('.').map(|(base, _)| base);
    base.is_some_and(|base| base.len() == 20 && base.bytes().all(|byte| byte.is_ascii_digit()))
}
