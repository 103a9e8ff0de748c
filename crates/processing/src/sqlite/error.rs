//! What SQLite says, as a sentence for the person who can act.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind};

/// A failed call on the database at `path`, while `doing` something.
pub(super) fn failed(path: &Path, doing: &str, error: rusqlite::Error) -> Error {
    let (kind, what) = explain(error.sqlite_error_code());
    let what = match what {
        Some(what) => what.to_owned(),
        None => error.to_string(),
    };
    Error::new(kind, format!("SQLite file {}: cannot {doing}: {what}", path.display())).caused_by(error)
}

fn explain(code: Option<ErrorCode>) -> (ErrorKind, Option<&'static str>) {
    match code {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Busy,
            Some(
                "another program has held its write lock for 10 s; end that program's transaction, and start again",
            ),
        ),
        Some(ErrorCode::DiskFull) => (ErrorKind::Full, Some("the disk is full; make room, and start again")),
        Some(ErrorCode::ReadOnly) => (
            ErrorKind::Denied,
            Some("it is read-only; a pipeline needs to write to the file and to its directory"),
        ),
        Some(ErrorCode::PermissionDenied) => (ErrorKind::Denied, Some("permission denied")),
        Some(ErrorCode::CannotOpen) => (
            ErrorKind::NotFound,
            Some(
                "it cannot be opened; the directory has to exist and to be writable, and the file not a directory",
            ),
        ),
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::Invalid, Some("it is not an SQLite database; name another file, or remove this one"))
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            Some("it is damaged; move it away, and the next run fills a new one from the topics' start"),
        ),
        _ => (ErrorKind::Other, None),
    }
}
