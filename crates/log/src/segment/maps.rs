//! How many sealed segments of a set are kept open for reading.
//!
//! Each costs a memory map and the rows of its index. Which go when there are too many is found by
//! second chance: the oldest goes unless it was read since it was last looked at. That comes close
//! to the least recently used without a lock of the set on every read. Lock order: a leaf, but for
//! the segment that is let go, whose lock is taken after this one's was given back.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Sealed;
use crate::options::ReadMode;

/// Shared by all sealed segments of a set.
#[derive(Debug)]
pub(crate) struct Maps {
    most: usize,
    mode: ReadMode,
    /// The loaded ones, in the order in which they get their next look. A segment that is gone
    /// stays until its turn comes.
    loaded: Mutex<VecDeque<Weak<Sealed>>>,
}

impl Maps {
    pub(crate) fn new(most: usize, mode: ReadMode) -> Self {
        Self { most: most.max(1), mode, loaded: Mutex::default() }
    }

    pub(super) fn mode(&self) -> ReadMode {
        self.mode
    }

    /// Enters a segment that was just loaded, and lets others go where there are too many.
    pub(super) fn admit(&self, segment: &Arc<Sealed>) {
        let mut gone = Vec::new();
        {
            let mut loaded = self.loaded.lock();
            loaded.push_back(Arc::downgrade(segment));
            // Once around at most: where all were read meanwhile, the oldest goes.
            let mut chances = loaded.len();
            while loaded.len() > self.most {
                let Some(oldest) = loaded.pop_front() else { break };
                let Some(other) = oldest.upgrade() else { continue };
                if chances > 0 && other.take_used() {
                    chances -= 1;
                    loaded.push_back(oldest);
                } else {
                    gone.push(other);
                }
            }
        }
        gone.iter().for_each(|segment| segment.unload());
    }
}
