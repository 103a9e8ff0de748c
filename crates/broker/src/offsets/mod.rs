//! What groups have committed: where each goes on reading in each partition.
//!
//! Every commit is a record of `internal/offsets`; those of a transaction count when it is committed. What is in
//! memory is on disk: a commit is applied when it is durable, in the order of the log.

mod record;

use std::collections::BTreeMap;

use logmill_record::Offset;
use parking_lot::Mutex;
pub(crate) use record::{Committed, Key};

use crate::error::OpenError;
use crate::internal::InternalLog;
use crate::produce::Lane;

/// See the module.
#[derive(Debug)]
pub(crate) struct Offsets {
    log: InternalLog,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<String, BTreeMap<(String, u32), Entry>>,
}

/// A commit, and where it is in the log.
#[derive(Debug)]
struct Entry {
    at: Offset,
    committed: Committed,
}

impl Offsets {
    pub(crate) fn new(log: InternalLog) -> Self {
        Self { log, state: Mutex::default() }
    }

    /// Reads back what was committed. Blocks.
    pub(crate) fn read_all(&self) -> Result<(), OpenError> {
        let mut state = State::default();
        self.log.read(|stored| {
            let key = Key::decode(stored.key)?;
            let committed = stored.value.map(Committed::decode).transpose()?;
            state.apply(stored.offset, key, committed);
            Ok(())
        })?;
        *self.state.lock() = state;
        Ok(())
    }

    pub(crate) fn lane(&self) -> &Lane {
        self.log.lane()
    }

    /// What a group has committed for a partition.
    pub(crate) fn get(&self, group: &str, topic: &str, partition: u32) -> Option<Committed> {
        let state = self.state.lock();
        let entry = state.groups.get(group)?.get(&(topic.to_owned(), partition))?;
        Some(entry.committed.clone())
    }
}

impl State {
    /// The record at `at` of the log is on disk, and counts unless a later one was applied before it.
    fn apply(&mut self, at: Offset, key: Key, committed: Option<Committed>) {
        let Key { group, topic, partition } = key;
        let of = self.groups.entry(group).or_default();
        let place = (topic, partition);
        if of.get(&place).is_some_and(|entry| entry.at > at) {
            return;
        }
        match committed {
            Some(committed) => _ = of.insert(place, Entry { at, committed }),
            None => _ = of.remove(&place),
        }
    }
}
