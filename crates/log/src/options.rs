//! What can be set on a set of logs, and on a log.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::compaction::CompactionOptions;
use crate::env::Env;

/// How a [`LogSet`](crate::LogSet) works: the machine it runs on and what all its logs share.
///
/// ```
/// use logmill_log::SetOptions;
///
/// let frugal = SetOptions::default().max_open_files(64).max_dirty_bytes(16 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct SetOptions {
    pub(crate) env: Env,
    pub(crate) max_open_files: usize,
    pub(crate) max_dirty_bytes: u64,
    pub(crate) low_space_bytes: u64,
    pub(crate) reserve_bytes: u64,
    pub(crate) max_maps: usize,
    pub(crate) max_key_map_bytes: usize,
    pub(crate) read_mode: ReadMode,
    pub(crate) maintenance_interval: Duration,
    pub(crate) on_scan: Option<ScanHook>,
}

impl SetOptions {
    /// The defaults, on the given machine.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self {
            env,
            max_open_files: 512,
            max_dirty_bytes: 256 << 20,
            low_space_bytes: 0,
            reserve_bytes: 0,
            max_maps: 8_192,
            max_key_map_bytes: 64 << 20,
            read_mode: ReadMode::Map,
            maintenance_interval: Duration::from_secs(10),
            on_scan: None,
        }
    }

    /// So many logs at most keep the file that they append to open; more logs than that take
    /// turns. 512 unless set; at least 1. Beside these, a few descriptors are open for moments: for
    /// reads, syncs of directories and files being written. With a limit of 1,024 for the process
    /// the default leaves half to its owner.
    #[must_use]
    pub fn max_open_files(mut self, files: usize) -> Self {
        self.max_open_files = files.max(1);
        self
    }

    /// Appends to any log wait while so many bytes have been written to all logs together and not
    /// yet synced. 256 MiB unless set. A single append larger than that goes through alone.
    #[must_use]
    pub fn max_dirty_bytes(mut self, bytes: u64) -> Self {
        self.max_dirty_bytes = bytes;
        self
    }

    /// Appends are refused as [`Full`](crate::ErrorKind::Full) while the file system has less space
    /// than this left, so that they end before everything else does. Looked at after every 16 MiB
    /// of appends, or half of this if that is less, and at every
    /// [`maintenance_interval`](Self::maintenance_interval). 0, which is the default, refuses none.
    #[must_use]
    pub fn low_space_bytes(mut self, bytes: u64) -> Self {
        self.low_space_bytes = bytes;
        self
    }

    /// Holds so much space in reserve, in a file of that size in the data directory, written soon
    /// after the set was opened. When the file system is full it is released for the small files
    /// that must be written all the same: metadata, the checkpoint, indexes. Appends never use it,
    /// but to a log that [may](LogOptions::may_use_last_space); once it is gone they are refused until
    /// there is space to write it again. 0, which is the default, holds none.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = bytes;
        self
    }

    /// So many sealed segments at most stay open for reading, each with a memory map and the rows
    /// of its index (about a thousandth of its bytes); those not read for longest go first. 8,192
    /// unless set, an eighth of the maps that Linux allows a process; at least 1. A reader that
    /// still holds [`Chunk`](crate::Chunk)s keeps their map beyond that.
    #[must_use]
    pub fn max_maps(mut self, segments: usize) -> Self {
        self.max_maps = segments.max(1);
        self
    }

    /// The tables of keys of all compactions that are under way take so much memory at most, each no more
    /// than its log's [`key_map_bytes`](CompactionOptions::key_map_bytes). A log for which there is no room is
    /// compacted later; [`Log::compact`](crate::Log::compact), and one whose table alone is larger, go on all
    /// the same. 64 MiB unless set.
    #[must_use]
    pub fn max_key_map_bytes(mut self, bytes: usize) -> Self {
        self.max_key_map_bytes = bytes;
        self
    }

    /// How sealed segments are read. [`ReadMode::Map`] unless set.
    #[must_use]
    pub fn read_mode(mut self, mode: ReadMode) -> Self {
        self.read_mode = mode;
        self
    }

    /// How often the set looks after its logs: rolls segments by age, applies retention, compacts,
    /// and lets go of the memory of idle ones. Ten seconds unless set; at least a millisecond.
    #[must_use]
    pub fn maintenance_interval(mut self, interval: Duration) -> Self {
        self.maintenance_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Calls `hear` while a log is being opened that takes long, because its data has to be read:
    /// after a kill, the newest segment; where files beside the data are gone, what they said. It
    /// comes after every 16 MiB of a log, on the thread that opens it, and holds it up. A log that
    /// was closed cleanly reads nothing and tells nothing.
    #[must_use]
    pub fn on_scan(mut self, hear: impl Fn(ScanProgress<'_>) + Send + Sync + 'static) -> Self {
        self.on_scan = Some(ScanHook(Arc::new(hear)));
        self
    }
}

/// How far the opening of one log is that has to read its data. See [`SetOptions::on_scan`].
///
/// ```
/// use logmill_log::{Log, LogOptions, ScanProgress, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let hear = |so_far: ScanProgress<'_>| {
///     eprintln!("{}: {} MiB looked through", so_far.log.display(), so_far.scanned_bytes >> 20);
/// };
/// let log = Log::open(dir.path(), SetOptions::default().on_scan(hear), LogOptions::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanProgress<'a> {
    /// The log's directory.
    pub log: &'a Path,
    /// Bytes of its segments that were read so far. What is written again is read twice.
    pub scanned_bytes: u64,
}

/// Hears of [`ScanProgress`].
#[derive(Clone)]
pub(crate) struct ScanHook(Arc<dyn Fn(ScanProgress<'_>) + Send + Sync>);

impl ScanHook {
    pub(crate) fn call(&self, progress: ScanProgress<'_>) {
        (self.0)(progress);
    }
}

impl fmt::Debug for ScanHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScanHook")
    }
}

impl Default for SetOptions {
    fn default() -> Self {
        Self::new(Env::real())
    }
}

/// How sealed segments are read.
///
/// ```
/// use logmill_log::{ReadMode, SetOptions};
///
/// let on_a_shaky_disk = SetOptions::default().read_mode(ReadMode::Copy);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// By memory maps: readers get the mapped file itself, without a copy.
    ///
    /// A range is brought into memory before it is handed out, so that an error of the disk is an
    /// error of the read. What remains: pages that the kernel takes back while a reader still holds
    /// the bytes are read again at the next touch, and if the disk fails just then, the process gets
    /// a `SIGBUS`.
    #[default]
    Map,
    /// By `pread` into fresh memory, from a file that is opened for each read: slower, but no error
    /// of the disk can be anything but an error.
    Copy,
}

/// When readers see what was appended.
///
/// ```
/// use std::time::Duration;
/// use logmill_log::{Durability, LogOptions};
///
/// let relaxed = Durability::Relaxed { flush_interval: Duration::from_millis(200) };
/// let metrics = LogOptions::default().durability(relaxed);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Once it is on disk: what a reader has seen never vanishes. Every append is synced, many of
    /// them with one sync.
    #[default]
    Durable,
    /// At once. What was appended is synced `flush_interval` after the first append that is not
    /// synced yet, sooner if [`max_unsynced_bytes`](LogOptions::max_unsynced_bytes) or the set's
    /// budget of dirty bytes is half used, and at once if somebody waits for a
    /// [`Receipt`](crate::Receipt), which here too means *on disk*.
    ///
    /// **A crash can take back what readers have seen, and its offsets are used again** for other
    /// records. The leader epoch moves on at every open, so a reader that keeps the epoch beside
    /// the offset can tell: at an offset it knows, a batch with a higher epoch is not the one it
    /// has seen. A power cut loses at most what came after the last sync; a killed process loses
    /// nothing.
    Relaxed {
        /// How long an append may stay unsynced.
        flush_interval: Duration,
    },
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
    pub(crate) segment_age: Option<Duration>,
    pub(crate) max_unsynced_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) retention_age: Option<Duration>,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) compaction: Option<CompactionOptions>,
    pub(crate) producer_expiry: Duration,
    pub(crate) may_use_last_space: bool,
}

impl LogOptions {
    /// The largest `segment_bytes`: positions in a segment are 32 bits wide, and one batch larger
    /// than the segment must still fit.
    pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;

    /// A segment is sealed and the next begun before it grows past so many bytes, at most
    /// [`MAX_SEGMENT_BYTES`](Self::MAX_SEGMENT_BYTES). 128 MiB unless set.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.min(Self::MAX_SEGMENT_BYTES);
        self
    }

    /// A segment is sealed and the next begun so long after its first append, so that retention
    /// and compaction, which take whole segments, reach the records of a slow log too. Looked at
    /// once every [`maintenance_interval`](SetOptions::maintenance_interval). Time is counted by a
    /// clock that does not jump; over a restart, by the time of append. Unless set it is the
    /// [`retention_age`](Self::retention_age), if there is one, and else there is no limit.
    #[must_use]
    pub fn segment_age(mut self, age: Option<Duration>) -> Self {
        self.segment_age = age;
        self
    }

    /// Appends wait while so many bytes have been written and not yet synced. 16 MiB unless set.
    #[must_use]
    pub fn max_unsynced_bytes(mut self, bytes: u64) -> Self {
        self.max_unsynced_bytes = bytes;
        self
    }

    /// When readers see what was appended. [`Durability::Durable`] unless set.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
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

    /// Keeps the last record of each key (Kafka's `cleanup.policy=compact`); `None`, the default,
    /// keeps all. Retention by age and size, where set, goes on beside it.
    #[must_use]
    pub fn compaction(mut self, options: Option<CompactionOptions>) -> Self {
        self.compaction = options;
        self
    }

    /// An idempotent producer that appended nothing for so long, and has no transaction open, is
    /// forgotten: a batch that it sends again after that is taken for a new one. A day unless set,
    /// as Kafka's `producer.id.expiration.ms`. Looked at once every
    /// [`maintenance_interval`](SetOptions::maintenance_interval).
    #[must_use]
    pub fn producer_expiry(mut self, expiry: Duration) -> Self {
        self.producer_expiry = expiry;
        self
    }

    /// Appends to this log go on below the [watermark](SetOptions::low_space_bytes), and use the
    /// [reserve](SetOptions::reserve_bytes) when nothing else is left. For a small log by which its
    /// owner makes room: one that cannot note a deletion for want of space gets none. Off unless set.
    #[must_use]
    pub fn may_use_last_space(mut self, may: bool) -> Self {
        self.may_use_last_space = may;
        self
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            segment_age: None,
            max_unsynced_bytes: 16 << 20,
            durability: Durability::Durable,
            retention_age: None,
            retention_bytes: None,
            compaction: None,
            producer_expiry: Duration::from_secs(24 * 60 * 60),
            may_use_last_space: false,
        }
    }
}
