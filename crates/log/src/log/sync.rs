//! Group commit without a timer, and the roll that follows a sync.
//!
//! A log with unsynced bytes has one task in the set's queue. The task notes how far the log is
//! written, syncs, publishes, and queues itself again at the back if more has come meanwhile:
//! appends that arrive during a sync share the next one. What a relaxed log has written waits for
//! its flush interval, unless somebody asks for it to be on disk. A failed sync is never tried again: the
//! kernel marks the pages clean all the same, so a second one would succeed and lie.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use logmill_record::Offset;

use super::LogInner;
use super::sidecar::Pair;
use super::state::{Active, Phase, State};
use crate::env::{File, Fs, OpenMode, Work};
use crate::error::{Error, ErrorKind};
use crate::format::checkpoint::Durable;
use crate::options::Durability;
use crate::segment::{DATA, Gaps, IndexBuilder, Sealed, path};
use crate::set::OpenFile;

impl LogInner {
    /// Sees to it that what is unsynced will be synced: now if somebody asks for it or a roll
    /// waits, else when the flush interval of a relaxed log is over.
    pub(super) fn schedule_sync(self: &Arc<Self>, state: &mut State) {
        if !state.takes_syncs() {
            return;
        }
        // A roll that has nothing to sync waits until the same files are not being written.
        let rolls = matches!(state.phase, Phase::Rolling) && !(state.parking && state.unsynced_bytes() == 0);
        if rolls || state.wanted > state.durable.end {
            self.queue_sync(state);
        } else if state.unsynced_bytes() > 0 {
            self.arm_flush(state);
        }
    }

    /// Puts the log in the queue for a sync, once.
    fn queue_sync(self: &Arc<Self>, state: &mut State) {
        if !state.task_queued {
            state.task_queued = true;
            let log = Arc::clone(self);
            self.env.scheduler.spawn(Work::Sync, Box::new(move || log.sync_step()));
        }
    }

    fn arm_flush(self: &Arc<Self>, state: &mut State) {
        let Durability::Relaxed { flush_interval } = state.options.durability else { return };
        if !state.flush_armed {
            state.flush_armed = true;
            let log = Arc::downgrade(self);
            let flush = move || {
                let Some(log) = log.upgrade() else { return };
                let mut state = log.state.lock();
                state.flush_armed = false;
                state.wanted = state.written_end();
                log.schedule_sync(&mut state);
            };
            self.env.scheduler.spawn_after(Work::Sync, flush_interval, Box::new(flush));
        }
    }

    /// Asks for a sync of what is written up to `end`, if there is none on its way.
    pub(super) fn want_durable(self: &Arc<Self>, end: Offset) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(end);
        self.schedule_sync(&mut state);
    }

    /// Asks for a sync of all that is written.
    pub(crate) fn want_all_durable(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.wanted = state.written_end();
        self.schedule_sync(&mut state);
    }

    /// One step of a log's background work: sync what is written, then roll if asked to.
    pub(super) fn sync_step(self: Arc<Self>) {
        self.state.lock().task_runs_on = Some(thread::current().id());
        match self.sync_once() {
            Ok(()) => self.roll_if_asked(),
            Err(error) => self.poison(&error),
        }
        let mut state = self.state.lock();
        state.task_queued = false;
        state.task_runs_on = None;
        self.schedule_sync(&mut state);
        drop(state);
        self.close_file_if_others_wait();
        self.waiters.progressed();
    }

    fn sync_once(&self) -> Result<(), Error> {
        let (file, target) = {
            let state = self.state.lock();
            if !state.takes_syncs() || state.unsynced_bytes() == 0 {
                return Ok(());
            }
            let active_base = state.active.base();
            let target = Durable { active_base, end: state.written_end(), position: state.active.len() };
            (Arc::clone(state.active.file()), target)
        };
        let begun = self.env.clock.monotonic();
        file.sync_data()
            .map_err(|error| Error::io("sync", &path(&self.dir, target.active_base, DATA), error))?;
        let took = self.env.clock.monotonic().saturating_sub(begun);
        let newly = {
            let mut state = self.state.lock();
            if state.poisoned || matches!(state.phase, Phase::Undoing) {
                // The undo of a failed append may meet the error that this sync was then not told
                // of: the kernel reports it once. What is left is synced again after the undo.
                return Ok(());
            }
            let newly = target.position - state.durable.position;
            state.set_durable(target);
            newly
        };
        self.waiters.publish_durable(target.end);
        self.dirty.release(newly);
        self.note_synced(newly, took);
        Ok(())
    }

    /// Ends the log until it is opened again.
    fn poison(&self, cause: &Error) {
        let unknown = self.poisoned(&mut self.state.lock(), cause);
        self.give_back();
        self.waiters.end(unknown);
    }

    /// Marks the log as poisoned; returns what those get who wait for it.
    pub(super) fn poisoned(&self, state: &mut State, cause: &Error) -> Error {
        tracing::error!(log = %self.dir.display(), error = %cause, "the log failed and takes nothing more");
        let message = format!(
            "{} failed, so it is not known whether its last records are on disk ({cause}); check the \
             disk, then open the log again: it goes on after the last record known to be durable",
            self.dir.display(),
        );
        let of_kind = |kind| Error::new(kind, message.clone()).at_path(&self.dir).because(cause.clone());
        if !matches!(state.phase, Phase::Closed) {
            state.phase = Phase::Poisoned(of_kind(ErrorKind::Poisoned));
        }
        state.poisoned = true;
        of_kind(ErrorKind::OutcomeUnknown)
    }

    /// Seals the active segment and begins the next. Nobody appends meanwhile, so everything
    /// happens outside the lock: index, next data file, directory; only then is it published.
    fn roll_if_asked(self: &Arc<Self>) {
        if let Err(error) = self.unpark() {
            return self.roll_failed(error);
        }
        let pair = {
            let state = self.state.lock();
            if !matches!(state.phase, Phase::Rolling) || state.unsynced_bytes() > 0 || state.parking {
                return;
            }
            state.encode_pair()
        };
        let footer = pair.footer;
        match self.begin_segment(&pair) {
            Ok(file) => {
                let (fs, maps) = (Arc::clone(&self.env.fs), Arc::clone(&self.shared.maps));
                let sealed =
                    Arc::new(Sealed::new(fs, maps, &self.dir, footer, footer.next_offset, Gaps::None, None));
                let mut state = self.state.lock();
                if !matches!(state.phase, Phase::Rolling) {
                    // Given up meanwhile; the empty segment is found at the next open.
                    return;
                }
                sealed.set_txns(state.producers.take_aborted());
                let mut segments = state.sealed.to_vec();
                segments.push(sealed);
                state.sealed = Arc::new(segments);
                let base = footer.next_offset;
                state.set_durable(Durable { active_base: base, end: base, position: 0 });
                let open = state.active.open.take();
                state.active = Active::new(IndexBuilder::new(base));
                // The right to have the old file open goes over to the new one. Without it, the
                // next append opens the file.
                let (open, _closed) = match open {
                    Some(OpenFile { file: old, permit }) => (Some(OpenFile { file, permit }), old),
                    None => (None, file),
                };
                state.active.open = open;
                state.phase = Phase::Open;
                drop(state);
            }
            Err(RollError::Again(error)) => self.roll_failed(error),
            Err(RollError::Sync(error)) => self.poison(&error),
        }
    }

    /// Nothing is lost, and the log goes on in the old segment.
    fn roll_failed(&self, error: Error) {
        tracing::warn!(log = %self.dir.display(), %error, "cannot begin the next segment");
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Rolling) {
            state.phase = Phase::Open;
            state.roll_error = state.roll_awaited.then_some(error);
        }
    }

    fn begin_segment(&self, pair: &Pair) -> Result<Arc<dyn File>, RollError> {
        let fs = &*self.env.fs;
        self.write_pair(pair).map_err(RollError::Again)?;
        let data = path(&self.dir, pair.footer.next_offset, DATA);
        let file = create_or_reuse(fs, &data).map_err(RollError::Again)?;
        fs.sync_dir(&self.dir).map_err(|error| RollError::Sync(Error::io("sync", &self.dir, error)))?;
        Ok(file)
    }

    /// Asks for a roll now, if there is anything to seal.
    pub(super) fn request_roll(self: &Arc<Self>) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.check_open()?;
        state.roll_error = None;
        state.roll_awaited = true;
        if matches!(state.phase, Phase::Open) {
            self.start_roll(&mut state);
        }
        Ok(())
    }

    /// Seals the active segment if its first append was too long ago. Nobody waits for it: if it
    /// fails, the next look tries again.
    pub(crate) fn roll_if_old(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let Some(most) = state.options.segment_age.or(state.options.retention_age) else { return };
        let old = state.active.since.is_some_and(|since| since.age(&*self.env.clock) >= most);
        if old && matches!(state.phase, Phase::Open) && !state.closing {
            state.roll_awaited = false;
            self.start_roll(&mut state);
        }
    }

    fn start_roll(self: &Arc<Self>, state: &mut State) {
        if state.active.len() > 0 {
            state.phase = Phase::Rolling;
            self.schedule_sync(state);
        }
    }
}

/// Creates the next data file, or takes the empty one that an earlier roll left when it failed.
fn create_or_reuse(fs: &dyn Fs, data: &Path) -> Result<Arc<dyn File>, Error> {
    let created = match fs.open(data, OpenMode::CreateNew) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let left = fs.open(data, OpenMode::ReadWrite).map_err(|error| Error::io("open", data, error))?;
            if left.status().map_err(|error| Error::io("look at", data, error))?.len == 0 {
                return Ok(left);
            }
            Err(error)
        }
        other => other,
    };
    created.map_err(|error| Error::io("create", data, error))
}

/// Why a roll failed.
enum RollError {
    /// Nothing is lost; the next append tries again.
    Again(Error),
    /// A sync failed.
    Sync(Error),
}
