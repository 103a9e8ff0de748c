//! What a log keeps: by time of append, by size, and by its owner's word.
//!
//! The start offset is persisted first, then the segments below it leave the list that readers
//! look into, and only then are their files unlinked. A crash in between leaves files that the
//! next open removes. Readers that hold a view of a removed segment read on in its map; a new read
//! below the start is told the range.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

use super::LogInner;
use super::state::{Phase, State, closed};
use crate::env::Fs;
use crate::error::{Error, ErrorKind};
use crate::format::{atomic, meta};
use crate::segment::{ENDINGS, Sealed, path};

/// What `meta` says, and which files are still to go. Its lock is the right to write `meta` and to
/// change which segment files there are: taken before the state's, and held during that I/O.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) meta: meta::LogMeta,
    /// Segments that left the list and whose files could not be removed.
    pub(super) doomed: Vec<Offset>,
}

impl LogInner {
    /// Moves the start to `offset`, unless it lies further already; returns where it is then.
    pub(super) fn set_start_offset(self: &Arc<Self>, offset: Offset) -> Result<Offset, Error> {
        if self.state.lock().must_sync_below(offset) {
            // Readers of a relaxed log see more than a crash leaves: the start never lies there.
            self.want_durable(offset);
            self.wait_until(|state| !state.must_sync_below(offset));
        }
        let mut kept = self.kept.lock();
        let start = {
            let state = self.state.lock();
            state.check_usable()?;
            let (start, end) = (state.start_offset, state.durable.end);
            if offset > end.max(start) {
                let message = format!(
                    "the start of {} cannot be moved to {offset}: it has offsets {start} to {end}; \
                     choose one of these",
                    self.dir.display(),
                );
                return Err(Error::new(ErrorKind::OutOfRange, message).at_path(&self.dir));
            }
            start
        };
        if offset > start {
            self.persist_start(&mut kept, offset)?;
        }
        self.drop_below_start(&mut kept)?;
        Ok(offset.max(start))
    }

    /// Replaces what the owner keeps with the log.
    pub(super) fn set_owner(&self, owner: &[u8]) -> Result<(), Error> {
        meta::check_owner(owner)?;
        let mut kept = self.kept.lock();
        self.state.lock().check_usable()?;
        self.update_meta(&mut kept, |meta| meta.owner = Bytes::copy_from_slice(owner))
    }

    /// Removes the segments that are older or more than the options allow; returns where the log
    /// starts then.
    pub(super) fn retain(&self) -> Result<Offset, Error> {
        let now = self.env.clock.now();
        let mut kept = self.kept.lock();
        let expired = {
            let state = self.state.lock();
            state.check_open()?;
            self.expired(&state, now)
        };
        if let Some(start) = expired {
            self.persist_start(&mut kept, start)?;
        }
        self.drop_below_start(&mut kept)
    }

    /// As [`retain`](Self::retain), for the task that looks after the logs.
    pub(crate) fn retain_if_due(&self) {
        let asked = {
            let state = self.state.lock();
            let options = &state.options;
            state.check_open().is_ok()
                && (options.retention_age.is_some() || options.retention_bytes.is_some())
        };
        if (asked || !self.kept.lock().doomed.is_empty())
            && let Err(error) = self.retain()
            && error.kind() != ErrorKind::Closed
        {
            tracing::warn!(log = %self.dir.display(), %error, "cannot remove what is too old; it is tried again");
        }
    }

    /// Where the log is to start by its options, if not where it does.
    fn expired(&self, state: &State, now: TimestampMs) -> Option<Offset> {
        let mut stored = state.stored_bytes();
        let mut start = None;
        for segment in state.sealed.iter() {
            let rest = stored - segment.data_len();
            let too_old =
                state.options.retention_age.is_some_and(|age| older(segment.last_appended_at(), age, now));
            let too_much = state.options.retention_bytes.is_some_and(|bytes| rest >= bytes);
            if !too_old && !too_much {
                break;
            }
            stored = rest;
            start = Some(segment.end());
        }
        start.filter(|start| *start > state.start_offset)
    }

    /// Whether everything in the active segment is too old, so that it has to be sealed to go.
    pub(super) fn active_expired(&self) -> bool {
        let state = self.state.lock();
        let last = state.active.index.footer().last_appended_at;
        matches!(state.phase, Phase::Open)
            && state.active.len() > 0
            && state.options.retention_age.is_some_and(|age| older(last, age, self.env.clock.now()))
    }

    /// Makes a change of `meta` durable, if it is one.
    pub(super) fn update_meta(
        &self,
        kept: &mut Kept,
        change: impl FnOnce(&mut meta::LogMeta),
    ) -> Result<(), Error> {
        let mut meta = kept.meta.clone();
        change(&mut meta);
        if meta != kept.meta {
            atomic::replace(&*self.env.fs, &self.dir.join(meta::FILE), &meta.encode())?;
            kept.meta = meta;
        }
        Ok(())
    }

    fn persist_start(&self, kept: &mut Kept, start: Offset) -> Result<(), Error> {
        self.update_meta(kept, |meta| meta.start_offset = start)?;
        let stable = {
            let mut state = self.state.lock();
            state.start_offset = start;
            state.last_stable()
        };
        // A transaction that is open may have begun before: whoever waits for its end waits below the start now.
        self.waiters.publish_stable(stable);
        Ok(())
    }

    /// Takes the segments wholly below the start out of the list, and then removes their files.
    fn drop_below_start(&self, kept: &mut Kept) -> Result<Offset, Error> {
        let (start, gone) = {
            let mut state = self.state.lock();
            let start = state.start_offset;
            let below = state.sealed.partition_point(|segment| segment.end() <= start);
            let gone = state.sealed[..below].to_vec();
            if below > 0 {
                state.sealed = Arc::new(state.sealed[below..].to_vec());
            }
            (start, gone)
        };
        for segment in &gone {
            report(self, segment);
            kept.doomed.push(segment.base());
        }
        if !kept.doomed.is_empty() {
            remove_segments(&*self.env.fs, &self.dir, &mut kept.doomed)?;
        }
        Ok(start)
    }
}

impl State {
    /// Whether readers see records below `offset` that are not on disk, and a sync can be had.
    fn must_sync_below(&self, offset: Offset) -> bool {
        self.durable.end < offset && offset <= self.visible().end && self.check_open().is_ok()
    }

    /// Whether the log is open, be it for reading only.
    pub(super) fn check_usable(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Poisoned(error) => Err(error.clone()),
            Phase::Closed => Err(closed()),
            _ if self.closing => Err(closed()),
            _ => Ok(()),
        }
    }
}

/// Removes the files of segments, the data first: what is left by a crash below the start is
/// removed at the next open, with or without data. Those that cannot be removed stay in the list.
pub(crate) fn remove_segments(fs: &dyn Fs, dir: &Path, bases: &mut Vec<Offset>) -> Result<(), Error> {
    let mut outcome = Ok(());
    bases.retain(|base| {
        let removed = remove_files(fs, dir, *base);
        let failed = removed.is_err();
        outcome = std::mem::replace(&mut outcome, Ok(())).and(removed);
        failed
    });
    outcome.and(fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error)))
}

fn remove_files(fs: &dyn Fs, dir: &Path, base: Offset) -> Result<(), Error> {
    for ending in ENDINGS {
        let path = path(dir, base, ending);
        atomic::remove_left_over(fs, &path).map_err(|error| Error::io("remove", &path, error))?;
    }
    Ok(())
}

/// Whether what was appended at `at` is older than `age`.
fn older(at: TimestampMs, age: Duration, now: TimestampMs) -> bool {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    now.0.saturating_sub(at.0) > age_ms
}

fn report(log: &LogInner, segment: &Sealed) {
    let (dir, from, to) = (log.dir.display(), segment.base(), segment.end());
    if segment.is_short() {
        tracing::warn!(log = %dir, %from, %to, "removing a damaged segment below the start of the log");
    } else {
        tracing::info!(log = %dir, %from, %to, "removing a segment below the start of the log");
    }
}
