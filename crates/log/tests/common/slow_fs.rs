//! A real file system on which writes to one file wait for as long as a test holds a lock.
#![allow(missing_docs, unreachable_pub, missing_debug_implementations, reason = "a test's own tool")]

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use logmill_log::env::*;
use parking_lot::Mutex;

#[derive(Debug)]
pub struct SlowFs {
    fs: StdFs,
    name: &'static str,
    gate: Arc<Mutex<()>>,
}

impl SlowFs {
    /// Writes to files of that name wait for the lock.
    pub fn new(name: &'static str) -> (Arc<dyn Fs>, Arc<Mutex<()>>) {
        let gate = Arc::default();
        (Arc::new(Self { fs: StdFs, name, gate: Arc::clone(&gate) }), gate)
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn File>,
    gate: Arc<Mutex<()>>,
}

impl Fs for SlowFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.fs.open(path, mode)?;
        if path.file_name().is_some_and(|name| name == self.name) {
            return Ok(Arc::new(SlowFile { file, gate: Arc::clone(&self.gate) }));
        }
        Ok(file)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.fs.list(dir)
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

impl File for SlowFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        drop(self.gate.lock());
        self.file.write_at(parts, position)
    }

    fn sync_data(&self) -> io::Result<()> {
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
