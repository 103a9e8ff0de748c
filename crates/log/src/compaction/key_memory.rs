//! The memory that the tables of keys of all logs of a set take together.

use std::sync::Arc;

use parking_lot::Mutex;

/// So much there is, and so much is taken.
#[derive(Debug)]
pub(crate) struct KeyMemory {
    most: usize,
    taken: Mutex<usize>,
}

/// A part of it, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct KeyRoom {
    memory: Arc<KeyMemory>,
    bytes: usize,
}

impl KeyMemory {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::new(0) }
    }

    /// Takes `bytes`, or nothing. Whoever finds nothing taken gets what it needs, or it would never be its turn.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<KeyRoom> {
        let mut taken = self.taken.lock();
        if *taken > 0 && taken.saturating_add(bytes) > self.most {
            return None;
        }
        *taken = taken.saturating_add(bytes);
        Some(KeyRoom { memory: Arc::clone(self), bytes })
    }

    /// Takes `bytes` whatever is taken: somebody waits for it.
    pub(crate) fn take_at_once(self: &Arc<Self>, bytes: usize) -> KeyRoom {
        let mut taken = self.taken.lock();
        *taken = taken.saturating_add(bytes);
        KeyRoom { memory: Arc::clone(self), bytes }
    }

    pub(crate) fn taken(&self) -> usize {
        *self.taken.lock()
    }
}

impl Drop for KeyRoom {
    fn drop(&mut self) {
        *self.memory.taken.lock() -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_all_logs_stay_within_what_there_is_but_for_one_that_is_larger() {
        let memory = Arc::new(KeyMemory::new(10));
        let six = memory.take(6).unwrap();
        assert!(memory.take(5).is_none());
        let four = memory.take(4).unwrap();
        drop((six, four));
        let large = memory.take(50).unwrap();
        assert!(memory.take(1).is_none());
        drop(large);
        assert_eq!(memory.taken(), 0);
    }
}
