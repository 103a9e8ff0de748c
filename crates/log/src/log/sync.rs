//! Group commit without a timer.
//!
//! A log with unsynced bytes has one task in the set's queue. The task notes how far the log is
//! written, syncs, publishes, and queues itself again at the back if more has come meanwhile:
//! appends that arrive during a sync share the next one. What a relaxed log has written waits for
//! its flush interval, unless somebody asks for it to be on disk. After its sync the task does the
//! [roll](super::roll) that was asked for.
//!
//! A failed sync is never tried again: the kernel marks the pages clean all the same, so a second
//! one would succeed and lie.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use logmill_record::Offset;

use super::LogInner;
use super::state::{Phase, State};
use super::view::Guard;
use crate::env::Work;
use crate::error::{Error, ErrorKind};
use crate::format::checkpoint::Durable;
use crate::options::Durability;
use crate::segment::{DATA, path};

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

    /// Asks for a sync of what is written up to `end`, if there is none on its way. Does not wait for a write
    /// that is under way: whoever asks may be a future that is polled.
    pub(super) fn want_durable(self: &Arc<Self>, end: Offset) {
        let Some(mut state) = self.state.try_lock() else { return self.give_way() };
        state.wanted = state.wanted.max(end);
        self.schedule_sync(&mut state);
    }

    /// Somebody waits for a sync, or another log for room: syncs all that is written, and closes the file if
    /// that is on disk and a file is waited for. Nobody waits here for a write of this log: a task does, and
    /// one only, so that a write that hangs costs the set no more than one of its threads for syncs.
    pub(crate) fn give_way(self: &Arc<Self>) {
        if let Some(state) = self.state.try_lock() {
            return self.give_way_with(state);
        }
        if self.gives_way.swap(true, Ordering::AcqRel) {
            return;
        }
        let log = Arc::clone(self);
        let give_way = move || {
            let state = log.state.lock();
            // Who asks from here on meets the lock, or what is done under it.
            log.gives_way.store(false, Ordering::Release);
            log.give_way_with(state);
        };
        self.env.scheduler.spawn(Work::Sync, Box::new(give_way));
    }

    fn give_way_with(self: &Arc<Self>, mut state: Guard<'_>) {
        state.wanted = state.written_end();
        self.schedule_sync(&mut state);
        let closed = self.others_wait_for_a_file().then(|| state.take_clean_file());
        drop(state);
        drop(closed);
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
        let (newly, stable) = {
            let mut state = self.state.lock();
            if state.poisoned || matches!(state.phase, Phase::Undoing) {
                // The undo of a failed append may meet the error that this sync was then not told
                // of: the kernel reports it once. What is left is synced again after the undo.
                return Ok(());
            }
            let newly = target.position - state.durable.position;
            state.set_durable(target);
            (newly, state.last_stable())
        };
        self.waiters.publish_durable(target.end, stable);
        self.dirty.release(newly);
        self.note_synced(newly, took);
        Ok(())
    }

    /// Ends the log until it is opened again.
    pub(super) fn poison(&self, cause: &Error) {
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
}
