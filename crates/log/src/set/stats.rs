//! How a set stands, in numbers.

use super::LogSet;
use super::budget::BudgetStats;
use super::space::ReserveState;
use crate::histogram::Histogram;
use crate::log::{Appended, LogState, Recovered};

/// How a set and all its logs stand.
///
/// ```
/// use logmill_log::{LogOptions, LogSet, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// let _orders = set.create("orders", b"", LogOptions::default())?;
/// let stats = set.stats();
/// assert_eq!((stats.logs, stats.segments, stats.stored_bytes), (1, 1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SetStats {
    /// Logs that are open.
    pub logs: usize,
    /// Those of them that take no appends: damaged or poisoned.
    pub logs_not_writable: usize,
    /// Bytes of record batches in the segment files of open logs.
    pub stored_bytes: u64,
    /// Segment files of open logs.
    pub segments: usize,
    /// Bytes written to open logs and not known to be on disk.
    pub unsynced_bytes: u64,
    /// What was appended since the set was opened, also to logs closed since.
    pub appended: Appended,
    /// Syncs of data since the set was opened.
    pub syncs: u64,
    /// Bytes that these syncs put on disk.
    pub synced_bytes: u64,
    /// What had to be mended when logs were opened, since the set was opened.
    pub recovered: Recovered,
    /// Files of active segments that are open for appends.
    pub open_files: BudgetStats,
    /// Bytes written to all logs and not yet synced, against what may be.
    pub dirty_bytes: BudgetStats,
    /// Bytes that the tables of keys of compactions take; see
    /// [`max_key_map_bytes`](crate::SetOptions::max_key_map_bytes).
    pub key_map_bytes: usize,
    /// Appends are refused because the file system has less space left than
    /// [`low_space_bytes`](crate::SetOptions::low_space_bytes).
    pub is_low_on_space: bool,
    /// Whether space is held in reserve.
    pub reserve: ReserveState,
    /// How long appends took on the caller's thread, waiting for room and for the sync not
    /// included.
    pub append_time: Histogram,
    /// How long syncs of data took.
    pub sync_time: Histogram,
}

impl LogSet {
    /// How the set stands. Looks at every open log, so once a second is often enough for a set of
    /// thousands.
    #[must_use]
    pub fn stats(&self) -> SetStats {
        let shared = &self.inner.shared;
        let mut stats = SetStats {
            appended: shared.counters.appended(),
            syncs: shared.counters.syncs(),
            synced_bytes: shared.counters.synced_bytes(),
            recovered: *shared.recovered.lock(),
            open_files: shared.files.budget().stats(),
            dirty_bytes: shared.dirty.stats(),
            key_map_bytes: shared.key_memory.taken(),
            is_low_on_space: shared.spare.is_low(),
            reserve: shared.spare.reserve(),
            append_time: shared.append_time.snapshot(),
            sync_time: shared.sync_time.snapshot(),
            ..SetStats::default()
        };
        let logs: Vec<_> = self.inner.logs.lock().values().cloned().collect();
        for log in logs {
            let log = log.stats_without_times();
            stats.logs += 1;
            stats.logs_not_writable += usize::from(!matches!(log.state, LogState::Open));
            stats.stored_bytes += log.stored_bytes;
            stats.segments += log.segments;
            stats.unsynced_bytes += log.unsynced_bytes;
        }
        stats
    }
}
