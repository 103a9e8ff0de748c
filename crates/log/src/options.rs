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
}

impl Default for LogOptions {
    /// Segments of 128 MiB, 16 MiB unsynced.
    fn default() -> Self {
        Self { segment_bytes: 128 << 20, max_unsynced_bytes: 16 << 20 }
    }
}
