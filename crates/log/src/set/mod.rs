//! A data directory: its lock, its identity, its checkpoint, and the logs in it.
//!
//! Lock order: the registry of open logs, then the checkpoint table, then a log's state. The
//! checkpoint file has a lock of its own, taken first, so that an older one never replaces a
//! newer.

mod budget;
mod checkpointer;
mod close_all;
mod dir;
mod dirty;
mod files;
mod handle;
mod maintain;
mod open_many;
mod remake;
mod shared;
mod space;
mod stats;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

pub use budget::BudgetStats;
pub(crate) use budget::Place;
use checkpointer::Checkpointer;
pub(crate) use checkpointer::FILE as CHECKPOINT;
pub(crate) use dir::{LOCK, LOST_AND_FOUND, SET, is_done_with, is_on_its_way, lock as take_lock};
pub(crate) use dirty::Dirty;
pub(crate) use files::OpenFile;
pub use handle::LogSet;
pub use open_many::OpenProgress;
pub(crate) use shared::Shared;
pub use space::ReserveState;
pub(crate) use space::{RESERVE, WithReserve};
pub use stats::SetStats;

use crate::env::{Env, Lock};
use crate::format::checkpoint::Checkpoint;
use crate::format::set_file::SetFile;
use crate::log::LogInner;

/// What the handles of a set share.
pub(crate) struct SetInner {
    dir: PathBuf,
    env: Env,
    id: Uuid,
    /// The contents of `set`, and the right to write it.
    file: Mutex<SetFile>,
    /// Its epoch, for who asks while it is being written.
    epoch: AtomicI32,
    /// It was opened as one log, which closes the set with itself.
    is_single: bool,
    /// The logs that are open, by their paths below `dir`.
    logs: Mutex<BTreeMap<PathBuf, Arc<LogInner>>>,
    /// What the checkpoint has to say of logs that are not open now.
    table: Mutex<Checkpoint>,
    checkpointer: Checkpointer,
    closed: AtomicBool,
    maintenance_interval: Duration,
    /// The maintenance task is set. Cleared under the lock of `logs`.
    maintenance_armed: AtomicBool,
    shared: Arc<Shared>,
    /// Who opens a log holds its path's lock: before any other.
    turns: Mutex<BTreeMap<PathBuf, Arc<Mutex<()>>>>,
    /// Given back when the last handle goes, or at close.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// What every handle holds, and no task: dropped with the last of them.
#[derive(Debug)]
struct Held(Arc<SetInner>);

impl Drop for Held {
    /// Like a killed process: what is durable stays, nothing more is written. The lock is given
    /// back when no task of ours touches the directory any more.
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        let logs = std::mem::take(&mut *self.0.logs.lock());
        logs.into_values().for_each(|log| log.give_up());
        self.0.end_space_looks();
        let _no_checkpoint = self.0.checkpointer.write.lock();
        *self.0.lock.lock() = None;
    }
}

impl std::fmt::Debug for SetInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogSet").field("id", &self.id).field("dir", &self.dir).finish_non_exhaustive()
    }
}
