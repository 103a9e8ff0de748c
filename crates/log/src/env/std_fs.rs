//! The machine's own file system.

#![expect(clippy::disallowed_methods, reason = "this is the seam itself")]

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use logmill_record::TimestampMs;

use super::map::FileMap;
use super::{Entry, File, FileStatus, Fs, Lock, Map, OpenMode, Space};

/// Files of the operating system.
///
/// ```
/// use std::io::IoSlice;
/// use logmill_log::env::{Fs, OpenMode, StdFs};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// let file = StdFs.open(&dir.path().join("note"), OpenMode::CreateNew)?;
/// file.write_at(&[IoSlice::new(b"said "), IoSlice::new(b"and done")], 0)?;
/// file.sync_data()?;
/// StdFs.sync_dir(dir.path())?; // and its name lasts too
/// assert_eq!(file.status()?.len, 13);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StdFs;

impl Fs for StdFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if mode != OpenMode::CreateNew {
            refuse_special(path)?;
        }
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(StdFile(options.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            entries.push(match entry.file_name().into_string() {
                Ok(name) => Entry { name, is_dir: entry.file_type()?.is_dir() },
                Err(name) => Entry { name: format!("{name:?}"), is_dir: false },
            });
        }
        entries.sort();
        Ok(entries)
    }

    fn resolve(&self, dir: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let made = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = match made {
            // Who may only read can still see whether anybody has it: a copy on read-only media.
            Err(error) if unwritable(&error) => {
                refuse_special(path).and_then(|()| fs::File::open(path)).map_err(|_| error)?
            }
            made => made?,
        };
        file.try_lock().map_err(io::Error::from)?;
        Ok(Box::new(StdLock(file)))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let status = rustix::fs::statvfs(dir)?;
        Ok(Space {
            available_bytes: status.f_bavail.saturating_mul(status.f_frsize),
            total_bytes: status.f_blocks.saturating_mul(status.f_frsize),
        })
    }
}

/// Opening a FIFO waits for who writes to it, and a device does who knows what: neither is opened.
fn refuse_special(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => return Err(rustix::io::Errno::ISDIR.into()),
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    let message = format!("it is {what}, where a plain file should be");
    Err(io::Error::new(io::ErrorKind::IsADirectory, message))
}

fn unwritable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The lock goes with the descriptor, also when the process is killed.
#[derive(Debug)]
struct StdLock(#[expect(dead_code, reason = "held for its lock")] fs::File);

impl Lock for StdLock {}

#[derive(Debug)]
struct StdFile(fs::File);

impl File for StdFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buf, position)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.0, parts, position)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn status(&self) -> io::Result<FileStatus> {
        let metadata = self.0.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(FileStatus {
            len: metadata.len(),
            modified: TimestampMs(i64::try_from(modified.as_millis()).unwrap_or(i64::MAX)),
        })
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        if self.0.metadata()?.len() < len {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than its map"));
        }
        let len = usize::try_from(len).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Arc::new(FileMap::new(&self.0, len)?))
    }
}
