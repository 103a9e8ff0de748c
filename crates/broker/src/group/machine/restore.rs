//! A group as it was persisted.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Group;
use super::deadlines::Due;
use super::member::Member;
use super::names::{AssignmentEpoch, InstanceId, MemberId, UnitId};
use super::unit::{Stage, Unit};

/// What an [`Action::Persist`](super::Action::Persist) made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnershipRecord {
    pub(crate) unit: UnitId,
    pub(crate) epoch: AssignmentEpoch,
    /// `None` if nobody has it.
    pub(crate) member: Option<MemberId>,
    pub(crate) instance: Option<InstanceId>,
    /// Of the member.
    pub(crate) session_timeout: Duration,
}

impl Group {
    /// The group after a restart. Of each unit the highest epoch counts, so it does not matter if more are given. Units
    /// of topics that are gone have no business here; their epochs are among those that are `forgotten`, of which the
    /// highest is given.
    ///
    /// The members are awaited for their session timeouts from now on, and for `grace` at least, since they have to find
    /// out that the node is back. They own their units meanwhile. What the others left is settled when that is over.
    pub(crate) fn restore(
        now: Duration,
        rows: impl IntoIterator<Item = OwnershipRecord>,
        forgotten: AssignmentEpoch,
        grace: Duration,
    ) -> Self {
        let mut group = Self { forgotten, ..Self::default() };
        for row in rows {
            group.restore_row(row, grace);
        }
        // Who was succeeded in all its units is nobody.
        let owners: BTreeSet<_> = group.units.values().filter_map(Unit::owner).collect();
        group.members.retain(|id, _| owners.contains(id));
        for (id, member) in &group.members {
            group.deadlines.arm(Due::Session(id.clone()), now.saturating_add(member.session_timeout));
        }
        group
    }

    fn restore_row(&mut self, row: OwnershipRecord, grace: Duration) {
        if row.epoch <= AssignmentEpoch::NONE
            || self.units.get(&row.unit).is_some_and(|unit| unit.epoch >= row.epoch)
        {
            return;
        }
        let stage = match &row.member {
            Some(member) => Stage::Owned { member: member.clone(), revoking: false },
            None => Stage::Free,
        };
        let unit = Unit {
            target: row.member.clone(),
            names_member: row.member.is_some(),
            ..Unit::new(row.epoch, stage)
        };
        self.units.insert(row.unit, unit);
        if let Some(member) = row.member {
            let awaited = || Member::awaited(row.instance, grace);
            self.members.entry(member).or_insert_with(awaited).is_awaited_for(row.session_timeout);
        }
    }
}
