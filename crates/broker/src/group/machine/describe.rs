//! A group as people are shown it.

use super::Group;
use super::member::{Member, Presence};
use super::names::{AssignmentEpoch, InstanceId, Kind, MemberId, UnitId};
use super::unit::{Stage, Unit};

/// A group, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) state: GroupState,
    pub(crate) kind: Option<Kind>,
    /// By id.
    pub(crate) members: Vec<MemberDescription>,
    /// Units that nobody owns, those that nobody can have included.
    pub(crate) unowned: Vec<UnitDescription>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// It has no members, and awaits none.
    Empty,
    /// Every unit that some member can have is owned, and stays where it is.
    Stable,
    /// Units are on their way.
    Rebalancing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberDescription {
    pub(crate) id: MemberId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) presence: Presence,
    /// What it owns.
    pub(crate) units: Vec<UnitDescription>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitDescription {
    pub(crate) unit: UnitId,
    /// The owner's; of a unit without one, the last that was meant for an assignment, or none.
    pub(crate) epoch: AssignmentEpoch,
    pub(crate) status: UnitStatus,
    /// The member that it is on its way to.
    pub(crate) next: Option<MemberId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnitStatus {
    Owned,
    /// Owned, while the next one warms up.
    WarmingUp,
    /// Owned, until the owner confirms or its rebalance timeout passes.
    Revoking,
    /// What an owner left is being ended.
    Settling,
    /// The assignment is being written.
    Persisting,
    /// The assignment could not be written, and will be tried again.
    PersistFailed,
    /// Nobody can have it.
    Unassigned,
}

impl Group {
    pub(crate) fn describe(&self) -> Description {
        let members = self.members.iter().map(|(id, member)| self.describe_member(id, member)).collect();
        let unowned = self.units.iter().filter(|(_, unit)| unit.owner().is_none());
        let unowned = unowned.map(|(id, unit)| unit.describe(id)).collect();
        Description { state: self.state(), kind: self.kind(), members, unowned }
    }

    pub(crate) fn state(&self) -> GroupState {
        if self.members.is_empty() {
            return GroupState::Empty;
        }
        let settling = |unit: &Unit| unit.stage == Stage::Settling && unit.target.is_none();
        match self.units.values().all(|unit| unit.is_at_rest() || settling(unit)) {
            true => GroupState::Stable,
            false => GroupState::Rebalancing,
        }
    }

    fn describe_member(&self, id: &MemberId, member: &Member) -> MemberDescription {
        let units = self.units.iter().filter(|(_, unit)| unit.is_owned_by(id));
        MemberDescription {
            id: id.clone(),
            instance: member.instance.clone(),
            presence: member.presence,
            units: units.map(|(id, unit)| unit.describe(id)).collect(),
        }
    }
}

impl Unit {
    fn describe(&self, id: &UnitId) -> UnitDescription {
        let status = match &self.stage {
            Stage::Free => UnitStatus::Unassigned,
            Stage::Settling | Stage::Persisting(None) => UnitStatus::Settling,
            Stage::Persisting(Some(_)) => UnitStatus::Persisting,
            Stage::Delayed => UnitStatus::PersistFailed,
            Stage::Owned { revoking: true, .. } => UnitStatus::Revoking,
            Stage::Owned { .. } if self.warming.is_some() => UnitStatus::WarmingUp,
            Stage::Owned { .. } => UnitStatus::Owned,
        };
        let next = self.target.clone().filter(|target| !self.is_owned_by(target));
        UnitDescription { unit: id.clone(), epoch: self.epoch, status, next }
    }
}
