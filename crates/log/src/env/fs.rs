//! The file system, injected: the calls that the log makes, and no others.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use logmill_record::TimestampMs;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; it must not exist yet.
    CreateNew,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
}

/// How large a file is and when it was last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Length in bytes.
    pub len: u64,
    /// Time of the last write.
    pub modified: TimestampMs,
}

/// Space on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can still be written.
    pub available_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Directories. Changes to a directory last only from its `sync_dir` on.
pub trait Fs: fmt::Debug + Send + Sync {
    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// The entries of a directory, in order of their names. Names that are not UTF-8 are an
    /// error: the log writes none.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Creates a directory; its parent must exist.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file or directory, replacing a file that is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes the name of a file. Who has it open can go on reading.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes the entries of a directory last.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock of a file, which is created if needed. `WouldBlock` if another
    /// holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;

    /// The space on the file system that holds `dir`.
    fn space(&self, dir: &Path) -> io::Result<Space>;
}

/// A held lock; dropping it gives it back.
pub trait Lock: fmt::Debug + Send + Sync {}

/// An open file. Bytes written last only from the next successful `sync_data` on.
pub trait File: fmt::Debug + Send + Sync {
    /// Reads into `buf` from `position`; returns how many bytes were read, 0 at the end.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes `parts` one after the other at `position`; returns how many bytes were written,
    /// which may be fewer than given.
    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize>;

    /// Makes everything written so far last, the length included.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts or extends the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Length and time of the last write.
    fn status(&self) -> io::Result<FileStatus>;

    /// Maps the first `len` bytes for reading. The caller promises that the file is never cut
    /// nor rewritten afterwards.
    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>>;
}

/// A file's bytes in memory.
pub trait Map: AsRef<[u8]> + fmt::Debug + Send + Sync {
    /// Brings a range into memory, so that an error of the disk is an error here and not a fault
    /// at the first touch. `Unsupported` where the kernel cannot.
    fn populate(&self, range: Range<usize>) -> io::Result<()>;
}
