//! What a log shows of itself without its lock.
//!
//! An append holds the lock of the state during its write, for as long as the disk takes for that. Who asks
//! how the log stands, where it starts and ends, or for what is sealed, looks at the view instead: a copy of
//! what the state says, made whenever it was changed, before its lock is given back. It may be a change
//! behind, and is never of the future: what it says is durable is durable.
//!
//! Lock order: the state, then the view, which is a leaf and held for nothing but copying.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use logmill_record::{Offset, TimestampMs};
use parking_lot::{Mutex, MutexGuard};

use super::state::{Phase, State};
use super::stats::CompactionStats;
use crate::format::checkpoint::{Durable, Row};
use crate::format::index::Footer;
use crate::segment::Sealed;

/// The state of a log behind its lock, and the view of it.
#[derive(Debug)]
pub(super) struct Watched {
    state: Mutex<State>,
    view: Mutex<View>,
}

/// The right to look at the state, and to change it.
pub(super) struct Guard<'a> {
    state: MutexGuard<'a, State>,
    view: &'a Mutex<View>,
    /// It may have been changed.
    touched: bool,
}

/// A log as it was when its state last changed.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) phase: Phase,
    pub(super) sealed: Arc<Vec<Arc<Sealed>>>,
    /// What is written to the active segment.
    pub(super) active: Footer,
    /// See [`Active::own_from`](super::state::Active::own_from).
    pub(super) own_from: (Offset, i32),
    pub(super) start_offset: Offset,
    pub(super) durable: Durable,
    /// How far readers see.
    pub(super) visible: Durable,
    pub(super) last_stable: Offset,
    pub(super) epoch: i32,
    /// Segment files.
    pub(super) segments: usize,
    /// What the checkpoint has to say of the log.
    pub(super) row: Row,
    /// A sync has failed.
    pub(super) poisoned: bool,
    pub(super) compaction: CompactionStats,
}

impl Watched {
    pub(super) fn new(state: State) -> Self {
        let view = Mutex::new(View::of(&state));
        Self { state: Mutex::new(state), view }
    }

    /// Waits for the write of an append, if there is one.
    pub(super) fn lock(&self) -> Guard<'_> {
        Guard { state: self.state.lock(), view: &self.view, touched: false }
    }

    /// The state, unless somebody has it.
    pub(super) fn try_lock(&self) -> Option<Guard<'_>> {
        let state = self.state.try_lock()?;
        Some(Guard { state, view: &self.view, touched: false })
    }

    /// Whether nobody has the state, or gives it back so soon.
    pub(super) fn is_free_within(&self, timeout: Duration) -> bool {
        self.state.try_lock_for(timeout).is_some()
    }

    /// Waits for nothing.
    pub(super) fn view(&self) -> View {
        self.view.lock().clone()
    }

    /// One thing of the view.
    pub(super) fn seen<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.lock())
    }
}

impl Deref for Guard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.touched = true;
        &mut self.state
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if self.touched {
            *self.view.lock() = View::of(&self.state);
        }
    }
}

impl View {
    fn of(state: &State) -> Self {
        Self {
            phase: state.phase.clone(),
            sealed: Arc::clone(&state.sealed),
            active: *state.active.index.footer(),
            own_from: state.active.own_from,
            start_offset: state.start_offset,
            durable: state.durable,
            visible: state.visible(),
            last_stable: state.last_stable(),
            epoch: state.epoch,
            segments: state.segments(),
            row: state.row(),
            poisoned: state.poisoned,
            compaction: state.compaction.clone(),
        }
    }

    /// Bytes of batches in its segments.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.data_len()).sum::<u64>() + self.active.data_len
    }

    pub(super) fn unsynced_bytes(&self) -> u64 {
        self.active.data_len - self.durable.position
    }

    pub(super) fn first_appended_at(&self) -> Option<TimestampMs> {
        let start = self.start_offset;
        let holds = |footer: &&Footer| footer.batches > 0 && footer.next_offset > start;
        let sealed = self.sealed.iter().map(|segment| segment.footer());
        let first = sealed.chain([&self.active]).find(holds)?;
        // What lies before the start may be much older than what is kept.
        Some(if first.base < start { first.last_appended_at } else { first.first_appended_at })
    }

    pub(super) fn last_appended_at(&self) -> Option<TimestampMs> {
        let sealed = || self.sealed.last().map(|segment| segment.last_appended_at());
        if self.active.batches > 0 { Some(self.active.last_appended_at) } else { sealed() }
    }

    pub(super) fn max_timestamp(&self) -> Option<TimestampMs> {
        let active = (self.active.batches > 0).then_some(self.active.max_timestamp);
        self.sealed.iter().map(|segment| segment.max_timestamp()).chain(active).max()
    }
}
