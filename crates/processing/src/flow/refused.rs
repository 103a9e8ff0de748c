//! Which records of a partition a source has refused for their time.
//!
//! The verdict goes by the time at which the node stored a record, and a node may not know that time as exactly later as
//! at first. So it is taken once, and kept here for as long as a replay could come to the record again.
//!
//! Invariant: the ranges are not empty, in order, and do not touch.

use std::ops::Range;

use logmill_record::Offset;

/// A set of offsets, as ranges: what is refused mostly comes in runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    ranges: Vec<Range<Offset>>,
}

impl Refused {
    /// The set of these ranges, unless they are not as [`ranges`](Self::ranges) gives them.
    pub(crate) fn from_ranges(ranges: Vec<Range<Offset>>) -> Option<Self> {
        let full = ranges.iter().all(|range| range.start < range.end);
        let apart = ranges.iter().zip(ranges.iter().skip(1)).all(|(one, next)| one.end < next.start);
        (full && apart).then_some(Self { ranges })
    }

    /// The ranges, in order, with a gap between any two.
    pub(crate) fn ranges(&self) -> &[Range<Offset>] {
        &self.ranges
    }

    pub(crate) fn contains(&self, offset: Offset) -> bool {
        self.ranges.get(self.first_past(offset)).is_some_and(|range| range.contains(&offset))
    }

    pub(crate) fn insert(&mut self, offset: Offset) {
        let next = offset.next();
        let at = self.first_past(offset);
        let extends = at.checked_sub(1).filter(|&before| self.ranges[before].end == offset);
        let meets = self.ranges.get(at).is_some_and(|range| range.start <= next);
        match (extends, meets) {
            (Some(before), true) => self.ranges[before].end = self.ranges.remove(at).end,
            (Some(before), false) => self.ranges[before].end = next,
            (None, true) => self.ranges[at].start = self.ranges[at].start.min(offset),
            (None, false) => self.ranges.insert(at, offset..next),
        }
    }

    /// Forgets every offset before this one.
    pub(crate) fn remove_before(&mut self, offset: Offset) {
        self.ranges.drain(..self.first_past(offset));
        if let Some(first) = self.ranges.first_mut() {
            first.start = first.start.max(offset);
        }
    }

    /// The index of the first range that does not lie wholly before `offset`.
    fn first_past(&self, offset: Offset) -> usize {
        self.ranges.partition_point(|range| range.end <= offset)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set(ranges: &[(u64, u64)]) -> Option<Refused> {
        Refused::from_ranges(ranges.iter().map(|&(from, to)| Offset(from)..Offset(to)).collect())
    }

    #[test]
    fn neighbours_become_one_range() {
        let mut refused = Refused::default();
        for offset in [5, 7, 1, 6, 6, 5, 2] {
            refused.insert(Offset(offset));
        }
        assert_eq!(Some(&refused), set(&[(1, 3), (5, 8)]).as_ref());

        refused.remove_before(Offset(6));
        assert_eq!(Some(&refused), set(&[(6, 8)]).as_ref());
        refused.remove_before(Offset(8));
        assert_eq!(refused, Refused::default());
    }

    #[test]
    fn only_ranges_as_it_gives_them_are_taken() {
        assert_eq!(set(&[]), Some(Refused::default()));
        for ranges in [&[(3, 3)][..], &[(3, 2)], &[(1, 2), (2, 3)], &[(5, 6), (1, 2)], &[(1, 5), (2, 3)]] {
            assert_eq!(set(ranges), None, "{ranges:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(
            actions in prop::collection::vec((prop::bool::weighted(0.9), 0_u64..64), 0..120),
        ) {
            let mut refused = Refused::default();
            let mut model = BTreeSet::new();
            for (insert, offset) in actions {
                if insert {
                    refused.insert(Offset(offset));
                    model.insert(offset);
                } else {
                    refused.remove_before(Offset(offset));
                    model = model.split_off(&offset);
                }
                for offset in 0..66 {
                    prop_assert_eq!(refused.contains(Offset(offset)), model.contains(&offset));
                }
                let ranges = refused.ranges().to_vec();
                prop_assert_eq!(Refused::from_ranges(ranges), Some(refused.clone()));
            }
        }
    }
}
