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

/// The machine, on which such calls for the files that `which` names wait at a gate from when it is armed.
pub(crate) fn gated(held: Call, which: impl Fn(&Path) -> bool + Send + Sync + 'static) -> (Env, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    gate.open();
    let at = Arc::clone(&gate);
    let stall = move |call, path: &Path| {
        if call == held && which(path) {
            at.pass();
        }
        Ok(())
    };
    (hooked(stall), gate)
}

/// Whether it is a segment's file.
pub(crate) fn is_segment(path: &Path) -> bool {
    path.extension() == Some("log".as_ref())
}

/// Whether it is a segment's file of partition 0.
pub(crate) fn is_segment_of_0(path: &Path) -> bool {
    is_segment(path) && path.parent().and_then(Path::file_name) == Some("0".as_ref())
}

/// A gate that calls wait at until it is opened.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: parking_lot::Mutex<GateState>,
    changed: parking_lot::Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    /// How many came while it was not.
    came: usize,
}

impl Gate {
    /// Waits until the gate is open.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock();
        if !state.open {
            state.came += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| !state.open);
        }
    }

    /// Shuts it.
    pub(crate) fn arm(&self) {
        self.state.lock().open = false;
    }

    pub(crate) fn open(&self) {
        self.state.lock().open = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().open
    }

    /// Waits until somebody waits at the gate.
    pub(crate) fn wait_for_someone(&self) {
        self.wait_for(1);
    }

    /// Waits until so many have come.
    pub(crate) fn wait_for(&self, count: usize) {
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, |state| state.came < count);
    }
}
