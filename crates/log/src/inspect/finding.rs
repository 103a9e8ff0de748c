//! What an inspection finds, and what can be done about it.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use logmill_record::Offset;

use crate::error::InWords;

/// How much something that was found matters.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{Severity, verify};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let report = verify(&Env::real(), dir.path(), &mut |_| ())?;
/// assert_eq!(report.count(Severity::Data), 0);
/// assert!(Severity::Note < Severity::Sidecar && Severity::Sidecar < Severity::Data);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing; nothing is lost and nothing has to be done.
    Note,
    /// A file is damaged that can be made again from the data.
    Sidecar,
    /// Something that was stored cannot be read.
    Data,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Sidecar => "sidecar",
            Self::Data => "data",
        })
    }
}

/// What kind of thing was found.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{FindingKind, verify};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let report = verify(&Env::real(), dir.path(), &mut |_| ())?;
/// let gone = report.findings.iter().filter(|finding| finding.kind == FindingKind::Missing);
/// assert_eq!(gone.count(), 0, "no offsets are missing");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The file `set` of the data directory is missing or damaged.
    SetFile,
    /// The file `checkpoint` is missing or damaged.
    Checkpoint,
    /// A log's `meta` is missing or damaged.
    Meta,
    /// Bytes of a segment are no whole batch where one should be.
    Batch,
    /// Batches are whole, and not those that were written: their index says otherwise.
    Headers,
    /// A batch is as it was written, and its records do not add up.
    Records,
    /// Offsets that the log once held are in no file.
    Missing,
    /// An index is missing, damaged or does not fit its segment.
    Index,
    /// What is known of producers is missing, damaged or does not fit its segment.
    State,
    /// The record of a merging of segments is damaged.
    Replacement,
    /// The end of the newest segment is an unfinished write.
    TornTail,
    /// Records are compressed in a way that this program was built without.
    Codec,
    /// A file that the log does not use.
    Stray,
    /// What has the name of a segment is no plain file.
    NoFile,
    /// Two directories say that they are the same log.
    Copy,
    /// A log that was not looked into: a newer version wrote it, or this user may not read it.
    Unread,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SetFile => "set",
            Self::Checkpoint => "checkpoint",
            Self::Meta => "meta",
            Self::Batch => "batch",
            Self::Headers => "headers",
            Self::Records => "records",
            Self::Missing => "missing",
            Self::Index => "index",
            Self::State => "state",
            Self::Replacement => "replacement",
            Self::TornTail => "torn-tail",
            Self::Codec => "codec",
            Self::Stray => "stray",
            Self::NoFile => "no-file",
            Self::Copy => "copy",
            Self::Unread => "unread",
        })
    }
}

/// One thing that [`verify`](super::verify()) found.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{Severity, verify};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// # #[expect(clippy::disallowed_methods, reason = "damage by hand")]
/// std::fs::write(dir.path().join("meta"), "not what was written")?;
///
/// let report = verify(&Env::real(), dir.path(), &mut |_| ())?;
/// assert_eq!(report.findings[0].severity, Severity::Data);
/// println!("{}", report.findings[0]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What kind of thing it is.
    pub kind: FindingKind,
    /// The log's path below the data directory; `None` for the directory's own files.
    pub log: Option<PathBuf>,
    /// The file.
    pub file: PathBuf,
    /// The byte in the file where it begins, where there is one.
    pub position: Option<u64>,
    /// The offsets that it concerns, as far as they are known.
    pub offsets: Option<Range<Offset>>,
    /// What is the matter.
    pub what: String,
    /// What can be done about it, or will happen by itself.
    pub advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(position) = self.position {
            write!(f, " at byte {position}")?;
        }
        write!(f, ": {}", self.what)?;
        if let Some(offsets) = self.offsets.as_ref().filter(|offsets| !offsets.is_empty()) {
            write!(f, "; {}", InWords(offsets))?;
        }
        write!(f, "; {}", self.advice)
    }
}

/// How far a pass over a data directory has come.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{Progress, verify};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let mut told = |progress: Progress| println!("{} of {}", progress.done_bytes, progress.total_bytes);
/// verify(&Env::real(), dir.path(), &mut told)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of segments that were read.
    pub done_bytes: u64,
    /// Bytes of segments in all.
    pub total_bytes: u64,
}
