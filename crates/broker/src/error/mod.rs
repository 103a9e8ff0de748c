//! The crate's errors: what happened, to what, and what to do.
//!
//! [`Error`] answers a call, [`OpenError`] a start. Both are matched by reason or kind; messages
//! are sentences for people and change.

mod from_log;
mod open;
mod reason;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

pub(crate) use from_log::{PartitionName, explain_metadata, metadata_failed};
pub use open::{OpenError, OpenErrorKind};
pub(crate) use open::{RESTORE, lost_text};
pub use reason::{Code, Reason};
use uuid::Uuid;

use crate::limits::Limit;

/// Why a call failed. Cheap to clone: one failed sync answers everyone who waited for it.
///
/// ```
/// use logmill_broker::{Broker, Code, Config, Reason, RequestContext};
/// use logmill_log::env::block_on;
///
/// # let dir = tempfile::tempdir()?;
/// let config = Config::new(dir.path());
/// let scheduler = config.env.scheduler.clone();
/// let broker = Broker::open(config)?;
/// let described = broker.describe_topic(&RequestContext::embedded(), "nowhere");
///
/// let error = block_on(&*scheduler, described).unwrap_err();
/// assert_eq!(error.reason(), Reason::TopicNotFound);
/// assert_eq!(error.code(), Code::NotFound);
/// assert_eq!(error.metadata(), [("topic", "nowhere".to_owned())]);
/// println!("{error}");
/// # broker.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    reason: Reason,
    message: String,
    metadata: Vec<(&'static str, String)>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), metadata: Vec::new(), source: None }
    }

    /// Adds what varies in the message, by name. A name that is there already keeps its value.
    pub(crate) fn with(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        if self.metadata.iter().all(|(there, _)| *there != name) {
            self.metadata.push((name, value.to_string()));
        }
        self
    }

    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The reason: what programs match on.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The gRPC code that goes with the reason.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.reason.code()
    }

    /// The sentence for a person.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What varies in the message, by name, such as `topic` and `partition`.
    #[must_use]
    pub fn metadata(&self) -> &[(&'static str, String)] {
        &self.metadata
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

/// The failures that more than one place reports.
impl Error {
    /// `field` of the request cannot be `value`; `rule` says what it can be.
    pub(crate) fn field(field: &'static str, value: impl fmt::Display, rule: &str) -> Self {
        Self::new(Reason::RequestInvalid, format!("the field {field} is {value}, but {rule}"))
            .with("field", field)
            .with("value", value)
    }

    /// `field` of the request is missing.
    pub(crate) fn missing(field: &'static str, rule: &str) -> Self {
        Self::new(Reason::RequestInvalid, format!("the field {field} is missing: {rule}"))
            .with("field", field)
    }

    pub(crate) fn topic_not_found(topic: &str) -> Self {
        let shown = shorten(topic);
        let message = format!("there is no topic {shown:?}: create it, or see which topics there are");
        Self::new(Reason::TopicNotFound, message).with("topic", shown)
    }

    /// A reader goes on in a topic that was deleted, and another has its name.
    pub(crate) fn topic_replaced(topic: &str, wanted: Uuid, there: Uuid) -> Self {
        let message = format!(
            "the topic {topic:?} with the id {wanted} is gone, and another one has its name, with the id {there}: \
             offsets of the former mean nothing in it; to read it, begin anew, at its earliest or latest"
        );
        Self::new(Reason::TopicNotFound, message).with("topic", topic).with("topic_id", wanted)
    }

    pub(crate) fn topic_exists(topic: &str) -> Self {
        let message =
            format!("there is a topic {topic:?} already: choose another name, or delete that topic");
        Self::new(Reason::TopicExists, message).with("topic", topic)
    }

    pub(crate) fn partition_not_found(topic: &str, partition: impl fmt::Display, count: u32) -> Self {
        let last = count.saturating_sub(1);
        let message =
            format!("topic {topic:?} has no partition {partition}: its partitions are numbered 0 to {last}");
        Self::new(Reason::PartitionNotFound, message).with("topic", topic).with("partition", partition)
    }

    /// One of the node's limits is reached; `doing` says by what.
    pub(crate) fn limit(limit: Limit, value: usize, doing: &str, advice: &str) -> Self {
        Self::new(Reason::LimitExceeded, format!("{doing} would pass the limit {limit} of {value}: {advice}"))
            .with("limit", limit)
            .with("value", value)
    }

    /// The operating system failed at something that is not the log's.
    pub(crate) fn io(error: io::Error, doing: &str) -> Self {
        let (reason, message) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
                Reason::DiskFull,
                format!(
                    "the disk of the data directory is full, and {doing} did not happen: make room, and try again"
                ),
            ),
            _ => (Reason::IoFailed, format!("{doing} did not happen: {error}")),
        };
        Self::new(reason, message).because(error)
    }

    pub(crate) fn closing() -> Self {
        Self::new(Reason::NodeClosing, "the node is shutting down: try again when it is back")
    }

    /// Someone who owed an answer is gone, which only a panic can bring about.
    pub(crate) fn fault(doing: &str) -> Self {
        let message =
            format!("a fault in the node's program ended {doing}: its log has more; please report it");
        Self::new(Reason::InternalFault, message)
    }
}

/// Text from outside for a message, at most about as long as the longest topic name.
pub(crate) fn shorten(text: &str) -> String {
    const MOST_CHARS: usize = 260;
    let mut chars = text.chars();
    let mut short: String = chars.by_ref().take(MOST_CHARS).collect();
    if chars.next().is_some() {
        short.push('…');
    }
    short
}
