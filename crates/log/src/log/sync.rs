//! Group commit without a timer, and the roll that follows a sync.
//!
//! A log with unsynced bytes has one task in the set's queue. The task notes how far the log is
//! written, syncs, publishes, and queues itself again at the back if more has come meanwhile:
//! appends that arrive during a sync share the next one. A failed sync is never tried again: the
//! kernel marks the pages clean all the same, so a second one would succeed and lie.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use logmill_record::Offset;

use super::LogInner;
use super::state::{Active, Phase, State};
use crate::env::{File, Fs, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::checkpoint::Durable;
use crate::segment::{DATA, Gaps, INDEX, IndexBuilder, Sealed, path};

impl LogInner {
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
        let alive = matches!(state.phase, Phase::Open | Phase::Rolling);
        if alive && (state.unsynced_bytes() > 0 || matches!(state.phase, Phase::Rolling)) {
            self.queue_sync(&mut state);
        }
        drop(state);
        self.waiters.progressed();
    }

    fn sync_once(&self) -> Result<(), Error> {
        let (file, target) = {
            let state = self.state.lock();
            if !matches!(state.phase, Phase::Open | Phase::Rolling) || state.unsynced_bytes() == 0 {
                return Ok(());
            }
            let active_base = state.active.base();
            let target = Durable { active_base, end: state.written_end(), position: state.active.len() };
            (Arc::clone(&state.active.file), target)
        };
        file.sync_data()
            .map_err(|error| Error::io("sync", &path(&self.dir, target.active_base, DATA), error))?;
        let newly = {
            let mut state = self.state.lock();
            if state.poisoned || matches!(state.phase, Phase::Undoing) {
                // The undo of a failed append may meet the error that this sync was then not told
                // of: the kernel reports it once. What is left is synced again after the undo.
                return Ok(());
            }
            let newly = target.position - state.durable.position;
            state.durable = target;
            newly
        };
        self.waiters.publish(target.end);
        self.note_synced(newly);
        Ok(())
    }

    /// Ends the log until it is opened again.
    fn poison(&self, cause: &Error) {
        let unknown = self.poisoned(&mut self.state.lock(), cause);
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
        let (index, footer) = {
            let state = self.state.lock();
            if !matches!(state.phase, Phase::Rolling) || state.unsynced_bytes() > 0 {
                return;
            }
            state.active.index.encode()
        };
        match self.begin_segment(footer.base, &index, footer.next_offset) {
            Ok(active) => {
                let fs = Arc::clone(&self.env.fs);
                let sealed =
                    Arc::new(Sealed::new(fs, &self.dir, footer, footer.next_offset, Gaps::None, None));
                let mut state = self.state.lock();
                if !matches!(state.phase, Phase::Rolling) {
                    // Given up meanwhile; the empty segment is found at the next open.
                    return;
                }
                let mut segments = state.sealed.to_vec();
                segments.push(sealed);
                state.sealed = Arc::new(segments);
                state.durable = Durable { active_base: active.base(), end: footer.next_offset, position: 0 };
                state.active = active;
                state.phase = Phase::Open;
            }
            Err(RollError::Again(error)) => {
                tracing::warn!(log = %self.dir.display(), %error, "cannot begin the next segment");
                let mut state = self.state.lock();
                if matches!(state.phase, Phase::Rolling) {
                    state.phase = Phase::Open;
                    state.roll_error = Some(error);
                }
            }
            Err(RollError::Sync(error)) => self.poison(&error),
        }
    }

    fn begin_segment(&self, base: Offset, index: &[u8], next: Offset) -> Result<Active, RollError> {
        let fs = &*self.env.fs;
        atomic::write_and_rename(fs, &path(&self.dir, base, INDEX), index).map_err(RollError::Again)?;
        let data = path(&self.dir, next, DATA);
        let file = create_or_reuse(fs, &data).map_err(RollError::Again)?;
        fs.sync_dir(&self.dir).map_err(|error| RollError::Sync(Error::io("sync", &self.dir, error)))?;
        Ok(Active::new(file, IndexBuilder::new(next)))
    }

    /// Asks for a roll now, if there is anything to seal.
    pub(super) fn request_roll(self: &Arc<Self>) -> Result<(), Error> {
        let mut state = self.state.lock();
        state.check_open()?;
        if matches!(state.phase, Phase::Open) && state.active.len() > 0 {
            state.roll_error = None;
            state.phase = Phase::Rolling;
            self.queue_sync(&mut state);
        }
        Ok(())
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
