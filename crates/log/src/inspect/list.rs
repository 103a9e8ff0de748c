//! Which logs a data directory holds, by their small files and the headers of their newest segments.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use logmill_record::Offset;
use uuid::Uuid;

use super::directory::Directory;
use crate::env::{Env, Fs, OpenMode};
use crate::error::Error;
use crate::format::atomic;
use crate::format::checkpoint::{self, Checkpoint, Durable, Row};
use crate::format::meta::{FILE as META, LogMeta};
use crate::format::set_file::SetFile;
use crate::log::{Rolls, base_of_record, replaced_by};
use crate::segment::{DATA, Gaps, base_of, path, rebuild};
use crate::set::{CHECKPOINT, SET};

/// What a data directory holds.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{Listing, list};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let listing: Listing = list(&Env::real(), dir.path())?;
/// assert!(listing.clean && listing.logs.len() == 1);
/// assert_eq!(listing.open_counter, Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listing {
    /// The data directory.
    pub dir: PathBuf,
    /// Its identity; `None` if `set` cannot be read.
    pub id: Option<Uuid>,
    /// How often it was opened.
    pub open_counter: Option<u32>,
    /// Whether it was closed cleanly.
    pub clean: bool,
    /// Its logs, by their paths.
    pub logs: Vec<LogListing>,
}

/// A log of a data directory.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{LogListing, list};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// for log in &list(&Env::real(), dir.path())?.logs {
///     let log: &LogListing = log;
///     match &log.meta {
///         Ok(meta) => println!("{:?}: {} in {} bytes", log.path, meta.id, log.bytes()),
///         Err(error) => println!("{:?}: {error}", log.path),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogListing {
    /// Its path below the data directory; empty if it is the directory itself.
    pub path: PathBuf,
    /// What is known of it; an error if its `meta`, or anything of it, cannot be read.
    pub meta: Result<LogMeta, Error>,
    /// Its segments, in order.
    pub segments: Vec<SegmentListing>,
    /// The first offset that it holds.
    pub first_offset: Offset,
    /// The offset after the last whole batch of its newest segment.
    pub end_offset: Offset,
    /// What the checkpoint says of it.
    pub checkpoint: Option<CheckpointRow>,
}

impl LogListing {
    /// Bytes of its segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// What its owner keeps with it.
    #[must_use]
    pub fn owner(&self) -> Option<&Bytes> {
        self.meta.as_ref().ok().map(|meta| &meta.owner)
    }
}

/// A segment of a log.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{SegmentListing, list};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let listing = list(&Env::real(), dir.path())?;
/// let newest: Option<&SegmentListing> = listing.logs[0].segments.last();
/// assert_eq!(newest.map(|segment| (segment.base_offset.get(), segment.bytes)), Some((0, 0)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentListing {
    /// The offset in its name.
    pub base_offset: Offset,
    /// The length of its data file.
    pub bytes: u64,
}

/// How far a log is known to be on disk.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{CheckpointRow, list};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let listing = list(&Env::real(), dir.path())?;
/// let row: CheckpointRow = listing.logs[0].checkpoint.expect("it was closed cleanly");
/// assert_eq!(row.end_offset, listing.logs[0].end_offset);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointRow {
    /// The base offset of the segment that was the newest.
    pub active_base: Offset,
    /// The offset after the last durable record.
    pub end_offset: Offset,
    /// The length of that segment's durable bytes.
    pub position: u64,
    /// Whether the log was closed cleanly there, if the data directory was.
    pub clean: bool,
}

impl From<Row> for CheckpointRow {
    fn from(row: Row) -> Self {
        let Durable { active_base, end: end_offset, position } = row.durable;
        Self { active_base, end_offset, position, clean: row.clean }
    }
}

/// Lists the logs of the data directory `dir`.
///
/// Reads small files and the headers of each log's newest segment, and nothing is written. Damage
/// is left to [`verify`](super::verify()): what cannot be read is missing here.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::{LogOptions, LogSet, SetOptions, inspect};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// set.create("orders", b"mine", LogOptions::default())?;
/// set.close()?;
///
/// let listing = inspect::list(&Env::real(), dir.path())?;
/// assert!(listing.clean);
/// for log in &listing.logs {
///     println!("{} holds {} to {}", log.path.display(), log.first_offset, log.end_offset);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// `NotFound`, `Denied`; `Invalid` if it is no data directory; `Locked` if somebody has it open.
pub fn list(env: &Env, dir: impl AsRef<Path>) -> Result<Listing, Error> {
    let fs = &*env.fs;
    let directory = Directory::open(fs, dir.as_ref())?;
    let dir = &directory.path;
    let set = dir.join(SET);
    let file = atomic::read(fs, &set).ok().flatten().and_then(|bytes| SetFile::decode(&set, &bytes).ok());
    let rows = dir.join(CHECKPOINT);
    let rows =
        atomic::read(fs, &rows).ok().flatten().and_then(|bytes| checkpoint::decode(&rows, &bytes).ok());
    let rows = rows.unwrap_or_default();
    let clean = file.is_some_and(|file| file.clean);
    let logs = directory.found.logs.iter().map(|path| match list_log(fs, (dir, path), &rows, clean) {
        Err(error) if error.kind() == crate::ErrorKind::Denied => Ok(unread(path, error)),
        listed => listed,
    });
    let logs = logs.collect::<Result<_, _>>()?;
    Ok(Listing {
        dir: dir.clone(),
        id: file.map(|file| file.id),
        open_counter: file.map(|file| file.open_counter),
        clean,
        logs,
    })
}

/// A log that this user may not read.
fn unread(path: &Path, error: Error) -> LogListing {
    let (first_offset, end_offset) = (Offset::ZERO, Offset::ZERO);
    let (path, meta, segments) = (path.to_owned(), Err(error), Vec::new());
    LogListing { path, meta, segments, first_offset, end_offset, checkpoint: None }
}

fn list_log(
    fs: &dyn Fs,
    (dir, below): (&Path, &Path),
    rows: &Checkpoint,
    clean: bool,
) -> Result<LogListing, Error> {
    let log_dir = dir.join(below);
    let meta = read_meta(fs, &log_dir.join(META));
    let row = meta.as_ref().ok().and_then(|meta| rows.get(&meta.id)).copied();
    let mut segments = segments(fs, &log_dir)?;
    let clean = clean && row.is_some_and(|row| row.clean);
    let gaps_below = meta.as_ref().map_or(Offset::MAX, |meta| meta.gaps_below);
    let rolls = Rolls { fs, dir: &log_dir, durable: row.map(|row| row.durable), clean, gaps_below };
    while let [.., before, last] = segments[..]
        && last.bytes == 0
        && rolls.was_never_begun(before.base_offset, last.base_offset)?
    {
        segments.pop();
    }
    let start = meta.as_ref().map_or(Offset::ZERO, |meta| meta.start_offset);
    let first = segments.first().map_or(start, |first| first.base_offset);
    let end_offset = match segments.last() {
        Some(last) => end_of(fs, &log_dir, *last)?,
        None => start,
    };
    let checkpoint = row.map(Into::into);
    let path = below.to_owned();
    Ok(LogListing { path, meta, segments, first_offset: first.max(start), end_offset, checkpoint })
}

/// A log's `meta`.
pub(crate) fn read_meta(fs: &dyn Fs, path: &Path) -> Result<LogMeta, Error> {
    match atomic::read(fs, path)? {
        Some(bytes) => LogMeta::decode(path, &bytes),
        None => Err(Error::io("open", path, ErrorKind::NotFound.into())),
    }
}

/// The segments of a log, in order, with the lengths of their data. What has the name of one and is
/// no plain file is left out.
pub(crate) fn segments(fs: &dyn Fs, log_dir: &Path) -> Result<Vec<SegmentListing>, Error> {
    let entries = fs.list(log_dir).map_err(|error| Error::io("list", log_dir, error))?;
    let of_files = entries.iter().filter(|entry| !entry.is_dir);
    let mut bases: Vec<_> = of_files.filter_map(|entry| base_of(&entry.name)).collect();
    // Those that were merged into another, and that the next open removes.
    let mut replaced = Vec::new();
    for base in entries.iter().filter_map(|entry| base_of_record(&entry.name)) {
        replaced.append(&mut replaced_by(fs, log_dir, base, &bases)?.bases);
    }
    bases.retain(|base| !replaced.contains(base));
    let listing = |base_offset| {
        let data = path(log_dir, base_offset, DATA);
        match fs.open(&data, OpenMode::Read).and_then(|file| file.status()) {
            Ok(status) => Some(Ok(SegmentListing { base_offset, bytes: status.len })),
            Err(error) if error.kind() == ErrorKind::IsADirectory => None,
            Err(error) => Some(Err(Error::io("look at", &data, error))),
        }
    };
    bases.into_iter().filter_map(listing).collect()
}

/// The offset after the last whole batch of a segment, by the headers.
pub(crate) fn end_of(fs: &dyn Fs, log_dir: &Path, last: SegmentListing) -> Result<Offset, Error> {
    let data = path(log_dir, last.base_offset, DATA);
    let read = || {
        let file = fs.open(&data, OpenMode::Read)?;
        rebuild(&*file, last.base_offset, file.status()?, Gaps::None)
    };
    let (_, found) = read().map_err(|error| Error::io("read", &data, error))?;
    Ok(found.next_offset)
}
