//! What a start found.

use std::path::PathBuf;

use crate::error::Error;

/// What [`Broker::open`](crate::Broker::open) found in the data directory.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// How many topics there are.
    pub topics: usize,
    /// How many partitions they have, those that failed among them.
    pub partitions: usize,
    /// Partitions that could not be opened, or only for reading. The others work.
    pub failed: Vec<FailedPartition>,
    /// Directories that no topic owns and that were kept because something is in them.
    pub unknown: Vec<UnknownDirectory>,
    /// How many deleted topics, and topics whose creation was cut off, are being taken away.
    pub removing: usize,
}

/// A partition that cannot be written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// What is wrong with it.
    pub error: Error,
}

/// A directory among those of the topics that is none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// The name of the topic that it says it belongs to, if it does.
    pub topic: Option<String>,
}
