//! Looking after the logs: once every maintenance interval, while any log is open.
//!
//! One task on the background workers, which sets itself again; it holds the set only weakly. What
//! is due in a log is decided and done by that log, in a task of its own: a file that hangs keeps
//! nothing from the others.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::SetInner;
use crate::env::Work;
use crate::log::LogInner;

impl SetInner {
    /// A log was opened: from now on it is looked after.
    pub(super) fn arm_maintenance(self: &Arc<Self>) {
        if !self.maintenance_armed.swap(true, Ordering::AcqRel) {
            self.spawn_maintenance();
        }
    }

    /// Asks for a sync of all that is written to any log.
    pub(crate) fn sync_all(&self) {
        let logs: Vec<_> = self.logs.lock().values().cloned().collect();
        logs.iter().for_each(LogInner::give_way);
    }

    fn spawn_maintenance(self: &Arc<Self>) {
        let set = Arc::downgrade(self);
        let tick = move || {
            let Some(set) = set.upgrade() else { return };
            if set.maintain() {
                set.spawn_maintenance();
            }
        };
        self.env.scheduler.spawn_after(Work::Background, self.maintenance_interval, Box::new(tick));
    }

    /// Looks after every open log once; false if there is none.
    fn maintain(&self) -> bool {
        let logs: Vec<_> = {
            let logs = self.logs.lock();
            if logs.is_empty() || self.closed.load(Ordering::Acquire) {
                // Under the registry's lock: who opens a log next sees it and sets the task again.
                self.maintenance_armed.store(false, Ordering::Release);
                return false;
            }
            logs.values().cloned().collect()
        };
        self.look_at_space();
        for log in logs {
            if self.closed.load(Ordering::Acquire) {
                break;
            }
            log.look_after();
        }
        true
    }
}
