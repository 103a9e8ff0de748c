//! Small files that are replaced whole: a reader sees the old bytes or the new, never a mixture.

use std::io::{self, IoSlice};
use std::path::Path;

use super::damaged;
use crate::env::{File, Fs, OpenMode};
use crate::error::{Error, ErrorKind};

/// Temporary files end so; those found at open are left-overs of a crash and removed.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Writes a temporary file beside `path`, syncs it, renames it over `path` and syncs the directory.
pub(crate) fn replace(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_and_rename(fs, path, bytes)?;
    let dir = path.parent().expect("files of a log have a directory");
    fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
}

/// [`replace`] without the sync of the directory, for a caller that syncs it after more.
pub(crate) fn write_and_rename(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().expect("files of a log have a name").to_owned();
    name.push(TEMPORARY);
    let temporary = path.with_file_name(name);
    let write = || {
        let written = write_new(fs, &temporary, bytes)
            .map_err(|error| Error::io("write", &temporary, error))
            .and_then(|()| fs.rename(&temporary, path).map_err(|error| Error::io("replace", path, error)));
        if written.is_err() {
            // The next attempt, or the next open, removes it if this does not.
            let _ = fs.remove_file(&temporary);
        }
        written
    };
    match write() {
        // Somebody else may have made room a moment ago.
        Err(error) if error.kind() == ErrorKind::Full && (fs.make_room() || fs.has_made_room()) => write(),
        written => written,
    }
}

/// Writes and syncs a file, in place of one of that name that a crash may have left.
pub(crate) fn write_new(fs: &dyn Fs, path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_left_over(fs, path)?;
    let file = fs.open(path, OpenMode::CreateNew)?;
    write_all(&*file, &mut [IoSlice::new(bytes)], 0)?;
    file.sync_data()
}

/// Removes a file if it is there.
pub(crate) fn remove_left_over(fs: &dyn Fs, path: &Path) -> io::Result<()> {
    match fs.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// No small file is longer: the index of a segment of 4 GiB with a row every 4 KiB, and more logs
/// in a checkpoint than a machine has files.
const MOST_BYTES: u64 = 64 << 20;

/// Reads a whole small file; `None` if there is none. One that is too long for any of ours is
/// damage, before memory is taken for it.
pub(crate) fn read(fs: &dyn Fs, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match fs.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let len = file.status().map_err(|error| Error::io("look at", path, error))?.len;
    if len > MOST_BYTES {
        return Err(damaged(path, &format!("it is {len} bytes long, which no such file is")));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    read_exact(&*file, &mut bytes, 0).map_err(|error| Error::io("read", path, error))?;
    Ok(Some(bytes))
}

/// Fills `buf` from `position`.
pub(crate) fn read_exact(file: &dyn File, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buf = &mut buf[read..];
                position += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `parts` at `position`, in one call unless the system takes less at a time.
pub(crate) fn write_all(file: &dyn File, mut parts: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
    // IOV_MAX of Linux.
    const MOST_PARTS: usize = 1024;
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_at(&parts[..parts.len().min(MOST_PARTS)], position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut parts, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
