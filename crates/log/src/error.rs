//! The crate's error: what happened, to which file, where in it, and what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use logmill_record::Offset;

/// What kind of failure an [`Error`] is. Match on this, never on the text.
///
/// ```
/// use logmill_log::{Error, ErrorKind};
///
/// /// Whether the same call may succeed later.
/// fn worth_another_try(error: &Error) -> bool {
///     matches!(error.kind(), ErrorKind::Full | ErrorKind::Locked)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller asked for something that makes no sense; asking again will not help.
    Invalid,
    /// A batch of an idempotent producer came before one that should precede it.
    OutOfSequence,
    /// A batch of an idempotent producer comes again so late that it is not remembered any more: the log has
    /// its records, or had them, and does not know where.
    SequenceForgotten,
    /// A newer instance of the producer has taken over; this one must stop.
    Fenced,
    /// A limit of the log is reached; the message names it.
    Limit,
    /// An offset below the log's start or above its end.
    OutOfRange,
    /// The file system is full. Nothing was appended; try again when there is space.
    Full,
    /// The operating system refused for want of rights.
    Denied,
    /// Another process, or another handle of this one, has the directory open.
    Locked,
    /// There is no log, or no data directory, where one was expected.
    NotFound,
    /// There is already a log where one was to be created.
    Exists,
    /// The files were written by a newer version.
    NewerFormat,
    /// Bytes on disk are not what was written, or something that is no plain file stands in the place of one.
    Corrupt,
    /// The log cannot be written because of damage found when it was opened; it can be read.
    ReadOnly,
    /// A sync failed: it is not known whether what was appended will survive a power cut.
    OutcomeUnknown,
    /// An earlier sync failed; the log takes nothing more until it is opened again.
    Poisoned,
    /// The log, or its set, has been closed.
    Closed,
    /// Any other failure of the operating system.
    Io,
}

/// A failure of the log, with its place and its cause. Cheap to clone: one failed sync is the
/// answer to everyone who waits for it.
///
/// ```
/// use logmill_log::{ErrorKind, Log, LogOptions, SetOptions};
/// use logmill_record::Offset;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// let error = log.read(Offset(10), 1 << 20).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::OutOfRange);
/// assert_eq!(error.path(), Some(dir.path()));
/// println!("{error}"); // what happened, to what, and what to do
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Error(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    position: Option<u64>,
    offsets: Option<Range<Offset>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Arc::new(Inner { kind, message, path: None, position: None, offsets: None, source: None }))
    }

    /// An error of the operating system while doing `what` to `path`.
    pub(crate) fn io(what: &str, path: &Path, source: io::Error) -> Self {
        let (kind, advice) = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (ErrorKind::Full, "; free some space and try again")
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (
                ErrorKind::Denied,
                "; give this user the rights that this takes, or choose another directory",
            ),
            io::ErrorKind::NotFound => (ErrorKind::NotFound, "; check the path"),
            io::ErrorKind::IsADirectory => {
                (ErrorKind::Corrupt, "; nothing like it was made here: move it out of the data directory")
            }
            // EMFILE and ENFILE have no kind of their own.
            _ if matches!(source.raw_os_error(), Some(23 | 24)) => {
                (ErrorKind::Io, "; let this process have more open files (ulimit -n) and start it again")
            }
            _ => (ErrorKind::Io, "; look at the system's log for what is wrong with the disk"),
        };
        let message = format!("cannot {what} {}: {source}{advice}", path.display());
        Self::new(kind, message).at_path(path).because(source)
    }

    /// A close that may go on for ever.
    pub(crate) fn not_closed_within(dir: &Path, timeout: Duration) -> Self {
        let message = format!(
            "{} is not closed after {timeout:?}: the disk does not answer, so it is not known whether what was \
             appended last is on it; look at the disk, then close it again or end the process",
            dir.display(),
        );
        Self::new(ErrorKind::OutcomeUnknown, message).at_path(dir)
    }

    /// Damage in `path` at `position`, which makes `offsets` unreadable.
    pub(crate) fn corrupt(
        path: &Path,
        position: u64,
        offsets: Range<Offset>,
        what: impl fmt::Display,
    ) -> Self {
        let lost = if offsets.is_empty() {
            String::new()
        } else {
            format!("{} cannot be read; ", InWords(&offsets))
        };
        let message = format!(
            "{} is damaged at byte {position}: {what}; {lost}restore the file from a backup, or go on behind the \
             damage",
            path.display(),
        );
        let mut error = Self::new(ErrorKind::Corrupt, message).at_path(path);
        if let Some(inner) = Arc::get_mut(&mut error.0) {
            inner.position = Some(position);
            inner.offsets = Some(offsets);
        }
        error
    }

    pub(crate) fn at_path(mut self, path: &Path) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.path = Some(path.to_owned());
        }
        self
    }

    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.source = Some(Box::new(source));
        }
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The file or directory that it happened to.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// For damage: the byte in the file where it begins.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.0.position
    }

    /// For damage: the offsets that cannot be read.
    #[must_use]
    pub fn offsets(&self) -> Option<Range<Offset>> {
        self.0.offsets.clone()
    }
}

/// Offsets as people write them: the last one is among them.
pub(crate) struct InWords<'a>(pub(crate) &'a Range<Offset>);

impl fmt::Display for InWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start, self.0.end.get().saturating_sub(1));
        if first.get() == last { write!(f, "offset {first}") } else { write!(f, "offsets {first} to {last}") }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
