//! A unit, and the way from one owner to the next.

use std::sync::Arc;

use super::names::{MemberId, TopicPartition, UnitEpoch};

/// A unit. It goes round: [`Owned`](Stage::Owned), told to stop, [`Settling`](Stage::Settling),
/// [`Free`](Stage::Free), [`Persisting`](Stage::Persisting), and owned again.
#[derive(Debug)]
pub(super) struct Unit {
    /// The highest that was ever meant for an assignment, whatever became of it.
    pub(super) epoch: UnitEpoch,
    pub(super) stage: Stage,
    /// Where it belongs: its owner, or who is to own it.
    pub(super) target: Option<MemberId>,
    pub(super) warming: Option<Warming>,
    /// Of a group of units: what the members declare. None if they do not, or not any more.
    pub(super) declared: Option<Arc<[TopicPartition]>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody's, and nothing is left of an owner.
    Free,
    /// What the owner of the epoch left is being ended.
    Settling,
    /// The assignment to this member is on its way to the disk. Nobody knows of it.
    Persisting(MemberId),
    /// As free, but persisting has just failed.
    Delayed,
    Owned {
        member: MemberId,
        revoking: bool,
    },
}

/// A member that was asked to warm up, and was told nothing else since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Warming {
    pub(super) member: MemberId,
    pub(super) done: bool,
}

impl Unit {
    pub(super) fn new(epoch: UnitEpoch, stage: Stage) -> Self {
        Self { epoch, stage, target: None, warming: None, declared: None }
    }

    pub(super) fn owner(&self) -> Option<&MemberId> {
        match &self.stage {
            Stage::Owned { member, .. } => Some(member),
            _ => None,
        }
    }

    pub(super) fn is_owned_by(&self, member: &MemberId) -> bool {
        self.owner() == Some(member)
    }

    /// The owner, if it was not told to stop.
    pub(super) fn keeper(&self) -> Option<&MemberId> {
        match &self.stage {
            Stage::Owned { member, revoking: false } => Some(member),
            _ => None,
        }
    }

    /// Whether all is as it should be, and nothing is to come.
    pub(super) fn is_at_rest(&self) -> bool {
        match &self.stage {
            Stage::Free => self.target.is_none() && self.warming.is_none(),
            Stage::Owned { member, revoking } => {
                !revoking && self.target.as_ref() == Some(member) && self.warming.is_none()
            }
            _ => false,
        }
    }

    pub(super) fn was_ever_assigned(&self) -> bool {
        self.epoch > UnitEpoch::NONE
    }
}
