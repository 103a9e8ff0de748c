//! How a log is compacted.

use std::time::Duration;

/// How a log is compacted by key; see [the crate's chapter on it](crate#compaction).
///
/// ```
/// use std::time::Duration;
/// use logmill_log::{CompactionOptions, LogOptions};
///
/// let daily = CompactionOptions::default().delete_retention(Duration::from_hours(24));
/// let options = LogOptions::default().compaction(Some(daily));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionOptions {
    pub(crate) min_dirty_ratio: f64,
    pub(crate) min_age: Duration,
    pub(crate) delete_retention: Duration,
    pub(crate) key_map_bytes: usize,
}

impl CompactionOptions {
    /// Compacts by itself once such a part of the log's sealed bytes is new since the last time,
    /// from 0 to 1 (Kafka's `min.cleanable.dirty.ratio`).
    #[must_use]
    pub fn min_dirty_ratio(mut self, ratio: f64) -> Self {
        self.min_dirty_ratio = if ratio.is_nan() { 1.0 } else { ratio.clamp(0.0, 1.0) };
        self
    }

    /// Leaves a segment alone until its last record was appended so long ago (Kafka's
    /// `min.compaction.lag.ms`): so long can a reader count on every single record.
    #[must_use]
    pub fn min_age(mut self, age: Duration) -> Self {
        self.min_age = age;
        self
    }

    /// Keeps a tombstone for so long after the compaction that took out what it deletes (Kafka's
    /// `delete.retention.ms`): so much time has a reader to learn of the deletion.
    #[must_use]
    pub fn delete_retention(mut self, time: Duration) -> Self {
        self.delete_retention = time;
        self
    }

    /// The memory for the table of keys, 24 bytes for each of them and a third on top (Kafka's
    /// `log.cleaner.dedupe.buffer.size`). With less than the log has keys, compaction goes over
    /// the log several times.
    #[must_use]
    pub fn key_map_bytes(mut self, bytes: usize) -> Self {
        self.key_map_bytes = bytes;
        self
    }
}

impl Default for CompactionOptions {
    /// When half is new, without a least age, tombstones kept for a day, 64 MiB for keys.
    fn default() -> Self {
        Self {
            min_dirty_ratio: 0.5,
            min_age: Duration::ZERO,
            delete_retention: Duration::from_hours(24),
            key_map_bytes: 64 << 20,
        }
    }
}
