//! What is due in a log from time to time: see the methods called here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LogInner;
use crate::env::Work;

impl LogInner {
    /// Does what is due, in a task of its own. Nothing where the last one has not ended, or somebody writes to the log
    /// just now: a file that hangs costs no more than one thread, and a write that hangs none.
    pub(crate) fn look_after(self: &Arc<Self>) {
        if self.is_looked_after.swap(true, Ordering::AcqRel) {
            return;
        }
        let turn = Turn(Arc::clone(self));
        self.env.scheduler.spawn(Work::Background, Box::new(move || turn.0.do_what_is_due()));
    }

    fn do_what_is_due(self: &Arc<Self>) {
        if self.state.try_lock().is_none() {
            return;
        }
        self.roll_if_old();
        self.expire_producers();
        self.retain_if_due();
        self.park_if_idle();
        self.compact_if_due();
    }
}

/// The right to look after a log, however the task ends.
struct Turn(Arc<LogInner>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_looked_after.store(false, Ordering::Release);
    }
}
