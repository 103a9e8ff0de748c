//! How a log stands, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use logmill_record::{Offset, TimestampMs};

use super::LogInner;
use super::state::Phase;
use crate::error::Error;
use crate::histogram::Histogram;

/// How a log stands.
///
/// ```
/// use logmill_log::{Log, LogOptions, SetOptions};
/// use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// let mut batch = BatchBuilder::new();
/// batch.push(&NewRecord { timestamp: TimestampMs(7), key: None, value: Some(b"x"), headers: &[] })?;
/// log.append(&[batch.build()?])?.wait()?;
///
/// let stats = log.stats();
/// assert_eq!((stats.appended.batches, stats.appended.records), (1, 1));
/// assert_eq!(stats.max_timestamp, Some(TimestampMs(7)));
/// assert_eq!(stats.unsynced_bytes, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogStats {
    /// Bytes of record batches in its segment files.
    pub stored_bytes: u64,
    /// Bytes written and not known to be on disk.
    pub unsynced_bytes: u64,
    /// Segment files, the active one included.
    pub segments: usize,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers can see.
    pub end_offset: Offset,
    /// The offset after the last record that is on disk.
    pub durable_end: Offset,
    /// The offset after the last record written.
    pub written_end: Offset,
    /// When the oldest record that is kept was appended, by the node's clock, or a moment after that:
    /// where the log starts in the middle of a segment, and where the index was lost. `None` if none
    /// is kept.
    pub first_appended_at: Option<TimestampMs>,
    /// When the newest record was appended, by the node's clock; `None` if none is kept.
    pub last_appended_at: Option<TimestampMs>,
    /// The largest timestamp of the records kept, as their producers set it; `None` if none is.
    pub max_timestamp: Option<TimestampMs>,
    /// The epoch that is stamped into batches now.
    pub epoch: i32,
    /// What was appended since it was opened.
    pub appended: Appended,
    /// Syncs of its data since it was opened.
    pub syncs: u64,
    /// Bytes that these syncs put on disk.
    pub synced_bytes: u64,
    /// How long appends to it took on the caller's thread since it was opened, waiting for room and
    /// for the sync not included.
    pub append_time: Histogram,
    /// How long the syncs of its data took.
    pub sync_time: Histogram,
    /// What had to be mended when it was opened.
    pub recovered: Recovered,
    /// What compaction has done since it was opened.
    pub compaction: CompactionStats,
    /// Whether it can be written.
    pub state: LogState,
}

/// What compaction did. See [`LogStats`].
///
/// ```
/// use logmill_log::{CompactionOptions, CompactionStats, Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let options = LogOptions::default().compaction(Some(CompactionOptions::default()));
/// let log = Log::open(dir.path(), SetOptions::default(), options)?;
/// log.compact()?;
/// let stats: CompactionStats = log.stats().compaction;
/// assert_eq!((stats.runs, stats.segments), (1, 0));
/// assert!(stats.last_error.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CompactionStats {
    /// Runs that got to their end.
    pub runs: u64,
    /// Segments that were replaced.
    pub segments: u64,
    /// Segments that became a part of the one before them.
    pub merged: u64,
    /// Bytes of the segments that were replaced.
    pub bytes_before: u64,
    /// Bytes of what took their places.
    pub bytes_after: u64,
    /// Why the last run stopped, if it did not get to its end.
    pub last_error: Option<Error>,
}

impl CompactionStats {
    pub(super) fn note_segment(&mut self, before: u64, after: u64) {
        self.segments += 1;
        self.bytes_before += before;
        self.bytes_after += after;
    }

    pub(super) fn note_merged(&mut self, gone: u64, before: u64, after: u64) {
        self.merged += gone;
        self.bytes_before += before;
        self.bytes_after += after;
    }

    pub(super) fn note_run(&mut self) {
        self.runs += 1;
        self.last_error = None;
    }
}

/// How much was appended. See [`LogStats`].
///
/// ```
/// use logmill_log::{Appended, LogOptions, LogSet, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// let before: Appended = set.stats().appended;
/// // ... a while later
/// let now = set.stats().appended;
/// println!("{} records in {} writes", now.records - before.records, now.appends - before.appends);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Appended {
    /// Calls that appended, each of which wrote once.
    pub appends: u64,
    /// Batches in them.
    pub batches: u64,
    /// Records in these, markers included.
    pub records: u64,
    /// Bytes of the batches.
    pub bytes: u64,
}

/// What had to be mended when a log was opened. See [`LogStats`].
///
/// ```
/// use logmill_log::{LogOptions, LogSet, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// let recovered = set.stats().recovered;
/// if recovered.rebuilt_sidecars > 0 {
///     println!("{} files had been lost or damaged: look at the disk", recovered.rebuilt_sidecars);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// Writes that a crash tore, which were never acknowledged: saved aside and cut off.
    pub torn_tails: u64,
    /// Bytes in them.
    pub torn_bytes: u64,
    /// Files beside sealed segments that were missing, damaged or of other data, and were made anew
    /// from the data.
    pub rebuilt_sidecars: u64,
}

impl Recovered {
    pub(crate) fn add(&mut self, other: Self) {
        self.torn_tails += other.torn_tails;
        self.torn_bytes += other.torn_bytes;
        self.rebuilt_sidecars += other.rebuilt_sidecars;
    }
}

/// Whether a log can be written, and if not, why. See [`LogStats`].
///
/// ```
/// use logmill_log::{Log, LogOptions, LogState, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// match log.stats().state {
///     LogState::Open => {}
///     LogState::ReadOnly(why) | LogState::Poisoned(why) => eprintln!("records can only be read: {why}"),
///     _ => eprintln!("it is closed"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LogState {
    /// It can.
    Open,
    /// Damage was found when it was opened.
    ReadOnly(Error),
    /// A sync failed; open it again.
    Poisoned(Error),
    /// It was closed.
    Closed,
}

/// Counts what was appended and synced.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    appends: AtomicU64,
    batches: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    synced_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn note_append(&self, appended: Appended) {
        self.appends.fetch_add(appended.appends, Ordering::Relaxed);
        self.batches.fetch_add(appended.batches, Ordering::Relaxed);
        self.records.fetch_add(appended.records, Ordering::Relaxed);
        self.bytes.fetch_add(appended.bytes, Ordering::Relaxed);
    }

    pub(crate) fn note_sync(&self, bytes: u64) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.synced_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn appended(&self) -> Appended {
        Appended {
            appends: self.appends.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    pub(crate) fn synced_bytes(&self) -> u64 {
        self.synced_bytes.load(Ordering::Relaxed)
    }
}

impl LogInner {
    pub(crate) fn stats(&self) -> LogStats {
        LogStats {
            append_time: self.append_time.snapshot(),
            sync_time: self.sync_time.snapshot(),
            ..self.stats_without_times()
        }
    }

    /// For who looks at thousands of logs and wants no copies of their histograms.
    pub(crate) fn stats_without_times(&self) -> LogStats {
        let view = self.state.view();
        LogStats {
            stored_bytes: view.stored_bytes(),
            unsynced_bytes: view.unsynced_bytes(),
            segments: view.segments,
            start_offset: view.start_offset,
            end_offset: view.visible.end,
            durable_end: view.durable.end,
            written_end: view.active.next_offset,
            first_appended_at: view.first_appended_at(),
            last_appended_at: view.last_appended_at(),
            max_timestamp: view.max_timestamp(),
            epoch: view.epoch,
            appended: self.counters.appended(),
            syncs: self.counters.syncs(),
            synced_bytes: self.counters.synced_bytes(),
            append_time: Histogram::default(),
            sync_time: Histogram::default(),
            recovered: self.recovered,
            state: match view.phase {
                Phase::Open | Phase::Rolling | Phase::Undoing => LogState::Open,
                Phase::ReadOnly(error) => LogState::ReadOnly(error),
                Phase::Poisoned(error) => LogState::Poisoned(error),
                Phase::Closed => LogState::Closed,
            },
            compaction: view.compaction,
        }
    }
}
