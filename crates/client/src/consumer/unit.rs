//! A unit that the consumer has: where each of its partitions is, and what of it is committed.

use std::collections::BTreeMap;

use super::Assignment;
use crate::OffsetToCommit;
use logmill_record::Offset;

#[derive(Debug)]
pub(super) struct Owned {
    pub(super) epoch: i32,
    places: BTreeMap<(String, u32), Place>,
    /// The node has said on the present stream that it is the consumer's.
    pub(super) confirmed: bool,
    /// It is to be given up, and nothing of it is handed out any more.
    pub(super) revoked: bool,
    /// The handler has finished with it: what is left is to commit, and to say so.
    pub(super) finished: bool,
    /// Commits of it that are not answered.
    pub(super) commits_under_way: usize,
    /// Its last commit has failed for now: the consumer tries again at the next tick, or when the handler has done more.
    pub(super) commit_failed: bool,
}

#[derive(Debug, Default)]
struct Place {
    /// Where the node goes on, as far as it has sent.
    received: Offset,
    /// The leader epoch of the last record before that, if it is known.
    epoch: Option<i32>,
    /// Behind what was handed out last.
    handed_out: Option<OffsetToCommit>,
    /// Behind what the handler has finished with.
    done: Option<OffsetToCommit>,
    /// What is committed, or on its way.
    committed: Option<Offset>,
}

impl Owned {
    pub(super) fn new(assignment: &Assignment) -> Owned {
        let place = |partition: &super::AssignedPartition| {
            let committed = partition.committed_offset;
            let received = committed.unwrap_or_default();
            let place = Place { received, epoch: partition.last_epoch, committed, ..Place::default() };
            ((partition.topic.clone(), partition.partition), place)
        };
        Owned {
            epoch: assignment.unit.epoch,
            places: assignment.partitions.iter().map(place).collect(),
            confirmed: true,
            revoked: false,
            finished: false,
            commits_under_way: 0,
            commit_failed: false,
        }
    }

    /// Where the consumer is in a partition, and the leader epoch of the last record before that.
    pub(super) fn received(&self, topic: &str, partition: u32) -> (Offset, Option<i32>) {
        let place = self.places.get(&(topic.to_owned(), partition));
        place.map_or((Offset::ZERO, None), |place| (place.received, place.epoch))
    }

    pub(super) fn set_received(&mut self, topic: &str, partition: u32, next: Offset, epoch: Option<i32>) {
        let place = self.places.entry((topic.to_owned(), partition)).or_default();
        (place.received, place.epoch) = (next, epoch.or(place.epoch));
    }

    pub(super) fn hand_out(&mut self, next: OffsetToCommit) {
        let place = self.places.entry((next.topic.clone(), next.partition)).or_default();
        place.handed_out = Some(next);
    }

    /// The handler has finished with all that was handed out.
    pub(super) fn finish_handed_out(&mut self) {
        for place in self.places.values_mut() {
            if let Some(next) = place.handed_out.take() {
                place.done = Some(next);
            }
        }
    }

    /// What is done and not committed; on its way from here on.
    pub(super) fn take_to_commit(&mut self) -> Vec<OffsetToCommit> {
        let mut offsets = Vec::new();
        for place in self.places.values_mut() {
            if let Some(next) = &place.done
                && place.committed.is_none_or(|committed| committed < next.offset)
            {
                place.committed = Some(next.offset);
                offsets.push(next.clone());
            }
        }
        offsets
    }

    /// Whether the consumer may commit by itself: the node knows whose the unit is, and nothing is on its way.
    pub(super) fn may_commit(&self) -> bool {
        self.confirmed && self.commits_under_way == 0
    }

    pub(super) fn has_to_commit(&self) -> bool {
        self.places.values().any(|place| {
            place.done.as_ref().is_some_and(|next| place.committed.is_none_or(|it| it < next.offset))
        })
    }

    /// Nobody knows whether these are committed: they are to be committed again.
    pub(super) fn not_committed(&mut self, offsets: &[OffsetToCommit]) {
        for offset in offsets {
            if let Some(place) = self.places.get_mut(&(offset.topic.clone(), offset.partition))
                && place.committed == Some(offset.offset)
            {
                place.committed = None;
            }
        }
    }

    /// These are committed by hand.
    pub(super) fn committed(&mut self, offsets: &[OffsetToCommit]) {
        for offset in offsets {
            let place = self.places.entry((offset.topic.clone(), offset.partition)).or_default();
            place.committed = place.committed.max(Some(offset.offset));
        }
    }
}
