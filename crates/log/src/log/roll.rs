//! The roll: sealing the active segment and beginning the next, done by the task that syncs the log.
//!
//! The data is on disk before index and state are written, these before the next segment's file is
//! made, and its name before anything is appended to it: only the last segment can hold unsynced
//! bytes. A roll that fails leaves the log in its old segment, and perhaps an empty file, which the
//! next attempt or the next open takes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::LogInner;
use super::sidecar::Pair;
use super::state::{Active, Phase, State};
use crate::env::{File, Fs, OpenMode};
use crate::error::Error;
use crate::format::checkpoint::Durable;
use crate::segment::{DATA, Gaps, IndexBuilder, Sealed, path};
use crate::set::OpenFile;

impl LogInner {
    /// Seals the active segment and begins the next. Nobody appends meanwhile, so everything
    /// happens outside the lock: index, next data file, directory; only then is it published.
    pub(super) fn roll_if_asked(self: &Arc<Self>) {
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
                state.roll_error = None;
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
            if state.roll_awaited {
                // A roll by age that fails after this one must not take it from whoever waited.
                state.roll_error = Some(error);
            }
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
