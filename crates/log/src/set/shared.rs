//! What the logs of a set share without knowing one another.

use crate::histogram::Recorder;
use crate::log::Counters;

/// Held by the set and by each of its logs.
#[derive(Debug)]
pub(crate) struct Shared {
    /// What was appended and synced in all logs since the set was opened.
    pub(crate) counters: Counters,
    /// How long appends took on the caller's thread, waiting for room not included.
    pub(crate) append_time: Recorder,
    /// How long syncs of data took.
    pub(crate) sync_time: Recorder,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self { counters: Counters::default(), append_time: Recorder::new(), sync_time: Recorder::new() }
    }
}
