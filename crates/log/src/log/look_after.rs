//! What is due in a log from time to time: see the methods called here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::LogInner;
use crate::env::Work;

/// So long it is waited for those who write, who can be many.
const LONG_WRITE: Duration = Duration::from_secs(1);

impl LogInner {
    /// Does what is due, in a task of its own. Nothing where the last one has not ended, or a write to the log takes
    /// long just now: a file that hangs costs no more than one thread, and a write that hangs none.
    pub(crate) fn look_after(self: &Arc<Self>) {
        if self.is_looked_after.swap(true, Ordering::AcqRel) {
            return;
        }
        let turn = Turn(Arc::clone(self));
        self.env.scheduler.spawn(Work::Background, Box::new(move || turn.0.do_what_is_due()));
    }

    fn do_what_is_due(self: &Arc<Self>) {
        if !self.state.is_free_within(LONG_WRITE) {
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
