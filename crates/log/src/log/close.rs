//! Ending a log: cleanly, or because its directory goes.

use std::sync::Arc;

use super::LogInner;
use super::futures::WaitFor;
use super::state::{Phase, State, closed};
use crate::env::block_on;
use crate::error::Error;

impl LogInner {
    /// Blocks until `done`, looking again after each progress of the log.
    pub(super) fn wait_until(self: &Arc<Self>, done: impl Fn(&State) -> bool) {
        loop {
            let seen = self.waiters.progress();
            if done(&self.state.lock()) {
                return;
            }
            block_on(&*self.env.scheduler, WaitFor::new(Arc::clone(self), seen));
        }
    }

    /// Waits for whoever removes or replaces segment files; who comes later finds the log closing.
    fn wait_for_removals(&self) {
        self.end_compaction();
        drop(self.kept.lock());
    }

    /// The log ended: gives back what it had of the set's budgets.
    pub(super) fn give_back(&self) {
        // Dropped without the lock: that wakes others.
        let _closed = self.state.lock().active.open.take();
        self.dirty.release_all();
    }

    /// Syncs, writes the active segment's index and state, and ends the log.
    pub(crate) fn close(self: &Arc<Self>) -> Result<(), Error> {
        {
            let mut state = self.state.lock();
            state.closing = true;
            state.wanted = state.written_end();
            self.schedule_sync(&mut state);
        }
        self.wait_for_removals();
        self.wait_until(|state| {
            !state.task_queued && !state.parking && !matches!(state.phase, Phase::Undoing)
        });
        let (outcome, pair, cleanly) = {
            let mut state = self.state.lock();
            let open = matches!(state.phase, Phase::Open);
            let outcome = match &state.phase {
                Phase::Poisoned(error) => Err(error.clone()),
                _ => Ok(()),
            };
            // Nothing is mended in a log that can only be read: it stays as it was found.
            let cleanly = match &state.phase {
                Phase::ReadOnly(_) => state.found_clean,
                Phase::Closed => state.closed_cleanly,
                _ => open,
            };
            state.phase = Phase::Closed;
            let unwritten = open && state.active.len() > 0 && !state.active.pair_is_written;
            let pair = unwritten.then(|| state.encode_pair());
            (outcome, pair, cleanly)
        };
        self.give_back();
        self.waiters.end(closed());
        if let Some(pair) = pair {
            self.write_pair(&pair)?;
        }
        if cleanly {
            // Also without the pair: an earlier sync of its names may have failed, and who opens a log
            // that was closed cleanly goes by the names that it finds.
            self.env.fs.sync_dir(&self.dir).map_err(|error| Error::io("sync", &self.dir, error))?;
            self.state.lock().closed_cleanly = true;
        }
        outcome
    }

    /// Ends the log because nobody holds a handle any more: nothing more is written, and a task
    /// that is in the middle of something has ended when this returns. One that only waits in the
    /// queue will find the log closed.
    pub(crate) fn give_up(self: &Arc<Self>) {
        {
            let mut state = self.state.lock();
            state.closing = true;
            state.phase = Phase::Closed;
        }
        self.give_back();
        self.waiters.end(closed());
        self.wait_for_removals();
        // The last handle may go inside the task itself, which cannot wait for its own end.
        let me = std::thread::current().id();
        self.wait_until(|state| !state.parking && state.task_runs_on.is_none_or(|thread| thread == me));
    }

    /// Ends the log where it stands.
    pub(crate) fn abandon(self: &Arc<Self>) {
        {
            let mut state = self.state.lock();
            state.closing = true;
            state.phase = Phase::Closed;
        }
        self.give_back();
        self.waiters.end(closed());
        self.wait_for_removals();
        self.wait_until(|state| !state.task_queued && !state.parking);
    }
}
