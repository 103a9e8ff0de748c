//! One log: an ordered sequence of records, in a directory of segments.
//!
//! Lock order: a log's compactor, what it keeps, its state, its waiters. The first is held for a step
//! of compaction, the second while segment files are removed or replaced; neither of the others
//! during any I/O but the one write of an append, for which nobody waits who looks at the log's
//! [view](view) only. A log knows its set only weakly; handles keep the set alive.

mod active_view;
mod append;
mod close;
mod compact;
mod epochs;
mod file;
mod futures;
mod group;
mod handle;
mod look_after;
mod merge;
mod park;
mod producers;
mod read;
mod recover;
mod replace;
mod retention;
mod roll;
mod sidecar;
mod state;
mod stats;
mod sync;
mod transactions;
mod unbegun;
mod view;
mod waiters;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use uuid::Uuid;

use compact::Compactor;
pub use futures::{Beyond, OnDisk, Receipt, Step, WaitFor};
pub use handle::Log;
pub(crate) use merge::{Replaced, base_of_record, read_record, replaced_by};
pub(crate) use producers::Producers;
pub(crate) use recover::{Expected, OnRead, Scanned, open};
pub(crate) use replace::unsettled_index;
use retention::Kept;
pub(crate) use retention::remove_segments;
pub(crate) use sidecar::{load_state, replay};
pub(crate) use stats::Counters;
pub use stats::{Appended, CompactionStats, LogState, LogStats, Recovered};
pub use transactions::{OpenTransaction, ProducerView};
pub(crate) use unbegun::Rolls;
use view::Watched;
use waiters::Waiters;

use crate::env::Env;
use crate::format::checkpoint::Row;
use crate::histogram::Recorder;
use crate::set::{Dirty, SetInner, Shared};

/// What the handles and tasks of a log share.
pub(crate) struct LogInner {
    pub(crate) id: Uuid,
    pub(crate) dir: PathBuf,
    env: Env,
    set: Weak<SetInner>,
    shared: Arc<Shared>,
    dirty: Dirty,
    /// Numbers its last append among those of the set.
    last_use: AtomicU64,
    /// A task waits for the lock of the state to make room for others.
    gives_way: AtomicBool,
    /// A task does what is due in it.
    is_looked_after: AtomicBool,
    /// What its opening had to mend.
    recovered: Recovered,
    counters: Counters,
    /// How long appends took on the caller's thread, waiting not included.
    append_time: Recorder,
    /// How long syncs of data took.
    sync_time: Recorder,
    compactor: Mutex<Compactor>,
    kept: Mutex<Kept>,
    state: Watched,
    waiters: Waiters,
}

impl std::fmt::Debug for LogInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("id", &self.id).field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl LogInner {
    /// What the checkpoint has to say of the log: how far it was promised to be on disk. Damage
    /// never lowers it, or the next open would take acknowledged records for a torn write.
    pub(crate) fn row(&self) -> Row {
        self.state.seen(|view| view.row)
    }

    /// Whether something was found at open that keeps it from being written.
    pub(crate) fn is_read_only(&self) -> bool {
        self.state.seen(|view| matches!(view.phase, state::Phase::ReadOnly(_)))
    }

    /// Whether a sync has failed, so that bytes past the durable end must not be believed.
    pub(crate) fn was_poisoned(&self) -> bool {
        self.state.seen(|view| view.poisoned)
    }

    fn note_append(&self, appended: Appended, took: Duration) {
        self.counters.note_append(appended);
        self.shared.counters.note_append(appended);
        self.append_time.record(took);
        self.shared.append_time.record(took);
    }

    /// Counts a sync, and tells the set that more has become durable.
    fn note_synced(&self, bytes: u64, took: Duration) {
        self.counters.note_sync(bytes);
        self.shared.counters.note_sync(bytes);
        self.sync_time.record(took);
        self.shared.sync_time.record(took);
        if let Some(set) = self.set.upgrade() {
            set.note_synced(bytes);
        }
    }
}
