//! A real file system on which one sync can be held, and one write and one sync be made to fail:
//! for what happens when two threads sync one file at the same time, which a simulation on one
//! thread cannot have.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a test's own tool"
)]

use logmill_log::env::*;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};
use std::time::Duration;
#[derive(Debug, Default)]
pub struct Ctl {
    pub hold: AtomicBool,
    pub held: AtomicBool,
    pub fail_write: AtomicBool,
    pub fail_sync: AtomicBool,
}
#[derive(Debug)]
pub struct GateFs(pub StdFs, pub Arc<Ctl>);
#[derive(Debug)]
pub struct GateFile(Arc<dyn File>, Arc<Ctl>, bool);
impl Fs for GateFs {
    fn open(&self, p: &Path, m: OpenMode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(GateFile(self.0.open(p, m)?, self.1.clone(), p.extension().is_some_and(|e| e == "log"))))
    }
    fn list(&self, d: &Path) -> io::Result<Vec<Entry>> {
        self.0.list(d)
    }
    fn create_dir(&self, d: &Path) -> io::Result<()> {
        self.0.create_dir(d)
    }
    fn rename(&self, a: &Path, b: &Path) -> io::Result<()> {
        self.0.rename(a, b)
    }
    fn remove_file(&self, a: &Path) -> io::Result<()> {
        self.0.remove_file(a)
    }
    fn remove_dir(&self, a: &Path) -> io::Result<()> {
        self.0.remove_dir(a)
    }
    fn sync_dir(&self, a: &Path) -> io::Result<()> {
        self.0.sync_dir(a)
    }
    fn lock(&self, a: &Path) -> io::Result<Box<dyn Lock>> {
        self.0.lock(a)
    }
    fn space(&self, a: &Path) -> io::Result<Space> {
        self.0.space(a)
    }
}
impl File for GateFile {
    fn read_at(&self, b: &mut [u8], p: u64) -> io::Result<usize> {
        self.0.read_at(b, p)
    }
    fn write_at(&self, parts: &[IoSlice<'_>], p: u64) -> io::Result<usize> {
        if self.2 && self.1.fail_write.swap(false, SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.write_at(parts, p)
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.2 {
            if self.1.hold.swap(false, SeqCst) {
                self.1.held.store(true, SeqCst);
                while self.1.held.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return Ok(()); // the error was reported to the other fsync of this descriptor
            }
            if self.1.fail_sync.swap(false, SeqCst) {
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        self.0.sync_data()
    }
    fn set_len(&self, l: u64) -> io::Result<()> {
        self.0.set_len(l)
    }
    fn status(&self) -> io::Result<FileStatus> {
        self.0.status()
    }
    fn map(&self, l: u64) -> io::Result<Arc<dyn Map>> {
        self.0.map(l)
    }
}
