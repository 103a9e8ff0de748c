//! The active segment's file: opened by the first append that needs it, closed when others do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogInner;
use super::futures::WaitFor;
use super::state::{Phase, State};
use crate::env::{File, OpenMode};
use crate::error::Error;
use crate::segment::{DATA, path};
use crate::set::OpenFile;

impl LogInner {
    /// Opens the active segment's file for an append, or says what to wait for.
    pub(super) fn open_file(self: &Arc<Self>) -> Result<Option<WaitFor>, Error> {
        if self.state.lock().active.open.is_some() {
            return Ok(None);
        }
        let permit = match self.shared.files.permit(self) {
            Ok(permit) => permit,
            Err(place) => return Ok(Some(WaitFor::room(place))),
        };
        let base = self.state.lock().active.base();
        let data = path(&self.dir, base, DATA);
        let opened = self.env.fs.open(&data, OpenMode::ReadWrite);
        let mut state = self.state.lock();
        // A roll, another append or the end of the log may have come first. The permit is given
        // back after the lock: that wakes others.
        let wanted = state.active.base() == base && state.active.open.is_none() && state.check_open().is_ok();
        if !wanted {
            drop(state);
            return Ok(None);
        }
        let file = opened.map_err(|error| Error::io("open", &data, error))?;
        self.note_use();
        state.active.open = Some(OpenFile { file, permit: permit.held_by(self) });
        Ok(None)
    }

    /// A file to read the active segment that begins at `base` from: none if that is not the
    /// active one any more.
    pub(super) fn file_to_read(&self, base: logmill_record::Offset) -> Result<Option<Arc<dyn File>>, Error> {
        let data = path(&self.dir, base, DATA);
        let opened = self.env.fs.open(&data, OpenMode::Read);
        // After the opening: from a roll on, the name can go to another file.
        if self.state.lock().active.base() != base {
            return Ok(None);
        }
        opened.map(Some).map_err(|error| Error::io("open", &data, error))
    }

    /// Closes the file if nothing in it is unsynced.
    pub(super) fn close_file_if_clean(&self) {
        let _closed = self.state.lock().take_clean_file();
    }

    /// The same for another log, which does not wait for a write of this one; says whether it did.
    pub(crate) fn close_file_at_once(&self) -> bool {
        let closed = self.state.try_lock().and_then(|mut state| state.take_clean_file());
        closed.is_some()
    }

    /// After a sync: makes room for a log that waits to open its file.
    pub(super) fn close_file_if_others_wait(&self) {
        if self.others_wait_for_a_file() {
            self.close_file_if_clean();
        }
    }

    pub(super) fn others_wait_for_a_file(&self) -> bool {
        self.shared.files.budget().waiting() > 0
    }

    pub(super) fn note_use(&self) {
        self.last_use.store(self.shared.files.next_use(), Ordering::Relaxed);
    }

    /// The number of its last use, by the count of the set.
    pub(crate) fn last_use(&self) -> u64 {
        self.last_use.load(Ordering::Relaxed)
    }
}

impl State {
    /// Takes the file out if nothing in it is unsynced and nobody works with it; the caller drops
    /// it without the lock.
    pub(super) fn take_clean_file(&mut self) -> Option<OpenFile> {
        let idle = matches!(self.phase, Phase::Open) && self.unsynced_bytes() == 0;
        if idle { self.active.open.take() } else { None }
    }
}
