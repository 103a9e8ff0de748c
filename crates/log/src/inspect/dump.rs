//! Handing out what data files hold, batch by batch, the damaged ones among them.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use logmill_record::{BatchHeader, HEADER_LEN, Offset};

use super::directory::Directory;
use super::list::{read_meta, segments};
use crate::env::{Env, File, Fs, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::meta::FILE as META;
use crate::segment::{DATA, base_of};
use crate::segment::{Gap, Piece, Survey};

/// What to dump.
///
/// ```
/// use logmill_log::inspect::DumpOptions;
/// use logmill_record::Offset;
///
/// let all = DumpOptions::default();
/// let some = DumpOptions::default().log("orders").from(Offset(1_000));
/// # let _ = (all, some);
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct DumpOptions {
    log: Option<PathBuf>,
    from: Offset,
}

impl DumpOptions {
    /// Only the log at this path below the data directory.
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Only batches that hold this offset or come after it.
    pub fn from(mut self, offset: Offset) -> Self {
        self.from = offset;
        self
    }
}

/// What lies next in a data file.
///
/// ```
/// use std::ops::ControlFlow;
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{DumpOptions, Dumped, DumpedBatch, DumpedDamage, dump};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let (mut batches, mut damage): (Vec<DumpedBatch>, Vec<DumpedDamage>) = Default::default();
/// dump(&Env::real(), dir.path(), &DumpOptions::default(), &mut |dumped| {
///     match dumped {
///         Dumped::Batch(batch) => batches.push(batch),
///         Dumped::Damage(bytes) => damage.push(bytes),
///         _ => {}
///     }
///     ControlFlow::Continue(())
/// })?;
/// assert!(batches.is_empty() && damage.is_empty(), "nothing was appended");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Dumped {
    /// A whole batch.
    Batch(DumpedBatch),
    /// Bytes that are none.
    Damage(DumpedDamage),
}

/// A whole batch and where it is.
///
/// ```
/// use std::ops::ControlFlow;
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{DumpOptions, Dumped, DumpedBatch, dump};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// dump(&Env::real(), dir.path(), &DumpOptions::default(), &mut |dumped| {
///     if let Dumped::Batch(DumpedBatch { file, position, header, .. }) = dumped {
///         println!("{} at {position} of {}", header.base_offset, file.display());
///     }
///     ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DumpedBatch {
    /// The log's path below the data directory; `None` if a file alone is dumped.
    pub log: Option<Arc<Path>>,
    /// The data file.
    pub file: Arc<Path>,
    /// Where in it the batch begins.
    pub position: u64,
    /// The batch's header.
    pub header: BatchHeader,
    /// The whole batch, whose CRC is right; [`Batch::parse`](logmill_record::Batch::parse) takes it.
    pub bytes: Bytes,
}

/// Bytes that are no whole batch.
///
/// ```
/// use std::ops::ControlFlow;
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{DumpOptions, Dumped, DumpedDamage, dump};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// dump(&Env::real(), dir.path(), &DumpOptions::default(), &mut |dumped| {
///     if let Dumped::Damage(DumpedDamage { file, position, len, what, .. }) = dumped {
///         println!("{len} bytes at {position} of {}: {what}", file.display());
///     }
///     ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DumpedDamage {
    /// The log's path below the data directory; `None` if a file alone is dumped.
    pub log: Option<Arc<Path>>,
    /// The data file.
    pub file: Arc<Path>,
    /// Where in it they begin.
    pub position: u64,
    /// How many there are.
    pub len: u64,
    /// The first offset that is missing.
    pub from: Offset,
    /// Where the next whole batch begins, if there is one.
    pub to: Option<Offset>,
    /// What is wrong.
    pub what: String,
}

/// Calls `each` for every batch of the data directory `path`, or of the one data file `path`, in
/// order, until it breaks. Changes nothing. A data file alone is read without anybody's lock.
///
/// ```
/// use std::ops::ControlFlow;
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{DumpOptions, Dumped, dump};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
///
/// dump(&Env::real(), dir.path(), &DumpOptions::default(), &mut |dumped| {
///     match dumped {
///         Dumped::Batch(batch) => println!("{} {:?}", batch.position, batch.header),
///         Dumped::Damage(damage) => println!("{} {}", damage.position, damage.what),
///         _ => {}
///     }
///     ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`list`](super::list()); `NotFound` if the directory holds no log of that path; `Invalid` if a file
/// alone is no segment.
pub fn dump(
    env: &Env,
    path: impl AsRef<Path>,
    options: &DumpOptions,
    each: &mut dyn FnMut(Dumped) -> ControlFlow<()>,
) -> Result<(), Error> {
    let (fs, path) = (&*env.fs, path.as_ref());
    if let Some(base) = data_file(fs, path)? {
        // A file alone may be anybody's, and compacted.
        let base = base.map_or_else(|| first_offset(fs, path), Ok)?;
        let bounds = Bounds { base, end: None, len: None, gaps: true };
        let out = Out { log: None, file: path.into(), from: options.from, each };
        return dump_file(fs, out, &bounds).map(drop);
    }
    let directory = Directory::open(fs, path)?;
    let logs: Vec<&PathBuf> = match &options.log {
        None => directory.found.logs.iter().collect(),
        Some(log) => directory.found.logs.iter().filter(|path| *path == log).collect(),
    };
    if let (Some(log), true) = (&options.log, logs.is_empty()) {
        let message = format!(
            "{} holds no log {}; `logmill log ls` says which there are",
            path.display(),
            log.display()
        );
        return Err(Error::new(ErrorKind::NotFound, message).at_path(path));
    }
    for log in logs {
        let log_dir = path.join(log);
        let shared: Arc<Path> = log.as_path().into();
        let found = segments(fs, &log_dir)?;
        let gaps_below = read_meta(fs, &log_dir.join(META)).map_or(Offset::MAX, |meta| meta.gaps_below);
        for (index, listing) in found.iter().enumerate() {
            let end = found.get(index + 1).map(|next| next.base_offset);
            if end.is_some_and(|end| end <= options.from) {
                continue;
            }
            let file = crate::segment::path(&log_dir, listing.base_offset, DATA);
            let log = Some(Arc::clone(&shared));
            let out = Out { log, file: file.as_path().into(), from: options.from, each };
            let bounds = Bounds {
                base: listing.base_offset,
                end,
                len: Some(listing.bytes),
                gaps: end.is_some() && listing.base_offset < gaps_below,
            };
            if dump_file(fs, out, &bounds)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The base offset of a data file by its name, `Some(None)` if the name does not say; `None` if
/// the path is a directory.
#[expect(clippy::option_option, reason = "a file or not, and if so, with a base offset or not")]
fn data_file(fs: &dyn Fs, path: &Path) -> Result<Option<Option<Offset>>, Error> {
    match fs.list(path) {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::io("open", path, error)),
        Err(_) => {
            let name = path.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
            Ok(Some(base_of(&name)))
        }
    }
}

/// Where what is found goes.
struct Out<'a> {
    log: Option<Arc<Path>>,
    file: Arc<Path>,
    from: Offset,
    each: &'a mut dyn FnMut(Dumped) -> ControlFlow<()>,
}

/// What is known of a data file before it is read.
struct Bounds {
    base: Offset,
    end: Option<Offset>,
    len: Option<u64>,
    gaps: bool,
}

fn dump_file(fs: &dyn Fs, mut out: Out<'_>, bounds: &Bounds) -> Result<ControlFlow<()>, Error> {
    let file = Arc::clone(&out.file);
    let handle = fs.open(&file, OpenMode::Read).map_err(|error| Error::io("open", &file, error))?;
    out.run(&*handle, bounds).map_err(|error| Error::io("read", &file, error))
}

impl Out<'_> {
    fn run(&mut self, file: &dyn File, bounds: &Bounds) -> std::io::Result<ControlFlow<()>> {
        let len = bounds.len.map_or_else(|| file.status().map(|status| status.len), Ok)?;
        let mut survey = Survey::new(file, len, bounds.base, bounds.end.unwrap_or(Offset::MAX), bounds.gaps);
        while let Some(piece) = survey.next()? {
            let dumped = match piece {
                Piece::Batch(whole) if whole.header.next_offset() <= self.from => continue,
                Piece::Batch(whole) => Dumped::Batch(DumpedBatch {
                    log: self.log.clone(),
                    file: Arc::clone(&self.file),
                    position: whole.position,
                    bytes: survey.bytes(&whole)?,
                    header: whole.header,
                }),
                Piece::Damage(Gap { to: Some(to), .. }) if to <= self.from => continue,
                Piece::Damage(Gap { position, len, from, to, what, .. }) => {
                    let (log, file) = (self.log.clone(), Arc::clone(&self.file));
                    Dumped::Damage(DumpedDamage { log, file, position, len, from, to, what })
                }
            };
            if (self.each)(dumped).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// The first offset of a file whose name does not say: that of its first batch. What a segment has left
/// beside it, or left to another name, may begin with damage.
fn first_offset(fs: &dyn Fs, path: &Path) -> Result<Offset, Error> {
    let mut head = [0; HEADER_LEN];
    let mut read = || {
        let file = fs.open(path, OpenMode::Read)?;
        let len = usize::try_from(file.status()?.len).unwrap_or(HEADER_LEN).min(HEADER_LEN);
        atomic::read_exact(&*file, &mut head[..len], 0)
    };
    read().map_err(|error| Error::io("read", path, error))?;
    let of_segment = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".log."));
    match BatchHeader::parse(&head) {
        Ok(header) => Ok(header.base_offset),
        Err(_) if of_segment => Ok(Offset::ZERO),
        Err(_) => {
            let message = format!(
                "{} is no segment: it does not begin with a record batch; give a data directory, or one of its \
                 .log files",
                path.display()
            );
            Err(Error::new(ErrorKind::Invalid, message).at_path(path))
        }
    }
}
