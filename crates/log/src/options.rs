//! What can be set on a set of logs, and on a log.

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
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LogOptions {
    /// A segment is sealed and the next begun before it grows past so many bytes, at most 1 GiB.
    pub segment_bytes: u64,
    /// Appends wait while so many bytes have been written and not yet synced.
    pub max_unsynced_bytes: u64,
}

impl LogOptions {
    /// The largest `segment_bytes`: positions in a segment are 32 bits wide, and one batch larger
    /// than the segment must still fit.
    pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

    /// The same with another segment size.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.min(Self::MAX_SEGMENT_BYTES);
        self
    }

    /// The same with another bound on bytes that are written and not yet synced.
    #[must_use]
    pub fn max_unsynced_bytes(mut self, bytes: u64) -> Self {
        self.max_unsynced_bytes = bytes;
        self
    }
}

impl Default for LogOptions {
    /// Segments of 128 MiB, 16 MiB unsynced.
    fn default() -> Self {
        Self { segment_bytes: 128 << 20, max_unsynced_bytes: 16 << 20 }
    }
}
