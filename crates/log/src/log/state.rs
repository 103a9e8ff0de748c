//! What a log knows about itself, under its lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::Duration;

use logmill_record::{Offset, TimestampMs};

use super::producers::Producers;
use super::stats::CompactionStats;
use crate::env::{Clock, File};
use crate::error::{Error, ErrorKind};
use crate::format::checkpoint::{Durable, Row};
use crate::options::LogOptions;
use crate::segment::{IndexBuilder, Sealed};
use crate::set::OpenFile;

/// Exact append times and positions are kept for so many of the newest batches, for readers at
/// the tail; older ones have their row's.
const MOST_RECENT: usize = 256;

/// Whether and why a log takes appends.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// It does.
    Open,
    /// A segment is being sealed and the next begun; appends wait.
    Rolling,
    /// A failed append is being taken back; appends wait, and no sync is believed meanwhile.
    Undoing,
    /// Damage was found; what can be read can be read.
    ReadOnly(Error),
    /// A sync failed.
    Poisoned(Error),
    /// Closed by its owner.
    Closed,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// A sync has failed, also if the log was closed since.
    pub(super) poisoned: bool,
    /// It was closed, with all that a clean close writes.
    pub(super) closed_cleanly: bool,
    /// It had been closed cleanly when it was opened.
    pub(super) found_clean: bool,
    /// The owner wants to close: no more appends, though a sync may still run.
    pub(super) closing: bool,
    pub(super) sealed: Arc<Vec<Arc<Sealed>>>,
    pub(super) active: Active,
    /// Of all that is written.
    pub(super) producers: Producers,
    pub(super) options: LogOptions,
    pub(super) durable: Durable,
    /// How far readers see: what is durable, or, of a relaxed log, what is written.
    pub(super) visible: Durable,
    /// Up to here a sync is asked for now; what is written beyond waits for the flush interval.
    pub(super) wanted: Offset,
    /// A timer runs that asks for a sync.
    pub(super) flush_armed: bool,
    /// What the checkpoint says and the file no longer holds: damage that was found at open.
    pub(super) promised: Option<Durable>,
    /// The active segment's pair is being written because the log is idle; a roll waits for it.
    pub(super) parking: bool,
    /// A failed append is being taken back, whatever became of the log meanwhile: until that is over its
    /// file belongs to nobody else.
    pub(super) undoing: bool,
    /// A sync task is queued or running.
    pub(super) task_queued: bool,
    /// The thread that runs it.
    pub(super) task_runs_on: Option<ThreadId>,
    /// Somebody waits for the roll that is under way, and wants to hear of its failure.
    pub(super) roll_awaited: bool,
    /// Why the last roll failed, for the append that asked for it.
    pub(super) roll_error: Option<Error>,
    /// Stamped into batches.
    pub(super) epoch: i32,
    pub(super) start_offset: Offset,
    pub(super) compaction: CompactionStats,
}

impl State {
    /// How far readers see.
    pub(super) fn visible(&self) -> Durable {
        self.visible
    }

    /// Everything up to there is on disk, and readers may see it.
    pub(super) fn set_durable(&mut self, durable: Durable) {
        self.durable = durable;
        self.producers.note_durable(durable.end);
        // Readers of a relaxed log have seen more, and go on seeing it.
        if durable.end >= self.visible.end {
            self.visible = durable;
        }
    }

    /// Lets readers see all that is written.
    pub(super) fn show_written(&mut self) {
        let (active_base, end, position) = (self.active.base(), self.written_end(), self.active.len());
        self.visible = Durable { active_base, end, position };
    }

    /// No transaction that begins below is undecided, nor waits for its marker to be on disk.
    pub(super) fn last_stable(&self) -> Offset {
        let end = self.visible.end;
        self.producers.first_unstable().map_or(end, |first| first.min(end)).max(self.start_offset)
    }

    /// The log is as it was left by appends: no roll, no failure.
    pub(super) fn takes_syncs(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Rolling)
    }

    pub(super) fn written_end(&self) -> Offset {
        self.active.index.footer().next_offset
    }

    /// Lets readers find `fresh` where they found `old`, which are neighbours.
    pub(super) fn put_in_place_of(&mut self, old: &[Arc<Sealed>], fresh: Arc<Sealed>) {
        let mut sealed = self.sealed.to_vec();
        if let Some(first) = sealed.iter().position(|segment| Arc::ptr_eq(segment, &old[0])) {
            sealed.splice(first..first + old.len(), [fresh]);
        }
        self.sealed = Arc::new(sealed);
    }

    /// What the checkpoint has to say of the log.
    pub(super) fn row(&self) -> Row {
        let clean = self.closed_cleanly && !self.poisoned;
        Row { durable: self.promised.unwrap_or(self.durable), clean }
    }

    /// Segments with a file: where the newest is damaged it is among the sealed ones.
    pub(super) fn segments(&self) -> usize {
        self.sealed.len() + usize::from(self.promised.is_none())
    }

    /// Bytes of batches in its segments.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.data_len()).sum::<u64>() + self.active.len()
    }

    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.active.len() - self.durable.position
    }

    /// Whether appends are taken, and if not, why.
    pub(super) fn check_open(&self) -> Result<(), Error> {
        match &self.phase {
            _ if self.closing => Err(closed()),
            Phase::Open | Phase::Rolling | Phase::Undoing => Ok(()),
            Phase::ReadOnly(error) => Err(read_only(error)),
            Phase::Poisoned(error) => Err(error.clone()),
            Phase::Closed => Err(closed()),
        }
    }
}

/// What whoever wants to write is told of the damage that was found.
fn read_only(cause: &Error) -> Error {
    if cause.kind() == ErrorKind::ReadOnly {
        return cause.clone();
    }
    let message = format!("nothing is appended to a damaged log: {cause}, or repair the log");
    let error = Error::new(ErrorKind::ReadOnly, message).because(cause.clone());
    match cause.path() {
        Some(path) => error.at_path(path),
        None => error,
    }
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the log has been closed; open it again")
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    /// Its file, while it is open: always if anything in it is unsynced.
    pub(super) open: Option<OpenFile>,
    pub(super) index: IndexBuilder,
    /// Batches before this position are checked by the rows of the index, of which none lies across;
    /// those behind it were appended since the log was opened, and have its epoch.
    pub(super) rows_end: u64,
    /// The offset at `rows_end`, from which on batches have the log's own epoch, and the epoch of the batch
    /// before.
    pub(super) own_from: (Offset, i32),
    pub(super) recent: VecDeque<Recent>,
    /// Since when it holds anything.
    pub(super) since: Option<Since>,
    /// The index and all that is written with it are on disk as they are here.
    pub(super) pair_is_written: bool,
    /// The rows of the index are not in memory: see [`park`](super::park).
    pub(super) is_parked: bool,
    /// When it was last appended to or loaded, by the monotonic clock; none since it was opened.
    pub(super) used_at: Option<Duration>,
}

/// A moment by a clock that does not jump: it may lie before this process began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    monotonic: Duration,
    /// How long before that it was.
    before: Duration,
}

impl Since {
    /// A moment by the wall clock. One that has not come yet, because the clock was set back,
    /// counts as now.
    pub(super) fn of(at: TimestampMs, clock: &dyn Clock) -> Self {
        let before_ms = u64::try_from(clock.now().0.saturating_sub(at.0)).unwrap_or(0);
        Self { monotonic: clock.monotonic(), before: Duration::from_millis(before_ms) }
    }

    pub(super) fn now(clock: &dyn Clock) -> Self {
        Self { monotonic: clock.monotonic(), before: Duration::ZERO }
    }

    pub(super) fn age(&self, clock: &dyn Clock) -> Duration {
        clock.monotonic().saturating_sub(self.monotonic).saturating_add(self.before)
    }
}

/// One of the newest batches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    pub(super) offset: Offset,
    pub(super) position: u64,
    pub(super) appended_at: TimestampMs,
}

impl Active {
    pub(super) fn new(mut index: IndexBuilder) -> Self {
        index.end_row();
        Self {
            open: None,
            rows_end: index.footer().data_len,
            own_from: (index.footer().next_offset, index.footer().last_epoch),
            index,
            recent: VecDeque::new(),
            since: None,
            pair_is_written: false,
            is_parked: false,
            used_at: None,
        }
    }

    /// Lets go of what is on disk.
    pub(super) fn park(&mut self) {
        self.index.forget_rows();
        self.recent = VecDeque::new();
        self.is_parked = true;
    }

    /// Takes back what parking let go of, or rows that were made anew.
    pub(super) fn unpark(&mut self, mut index: IndexBuilder, are_new: bool) {
        let end = index.footer().data_len;
        if are_new || self.rows_end == end {
            index.end_row();
            self.rows_end = end;
            self.own_from = (index.footer().next_offset, index.footer().last_epoch);
        }
        self.index = index;
        self.is_parked = false;
    }

    /// The file, which the caller knows to be open.
    pub(super) fn file(&self) -> &Arc<dyn File> {
        &self.open.as_ref().expect("what is written to, or unsynced, is open").file
    }

    /// Learns from the index since when the segment holds anything.
    pub(super) fn set_since(&mut self, clock: &dyn Clock) {
        self.since = self.index.rows().first().map(|row| Since::of(row.appended_at, clock));
    }

    pub(super) fn base(&self) -> Offset {
        self.index.footer().base
    }

    pub(super) fn len(&self) -> u64 {
        self.index.footer().data_len
    }

    pub(super) fn remember(&mut self, recent: Recent) {
        if self.recent.len() == MOST_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(recent);
    }
}
