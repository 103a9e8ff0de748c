//! One log's part of the bytes that all logs of a set may have written and not yet synced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use super::budget::{Budget, Place};

/// Gives back what is left when it is dropped.
#[derive(Debug)]
pub(crate) struct Dirty {
    budget: Arc<Budget>,
    log: Uuid,
    held: AtomicU64,
}

impl Dirty {
    pub(crate) fn new(budget: Arc<Budget>, log: Uuid) -> Self {
        Self { budget, log, held: AtomicU64::new(0) }
    }

    /// Takes room for bytes that are about to be written, or a place in the queue.
    pub(crate) fn take_or_queue(&self, bytes: u64) -> Result<(), Place> {
        self.budget.take_or_queue(self.log, bytes)?;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// So many bytes are on disk, or were not written after all.
    pub(crate) fn release(&self, bytes: u64) {
        let left = |held: u64| Some(held.saturating_sub(bytes));
        let held = self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        self.budget.release(held.unwrap_or_default().min(bytes));
    }

    /// The log ended: its bytes will not be synced.
    pub(crate) fn release_all(&self) {
        self.budget.release(self.held.swap(0, Ordering::Relaxed));
        self.budget.forget(self.log);
    }

    /// Whether others wait for room, or soon will.
    pub(crate) fn is_tight(&self) -> bool {
        self.budget.is_tight()
    }
}

impl Drop for Dirty {
    fn drop(&mut self) {
        self.release_all();
    }
}
