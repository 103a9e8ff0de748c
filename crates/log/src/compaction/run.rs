//! Where a run of compaction stands between two of its steps.

use logmill_record::{Inflater, Offset, TimestampMs};

use super::{Cleaner, CompactionOptions, KeyMap, KeyRoom};

/// What a run of compaction did; see [`Log::compact`](crate::Log::compact).
///
/// ```
/// use logmill_log::{Compacted, CompactionOptions, Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let by_key = LogOptions::default().compaction(Some(CompactionOptions::default()));
/// let log = Log::open(dir.path(), SetOptions::default(), by_key)?;
/// let done: Compacted = log.compact()?;
/// println!("{} bytes are {} now", done.bytes_before, done.bytes_after);
/// assert_eq!(done.segments, 0, "nothing was appended yet");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Compacted {
    /// How often it went over the log: more than once if its memory did not hold all keys.
    pub passes: u64,
    /// Segments that were replaced.
    pub segments: u64,
    /// Segments that became a part of the one before them.
    pub merged: u64,
    /// Bytes of the segments that were replaced.
    pub bytes_before: u64,
    /// Bytes of what took their places.
    pub bytes_after: u64,
    /// The memory that the table of keys took.
    pub key_map_bytes: usize,
}

/// A run.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) options: CompactionOptions,
    pub(crate) now: TimestampMs,
    /// Nothing from here on is looked at.
    pub(crate) limit: Offset,
    pub(crate) keys: KeyMap,
    /// The table's part of what all logs of the set may take for theirs.
    _room: KeyRoom,
    pub(crate) inflater: Inflater,
    pub(crate) pass: Pass,
    pub(crate) done: Compacted,
    /// The first delete horizon that is still to come.
    pub(crate) next_horizon: Option<TimestampMs>,
}

/// What the pass does next.
#[derive(Debug)]
pub(crate) enum Pass {
    /// Notes the keys of records from `from` on; it has got to `at`.
    Note {
        /// All before this was compacted earlier.
        from: Offset,
        /// The segment that holds this offset is next.
        at: Offset,
    },
    /// Leaves out what is superseded; it has got to `at`.
    Clean {
        /// What decides.
        cleaner: Cleaner,
        /// The segment that holds this offset is next.
        at: Offset,
    },
    /// Makes one segment of several small neighbours, from this offset on.
    Merge {
        /// Everything before is as it stays.
        at: Offset,
    },
}

impl Run {
    pub(crate) fn new(
        options: CompactionOptions,
        now: TimestampMs,
        range: std::ops::Range<Offset>,
        keys: KeyMap,
        room: KeyRoom,
    ) -> Self {
        let done = Compacted { key_map_bytes: keys.bytes(), ..Compacted::default() };
        Self {
            options,
            now,
            limit: range.end,
            keys,
            _room: room,
            inflater: Inflater::default(),
            pass: Pass::Note { from: range.start, at: range.start },
            done,
            next_horizon: None,
        }
    }

    /// All keys up to `end` are noted: superseded records go next, from the log's start.
    pub(crate) fn clean_to(&mut self, end: Offset) {
        let cleaner = Cleaner::new(end, self.now, self.options.delete_retention);
        self.pass = Pass::Clean { cleaner, at: Offset::ZERO };
    }

    /// A pass has got to its end: there is another, or merging is next.
    pub(crate) fn next_pass(&mut self, end: Offset, next_horizon: Option<TimestampMs>) {
        self.done.passes += 1;
        self.next_horizon = next_horizon;
        self.keys.clear();
        self.pass = if end < self.limit {
            Pass::Note { from: end, at: end }
        } else {
            Pass::Merge { at: Offset::ZERO }
        };
    }
}
