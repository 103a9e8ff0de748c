//! Why a run did not start or did not go on: by kind, in a sentence, with its cause.

use std::error::Error as StdError;
use std::fmt;

use crate::backend::{BackendError, BackendErrorKind};

/// What kind of failure an [`Error`] is. Match on this, never on the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The node, or the database, cannot be reached or does not answer for now. Try again later.
    Unavailable,
    /// A topic, a directory or a file that is not there.
    NotFound,
    /// Not allowed, by the node or by the operating system.
    Denied,
    /// Something that can never work as it is: a table with other columns, a plan that changed.
    Invalid,
    /// What the pipeline has read and what the topic holds do not fit together.
    Position,
    /// Another run of the same pipeline has taken over its SQLite file.
    Fenced,
    /// Someone else holds what is needed: a data directory, the database's write lock.
    Busy,
    /// No space is left, on the node's disk or on the database's.
    Full,
    /// Bytes that are not what was written.
    Corrupt,
    /// A panic in a closure of the pipeline that no single record can be blamed for.
    Panicked,
    /// The run was abandoned before its last step was committed.
    Stopped,
    /// Any other failure.
    Other,
}

/// Why a run ended. What was committed before stays committed; the next run goes on from there.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// A failed call of the backend, with what was being done.
    pub(crate) fn backend(doing: impl fmt::Display, error: BackendError) -> Self {
        let message = format!("{doing}: {error}");
        Self { message, ..Self::from_backend(error) }
    }

    /// A failed call of the backend whose sentence says enough.
    pub(crate) fn from_backend(error: BackendError) -> Self {
        let kind = match error.kind() {
            BackendErrorKind::Unavailable
            | BackendErrorKind::Timeout
            | BackendErrorKind::OutcomeUnknown
            | BackendErrorKind::Closed => ErrorKind::Unavailable,
            BackendErrorKind::NotFound => ErrorKind::NotFound,
            BackendErrorKind::Denied => ErrorKind::Denied,
            BackendErrorKind::Invalid | BackendErrorKind::TooLarge => ErrorKind::Invalid,
            BackendErrorKind::OutOfRange => ErrorKind::Position,
            BackendErrorKind::Busy => ErrorKind::Busy,
            BackendErrorKind::Full => ErrorKind::Full,
            BackendErrorKind::Corrupt => ErrorKind::Corrupt,
            BackendErrorKind::Other => ErrorKind::Other,
        };
        Self::new(kind, error.to_string()).caused_by(error)
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
