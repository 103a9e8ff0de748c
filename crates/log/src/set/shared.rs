//! What the logs of a set share without knowing one another.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::budget::Budget;
use super::files::OpenFiles;
use super::space::Spare;
use crate::compaction::KeyMemory;
use crate::histogram::Recorder;
use crate::log::{Counters, Recovered};
use crate::options::{ScanHook, SetOptions};
use crate::segment::Maps;

/// Held by the set and by each of its logs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) files: Arc<OpenFiles>,
    /// Bytes written and not synced.
    pub(crate) dirty: Arc<Budget>,
    pub(crate) spare: Arc<Spare>,
    /// Sealed segments that are open for reading.
    pub(crate) maps: Arc<Maps>,
    /// What the tables of keys of all compactions may take.
    pub(crate) key_memory: Arc<KeyMemory>,
    /// What was appended and synced in all logs since the set was opened.
    pub(crate) counters: Counters,
    /// What opening logs had to mend, over all since the set was opened. A leaf.
    pub(crate) recovered: Mutex<Recovered>,
    /// Hears of logs that take long to open.
    pub(crate) on_scan: Option<ScanHook>,
    /// How long appends took on the caller's thread, waiting for room not included.
    pub(crate) append_time: Recorder,
    /// How long syncs of data took.
    pub(crate) sync_time: Recorder,
}

impl Shared {
    pub(crate) fn new(dir: &Path, options: &SetOptions) -> Self {
        Self {
            spare: Arc::new(Spare::new(dir, options)),
            files: Arc::new(OpenFiles::new(options.max_open_files)),
            dirty: Arc::new(Budget::new(options.max_dirty_bytes)),
            maps: Arc::new(Maps::new(options.max_maps, options.read_mode)),
            key_memory: Arc::new(KeyMemory::new(options.max_key_map_bytes)),
            counters: Counters::default(),
            recovered: Mutex::default(),
            on_scan: options.on_scan.clone(),
            append_time: Recorder::default(),
            sync_time: Recorder::default(),
        }
    }
}
