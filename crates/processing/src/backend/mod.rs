//! What the engine needs from a broker: four calls, and no more.
//!
//! A [`Backend`] is object-safe and called per batch, never per record. Its futures belong to no runtime: the
//! engine polls them on its own thread. [`Embedded`] runs over a broker in the same process, [`Remote`] over the
//! network; one conformance suite (`tests/backends.rs`) runs against both.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use logmill_record::{Batch, BatchHeader, Offset, TimestampMs};

#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "remote")]
mod remote;

#[cfg(feature = "embedded")]
pub use embedded::Embedded;
#[cfg(feature = "remote")]
pub use remote::Remote;

/// A future that any thread can poll.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A broker, as the engine sees it.
pub trait Backend: Send + Sync {
    /// Creates those topics that do not exist yet; one that exists is left as it is.
    fn ensure_topics(&self, topics: &[TopicSpec]) -> BoxFuture<'_, Result<(), BackendError>>;

    /// A topic's identity and partitions, in order of their numbers.
    /// [`NotFound`](BackendErrorKind::NotFound) if there is none of that name.
    fn describe(&self, topic: &str) -> BoxFuture<'_, Result<TopicDescription, BackendError>>;

    /// Reads what is committed from each of `from`, at most about `max_bytes` in all, and waits up to `max_wait` while there is
    /// nothing to read. One answer for each place asked for, in the same order; its chunks may be empty.
    fn fetch(
        &self,
        from: &[FetchFrom],
        max_bytes: usize,
        max_wait: Duration,
    ) -> BoxFuture<'_, Result<Vec<Fetched>, BackendError>>;

    /// Appends one batch, and answers with its first offset when it is durable. Batches of one partition are
    /// appended in the order of the calls.
    fn produce(
        &self,
        topic: &str,
        partition: u32,
        batch: Batch,
    ) -> BoxFuture<'_, Result<Offset, BackendError>>;
}

/// A topic that a pipeline writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it is created with; the node's default if `None`.
    pub partitions: Option<u32>,
    /// Hidden from lists unless asked for.
    pub internal: bool,
}

/// A topic as the node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Never reused: a topic deleted and created again has another.
    pub topic_id: String,
    /// Every partition, in order of their numbers.
    pub partitions: Vec<PartitionState>,
}

/// Where a partition starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionState {
    /// The partition's number.
    pub partition: u32,
    /// The offset of the first record that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers of what is committed can see.
    pub stable_end: Offset,
}

/// A place to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The first offset wanted.
    pub offset: Offset,
}

/// What a partition had to give.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The records, in order of their offsets. The first batch may begin before the offset asked for.
    pub chunks: Vec<Chunk>,
    /// Where to read next.
    pub next_offset: Offset,
    /// The offset after the last record that readers of what is committed could see.
    pub stable_end: Offset,
}

/// Whole record batches that were appended at about the same time.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// One batch after the other.
    pub batches: Bytes,
    /// When the node appended them.
    pub appended_at: TimestampMs,
    /// The time of append was lost, and `appended_at` is an upper bound for it.
    pub appended_at_estimated: bool,
}

impl Chunk {
    /// The same without the batches that `is_aborted`, each run that is left as a chunk.
    #[cfg_attr(
        not(any(feature = "embedded", feature = "remote")),
        expect(dead_code, reason = "the backends of this crate call it")
    )]
    fn without(self, is_aborted: impl Fn(&BatchHeader) -> bool) -> Result<Vec<Self>, BackendError> {
        let Self { batches, appended_at, appended_at_estimated } = self;
        let (mut chunks, mut rest) = (Vec::new(), batches.clone());
        let (mut from, mut at) = (0, 0);
        let mut keep = |run: Range<usize>| {
            if !run.is_empty() {
                chunks.push(Self { batches: batches.slice(run), appended_at, appended_at_estimated });
            }
        };
        while let Some(batch) = Batch::split_from(&mut rest)
            .map_err(|error| BackendError::from_source(BackendErrorKind::Corrupt, error))?
        {
            let end = at + batch.bytes().len();
            if is_aborted(batch.header()) {
                keep(from..at);
                from = end;
            }
            at = end;
        }
        keep(from..at);
        Ok(chunks)
    }
}

/// What kind of failure a [`BackendError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendErrorKind {
    /// The node cannot be reached, or cannot serve for now.
    Unavailable,
    /// The node did not answer in time.
    Timeout,
    /// The records may have been appended, or not.
    OutcomeUnknown,
    /// There is no such topic or partition.
    NotFound,
    /// The request can never succeed.
    Invalid,
    /// An offset below the partition's start or above its end, or of records that it has lost.
    OutOfRange,
    /// A batch over the node's limit.
    TooLarge,
    /// No space is left, or a bound of the node has been reached. Nothing was appended.
    Full,
    /// Not allowed.
    Denied,
    /// Another process has the data directory.
    Busy,
    /// Stored bytes are not what was written.
    Corrupt,
    /// The broker, or the connection, has been closed.
    Closed,
    /// Any other failure.
    Other,
}

impl BackendErrorKind {
    /// Whether the same call may succeed a moment later. A produce of unknown outcome is among them: the engine
    /// is at-least-once, and sends again.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::OutcomeUnknown | Self::Full)
    }
}

/// A call that failed: its kind, and a sentence that says what to do.
#[derive(Debug)]
pub struct BackendError {
    kind: BackendErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl BackendError {
    /// A failure without a cause of its own.
    #[must_use]
    pub fn new(kind: BackendErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// A failure that another error caused, whose sentence it repeats.
    #[must_use]
    pub fn from_source(
        kind: BackendErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = source.into();
        Self { kind, message: source.to_string(), source: Some(source) }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> BackendErrorKind {
        self.kind
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BackendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
