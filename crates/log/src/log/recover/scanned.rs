//! How much of its data opening a log reads, told while it goes on.

use std::fmt;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::{File, FileStatus, Map};
use crate::options::{ScanHook, ScanProgress};

/// The owner hears after so many bytes of one log: a tenth of a second on a disk that is no worse
/// than it should be.
const EVERY_BYTES: u64 = 16 << 20;

/// Hears of each read, how long it was.
pub(crate) type OnRead = Box<dyn Fn(u64) + Send + Sync>;

/// Counts what opening one log reads.
pub(crate) struct Scanned {
    log: PathBuf,
    bytes: AtomicU64,
    hook: Option<ScanHook>,
    on_read: Option<OnRead>,
}

impl Scanned {
    pub(crate) fn new(log: PathBuf, hook: Option<ScanHook>, on_read: Option<OnRead>) -> Arc<Self> {
        Arc::new(Self { log, bytes: AtomicU64::new(0), hook, on_read })
    }

    /// `file`, with what is read of it counted.
    pub(super) fn count(self: &Arc<Self>, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(Counted { file, scanned: Arc::clone(self) })
    }

    fn note(&self, read: u64) {
        let before = self.bytes.fetch_add(read, Ordering::Relaxed);
        let scanned_bytes = before + read;
        if let Some(hook) = &self.hook
            && scanned_bytes / EVERY_BYTES > before / EVERY_BYTES
        {
            hook.call(ScanProgress { log: &self.log, scanned_bytes });
        }
        if let Some(on_read) = &self.on_read {
            on_read(read);
        }
    }
}

impl fmt::Debug for Scanned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scanned").field("log", &self.log).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Counted {
    file: Arc<dyn File>,
    scanned: Arc<Scanned>,
}

impl File for Counted {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let read = self.file.read_at(buf, position)?;
        self.scanned.note(read as u64);
        Ok(read)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
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
