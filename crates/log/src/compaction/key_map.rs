//! Where the last record of each key is, within a budget of memory.
//!
//! Keys are known by a 128-bit hash: two keys with the same one would be taken for one, and a
//! record of the other lost. By chance that does not happen (2⁻⁶⁷ for a billion keys). So that
//! nobody can make it happen who may choose keys, the hash is SipHash-1-3 with a random key that
//! is drawn anew for each run and never leaves the process; fast hashes such as XXH3 have
//! collisions that hold for every seed.

use logmill_record::Offset;
use siphasher::sip128::SipHasher13;

use crate::env::Random;

/// At most so much of the slots is used, in percent: a probe stays short.
const MOST_FULL: usize = 75;

/// An open-addressed table, allocated once.
pub(crate) struct KeyMap {
    hasher: SipHasher13,
    slots: Vec<Slot>,
    keys: usize,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    hash: [u64; 2],
    /// One more than the offset; 0 in an empty slot.
    offset: u64,
}

fn slots_for(budget_bytes: usize, keys: u64) -> usize {
    let wanted = usize::try_from(keys).unwrap_or(usize::MAX).saturating_mul(100) / MOST_FULL;
    wanted.saturating_add(2).min(budget_bytes / size_of::<Slot>()).max(2)
}

impl KeyMap {
    /// A table for `keys` keys, or for as many as fit `budget_bytes`, but at least one.
    pub(crate) fn new(random: &dyn Random, budget_bytes: usize, keys: u64) -> Self {
        let slots = slots_for(budget_bytes, keys);
        let mut secret = [0; 16];
        random.fill(&mut secret);
        Self { hasher: SipHasher13::new_with_key(&secret), slots: vec![Slot::default(); slots], keys: 0 }
    }

    /// What such a table takes.
    pub(crate) fn bytes_for(budget_bytes: usize, keys: u64) -> usize {
        slots_for(budget_bytes, keys) * size_of::<Slot>()
    }

    /// Notes that the last record of `key` so far is at `offset`. False if there is no room.
    #[must_use]
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        if self.slots[at].offset == 0 {
            // One slot stays empty for `find` to end at.
            if self.keys >= (self.slots.len() * MOST_FULL / 100).max(1) {
                return false;
            }
            self.keys += 1;
        }
        self.slots[at] = Slot { hash, offset: offset.get() + 1 };
        true
    }

    /// Where the last record of `key` is, if it has one in the range that was noted.
    pub(crate) fn last(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.find(self.hash(key))];
        slot.offset.checked_sub(1).map(Offset)
    }

    /// What the table takes.
    pub(crate) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    /// Forgets all keys; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(Slot::default());
        self.keys = 0;
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = self.hasher.hash(key);
        [hash.h1, hash.h2]
    }

    /// The slot of this hash, or the empty one where it would be.
    fn find(&self, hash: [u64; 2]) -> usize {
        let slots = self.slots.len();
        // The hash as a fraction of the table, which needs no division.
        let scaled = (u128::from(hash[0]) * slots as u128) >> 64;
        let mut at = usize::try_from(scaled).expect("less than the number of slots");
        while self.slots[at].offset != 0 && self.slots[at].hash != hash {
            at = if at + 1 == slots { 0 } else { at + 1 };
        }
        at
    }
}

impl std::fmt::Debug for KeyMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyMap").field("keys", &self.keys).field("slots", &self.slots.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::env::OsRandom;

    #[test]
    fn the_last_offset_of_each_key_is_found_until_the_table_is_full() {
        let mut map = KeyMap::new(&OsRandom, 24 * 100, u64::MAX);
        assert_eq!(map.bytes(), 24 * 100);
        let mut model = BTreeMap::new();
        for n in 0..75_u64 {
            assert!(map.put(&n.to_be_bytes(), Offset(n)));
            model.insert(n, n);
        }
        assert!(!map.put(b"one more", Offset(75)));
        for n in (0..75_u64).step_by(3) {
            assert!(map.put(&n.to_be_bytes(), Offset(100 + n)), "a key that is there needs no room");
            model.insert(n, 100 + n);
        }
        for (key, offset) in model {
            assert_eq!(map.last(&key.to_be_bytes()), Some(Offset(offset)));
        }
        assert_eq!(map.last(b"one more"), None);
        map.clear();
        assert_eq!(map.last(&0_u64.to_be_bytes()), None);
    }

    #[test]
    fn a_table_is_no_larger_than_its_keys_need_and_never_too_small_for_one() {
        assert!(KeyMap::new(&OsRandom, 1 << 30, 3).bytes() <= 6 * 24);
        let mut least = KeyMap::new(&OsRandom, 0, 0);
        assert!(least.put(b"", Offset(0)));
        assert!(!least.put(b"a", Offset(1)));
        assert_eq!(least.last(b""), Some(Offset(0)));
    }
}
