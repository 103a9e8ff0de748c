//! Which active segments have their file open: so many at most over all logs of a set.
//!
//! An append opens its segment's file if it is not open, and if there are too many, the one that
//! was not appended to for longest is closed, out of those with nothing unsynced: a write-back
//! error could be lost with a descriptor that has. If all have, they are synced, and each closes
//! its own file when it is clean and somebody waits. Readers of a segment whose file is not open
//! open it for that one read; sealed segments are mapped and keep no descriptor.
//!
//! Lock order: a log's state, then the holders, then the budget, which is a leaf. Two logs' states
//! are never locked at the same time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::budget::{Budget, Place};
use crate::env::File;
use crate::log::LogInner;

/// The files of active segments that are open.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    budget: Arc<Budget>,
    /// The logs that have one, in the order they opened it.
    holders: Mutex<BTreeMap<u64, Weak<LogInner>>>,
    next_holder: AtomicU64,
    /// Counts uses, to find the file that was used least recently.
    uses: AtomicU64,
}

impl OpenFiles {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            budget: Arc::new(Budget::new(most as u64)),
            holders: Mutex::default(),
            next_holder: AtomicU64::new(0),
            uses: AtomicU64::new(0),
        }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The right to have one more file open, or a place in the queue for it: then another is being
    /// closed, or synced so that it can be.
    pub(crate) fn permit(self: &Arc<Self>, log: &LogInner) -> Result<Permit, Place> {
        match self.budget.take_or_queue(log.id, 1) {
            Ok(()) => Ok(Permit { files: Arc::clone(self), holder: None }),
            Err(place) => {
                // In the queue first: what becomes clean from here on is closed by its log.
                self.close_one();
                Err(place)
            }
        }
    }

    /// The number of this use.
    pub(crate) fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn close_one(&self) {
        let mut holders: Vec<_> = self.holders.lock().values().filter_map(Weak::upgrade).collect();
        holders.sort_by_key(|log| log.last_use());
        if holders.iter().any(|log| log.close_file_at_once()) {
            return;
        }
        holders.iter().for_each(LogInner::give_way);
    }
}

/// The right to one open file, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    files: Arc<OpenFiles>,
    holder: Option<u64>,
}

impl Permit {
    /// Enters the log whose file is open by this right.
    pub(crate) fn held_by(mut self, log: &Arc<LogInner>) -> Self {
        let number = self.files.next_holder.fetch_add(1, Ordering::Relaxed);
        self.files.holders.lock().insert(number, Arc::downgrade(log));
        self.holder = Some(number);
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(number) = self.holder {
            self.files.holders.lock().remove(&number);
        }
        self.files.budget.release(1);
    }
}

/// An open file and the right to have it open. The file is closed first.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: Arc<dyn File>,
    pub(crate) permit: Permit,
}
