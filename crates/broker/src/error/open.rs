//! Why a broker could not be opened.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use logmill_log::ErrorKind;
use logmill_record::Offset;

use super::Error;
use crate::catalog::Unreadable;
use crate::limits::Limit;

/// What kind of failure an [`OpenError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenErrorKind {
    /// Another process has the data directory open.
    InUse,
    /// The path is a plain file, lies below one, or is a directory that holds something else.
    NotADataDirectory,
    /// What the node was told cannot be: a limit of nothing, or settings for its topics that it would refuse.
    Configuration,
    /// The user may not write there.
    Denied,
    /// A newer version of the program wrote it.
    NewerFormat,
    /// The node's own files are damaged or missing.
    Damaged,
    /// The file system is full.
    Full,
    /// Any other failure of the operating system.
    Io,
}

/// Why a broker could not be opened: one sentence that says what to do.
///
/// ```
/// use logmill_broker::{Broker, Config, OpenErrorKind};
///
/// # let dir = tempfile::tempdir()?;
/// let first = Broker::open(Config::new(dir.path()))?;
/// let error = Broker::open(Config::new(dir.path())).unwrap_err();
/// assert_eq!(error.kind(), OpenErrorKind::InUse);
/// println!("{error}");
/// first.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OpenError {
    kind: OpenErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl OpenError {
    fn new(kind: OpenErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// A failure of the data directory, which the log crate says well.
    pub(crate) fn from_log(error: logmill_log::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Locked => OpenErrorKind::InUse,
            ErrorKind::Invalid => OpenErrorKind::NotADataDirectory,
            ErrorKind::Denied => OpenErrorKind::Denied,
            ErrorKind::NewerFormat => OpenErrorKind::NewerFormat,
            ErrorKind::Corrupt => OpenErrorKind::Damaged,
            ErrorKind::Full => OpenErrorKind::Full,
            _ => OpenErrorKind::Io,
        };
        Self::new(kind, error.to_string()).because(error)
    }

    pub(crate) fn limit_of_nothing(limit: Limit) -> Self {
        let message =
            format!("the limit {limit} is 0, and nothing could be done within it: set it to at least 1");
        Self::new(OpenErrorKind::Configuration, message)
    }

    /// A setting for topics that do not have their own, which one that has it would be refused.
    pub(crate) fn topic_default(error: Error) -> Self {
        let message = format!("the node's default for its topics cannot be: {error}");
        Self::new(OpenErrorKind::Configuration, message).because(error)
    }

    pub(crate) fn io(what: &str, path: &Path, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => OpenErrorKind::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => OpenErrorKind::Full,
            _ => OpenErrorKind::Io,
        };
        Self::new(kind, format!("cannot {what} {}: {error}", path.display())).because(error)
    }

    pub(crate) fn metadata_damaged(dir: &Path, error: logmill_log::Error) -> Self {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::ReadOnly | ErrorKind::NotFound => {
                let message = format!(
                    "the node's own metadata in {} is damaged, and without it the node does not know its topics: \
                     {error}; {}",
                    dir.display(),
                    put_back(dir)
                );
                Self::new(OpenErrorKind::Damaged, message).because(error)
            }
            _ => Self::from_log(error),
        }
    }

    pub(crate) fn metadata_unreadable(dir: &Path, offset: Offset, cause: Unreadable) -> Self {
        if cause.is_newer() {
            let message = format!(
                "the metadata in {} was written by a newer version of logmill (record {offset}: {cause}): start \
                 that version, or a newer one",
                dir.display()
            );
            return Self::new(OpenErrorKind::NewerFormat, message).because(cause);
        }
        let message = format!(
            "the node's own metadata in {} is damaged at record {offset}: {cause}; {}",
            dir.display(),
            put_back(dir)
        );
        Self::new(OpenErrorKind::Damaged, message).because(cause)
    }

    /// One of the node's own logs, beside its metadata, cannot be used.
    pub(crate) fn internal_damaged(dir: &Path, error: logmill_log::Error) -> Self {
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::ReadOnly | ErrorKind::NotFound => {
                let message =
                    format!("the node's own log in {} is damaged: {error}; {}", dir.display(), repair(dir));
                Self::new(OpenErrorKind::Damaged, message).because(error)
            }
            _ => Self::from_log(error),
        }
    }

    /// A record of one of the node's own logs, beside its metadata, cannot be read, for this reason.
    pub(crate) fn internal_unreadable(dir: &Path, offset: Offset, is_newer: bool, why: &str) -> Self {
        let dir_shown = dir.display();
        if is_newer {
            let message = format!(
                "the node's own log in {dir_shown} was written by a newer version of logmill (record {offset}: {why}): \
                 start that version, or a newer one"
            );
            return Self::new(OpenErrorKind::NewerFormat, message);
        }
        let message = format!(
            "the node's own log in {dir_shown} is damaged at record {offset}: {why}; {}",
            repair(dir)
        );
        Self::new(OpenErrorKind::Damaged, message)
    }

    pub(crate) fn metadata_missing(dir: &Path) -> Self {
        let message = format!(
            "{} holds the directories of topics, but the node's own metadata is not there: choose an empty \
             directory, or {}",
            dir.display(),
            put_back(dir)
        );
        Self::new(OpenErrorKind::Damaged, message)
    }

    pub(crate) fn metadata_twice(dir: &Path, topic: &str) -> Self {
        let message = format!(
            "the node's own metadata in {} names two topics {topic:?}: {}",
            dir.display(),
            put_back(dir)
        );
        Self::new(OpenErrorKind::Damaged, message)
    }

    pub(crate) fn no_directory(path: &Path) -> Self {
        let message = format!(
            "{} is not a directory, or lies below something that is none: choose another path for the data",
            path.display()
        );
        Self::new(OpenErrorKind::NotADataDirectory, message)
    }

    pub(crate) fn single_log(dir: &Path) -> Self {
        let message = format!(
            "{} holds a single log of a program that embeds logmill-log, and no topics: choose another directory",
            dir.display()
        );
        Self::new(OpenErrorKind::NotADataDirectory, message)
    }

    /// The file `set` is gone, and perhaps `checkpoint` with it; the node's logs are there.
    pub(crate) fn set_missing(dir: &Path, has_checkpoint: bool) -> Self {
        let lost = if has_checkpoint { "its file \"set\"" } else { "its files \"set\" and \"checkpoint\"" };
        let dir = dir.display();
        let message = format!(
            "{dir} has lost {lost}, and holds the logs of a node: keep a copy, and run 'logmill log repair {dir}'"
        );
        Self::new(OpenErrorKind::Damaged, message)
    }

    /// The checkpoint speaks of `lost` logs, and there is none.
    pub(crate) fn emptied(dir: &Path, lost: usize) -> Self {
        let message = format!(
            "{} has lost its list of topics and its topics: {}; {RESTORE}, or choose an empty directory",
            dir.display(),
            lost_text(lost)
        );
        Self::new(OpenErrorKind::Damaged, message)
    }

    /// A file is where the node has a directory.
    pub(crate) fn file_in_place(path: &Path) -> Self {
        let message = format!(
            "{} is a file, and the node has a directory there: move it out of the data directory, and see whether \
             that directory is in a backup",
            path.display()
        );
        Self::new(OpenErrorKind::Damaged, message)
    }

    /// A plan was made, and then somebody had the directory open.
    pub(crate) fn changed_meanwhile(dir: &Path) -> Self {
        let message = format!(
            "the data directory {} was in use since it was looked at: stop whoever uses it, and look again",
            dir.display()
        );
        Self::new(OpenErrorKind::InUse, message)
    }

    /// What kind of failure this is.
    #[must_use]
    pub const fn kind(&self) -> OpenErrorKind {
        self.kind
    }
}

/// What to do about a directory without its logs.
pub(crate) const RESTORE: &str = "mount or restore internal/ and topics/";

/// How a directory without logs is known to have had some.
pub(crate) fn lost_text(lost: usize) -> String {
    let logs = if lost == 1 { "log" } else { "logs" };
    format!("its checkpoint speaks of {lost} {logs}, and none is there")
}

/// What to do about a log of the node that is not what it was.
fn repair(dir: &Path) -> String {
    let data_dir = dir.ancestors().nth(2).unwrap_or(dir).display();
    format!(
        "keep a copy of the directory, and put it back from a backup, or go on without what is damaged: 'logmill log \
         repair {data_dir}'"
    )
}

/// What to do about metadata that is not what it was.
fn put_back(dir: &Path) -> String {
    format!(
        "keep a copy of the directory, and put internal/metadata back from a backup, or make it anew from the \
         directories of the topics: 'logmill log rebuild-topics {}'",
        dir.display()
    )
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for OpenError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}
