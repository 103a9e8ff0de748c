//! Parking: a log without appends keeps its totals in memory and lets go of the rest.
//!
//! What a clean close would write is written beside the active segment, so that a kill later costs
//! the next open nothing; then the rows of the index, the marks of the newest batches and the open
//! file go. The next append or read of the segment loads the rows again: from the index, if that
//! is the one of these very batches, else by a walk of headers. An append makes the written pair
//! stale, which its recorded length tells.
//!
//! Appends and reads go on while a pair is being written; a roll, which writes the same files,
//! waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::LogInner;
use super::state::{Phase, State};
use crate::env::OpenMode;
use crate::error::Error;
use crate::format::atomic;
use crate::format::index::{Footer, Rows};
use crate::segment::{DATA, Gaps, INDEX, IndexBuilder, path, rebuild};

/// So long after its last append or read a log is parked.
const IDLE_BEFORE_PARK: Duration = Duration::from_mins(1);

impl LogInner {
    /// Parks the log if nothing happened in it for a while, or nothing yet since it was opened.
    pub(crate) fn park_if_idle(self: &Arc<Self>) {
        let pair = {
            let mut state = self.state.lock();
            if !state.is_idle(self.env.clock.monotonic()) {
                return;
            }
            if state.active.pair_is_written {
                state.active.park();
                None
            } else {
                state.parking = true;
                Some(state.encode_pair())
            }
        };
        if let Some(pair) = pair {
            let written = self.write_pair(&pair).and_then(|()| {
                self.env.fs.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, error))
            });
            if let Err(error) = &written {
                tracing::warn!(log = %self.dir.display(), %error, "cannot write the index of an idle log yet");
            }
            let mut state = self.state.lock();
            state.parking = false;
            if written.is_ok() && state.active.len() == pair.footer.data_len {
                state.active.pair_is_written = true;
                state.active.park();
            }
            // A roll may have waited.
            self.schedule_sync(&mut state);
            drop(state);
            self.waiters.progressed();
        }
        self.close_file_if_clean();
    }

    /// Loads what parking let go of.
    pub(super) fn unpark(&self) -> Result<(), Error> {
        let (base, footer) = {
            let state = self.state.lock();
            if !state.active.is_parked {
                return Ok(());
            }
            (state.active.base(), *state.active.index.footer())
        };
        let (index, are_new) = match self.written_rows(&footer) {
            Some(rows) => (IndexBuilder::resume(&rows, footer), false),
            None => (self.walked_rows(&footer)?, true),
        };
        let mut state = self.state.lock();
        // A roll or an append can only have come after another call like this one.
        if state.active.is_parked && state.active.base() == base {
            state.active.unpark(index, are_new);
            state.active.used_at = Some(self.env.clock.monotonic());
        }
        Ok(())
    }

    /// The rows in the index file, if it is that of these very batches.
    fn written_rows(&self, expected: &Footer) -> Option<Rows> {
        let index_path = path(&self.dir, expected.base, INDEX);
        let bytes = atomic::read(&*self.env.fs, &index_path).ok()??;
        let (footer, rows) = Rows::whole(&index_path, &bytes.into()).ok()?;
        (Footer { rows: footer.rows, rows_crc: footer.rows_crc, ..*expected } == footer).then_some(rows)
    }

    fn walked_rows(&self, expected: &Footer) -> Result<IndexBuilder, Error> {
        let data = path(&self.dir, expected.base, DATA);
        tracing::warn!(file = %data.display(), "the index of an idle log is gone and is made anew");
        let failed = |error| Error::io("read", &data, error);
        let file = self.env.fs.open(&data, OpenMode::Read).map_err(failed)?;
        let mut status = file.status().map_err(failed)?;
        status.len = status.len.min(expected.data_len);
        // The file's own time can be before that, and is no better bound.
        status.modified = expected.last_appended_at;
        let (index, found) = rebuild(&*file, expected.base, status, Gaps::None).map_err(failed)?;
        if index.footer().headers_crc == expected.headers_crc && found.end == expected.data_len {
            return Ok(index);
        }
        let what = found.damage.unwrap_or_else(|| "its batches are not those that were written".into());
        Err(Error::corrupt(&data, found.end, found.next_offset..expected.next_offset, what))
    }
}

impl State {
    fn is_idle(&self, now: Duration) -> bool {
        let used = self.active.used_at;
        matches!(self.phase, Phase::Open)
            && !self.closing
            && !self.parking
            && !self.task_queued
            && !self.active.is_parked
            && self.active.len() > 0
            && self.unsynced_bytes() == 0
            && used.is_none_or(|used| now.saturating_sub(used) >= IDLE_BEFORE_PARK)
    }
}
