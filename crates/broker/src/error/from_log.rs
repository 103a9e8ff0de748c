//! Errors of the log, said again for those who know topics and partitions but no files.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use logmill_log::ErrorKind;
use logmill_record::Offset;

use super::{Error, Reason};

/// A partition, by name.
#[derive(Clone, Debug)]
pub(crate) struct PartitionName {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of topic {:?}", self.partition, self.topic)
    }
}

impl PartitionName {
    /// An error of this partition, which it names.
    pub(crate) fn error(&self, reason: Reason, message: impl Into<String>) -> Error {
        self.named(Error::new(reason, message))
    }

    /// `error`, with this partition's name beside its message.
    pub(crate) fn named(&self, error: Error) -> Error {
        error.with("topic", &self.topic).with("partition", self.partition)
    }

    /// What `error` of this partition's log means to a caller.
    pub(crate) fn explain(&self, error: &logmill_log::Error) -> Error {
        let (reason, message) = match error.kind() {
            ErrorKind::Full => (
                Reason::DiskFull,
                format!(
                    "the disk of the data directory is full or nearly so, and {self} took nothing: make room, and \
                     try again ({error})"
                ),
            ),
            ErrorKind::OutcomeUnknown => return self.outcome_unknown(error),
            ErrorKind::Poisoned => return self.reopened(error),
            ErrorKind::ReadOnly => (
                Reason::PartitionFailed,
                format!("{self} can only be read, because damage was found in it: {error}"),
            ),
            ErrorKind::Corrupt => (
                Reason::DataCorrupt,
                format!("{self} is damaged: {error}, or stop the node and run 'logmill log verify'"),
            ),
            ErrorKind::OutOfRange => (Reason::OffsetOutOfRange, format!("{self}: {error}")),
            ErrorKind::Closed => return Error::closing().because(error.clone()),
            ErrorKind::OutOfSequence => (Reason::OutOfSequence, format!("{self}: {error}")),
            ErrorKind::Fenced => (Reason::ProducerFenced, format!("{self}: {error}")),
            ErrorKind::SequenceForgotten => (Reason::SequenceForgotten, format!("{self}: {error}")),
            ErrorKind::Limit => (Reason::LimitExceeded, format!("{self}: {error}")),
            ErrorKind::Invalid => (Reason::BatchInvalid, format!("{self}: {error}")),
            // It names the program that can read it, and older files beside newer ones would be damage.
            ErrorKind::NewerFormat => (Reason::PartitionFailed, format!("{self} cannot be opened: {error}")),
            ErrorKind::NotFound => (
                Reason::PartitionFailed,
                format!(
                    "{self} cannot be opened: {error}; stop the node, put the directory back from a backup, and \
                     start it again"
                ),
            ),
            _ => (Reason::IoFailed, format!("{self}: {error}")),
        };
        self.error(reason, message).because(error.clone())
    }

    /// Why the partition cannot be written.
    pub(crate) fn failed(&self, error: &logmill_log::Error) -> Error {
        let explained = match error.kind() {
            ErrorKind::OutcomeUnknown | ErrorKind::Poisoned => return self.reopened(error),
            _ => self.explain(error),
        };
        Error { reason: Reason::PartitionFailed, ..explained }
    }

    pub(crate) fn outcome_unknown(&self, error: &logmill_log::Error) -> Error {
        let message = format!(
            "a sync of {self} failed, and it is not known whether the records will survive: an idempotent producer \
             sends them again; without one, read what is there before sending them again, and check the disk \
             ({error})"
        );
        self.error(Reason::OutcomeUnknown, message).because(error.clone())
    }

    /// What was written there was lost before it was on disk.
    pub(crate) fn lost(&self, last: Offset) -> Error {
        let message = format!(
            "{self} was opened again since a sync of it failed, and what was written up to offset {last} is lost"
        );
        self.error(Reason::PartitionReopening, message).with("retry_after_ms", 1)
    }

    /// The log that was asked has ended, and another takes its place or has taken it.
    pub(crate) fn reopened(&self, error: &logmill_log::Error) -> Error {
        let message = format!("{self} is opened again since a sync of it failed: send again ({error})");
        self.error(Reason::PartitionReopening, message).with("retry_after_ms", 1).because(error.clone())
    }

    /// The metadata knows the partition, and its directory is not there.
    pub(crate) fn missing(&self, path: &Path, error: logmill_log::Error) -> Error {
        let message = format!(
            "{self} is missing: {} is not there, and a new one would hide the loss; stop the node, put the \
             directory back from a backup, and start it again, or delete the topic",
            path.display()
        );
        self.error(Reason::PartitionFailed, message).because(error)
    }

    /// What lies in the partition's directory belongs to another.
    pub(crate) fn misplaced(&self, path: &Path) -> Error {
        let message = format!(
            "{self} cannot be opened: what lies in {} belongs to another partition, or does not say to which one; \
             stop the node, see 'logmill log verify', put the right directory there, and start it again",
            path.display()
        );
        self.error(Reason::PartitionFailed, message)
    }

    /// The partition holds `start..end`, and somebody asked for `offset`.
    pub(crate) fn out_of_range(
        &self,
        offset: impl fmt::Display,
        start: impl fmt::Display,
        end: impl fmt::Display,
    ) -> Error {
        let message = format!(
            "offset {offset} is out of range: {self} can be read from {start} to {end}; start at one of these, or \
             at the earliest or latest"
        );
        self.error(Reason::OffsetOutOfRange, message)
            .with("offset", offset)
            .with("start_offset", start)
            .with("end_offset", end)
    }

    /// A reader whose last batch has `epoch` asks for `offset`, and the partition holds what it has up to
    /// `diverging` only.
    pub(crate) fn truncated(&self, offset: Offset, epoch: i32, diverging: Offset) -> Error {
        let message = format!(
            "{self} has lost records since they were read: what was read in epoch {epoch} below offset {offset} is \
             there below {diverging} only, and what follows is other records or none yet; take back what came of \
             the lost ones, and go on at {diverging}"
        );
        self.error(Reason::LogTruncated, message)
            .with("offset", offset)
            .with("last_epoch", epoch)
            .with("diverging_offset", diverging)
    }
}

/// What `error` of the metadata log means to somebody who creates or deletes a topic.
pub(crate) fn explain_metadata(error: &logmill_log::Error, doing: &str) -> Error {
    let (reason, message) = match error.kind() {
        ErrorKind::Full => (
            Reason::DiskFull,
            format!(
                "the disk of the data directory is full, and {doing} did not happen: make room, and try again \
                 ({error})"
            ),
        ),
        ErrorKind::OutcomeUnknown => (
            Reason::OutcomeUnknown,
            format!(
                "a sync of the node's metadata failed, and it is not known whether {doing} will survive: check the \
                 disk, start the node again, and see ({error})"
            ),
        ),
        ErrorKind::Poisoned | ErrorKind::ReadOnly => return metadata_failed(error, doing),
        ErrorKind::Closed => return Error::closing().because(error.clone()),
        _ => (Reason::IoFailed, format!("{doing} did not happen: {error}")),
    };
    Error::new(reason, message).because(error.clone())
}

/// The metadata log takes nothing more, because of `error`.
pub(crate) fn metadata_failed(error: &logmill_log::Error, doing: &str) -> Error {
    let message = format!(
        "the node's metadata cannot be written, so {doing} did not happen: check the disk and try again; if that \
         does not help, start the node again ({error})"
    );
    Error::new(Reason::MetadataFailed, message).because(error.clone())
}
