//! The metadata log: which topics there are, in an ordinary log of the same set.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use logmill_log::{CompactionOptions, ErrorKind, Log, LogOptions, LogSet, LogState, Receipt};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
use parking_lot::Mutex;
use uuid::Uuid;

use super::directories::{INTERNAL, TOPICS, holds_topic};
use super::record::{self, Event, RecordError};
use crate::error::{Error, OpenError, Reason, explain_metadata, metadata_failed};

/// Where the metadata log is, in the data directory.
pub(super) const METADATA: &str = "internal/metadata";

const READ_BYTES: usize = 1024 * 1024;

/// Sealed segments are compacted: small ones, so that what was said of deleted topics does not stay for ever.
const SEGMENT_BYTES: u64 = 1024 * 1024;
const SEGMENT_AGE: Duration = Duration::from_hours(24);
/// Room for 32,768 topics; for more, compaction goes over the log several times.
const KEY_MAP_BYTES: usize = 1024 * 1024;

/// A log that could not be opened afresh is tried again after so long, and then after twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Without space to note that a topic is deleted, none is made.
pub(super) fn options() -> LogOptions {
    LogOptions::default()
        .may_use_last_space(true)
        .segment_bytes(SEGMENT_BYTES)
        .segment_age(Some(SEGMENT_AGE))
        .compaction(Some(CompactionOptions::default().key_map_bytes(KEY_MAP_BYTES)))
}

/// The metadata log, open.
#[derive(Debug)]
pub(crate) struct MetadataLog {
    set: LogSet,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Replaced when a sync has failed and the log was opened afresh.
    log: Log,
    /// The log has ended and could not be opened afresh.
    failed: Option<Failed>,
}

/// Why nothing can be written, until the log can be opened afresh without what was lost.
#[derive(Debug)]
struct Failed {
    error: logmill_log::Error,
    /// Where the record was to be with which the log ended. It must not be there: its change was not made here.
    written: Offset,
    /// By the clock that does not jump.
    next_try: Duration,
    pause: Duration,
}

/// The last event of each topic that the log knows.
pub(super) type LastEvents = BTreeMap<Uuid, Event>;

impl MetadataLog {
    /// Opens the log and reads all of it, or makes a new one in a data directory without.
    pub(super) fn open(set: &LogSet) -> Result<(Self, LastEvents), OpenError> {
        let new = !set.holds_log(METADATA).map_err(OpenError::from_log)?;
        let log = if new { Self::create(set)? } else { Self::open_existing(set)? };
        let mut events = LastEvents::new();
        let mut next = log.start_offset();
        while next < log.end_offset() {
            let read = log.read(next, READ_BYTES).map_err(|error| damaged(set, error))?;
            for chunk in read.chunks {
                apply(chunk.batches, &mut events)
                    .map_err(|(offset, cause)| OpenError::metadata_unreadable(set.dir(), offset, cause))?;
            }
            next = read.next_offset;
        }
        Ok((Self { set: set.clone(), state: Mutex::new(State { log, failed: None }) }, events))
    }

    fn create(set: &LogSet) -> Result<Log, OpenError> {
        let topics = set.dir().join(TOPICS);
        if holds_topic(&*set.env().fs, &topics)? {
            return Err(OpenError::metadata_missing(set.dir()));
        }
        let log = set.create(METADATA, b"", options()).map_err(OpenError::from_log)?;
        // Also where a node that was killed here before had made the directories and not synced them.
        for dir in [set.dir().join(INTERNAL), set.dir().to_owned()] {
            set.env().fs.sync_dir(&dir).map_err(|error| OpenError::io("sync", &dir, error))?;
        }
        Ok(log)
    }

    fn open_existing(set: &LogSet) -> Result<Log, OpenError> {
        let log = set.open_log(METADATA, options()).map_err(|error| damaged(set, error))?;
        match log.stats().state {
            LogState::ReadOnly(error) | LogState::Poisoned(error) => Err(damaged(set, error)),
            _ => Ok(log),
        }
    }

    /// Writes what happened to a topic and waits until it is on disk. `doing` names it in an error. Called
    /// only by jobs of the one queue of changes: the lock is held while waiting, and nobody else wants it.
    ///
    /// After any error but [`OutcomeUnknown`](crate::Reason::OutcomeUnknown) it has not happened.
    pub(super) fn write(&self, id: Uuid, event: &Event, now: TimestampMs, doing: &str) -> Result<(), Error> {
        let value = record::encode(event);
        let mut batch = BatchBuilder::new();
        let record =
            NewRecord { timestamp: now, key: Some(id.as_bytes()), value: value.as_deref(), headers: &[] };
        let batch = batch.push(&record).and_then(|()| batch.build());
        let batch = batch.expect("a record of a few hundred bytes fits a batch");

        let mut state = self.state.lock();
        self.try_again(&mut state, doing)?;
        // All that was written before is on disk.
        let written = state.log.end_offset();
        let Err(error) = state.log.append(&[batch]).and_then(Receipt::wait) else { return Ok(()) };
        // A log ends also by a roll that failed, or a failed write that could not be taken back.
        if !matches!(error.kind(), ErrorKind::OutcomeUnknown | ErrorKind::Poisoned) {
            return Err(explain_metadata(&error, doing));
        }
        match self.reopen_without(written) {
            Some(fresh) => {
                state.log = fresh;
                let message = format!(
                    "a sync of the node's metadata failed, and {doing} did not happen: try again ({error})"
                );
                Err(Error::new(Reason::IoFailed, message).because(error))
            }
            None => {
                let next_try = self.set.env().clock.monotonic() + FIRST_PAUSE;
                let error = error.clone();
                let told = explain_metadata(&error, doing);
                state.failed = Some(Failed { error, written, next_try, pause: FIRST_PAUSE });
                Err(told)
            }
        }
    }

    /// Whether it can be written. Then nothing is in it of a change whose outcome was not known.
    pub(super) fn check_writable(&self, doing: &str) -> Result<(), Error> {
        self.try_again(&mut self.state.lock(), doing)
    }

    /// Opens a log that has failed afresh, if it is time to.
    fn try_again(&self, state: &mut State, doing: &str) -> Result<(), Error> {
        let Some(failed) = &mut state.failed else { return Ok(()) };
        let now = self.set.env().clock.monotonic();
        if now < failed.next_try {
            return Err(metadata_failed(&failed.error, doing));
        }
        match self.reopen_without(failed.written) {
            Some(log) => {
                tracing::info!("the node's metadata can be written again");
                *state = State { log, failed: None };
                Ok(())
            }
            None => {
                failed.pause = (failed.pause * 2).min(LONGEST_PAUSE);
                failed.next_try = now + failed.pause;
                Err(metadata_failed(&failed.error, doing))
            }
        }
    }

    /// The log opened afresh. It goes on after the last record known to be on disk; should the one at
    /// `written` be there all the same, only a restart can make its change.
    fn reopen_without(&self, written: Offset) -> Option<Log> {
        let opened = self.set.open_log(METADATA, options()).and_then(|log| match log.stats().state {
            LogState::ReadOnly(error) | LogState::Poisoned(error) => Err(error),
            _ => Ok(log),
        });
        match opened {
            Ok(log) => Some(log).filter(|log| log.end_offset() <= written),
            Err(error) => {
                tracing::warn!(%error, "the node's metadata cannot be opened afresh");
                None
            }
        }
    }
}

fn damaged(set: &LogSet, error: logmill_log::Error) -> OpenError {
    OpenError::metadata_damaged(set.dir(), error)
}

/// Why a record of the metadata log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Batch(#[from] logmill_record::BatchError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Unreadable {
    pub(crate) fn is_newer(&self) -> bool {
        matches!(self, Self::Record(RecordError::NewerVersion { .. } | RecordError::Setting { .. }))
    }
}

fn apply(mut batches: Bytes, events: &mut LastEvents) -> Result<(), (Offset, Unreadable)> {
    let mut offset = Offset::ZERO;
    let mut batch = |batches: &mut Bytes| -> Result<bool, (Offset, Unreadable)> {
        let Some(batch) = Batch::split_from(batches).map_err(|error| (offset, error.into()))? else {
            return Ok(false);
        };
        offset = batch.header().base_offset;
        for record in batch.records().map_err(|error| (offset, error.into()))? {
            let record = record.map_err(|error| (offset, error.into()))?;
            let (id, event) = record::decode(record.key.unwrap_or_default(), record.value)
                .map_err(|error| (record.offset, error.into()))?;
            events.insert(id, event);
        }
        Ok(true)
    };
    while batch(&mut batches)? {}
    Ok(())
}
