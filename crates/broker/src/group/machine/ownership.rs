//! Whose commits count.

use std::collections::BTreeSet;

use super::Group;
use super::names::{AssignmentEpoch, MemberId, UnitId};
use super::unit::Unit;
use crate::topic::TopicPartition;

/// A commit of somebody who does not own the unit, or not in that epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stale {
    /// Who owns it, and in which epoch, if anybody does.
    pub(crate) owner: Option<(MemberId, AssignmentEpoch)>,
}

impl Group {
    /// Who owns the unit, and in which epoch: also one that was told to give it up, or that was not heard of since a
    /// restart.
    pub(crate) fn owner(&self, unit: &UnitId) -> Option<(&MemberId, AssignmentEpoch)> {
        let unit = self.units.get(unit)?;
        Some((unit.owner()?, unit.epoch))
    }

    /// Whether a commit for the unit, made in that epoch, counts. Who does not say which member it is, is known by the
    /// epoch, which no other ever had.
    pub(crate) fn check(
        &self,
        member: Option<&MemberId>,
        unit: &UnitId,
        epoch: AssignmentEpoch,
    ) -> Result<(), Stale> {
        match self.owner(unit) {
            Some((owner, current)) if current == epoch && member.is_none_or(|member| member == owner) => {
                Ok(())
            }
            owner => Err(Stale { owner: owner.map(|(member, epoch)| (member.clone(), epoch)) }),
        }
    }

    /// The unit's partitions, as it is declared now.
    pub(crate) fn partitions_of(&self, unit: &UnitId) -> Vec<TopicPartition> {
        let Some(known) = self.units.get(unit) else { return Vec::new() };
        match unit {
            UnitId::Partition(only) => vec![*only],
            UnitId::Named(_) => known.declared.as_deref().unwrap_or_default().to_vec(),
        }
    }

    /// Whether it is known which partitions the unit has. Of a unit that members declare it is not between a restart and
    /// the first of them that comes.
    pub(crate) fn is_declared(&self, unit: &UnitId) -> bool {
        match unit {
            UnitId::Partition(_) => true,
            UnitId::Named(_) => self.units.get(unit).is_some_and(|unit| unit.declared.is_some()),
        }
    }

    /// The partitions of all units that somebody wants, or has.
    pub(crate) fn partitions(&self) -> BTreeSet<TopicPartition> {
        self.units.keys().flat_map(|unit| self.partitions_of(unit)).collect()
    }

    /// Whether every unit is as it should be, and on disk.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.units.values().all(Unit::is_at_rest)
    }

    /// The units that were ever assigned, and the highest epochs that were meant for them.
    pub(crate) fn assigned_units(&self) -> Vec<(UnitId, AssignmentEpoch)> {
        let assigned = self.units.iter().filter(|(_, unit)| unit.was_ever_assigned());
        assigned.map(|(id, unit)| (id.clone(), unit.epoch)).collect()
    }
}
