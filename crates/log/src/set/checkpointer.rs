//! Writing the checkpoint: at most a second or 64 MiB behind what is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::SetInner;
use crate::env::Work;
use crate::error::Error;
use crate::format::{atomic, checkpoint};

/// The checkpoint is never further behind than this, in time or in bytes.
const INTERVAL: Duration = Duration::from_secs(1);
const BYTES: u64 = 64 << 20;

/// The file's name.
pub(crate) const FILE: &str = "checkpoint";

impl SetInner {
    /// Some log has more durable bytes: a checkpoint is due in a second, or now if many came.
    pub(crate) fn note_synced(self: &Arc<Self>, bytes: u64) {
        let since = self.synced_since.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if since >= BYTES && since - bytes < BYTES {
            self.spawn_checkpoint(Duration::ZERO);
        } else if !self.checkpoint_due.swap(true, Ordering::AcqRel) {
            self.spawn_checkpoint(INTERVAL);
        }
    }

    fn spawn_checkpoint(self: &Arc<Self>, delay: Duration) {
        // The task must not keep a set alive whose handles are gone.
        let set = Arc::downgrade(self);
        let write = move || {
            let Some(set) = set.upgrade() else { return };
            // Cleared first: what becomes durable from here on asks for the next one.
            set.checkpoint_due.store(false, Ordering::Release);
            if let Err(error) = set.write_checkpoint_while_open() {
                tracing::warn!(%error, "cannot write the checkpoint; the next open will check more");
            }
        };
        self.env.scheduler.spawn_after(Work::Background, delay, Box::new(write));
    }

    /// A late task must not write into a directory that was given back: the closer writes last.
    fn write_checkpoint_while_open(&self) -> Result<(), Error> {
        let _turn = self.checkpoint_write.lock();
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.write_checkpoint_in_turn()
    }

    /// Writes how far every log is durable.
    pub(super) fn write_checkpoint(&self) -> Result<(), Error> {
        let _turn = self.checkpoint_write.lock();
        self.write_checkpoint_in_turn()
    }

    fn write_checkpoint_in_turn(&self) -> Result<(), Error> {
        self.synced_since.store(0, Ordering::Relaxed);
        let rows = {
            let logs = self.logs.lock();
            let mut table = self.table.lock();
            for log in logs.values() {
                table.insert(log.id, log.promised());
            }
            table.clone()
        };
        atomic::replace(&*self.env.fs, &self.dir.join(FILE), &checkpoint::encode(&rows))
    }
}
