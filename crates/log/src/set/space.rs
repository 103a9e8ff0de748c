//! Space on the file system: appends end in time, and there is a reserve for what must go on.
//!
//! Below the watermark, appends are refused while there is still space for everything else. The
//! reserve is a file of random bytes, so that no file system stores it in less; when nothing is
//! left it is removed, for small files that say where the logs are: metadata, the checkpoint,
//! indexes, what recovery saves, logs that may. Other appends never use it: from then on they are
//! refused until the maintenance has written it again, which needs twice its size free.
//!
//! Lock order: who looks at the space takes the turn to look, then the reserve's lock, which is held
//! during its I/O. Nothing else is locked under them, least of all the checkpoint's: it does not
//! wait for a reserve that is being written, unless it needs that space itself.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::SetInner;
use crate::env::{Entry, File, Fs, Lock, OpenMode, Random, Space, Work};
use crate::error::{Error, ErrorKind};
use crate::format::atomic::{self, TEMPORARY};
use crate::options::SetOptions;

/// The reserve's file.
pub(crate) const RESERVE: &str = "reserve";
/// It is written in pieces of this size.
const PIECE_LEN: usize = 256 * 1024;
/// The space is looked at after so many bytes of appends, and at each maintenance.
const LOOK_BYTES: u64 = 16 << 20;

/// How the reserve of a data directory stands. See [`SetStats`](crate::SetStats).
///
/// ```
/// use logmill_log::{LogSet, ReserveState, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// assert_eq!(set.stats().reserve, ReserveState::Off, "none was asked for");
/// if set.stats().reserve == ReserveState::Spent {
///     println!("the disk is full: free some space, and appends go on");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReserveState {
    /// None is kept.
    #[default]
    Off,
    /// It is to be written, as soon as there is space for it.
    Missing,
    /// It is there.
    Held,
    /// It was needed and is gone; appends are refused until it is there again.
    Spent,
}

/// What is known of the space that a set has left.
#[derive(Debug)]
pub(crate) struct Spare {
    dir: PathBuf,
    low_bytes: u64,
    reserve_bytes: u64,
    is_low: AtomicBool,
    appended_since: AtomicU64,
    look_turn: Mutex<()>,
    /// The set is being closed: no more is written.
    ended: AtomicBool,
    /// The right to write the reserve or to remove it, and so to change the two below.
    reserve_turn: Mutex<()>,
    held: AtomicBool,
    /// The reserve was needed.
    spent: AtomicBool,
}

impl Spare {
    pub(crate) fn new(dir: &Path, options: &SetOptions) -> Self {
        Self {
            dir: dir.to_owned(),
            low_bytes: options.low_space_bytes,
            reserve_bytes: options.reserve_bytes,
            is_low: AtomicBool::new(false),
            appended_since: AtomicU64::new(0),
            look_turn: Mutex::new(()),
            ended: AtomicBool::new(false),
            reserve_turn: Mutex::new(()),
            held: AtomicBool::new(false),
            spent: AtomicBool::new(false),
        }
    }

    /// Refuses an append while space is short.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let why = if self.spent.load(Ordering::Relaxed) {
            "is full, and the space that was held in reserve has been needed".to_owned()
        } else if self.is_low.load(Ordering::Relaxed) {
            format!("has less than {} bytes left, which are kept for what is stored already", self.low_bytes)
        } else {
            return Ok(());
        };
        let message = format!(
            "nothing is appended: the file system of {} {why}; free some space there or shorten the \
             retention, and appends go on within seconds",
            self.dir.display(),
        );
        Err(Error::new(ErrorKind::Full, message).at_path(&self.dir))
    }

    /// Whether, with these bytes, it is time to look at the space again.
    pub(crate) fn note_appended(&self, bytes: u64) -> bool {
        if self.low_bytes == 0 {
            return false;
        }
        let every = LOOK_BYTES.min(self.low_bytes / 2).max(1);
        let since = self.appended_since.fetch_add(bytes, Ordering::Relaxed) + bytes;
        since >= every && since - bytes < every
    }

    /// Looks at the space that is left.
    pub(crate) fn look(&self, fs: &dyn Fs) {
        self.appended_since.store(0, Ordering::Relaxed);
        if self.low_bytes == 0 {
            return;
        }
        match fs.space(&self.dir) {
            Ok(space) => {
                let is_low = space.available_bytes < self.low_bytes;
                if is_low != self.is_low.swap(is_low, Ordering::Relaxed) {
                    let (dir, available_bytes) = (self.dir.display(), space.available_bytes);
                    tracing::warn!(%dir, available_bytes, is_low, "the space that is left for appends");
                }
            }
            Err(error) => tracing::warn!(dir = %self.dir.display(), %error, "cannot tell the space left"),
        }
    }

    /// Removes the reserve; says whether that has made room.
    fn release(&self, fs: &dyn Fs) -> bool {
        if self.reserve_bytes == 0 {
            return false;
        }
        let _turn = self.reserve_turn.lock();
        // Its blocks are free once the directory without it is on disk.
        let removed = fs.remove_file(&self.dir.join(RESERVE));
        if removed.is_ok() {
            self.held.store(false, Ordering::Relaxed);
            self.spent.store(true, Ordering::Relaxed);
        }
        if let Err(error) = removed.and_then(|()| fs.sync_dir(&self.dir)) {
            // While the set is being opened nobody has looked yet whether an earlier one left it.
            if !self.held.load(Ordering::Relaxed) && error.kind() == io::ErrorKind::NotFound {
                return false;
            }
            tracing::error!(dir = %self.dir.display(), %error, "cannot release the reserve of space");
            return false;
        }
        tracing::warn!(
            dir = %self.dir.display(), bytes = self.reserve_bytes,
            "the file system is full: the reserve of space is released, and appends are refused"
        );
        true
    }

    /// Writes the reserve if it is not there and there is space for it and as much again.
    pub(crate) fn keep_reserve(&self, fs: &dyn Fs, random: &dyn Random) {
        let _turn = self.reserve_turn.lock();
        if self.held.load(Ordering::Relaxed) || self.reserve_bytes == 0 {
            return;
        }
        match self.write_reserve(fs, random) {
            Ok(false) => {}
            Ok(true) => {
                self.held.store(true, Ordering::Relaxed);
                self.spent.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(dir = %self.dir.display(), %error, "cannot hold space in reserve yet");
            }
        }
    }

    fn write_reserve(&self, fs: &dyn Fs, random: &dyn Random) -> io::Result<bool> {
        let reserve = self.dir.join(RESERVE);
        match fs.open(&reserve, OpenMode::Read) {
            Ok(file) if file.status()?.len == self.reserve_bytes => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if fs.space(&self.dir)?.available_bytes / 2 < self.reserve_bytes {
            return Ok(false);
        }
        let temporary = self.dir.join(format!("{RESERVE}{TEMPORARY}"));
        let put_in_place = |filled| {
            if filled {
                fs.rename(&temporary, &reserve)?;
                fs.sync_dir(&self.dir)?;
            }
            Ok(filled)
        };
        let written = self.fill(fs, random, &temporary).and_then(put_in_place);
        if !matches!(written, Ok(true)) {
            // The next attempt removes it if this does not.
            let _ = fs.remove_file(&temporary);
        }
        written
    }

    /// False if the set was closed meanwhile, whose owner is not to wait for all of it.
    fn fill(&self, fs: &dyn Fs, random: &dyn Random, path: &Path) -> io::Result<bool> {
        atomic::remove_left_over(fs, path)?;
        let file = fs.open(path, OpenMode::CreateNew)?;
        let (mut piece, mut position) = (vec![0; PIECE_LEN], 0);
        while position < self.reserve_bytes {
            if self.ended.load(Ordering::Acquire) {
                return Ok(false);
            }
            let len = (self.reserve_bytes - position).min(PIECE_LEN as u64);
            let piece = &mut piece[..usize::try_from(len).unwrap_or(PIECE_LEN)];
            random.fill(piece);
            atomic::write_all(&*file, &mut [IoSlice::new(piece)], position)?;
            position += len;
        }
        file.sync_data()?;
        Ok(true)
    }

    pub(crate) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Relaxed)
    }

    pub(crate) fn reserve(&self) -> ReserveState {
        match self.held.load(Ordering::Relaxed) {
            _ if self.reserve_bytes == 0 => ReserveState::Off,
            true => ReserveState::Held,
            false if self.spent.load(Ordering::Relaxed) => ReserveState::Spent,
            false => ReserveState::Missing,
        }
    }
}

impl SetInner {
    /// Looks at the space soon, on the background workers.
    pub(crate) fn look_at_space_soon(self: &Arc<Self>) {
        let set = Arc::downgrade(self);
        let look = move || {
            if let Some(set) = set.upgrade() {
                set.look_at_space();
            }
        };
        self.env.scheduler.spawn(Work::Background, Box::new(look));
    }

    pub(super) fn look_at_space(&self) {
        let _turn = self.shared.spare.look_turn.lock();
        if !self.closed.load(Ordering::Acquire) {
            self.shared.spare.keep_reserve(&*self.env.fs, &*self.env.random);
            self.shared.spare.look(&*self.env.fs);
        }
    }

    /// The set is closed, and gives its directory back only when no task writes the reserve there
    /// any more: a look that begins after this one has ended finds it closed.
    pub(super) fn end_space_looks(&self) {
        self.shared.spare.ended.store(true, Ordering::Release);
        drop(self.shared.spare.look_turn.lock());
    }
}

/// The file system of a set with a reserve: writes that must not fail for want of space can ask
/// for it. Everything else is the file system's own.
#[derive(Debug)]
pub(crate) struct WithReserve {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) spare: Arc<Spare>,
}

impl WithReserve {
    /// `fs` with the reserve that a set has left in `dir`, for who writes there while no set is open.
    pub(crate) fn left_in(dir: &Path, fs: Arc<dyn Fs>) -> Arc<dyn Fs> {
        let left = fs.open(&dir.join(RESERVE), OpenMode::Read).and_then(|file| file.status());
        match left {
            Ok(left) => {
                let options = SetOptions::default().reserve_bytes(left.len);
                Arc::new(Self { fs, spare: Arc::new(Spare::new(dir, &options)) })
            }
            // None, or none that can be used.
            Err(_) => fs,
        }
    }
}

impl Fs for WithReserve {
    fn make_room(&self) -> bool {
        self.spare.release(&*self.fs)
    }

    fn has_made_room(&self) -> bool {
        self.spare.spent.load(Ordering::Relaxed)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.fs.open(path, mode)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.fs.list(dir)
    }

    fn resolve(&self, dir: &Path) -> io::Result<PathBuf> {
        self.fs.resolve(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.fs.lock(path)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.fs.space(dir)
    }
}
