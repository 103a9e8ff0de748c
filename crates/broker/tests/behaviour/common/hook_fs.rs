//! A real file system with a hook in front of every call that tests want to catch.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_log::env::{Entry, Env, File, FileStatus, Fs, Lock, Map, OpenMode, Space, StdFs};

/// The calls that a hook sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Lock,
    Read,
    Write,
    Sync,
    Space,
}

pub(crate) type Hook = Arc<dyn Fn(Call, &Path) -> io::Result<()> + Send + Sync>;

/// The machine, with a hook.
pub(crate) fn hooked(hook: impl Fn(Call, &Path) -> io::Result<()> + Send + Sync + 'static) -> Env {
    Env { fs: Arc::new(HookFs(Arc::new(hook))), ..Env::real() }
}

struct HookFs(Hook);

impl fmt::Debug for HookFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookFs")
    }
}

impl Fs for HookFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = StdFs.open(path, mode)?;
        Ok(Arc::new(HookFile { file, path: path.to_owned(), hook: Arc::clone(&self.0) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        StdFs.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        StdFs.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        StdFs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        StdFs.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        StdFs.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        StdFs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        (self.0)(Call::Lock, path)?;
        StdFs.lock(path)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        (self.0)(Call::Space, dir)?;
        StdFs.space(dir)
    }
}

struct HookFile {
    file: Arc<dyn File>,
    path: PathBuf,
    hook: Hook,
}

impl fmt::Debug for HookFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl File for HookFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        (self.hook)(Call::Read, &self.path)?;
        self.file.read_at(buf, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        (self.hook)(Call::Write, &self.path)?;
        self.file.write_at(parts, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        (self.hook)(Call::Sync, &self.path)?;
        self.file.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.file.status()
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        self.file.map(len)
    }
}

/// A gate that calls wait at until it is opened.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: parking_lot::Mutex<(bool, usize)>,
    changed: parking_lot::Condvar,
}

impl Gate {
    /// Waits until the gate is open.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock();
        state.1 += 1;
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |(open, _)| !*open);
    }

    pub(crate) fn open(&self) {
        self.state.lock().0 = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().0
    }

    /// Waits until somebody waits at the gate.
    pub(crate) fn wait_for_someone(&self) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |(_, waiting)| *waiting == 0);
    }
}
