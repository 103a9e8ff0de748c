//! The planted bug: a file system whose segment files only pretend to sync. A check that does not
//! notice it proves nothing.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use logmill_log::env::{Entry, File, FileStatus, Fs, Lock, Map, OpenMode, Space, StdFs};

#[derive(Debug)]
pub(crate) struct NoSync;

impl Fs for NoSync {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = StdFs.open(path, mode)?;
        let segment = path.extension().is_some_and(|ending| ending == "log");
        Ok(if segment { Arc::new(Unsynced(file)) } else { file })
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
        StdFs.lock(path)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        StdFs.space(dir)
    }
}

#[derive(Debug)]
struct Unsynced(Arc<dyn File>);

impl File for Unsynced {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buf, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.0.write_at(parts, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.0.status()
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        self.0.map(len)
    }
}
