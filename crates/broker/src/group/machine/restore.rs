//! A group as it was persisted.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Group;
use super::deadlines::Due;
use super::member::Member;
use super::names::{InstanceId, MemberId, UnitEpoch, UnitId};
use super::unit::{Stage, Unit};

/// What an [`Action::Persist`](super::Action::Persist) made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restored {
    pub(crate) unit: UnitId,
    pub(crate) epoch: UnitEpoch,
    pub(crate) member: MemberId,
    pub(crate) instance: Option<InstanceId>,
}

impl Group {
    /// The group after a restart. Of each unit the highest epoch counts, so it does not matter if more are given. Units
    /// of topics that are gone have no business here.
    ///
    /// The members are awaited for `session_timeout` from now on, since their own are not persisted. They own their
    /// units meanwhile. What the others left is settled when that is over.
    pub(crate) fn restore(
        now: Duration,
        rows: impl IntoIterator<Item = Restored>,
        session_timeout: Duration,
    ) -> Self {
        let mut group = Self::default();
        for row in rows {
            group.restore_row(row, session_timeout);
        }
        // Who was succeeded in all its units is nobody.
        let owners: BTreeSet<_> = group.units.values().filter_map(Unit::owner).collect();
        group.members.retain(|id, _| owners.contains(id));
        for id in group.members.keys() {
            group.deadlines.arm(Due::Session(id.clone()), now.saturating_add(session_timeout));
        }
        group
    }

    fn restore_row(&mut self, row: Restored, session_timeout: Duration) {
        if row.epoch <= UnitEpoch::NONE
            || self.units.get(&row.unit).is_some_and(|unit| unit.epoch >= row.epoch)
        {
            return;
        }
        self.members
            .entry(row.member.clone())
            .or_insert_with(|| Member::awaited(row.instance, session_timeout));
        let stage = Stage::Owned { member: row.member.clone(), revoking: false };
        let mut unit = Unit::new(row.epoch, stage);
        unit.target = Some(row.member);
        self.units.insert(row.unit, unit);
    }
}
