//! The file system, injected: the calls that the log makes, and no others.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_record::TimestampMs;

/// How to open a file.
///
/// ```
/// use std::io::ErrorKind;
/// use logmill_log::env::{Fs, OpenMode, StdFs};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("file");
/// assert_eq!(StdFs.open(&path, OpenMode::Read).unwrap_err().kind(), ErrorKind::NotFound);
/// StdFs.open(&path, OpenMode::CreateNew)?;
/// assert_eq!(StdFs.open(&path, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
/// StdFs.open(&path, OpenMode::ReadWrite)?;
/// # Ok(())
/// # }
/// ```
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
///
/// ```
/// use logmill_log::env::{Entry, Fs, StdFs};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// StdFs.create_dir(&dir.path().join("orders"))?;
/// assert_eq!(StdFs.list(dir.path())?, [Entry { name: "orders".into(), is_dir: true }]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, without the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
}

/// How large a file is and when it was last written.
///
/// ```
/// use logmill_log::env::{FileStatus, Fs, OpenMode, StdFs};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// let file = StdFs.open(&dir.path().join("file"), OpenMode::CreateNew)?;
/// let FileStatus { len, modified } = file.status()?;
/// assert!(len == 0 && modified.0 > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// Length in bytes.
    pub len: u64,
    /// Time of the last write.
    pub modified: TimestampMs,
}

/// Space on a file system.
///
/// ```
/// use std::path::Path;
/// use logmill_log::env::{Fs, Space, StdFs};
///
/// # fn main() -> std::io::Result<()> {
/// let Space { available_bytes, total_bytes } = StdFs.space(Path::new("/"))?;
/// assert!(available_bytes <= total_bytes);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can still be written.
    pub available_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Directories. Changes to a directory last only from its `sync_dir` on.
///
/// A program that has storage of its own writes one of these, and of [`File`]; this one forbids
/// to remove anything:
///
/// ```
/// use std::io;
/// use std::path::Path;
/// use std::sync::Arc;
/// use logmill_log::env::{Entry, File, Fs, Lock, OpenMode, Space, StdFs};
///
/// #[derive(Debug)]
/// struct KeepAll(StdFs);
///
/// impl Fs for KeepAll {
///     fn remove_file(&self, _: &Path) -> io::Result<()> {
///         Err(io::ErrorKind::PermissionDenied.into())
///     }
///     fn remove_dir(&self, _: &Path) -> io::Result<()> {
///         Err(io::ErrorKind::PermissionDenied.into())
///     }
///     # fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> { self.0.open(path, mode) }
///     # fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> { self.0.list(dir) }
///     # fn create_dir(&self, dir: &Path) -> io::Result<()> { self.0.create_dir(dir) }
///     # fn rename(&self, from: &Path, to: &Path) -> io::Result<()> { self.0.rename(from, to) }
///     # fn sync_dir(&self, dir: &Path) -> io::Result<()> { self.0.sync_dir(dir) }
///     # fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> { self.0.lock(path) }
///     # fn space(&self, dir: &Path) -> io::Result<Space> { self.0.space(dir) }
///     // ... and the rest handed on to `self.0`
/// }
/// ```
pub trait Fs: fmt::Debug + Send + Sync {
    /// Opens or creates a file. What is no plain file, such as a directory or a FIFO, is refused as
    /// `IsADirectory`, and never waited for.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// The entries of a directory, in order of their names. A name that is not UTF-8 comes as a string literal
    /// would have it, in quotes and with escapes, and as no directory: the log makes none, and looks for none
    /// that begins with a quote.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// The path of a directory without links in it. Where there are none, it is `dir`.
    fn resolve(&self, dir: &Path) -> io::Result<PathBuf> {
        Ok(dir.to_owned())
    }

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

    /// Called when a write that must succeed found no space: frees what is held back for it, and
    /// says whether it did. A file system by itself holds nothing back.
    fn make_room(&self) -> bool {
        false
    }

    /// Whether what was held back has been freed already, so that a write that found no space at that moment may be
    /// tried once more.
    fn has_made_room(&self) -> bool {
        false
    }
}

/// A held lock; dropping it gives it back.
///
/// ```
/// use std::io::ErrorKind;
/// use logmill_log::env::{Fs, StdFs};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("lock");
/// let lock = StdFs.lock(&path)?;
/// assert_eq!(StdFs.lock(&path).map(drop).unwrap_err().kind(), ErrorKind::WouldBlock);
/// drop(lock);
/// StdFs.lock(&path)?;
/// # Ok(())
/// # }
/// ```
pub trait Lock: fmt::Debug + Send + Sync {}

/// An open file. Bytes written last only from the next successful `sync_data` on.
///
/// ```
/// use std::io::IoSlice;
/// use logmill_log::env::{Fs, OpenMode, StdFs};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// let file = StdFs.open(&dir.path().join("file"), OpenMode::CreateNew)?;
/// file.write_at(&[IoSlice::new(b"record")], 0)?;
/// file.sync_data()?;
/// let mut buf = [0; 4];
/// assert_eq!(file.read_at(&mut buf, 2)?, 4);
/// assert_eq!(&buf, b"cord");
/// # Ok(())
/// # }
/// ```
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
///
/// ```
/// use std::io::IoSlice;
/// use logmill_log::env::{Fs, OpenMode, StdFs};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// let file = StdFs.open(&dir.path().join("file"), OpenMode::CreateNew)?;
/// file.write_at(&[IoSlice::new(b"record")], 0)?;
/// let map = file.map(6)?;
/// assert_eq!((*map).as_ref(), b"record");
/// # Ok(())
/// # }
/// ```
pub trait Map: AsRef<[u8]> + fmt::Debug + Send + Sync {
    /// Brings a range into memory, so that an error of the disk is an error here and not a fault
    /// at the first touch. `Unsupported` where the kernel cannot.
    fn populate(&self, range: Range<usize>) -> io::Result<()>;
}
