//! What can be set on a set of logs, and on a log.

use std::time::Duration;

use crate::env::Env;

/// How a [`LogSet`](crate::LogSet) works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SetOptions {
    /// The machine: file system, clock, randomness, scheduler.
    pub env: Env,
}

impl SetOptions {
    /// The defaults, on the given machine.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self { env }
    }
}

impl Default for SetOptions {
    fn default() -> Self {
        Self::new(Env::real())
    }
}

/// How a [`Log`](crate::Log) works.
///
/// ```
/// use logmill_log::LogOptions;
///
/// let small = LogOptions::default().segment_bytes(1 << 20);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) max_unsynced_bytes: u64,
    pub(crate) retention_age: Option<Duration>,
    pub(crate) retention_bytes: Option<u64>,
}

impl LogOptions {
    /// The largest `segment_bytes`: positions in a segment are 32 bits wide, and one batch larger
    /// than the segment must still fit.
    pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

    /// A segment is sealed and the next begun before it grows past so many bytes, at most
    /// [`MAX_SEGMENT_BYTES`](Self::MAX_SEGMENT_BYTES).
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.min(Self::MAX_SEGMENT_BYTES);
        self
    }

    /// Appends wait while so many bytes have been written and not yet synced.
    #[must_use]
    pub fn max_unsynced_bytes(mut self, bytes: u64) -> Self {
        self.max_unsynced_bytes = bytes;
        self
    }

    /// Segments go when their last record was appended longer ago than this (Kafka's
    /// `retention.ms`); `None` keeps them for ever, which is the default.
    ///
    /// It goes by the node's clock at the append, never by the records' own timestamps. A clock
    /// that goes back, or a time of append that was lost with an index, makes it late, not early.
    #[must_use]
    pub fn retention_age(mut self, age: Option<Duration>) -> Self {
        self.retention_age = age;
        self
    }

    /// The oldest segments go as long as so many bytes remain without them (Kafka's
    /// `retention.bytes`); `None`, the default, sets no limit.
    #[must_use]
    pub fn retention_bytes(mut self, bytes: Option<u64>) -> Self {
        self.retention_bytes = bytes;
        self
    }
}

impl Default for LogOptions {
    /// Segments of 128 MiB, 16 MiB unsynced, everything kept.
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            max_unsynced_bytes: 16 << 20,
            retention_age: None,
            retention_bytes: None,
        }
    }
}
