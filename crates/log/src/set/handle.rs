//! The public handle of a set.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use logmill_record::Offset;
use parking_lot::Mutex;
use uuid::Uuid;

use super::checkpointer::Checkpointer;
use super::close_all::close_all;
use super::space::WithReserve;
use super::{Held, SetInner, Shared, dir};
use crate::env::{Env, OpenMode, Space, within};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::meta::{FILE as META, LogMeta, check_owner};
use crate::log::{self, Expected, Log, LogInner, LogState, OnRead, Scanned};
use crate::options::{LogOptions, SetOptions};
use crate::segment::{self, DATA};

/// A data directory with many logs, their shared checkpoint and their workers. Cheap to clone.
///
/// ```
/// use logmill_log::{LogOptions, LogSet, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// let orders = set.create("orders", b"what the owner keeps with it", LogOptions::default())?;
/// assert_eq!(orders.end_offset().get(), 0);
/// set.close()?; // the next open recovers nothing
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LogSet {
    pub(super) inner: Arc<SetInner>,
    _held: Arc<Held>,
}

impl LogSet {
    /// Opens the data directory `dir`, or makes a new one. No other process can open it until the
    /// last handle is gone or the set is closed.
    ///
    /// # Errors
    ///
    /// `Locked` if another process has it; `Invalid` if it is a plain file or holds something
    /// else; `Denied`; `NewerFormat`; `Corrupt` if `set` or `checkpoint` are damaged.
    pub fn open(dir: impl AsRef<Path>, options: SetOptions) -> Result<Self, Error> {
        Self::open_as(dir.as_ref(), options, false)
    }

    /// Opens the set of a single log, or makes it; see [`Log::open`].
    pub(crate) fn open_single(dir: &Path, options: SetOptions) -> Result<Self, Error> {
        dir::refuse_many(&*options.env.fs, dir)?;
        Self::open_as(dir, options, true)
    }

    fn open_as(dir: &Path, options: SetOptions, is_single: bool) -> Result<Self, Error> {
        let shared = Arc::new(Shared::new(dir, &options));
        let mut env = options.env;
        env.fs = Arc::new(WithReserve { fs: env.fs, spare: Arc::clone(&shared.spare) });
        dir::create_all(&*env.fs, dir)?;
        dir::refuse_foreign(&*env.fs, dir)?;
        let lock = dir::lock(&*env.fs, dir)?;
        let (file, was_clean) = dir::open_set_file(&env, dir)?;
        if !was_clean {
            dir::settle_name(&*env.fs, dir)?;
        }
        let table = dir::read_checkpoint(&*env.fs, dir, was_clean)?;
        let inner = SetInner {
            dir: dir.to_owned(),
            env,
            id: file.id,
            epoch: AtomicI32::new(epoch_of(file.open_counter)),
            file: Mutex::new(file),
            is_single,
            logs: Mutex::default(),
            table: Mutex::new(table),
            checkpointer: Checkpointer::default(),
            closed: AtomicBool::new(false),
            maintenance_interval: options.maintenance_interval,
            maintenance_armed: AtomicBool::new(false),
            shared,
            turns: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        };
        let inner = Arc::new(inner);
        if options.reserve_bytes > 0 || options.low_space_bytes > 0 {
            // Not before it answers: writing the reserve takes a moment.
            inner.look_at_space_soon();
        }
        Ok(Self { _held: Arc::new(Held(Arc::clone(&inner))), inner })
    }

    /// The data directory's identity, never used again.
    #[must_use]
    pub fn id(&self) -> Uuid {
        self.inner.id
    }

    /// How often the directory has been opened, which is the leader epoch stamped into batches.
    #[must_use]
    pub fn epoch(&self) -> i32 {
        // Not under the file's lock, which is held while it is written.
        self.inner.epoch.load(Ordering::Acquire)
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The environment it runs in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// The space on the file system that holds the directory.
    ///
    /// # Errors
    ///
    /// `Io` if the file system does not say.
    pub fn space(&self) -> Result<Space, Error> {
        self.inner.env.fs.space(&self.inner.dir).map_err(|error| Error::io("measure", &self.inner.dir, error))
    }

    /// Whether there is a log at `path` below the data directory.
    ///
    /// # Errors
    ///
    /// `Invalid` if there can be none; `Io` if that cannot be told.
    pub fn holds_log(&self, path: impl AsRef<Path>) -> Result<bool, Error> {
        let path = self.path_of(path.as_ref())?;
        let meta = self.dir_of(&path).join(META);
        match self.inner.env.fs.open(&meta, OpenMode::Read) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("open", &meta, error)),
        }
    }

    /// Creates a log at `path` below the data directory, with what its owner wants to keep with
    /// it. It is on disk when this returns.
    ///
    /// The path is made of names and leads down, such as `orders/eu`; `./orders/eu` is the same log.
    ///
    /// # Errors
    ///
    /// `Invalid` for a path that is absolute or goes up, or has a name in it that the set uses itself,
    /// such as `meta`. `Exists` if there is one; `Corrupt` if there are the segments of one whose `meta`
    /// is gone; `Full`, `Io`, `Closed`.
    pub fn create(&self, path: impl AsRef<Path>, owner: &[u8], options: LogOptions) -> Result<Log, Error> {
        let path = self.path_of(path.as_ref())?;
        check_owner(owner)?;
        let turn = self.turn(&path);
        let _turn = turn.lock();
        self.check_open()?;
        let dir = self.dir_of(&path);
        if self.holds_log(&path)? {
            let message = format!("there is a log at {} already; open it", dir.display());
            return Err(Error::new(ErrorKind::Exists, message).at_path(&path));
        }
        let fs = &*self.inner.env.fs;
        dir::create_all(fs, &dir)?;
        dir::refuse_orphans(fs, &dir)?;
        let data = segment::path(&dir, Offset::ZERO, DATA);
        match fs.open(&data, OpenMode::CreateNew) {
            Ok(_) => {}
            // Left by a creation that was cut off before it wrote `meta`.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("create", &data, error)),
        }
        let id = self.inner.env.new_uuid();
        let meta = LogMeta::new(id, Bytes::copy_from_slice(owner));
        // Written last: a directory without it is no log.
        atomic::replace(fs, &dir.join(META), &meta.encode())?;
        self.open_in_turn(&path, options, None)
    }

    /// Opens the log at `path` below the data directory and recovers it. If it is open already,
    /// another handle to it; if it is open and poisoned, it is opened afresh under a new epoch,
    /// and goes on after the last record known to be durable; if it is open for reading only because
    /// there was no space to save its torn end, that is tried again, and older handles are closed
    /// where it succeeds.
    ///
    /// Damage does not fail the call: a log that cannot be written says so in its
    /// [`stats`](Log::stats), and reads name what cannot be read.
    ///
    /// # Errors
    ///
    /// `Invalid`, `NotFound`, `Io`, `Closed`, `NewerFormat`; `Corrupt` if `meta` is damaged, or gone from beside
    /// the segments of a log.
    pub fn open_log(&self, path: impl AsRef<Path>, options: LogOptions) -> Result<Log, Error> {
        self.open_log_heard(path.as_ref(), options, None)
    }

    /// [`open_log`](Self::open_log), with each read of its data told to `on_read`.
    pub(super) fn open_log_heard(
        &self,
        path: &Path,
        options: LogOptions,
        on_read: Option<OnRead>,
    ) -> Result<Log, Error> {
        let path = self.path_of(path)?;
        let turn = self.turn(&path);
        let _turn = turn.lock();
        self.open_in_turn(&path, options, on_read)
    }

    /// Opening and creating are one at a time for each path: two recoveries of one log would be
    /// two writers.
    fn turn(&self, path: &Path) -> Arc<Mutex<()>> {
        Arc::clone(self.inner.turns.lock().entry(path.to_owned()).or_default())
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the data directory has been closed; open it again"));
        }
        Ok(())
    }

    fn open_in_turn(&self, path: &Path, options: LogOptions, on_read: Option<OnRead>) -> Result<Log, Error> {
        self.check_open()?;
        let mut meta = self.read_meta(path)?;
        let row = self.inner.table.lock().get(&meta.id).copied();
        let mut expected = Expected {
            durable: row.map(|row| row.durable),
            cut: false,
            clean: row.is_some_and(|row| row.clean),
            epoch: self.epoch(),
        };
        let open = self.inner.logs.lock().get(path).cloned();
        let mut read_only = None;
        if let Some(open) = open {
            let log = Log::new(open, self.clone());
            match log.stats().state {
                LogState::Poisoned(_) => {
                    log.inner().abandon();
                    // Its start may have been moved until now.
                    meta = self.read_meta(path)?;
                }
                LogState::Closed => {}
                // Something was in the way, which may be gone.
                LogState::ReadOnly(error) if error.kind() == ErrorKind::ReadOnly => {
                    read_only = Some(log.clone());
                }
                _ => return Ok(log),
            }
            let row = log.inner().row();
            (expected.durable, expected.clean) = (Some(row.durable), row.clean);
            if log.inner().was_poisoned() {
                expected.cut = true;
                expected.epoch = self.advance_epoch()?;
            }
        }
        let dir = self.dir_of(path);
        let dirs = (&*self.inner.dir, &*dir);
        let set = (Arc::downgrade(&self.inner), Arc::clone(&self.inner.shared));
        let scanned = Scanned::new(dir.clone(), self.inner.shared.on_scan.clone(), on_read);
        let inner = log::open(&self.inner.env, dirs, &meta, expected, options, set, scanned)?;
        if let Some(old) = read_only {
            // Its readers are not disturbed for nothing.
            if inner.is_read_only() {
                return Ok(old);
            }
            old.inner().abandon();
        }
        let mut logs = self.inner.logs.lock();
        logs.insert(path.to_owned(), Arc::clone(&inner));
        self.inner.arm_maintenance();
        drop(logs);
        Ok(Log::new(inner, self.clone()))
    }

    /// What is known of the log at `path` without opening it.
    ///
    /// # Errors
    ///
    /// `Invalid`, `NotFound`, `Corrupt`, `NewerFormat`, `Io`.
    pub fn read_meta(&self, path: impl AsRef<Path>) -> Result<LogMeta, Error> {
        let dir = self.dir_of(&self.path_of(path.as_ref())?);
        let meta = dir.join(META);
        match atomic::read(&*self.inner.env.fs, &meta)? {
            Some(bytes) => LogMeta::decode(&meta, &bytes),
            None => {
                dir::refuse_orphans(&*self.inner.env.fs, &dir)?;
                let message = format!(
                    "there is no log at {}: it has no file {META:?}; check the path, or create the log",
                    dir.display()
                );
                Err(Error::new(ErrorKind::NotFound, message).at_path(&meta))
            }
        }
    }

    fn path_of(&self, path: &Path) -> Result<PathBuf, Error> {
        dir::log_path(&self.inner.dir, path)
    }

    fn dir_of(&self, path: &Path) -> PathBuf {
        dir::log_dir(&self.inner.dir, path)
    }

    /// Whether this is the set of that one log, and ends with it.
    pub(crate) fn is_single(&self, log: &LogInner) -> bool {
        self.inner.is_single && log.dir == self.inner.dir
    }

    /// Closes every log and writes the checkpoint, so that the next open recovers nothing, and
    /// gives the directory back. Closing twice is no error. Blocks as long as the disk does: see
    /// [`LogSet::close_within`].
    ///
    /// # Errors
    ///
    /// The first failure; everything that can be closed is closed all the same.
    pub fn close(&self) -> Result<(), Error> {
        let first = !self.inner.closed.swap(true, Ordering::AcqRel);
        // Whoever is opening a log finishes; whoever comes later is told that the set is closed.
        let turns: Vec<_> = self.inner.turns.lock().values().cloned().collect();
        turns.iter().for_each(|turn| drop(turn.lock()));
        let logs: Vec<_> = self.inner.logs.lock().values().cloned().collect();
        let mut outcome = close_all(&*self.inner.env.scheduler, logs);
        if first {
            self.inner.end_space_looks();
            outcome = outcome.and(self.inner.write_checkpoint());
            if outcome.is_ok() {
                outcome = self.mark_clean();
            }
            self.inner.logs.lock().clear();
            *self.inner.lock.lock() = None;
        }
        outcome
    }

    /// [`LogSet::close`], but waits no longer than `timeout` for a disk that may hang. After that the
    /// close goes on by itself and the directory stays locked until it is done, or the process has
    /// ended: `std::process::exit`, since dropping the last [`Env`] waits for its threads.
    ///
    /// # Errors
    ///
    /// As [`LogSet::close`]; `OutcomeUnknown` if it takes longer.
    pub fn close_within(&self, timeout: Duration) -> Result<(), Error> {
        let set = self.clone();
        let closed = within(&*self.inner.env.scheduler, timeout, move || set.close());
        closed.unwrap_or_else(|| Err(Error::not_closed_within(&self.inner.dir, timeout)))
    }

    fn mark_clean(&self) -> Result<(), Error> {
        let mut file = self.inner.file.lock();
        file.clean = true;
        atomic::replace(&*self.inner.env.fs, &self.inner.dir.join(dir::SET), &file.encode())
    }

    /// Moves the epoch on, durably.
    fn advance_epoch(&self) -> Result<i32, Error> {
        let mut file = self.inner.file.lock();
        let path = self.inner.dir.join(dir::SET);
        let mut next = *file;
        next.open_counter = dir::next_epoch(&path, file.open_counter)?;
        atomic::replace(&*self.inner.env.fs, &path, &next.encode())?;
        *file = next;
        let epoch = epoch_of(next.open_counter);
        self.inner.epoch.store(epoch, Ordering::Release);
        Ok(epoch)
    }

    /// A log was closed: its place in the registry becomes free, its checkpoint stays. A poisoned
    /// one keeps its place, since the next open has to know.
    pub(crate) fn forget(&self, log: &Arc<LogInner>) {
        let mut logs = self.inner.logs.lock();
        // Closed for the second time, it may be open again by another handle, which knows better.
        if logs.values().any(|open| Arc::ptr_eq(open, log)) {
            self.inner.table.lock().insert(log.id, log.row());
        }
        logs.retain(|_, open| !Arc::ptr_eq(open, log) || log.was_poisoned());
        drop(logs);
        self.inner.note_synced(0);
    }

    /// A log's directory is about to go, and its checkpoint with it.
    pub(crate) fn retire(&self, log: &Arc<LogInner>) {
        let mut logs = self.inner.logs.lock();
        self.inner.table.lock().remove(&log.id);
        let path = logs.iter().find_map(|(path, open)| Arc::ptr_eq(open, log).then(|| path.clone()));
        let Some(path) = path else { return };
        logs.remove(&path);
        drop(logs);
        let mut turns = self.inner.turns.lock();
        // Whoever opens or creates a log there now holds the turn, and it must stay the only one.
        if turns.get(&path).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&path);
        }
    }
}

fn epoch_of(open_counter: u32) -> i32 {
    i32::try_from(open_counter).expect("the counter is bounded when it is moved on")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_log_leaves_nothing_in_memory() {
        let dir = tempfile::tempdir().expect("a directory");
        let set = LogSet::open(dir.path(), SetOptions::default()).expect("it opens");
        let kept = set.create("kept", b"", LogOptions::default()).expect("it is made");
        for n in 0..100 {
            set.create(format!("log-{n}"), b"", LogOptions::default()).expect("it is made").retire();
        }
        assert_eq!(set.inner.turns.lock().len(), 1);
        assert_eq!(set.inner.logs.lock().len(), 1);
        kept.close().expect("it closes");
    }
}
