//! The one error of this crate: a kind to match on, a reason to look up, and a sentence to read.

mod mapping;
#[cfg(test)]
mod tests;

pub(crate) use mapping::{Peer, in_append_reply, in_reply, root_cause};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use logmill_record::Offset;

/// What went wrong: a [kind](Error::kind) for programs, and as text a sentence for people that says what
/// happened, to what, and what to do.
///
/// A clone is cheap; the records of one batch share the error of the batch.
///
/// ```no_run
/// use logmill_client::{Client, ErrorKind};
///
/// # async fn example(client: Client) -> Result<(), logmill_client::Error> {
/// match client.create_topic("orders", Some(4)).await {
///     Ok(topic) => println!("created with {} partitions", topic.partition_count),
///     Err(error) if error.kind() == ErrorKind::AlreadyExists => println!("it was there already"),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    reason: Cow<'static, str>,
    message: String,
    metadata: BTreeMap<String, String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of thing went wrong: what a program decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No node is there, the connection broke, or the node is shutting down. No records were appended; something else
    /// that was asked for, such as a topic or a commit of offsets, may still have been done if the connection broke. The
    /// same call may succeed later.
    Unavailable,
    /// No answer came in time. No records were appended; something else that was asked for may still have been done.
    Timeout,
    /// There is no such topic or partition.
    NotFound,
    /// What was to be made is there already: a topic, or a numbered batch whose offsets are forgotten
    /// (`SEQUENCE_FORGOTTEN`).
    AlreadyExists,
    /// The request is not allowed as it is: a name, a count, an address. It fails again if repeated.
    Invalid,
    /// A record, a batch or a message is larger than its receiver takes. It fails again if repeated; less at
    /// once may succeed.
    TooLarge,
    /// The offset is before the partition's first kept record, or past its end.
    OutOfRange,
    /// The partition has lost records that were read from it, and may have given their offsets to others: those of
    /// a relaxed topic that were not on disk when the power went or a sync failed. Take back what came of the
    /// records from [`Error::diverging_offset`] on, and read on there.
    Truncated,
    /// The node does not allow it to this caller.
    Denied,
    /// A limit was reached: of the node (memory, disk, connections) or of this client's buffer.
    Exhausted,
    /// The state of what was asked for does not allow it now, such as a partition that cannot be written.
    Conflict,
    /// The records may have been appended or not, or the transaction or step committed. The client does not send them
    /// again any more; the call says how to find out, if one can. The reason is `OUTCOME_UNKNOWN`; `INTERNAL_FAULT` if a fault in the node's program
    /// ended the call; or `UNEXPECTED_ANSWER`.
    OutcomeUnknown,
    /// Stored or received bytes are not what was written.
    Corrupt,
    /// The producer or subscription was closed before.
    Closed,
    /// What answers at the address is no Logmill node, or one that does not know the call; or a batch cannot be
    /// made or taken apart by this version, such as one whose codec it was built without.
    Unsupported,
    /// The node failed inside, or answered something that makes no sense.
    Internal,
}

impl Error {
    pub(crate) fn new(
        kind: ErrorKind,
        reason: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Error {
        Error(Arc::new(Inner {
            kind,
            reason: reason.into(),
            message: message.into(),
            metadata: BTreeMap::new(),
            source: None,
        }))
    }

    pub(crate) fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.change(|inner| inner.source = Some(source.into()))
    }

    pub(crate) fn with_metadata(
        self,
        pairs: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Error {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.change(|inner| inner.metadata.extend(pairs))
    }

    fn with_kind(self, kind: ErrorKind) -> Error {
        self.change(|inner| inner.kind = kind)
    }

    /// Only for errors that were just made and have one owner.
    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Error {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        }
        self
    }

    /// An answer that no Logmill node should give.
    pub(crate) fn nonsense(what: impl fmt::Display) -> Error {
        let message =
            format!("the node's answer makes no sense: {what}. Are node and client of one version?");
        Error::new(ErrorKind::Internal, "UNEXPECTED_ANSWER", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Invalid, "REQUEST_INVALID", message)
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The reason in the node's own terms, such as `TOPIC_NOT_FOUND`; where the node gave none, or the error
    /// arose here, a reason by kind, such as `UNAVAILABLE`.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// What varies in the message, by name: `error.metadata("topic")`.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.0.metadata.get(name).map(String::as_str)
    }
}

/// What goes with one kind only.
impl Error {
    /// Of [`Truncated`](ErrorKind::Truncated): up to here the reader has what the partition holds.
    ///
    /// ```no_run
    /// use logmill_client::{Client, FetchFrom, PartitionData};
    ///
    /// # async fn example(client: Client, before: PartitionData) -> Result<(), logmill_client::Error> {
    /// let data = client.fetch(before.go_on().into()).await?.remove(0);
    /// if let Some(offset) = data.error.as_ref().and_then(|error| error.diverging_offset()) {
    ///     println!("what came of the records from {offset} on is void");
    ///     let again = FetchFrom::new(data.topic, data.partition, offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn diverging_offset(&self) -> Option<Offset> {
        let offset = self.metadata("diverging_offset")?.parse().ok()?;
        Offset::new(offset).filter(|_| self.kind() == ErrorKind::Truncated)
    }
}

impl ErrorKind {
    /// Whether the same may succeed later without anybody changing anything.
    pub(crate) fn is_retriable(self) -> bool {
        match self {
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Exhausted | ErrorKind::Internal => true,
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::Invalid
            | ErrorKind::TooLarge
            | ErrorKind::OutOfRange
            | ErrorKind::Truncated
            | ErrorKind::Denied
            | ErrorKind::Conflict
            | ErrorKind::OutcomeUnknown
            | ErrorKind::Corrupt
            | ErrorKind::Closed
            | ErrorKind::Unsupported => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, reason, message, metadata, source } = &*self.0;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("reason", reason)
            .field("message", message)
            .field("metadata", metadata)
            .field("source", source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}
