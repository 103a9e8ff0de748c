//! Taking a data directory for a look: is it one, has somebody else got it, and what is in it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use crate::env::{Entry, Fs, Lock, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic::TEMPORARY;
use crate::format::meta::FILE as META;
use crate::segment::base_of;
use crate::set::{CHECKPOINT, LOCK, LOST_AND_FOUND, RESERVE, SET, is_done_with, take_lock};

/// Logs lie no deeper below the data directory than this.
const MOST_LEVELS: usize = 16;
/// So many links are followed on the way to a log.
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
            refuse_foreign(fs, path, &found)?;
        }
        Ok(Self { path: path.to_owned(), found, _lock: lock })
    }
}

impl Directory {
    /// Refuses a directory in which nothing but the name of a file says that it is a log's.
    pub(super) fn refuse_unmarked(&self, fs: &dyn Fs) -> Result<(), Error> {
        let is_there = |path: PathBuf| match fs.open(&path, OpenMode::Read) {
            Err(error) => error.kind() != io::ErrorKind::NotFound,
            Ok(_) => true,
        };
        let own = [SET, CHECKPOINT].map(|name| self.path.join(name));
        let metas = self.found.logs.iter().map(|log| self.path.join(log).join(META));
        if own.into_iter().chain(metas).any(is_there) {
            return Ok(());
        }
        let message = format!(
            "{} holds neither {SET:?} nor {CHECKPOINT:?} nor any {META:?}: it may be no data directory, and is not \
             repaired; restore one of these files from a backup, or check the path",
            self.path.display()
        );
        Err(Error::new(ErrorKind::Invalid, message).at_path(&self.path))
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
fn refuse_foreign(fs: &dyn Fs, path: &Path, found: &Found) -> Result<(), Error> {
    let above = path.ancestors().skip(1).take(LEVELS_ABOVE);
    let holds_set = |dir: &&Path| fs.open(&dir.join(SET), OpenMode::Read).is_ok();
    let data_dir = above.filter(|dir| !dir.as_os_str().is_empty()).find(holds_set);
    let message = match data_dir {
        Some(data_dir) => format!(
            "{} is a part of the data directory {}; give that one",
            path.display(),
            data_dir.display()
        ),
        None if found.logs.is_empty() && !found.foreign.is_empty() => format!(
            "{} is not a data directory, and holds some: give one of them, such as {}",
            path.display(),
            path.join(&found.foreign[0]).display()
        ),
        None if found.logs.is_empty() => format!(
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
    /// Directories that their owner is done with.
    pub(crate) left_alone: Vec<PathBuf>,
    /// Data directories of their own, and links into them: whoever has those open has another lock.
    pub(crate) foreign: Vec<PathBuf>,
}

/// Looks for logs below `root`, behind links too, as an open of a log goes.
pub(crate) fn logs_in(fs: &dyn Fs, root: &Path) -> Result<Found, Error> {
    let resolved = fs.resolve(root).map_err(|error| Error::io("resolve", root, error))?;
    let mut search =
        Search { fs, root, found: Found::default(), seen: BTreeSet::new(), links: VecDeque::new() };
    search.look(Path::new(""), &resolved, MOST_LEVELS, MOST_LINKS)?;
    // A directory that is there goes by its own path, and not by a link's.
    while let Some(Link { path, levels, left }) = search.links.pop_front() {
        search.follow(path, &resolved, levels, left)?;
    }
    let Found { logs, strays, foreign, .. } = &mut search.found;
    logs.sort();
    strays.sort();
    foreign.sort();
    Ok(search.found)
}

struct Search<'a> {
    fs: &'a dyn Fs,
    root: &'a Path,
    found: Found,
    /// The directories that were looked at, without links in their paths: each once.
    seen: BTreeSet<PathBuf>,
    links: VecDeque<Link>,
}

/// What may be a link, how far below it logs are looked for, and how many more links are followed.
struct Link {
    path: PathBuf,
    levels: usize,
    left: usize,
}

impl Search<'_> {
    /// Looks at a directory, which is `resolved` without links.
    fn look(&mut self, below: &Path, resolved: &Path, levels: usize, links: usize) -> Result<(), Error> {
        if !self.seen.insert(resolved.to_owned()) {
            return Ok(());
        }
        let dir = self.root.join(below);
        let entries = self.fs.list(&dir).map_err(|error| Error::io("list", &dir, error))?;
        let (is_root, is_log) = (below.as_os_str().is_empty(), is_log(&entries));
        if !is_root && entries.iter().any(|entry| !entry.is_dir && [SET, LOCK].contains(&entry.name.as_str()))
        {
            self.found.foreign.push(below.to_owned());
            return Ok(());
        }
        if is_log {
            self.found.logs.push(below.to_owned());
        }
        for entry in entries {
            let (path, name) = (below.join(&entry.name), entry.name.as_str());
            if is_root && (is_own(name) || name == LOST_AND_FOUND) {
                continue;
            }
            if entry.is_dir && is_done_with(name) {
                self.found.left_alone.push(path);
            } else if entry.is_dir {
                if levels > 0 {
                    self.look(&path, &resolved.join(name), levels - 1, links)?;
                }
            } else if links > 0 && levels > 0 && self.is_linked_dir(&path, name) {
                self.links.push_back(Link { path, levels: levels - 1, left: links - 1 });
            } else if !is_log {
                self.found.strays.push(path);
            }
        }
        Ok(())
    }

    /// Looks behind a link, if that does not lead into a data directory of its own.
    fn follow(&mut self, path: PathBuf, root: &Path, levels: usize, left: usize) -> Result<(), Error> {
        let link = self.root.join(&path);
        let target = self.fs.resolve(&link).map_err(|error| Error::io("resolve", &link, error))?;
        let is_owned = |dir: &&Path| {
            [SET, LOCK].iter().any(|name| self.fs.open(&dir.join(name), OpenMode::Read).is_ok())
        };
        let owner = target.ancestors().find(is_owned);
        if owner.is_some_and(|owner| owner != root) {
            self.found.foreign.push(path);
            return Ok(());
        }
        self.look(&path, &target, levels, left)
    }

    /// Whether this is a link to a directory.
    fn is_linked_dir(&self, path: &Path, name: &str) -> bool {
        // Nearly every file of a data directory has one of these names, and is not worth the call.
        if name == META || name.ends_with(TEMPORARY) || is_of_segment(name) {
            return false;
        }
        self.fs.list(&self.root.join(path)).is_ok()
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
