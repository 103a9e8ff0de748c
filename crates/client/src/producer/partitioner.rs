//! Which partition a record goes to.

use logmill_record::murmur2_partition;

/// Chooses among the partitions of one topic.
#[derive(Debug)]
pub(super) struct Partitioner {
    count: u32,
    /// Where records without a key go now.
    sticky: u32,
    sticky_bytes: usize,
    /// After so many bytes the next partition takes its turn. By bytes and not by batches sent (KIP-794): a
    /// slow partition would otherwise get the larger batches and so the most records.
    turn_bytes: usize,
}

impl Partitioner {
    /// For `count` partitions, the first of them by chance, so that many short-lived producers do not all
    /// start at partition 0.
    pub(super) fn new(count: u32, turn_bytes: usize, random: u32) -> Partitioner {
        Partitioner { count, sticky: random % count.max(1), sticky_bytes: 0, turn_bytes }
    }

    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The topic was found to have another number of partitions.
    pub(super) fn set_count(&mut self, count: u32) {
        self.count = count;
        self.sticky %= count.max(1);
    }

    /// The partition for a record of `size_bytes` that does not name one.
    pub(super) fn choose(&mut self, key: Option<&[u8]>, size_bytes: usize) -> u32 {
        if let Some(key) = key {
            return murmur2_partition(key, self.count);
        }
        if self.sticky_bytes >= self.turn_bytes {
            self.sticky = (self.sticky + 1) % self.count.max(1);
            self.sticky_bytes = 0;
        }
        self.sticky_bytes += size_bytes;
        self.sticky
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_partition_whatever_came_before() {
        let mut partitioner = Partitioner::new(7, 100, 3);
        let first = partitioner.choose(Some(b"sensor-7"), 10);
        for _ in 0..50 {
            partitioner.choose(None, 10);
            assert_eq!(partitioner.choose(Some(b"sensor-7"), 10), first);
        }
        assert_eq!(first, murmur2_partition(b"sensor-7", 7));
        // Empty is a key; null is none.
        assert_eq!(partitioner.choose(Some(b""), 10), murmur2_partition(b"", 7));
    }

    #[test]
    fn records_without_a_key_fill_one_partition_after_the_other() {
        let mut partitioner = Partitioner::new(3, 100, 2);
        let chosen: Vec<u32> = (0..9).map(|_| partitioner.choose(None, 40)).collect();
        assert_eq!(chosen, [2, 2, 2, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn fewer_partitions_than_before_are_respected_at_once() {
        let mut partitioner = Partitioner::new(9, 100, 8);
        partitioner.set_count(2);
        assert!(partitioner.choose(None, 1) < 2);
    }
}
