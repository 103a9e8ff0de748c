//! A real file system that asks a test before each call: it can be held for as long as the test wants,
//! and be refused.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "a tool of several tests"
)]

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_log::env::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Opening for writing, and everything that changes names.
    Change,
    Read,
    Write,
    Sync,
    SetLen,
    Populate,
}

type Hook = Arc<dyn Fn(Call, &Path) -> io::Result<()> + Send + Sync>;

pub struct HookFs(Hook);

impl HookFs {
    pub fn asking(hook: impl Fn(Call, &Path) -> io::Result<()> + Send + Sync + 'static) -> Arc<dyn Fs> {
        Arc::new(Self(Arc::new(hook)))
    }
}

impl fmt::Debug for HookFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookFs")
    }
}

impl Fs for HookFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode != OpenMode::Read {
            (self.0)(Call::Change, path)?;
        }
        let file = StdFs.open(path, mode)?;
        Ok(Arc::new(Hooked { inner: file, path: path.to_owned(), hook: Arc::clone(&self.0) }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        StdFs.list(dir)
    }

    fn resolve(&self, dir: &Path) -> io::Result<PathBuf> {
        StdFs.resolve(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        (self.0)(Call::Change, dir)?;
        StdFs.create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.0)(Call::Change, to)?;
        StdFs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        (self.0)(Call::Change, path)?;
        StdFs.remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        (self.0)(Call::Change, dir)?;
        StdFs.remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        StdFs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        StdFs.lock(path)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        StdFs.space(dir)
    }
}

/// A file or a map of one.
struct Hooked<T: ?Sized> {
    path: PathBuf,
    hook: Hook,
    inner: Arc<T>,
}

impl<T: ?Sized> Hooked<T> {
    fn ask(&self, call: Call) -> io::Result<()> {
        (self.hook)(call, &self.path)
    }
}

impl<T: ?Sized> fmt::Debug for Hooked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl File for Hooked<dyn File> {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.ask(Call::Read)?;
        self.inner.read_at(buf, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.ask(Call::Write)?;
        self.inner.write_at(parts, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.ask(Call::Sync)?;
        self.inner.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.ask(Call::SetLen)?;
        self.inner.set_len(len)
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.inner.status()
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        let map = self.inner.map(len)?;
        Ok(Arc::new(Hooked { inner: map, path: self.path.clone(), hook: Arc::clone(&self.hook) }))
    }
}

impl AsRef<[u8]> for Hooked<dyn Map> {
    fn as_ref(&self) -> &[u8] {
        (*self.inner).as_ref()
    }
}

impl Map for Hooked<dyn Map> {
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        self.ask(Call::Populate)?;
        self.inner.populate(range)
    }
}
