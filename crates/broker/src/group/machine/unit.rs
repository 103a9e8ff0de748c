//! A unit, and the way from one owner to the next.

use std::sync::Arc;

use super::names::{AssignmentEpoch, MemberId};
use crate::topic::TopicPartition;

/// A unit. It goes round: [`Owned`](Stage::Owned), told to stop, [`Settling`](Stage::Settling),
/// [`Free`](Stage::Free), [`Persisting`](Stage::Persisting), and owned again.
#[derive(Debug)]
pub(super) struct Unit {
    /// The highest that was ever meant for an assignment, whatever became of it.
    pub(super) epoch: AssignmentEpoch,
    pub(super) stage: Stage,
    /// Where it belongs: its owner, or who is to own it.
    pub(super) target: Option<MemberId>,
    pub(super) warming: Option<Warming>,
    /// What is on disk may name a member, who would be awaited after a restart.
    pub(super) names_member: bool,
    /// Of a group of units: what the members declare. None if they do not, or not any more.
    pub(super) declared: Option<Arc<[TopicPartition]>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody's, and nothing is left of an owner.
    Free,
    /// What the owner of the epoch left is being ended.
    Settling,
    /// On its way to the disk: the assignment to this member, of which nobody knows; or that nobody has the unit.
    Persisting(Option<MemberId>),
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
    pub(super) fn new(epoch: AssignmentEpoch, stage: Stage) -> Self {
        Self { epoch, stage, target: None, warming: None, names_member: false, declared: None }
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
            Stage::Free => {
                let is_told = !self.names_member || self.epoch.next().is_none();
                self.target.is_none() && self.warming.is_none() && is_told
            }
            Stage::Owned { member, revoking } => {
                !revoking && self.target.as_ref() == Some(member) && self.warming.is_none()
            }
            _ => false,
        }
    }

    pub(super) fn was_ever_assigned(&self) -> bool {
        self.epoch > AssignmentEpoch::NONE
    }
}
