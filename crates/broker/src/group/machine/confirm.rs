//! Answers to actions. One that comes too late, or twice, changes nothing.

use std::time::Duration;

use super::Group;
use super::action::Action;
use super::deadlines::Due;
use super::join::NotMember;
use super::names::{AssignmentEpoch, MemberStream, UnitId};
use super::unit::Stage;

/// So long after an assignment could not be persisted it is tried again.
const PERSIST_RETRY: Duration = Duration::from_secs(1);

impl Group {
    /// The owner has finished with a unit that it was told to give up: what it wanted to commit it has committed.
    pub(crate) fn revoked(
        &mut self,
        now: Duration,
        from: &MemberStream,
        id: &UnitId,
        epoch: AssignmentEpoch,
    ) -> Result<(), NotMember> {
        self.heartbeat(now, from)?;
        let Some(unit) = self.units.get_mut(id).filter(|unit| unit.epoch == epoch) else { return Ok(()) };
        if matches!(&unit.stage, Stage::Owned { member, revoking: true } if *member == from.member) {
            Self::release(id, unit, &mut self.deadlines, &mut self.actions);
        }
        Ok(())
    }

    /// The member is ready for a unit that it warms up for.
    pub(crate) fn warmed(
        &mut self,
        now: Duration,
        from: &MemberStream,
        id: &UnitId,
    ) -> Result<(), NotMember> {
        self.heartbeat(now, from)?;
        let warming = self.units.get_mut(id).and_then(|unit| unit.warming.as_mut());
        if let Some(warming) = warming.filter(|warming| warming.member == from.member) {
            warming.done = true;
            self.drive(now, id);
        }
        Ok(())
    }

    /// Nothing is left of what owners of the unit did up to this epoch.
    pub(crate) fn settled(&mut self, now: Duration, id: &UnitId, epoch: AssignmentEpoch) {
        let Some(unit) = self.units.get_mut(id) else { return };
        if unit.stage == Stage::Settling && unit.epoch == epoch {
            unit.stage = Stage::Free;
            self.drive(now, id);
        }
    }

    /// What was to be persisted in this epoch is on disk, and a restart will find it. If its member has gone, or the
    /// unit belongs elsewhere by now, nobody hears of it.
    pub(crate) fn persisted(&mut self, now: Duration, id: &UnitId, epoch: AssignmentEpoch) {
        let Some(unit) = self.units.get_mut(id).filter(|unit| unit.epoch == epoch) else { return };
        let Stage::Persisting(member) = &unit.stage else { return };
        let member = member.clone();
        unit.names_member = member.is_some();
        let Some(member) = member.filter(|member| unit.target.as_ref() == Some(member)) else {
            unit.stage = Stage::Free;
            return self.drive(now, id);
        };
        unit.stage = Stage::Owned { member: member.clone(), revoking: false };
        unit.warming.take_if(|warming| warming.member == member);
        if let Some(to) = self.members.get(&member).and_then(|owner| owner.stream(&member)) {
            self.actions.push(Action::Assign { to, unit: id.clone(), epoch });
        }
        self.drive(now, id);
    }

    /// What was to be persisted in this epoch may not be on disk. It is not used, and the next is tried in a second.
    pub(crate) fn persist_failed(&mut self, now: Duration, id: &UnitId, epoch: AssignmentEpoch) {
        let Some(unit) = self.units.get_mut(id).filter(|unit| unit.epoch == epoch) else { return };
        if matches!(unit.stage, Stage::Persisting(_)) {
            unit.stage = Stage::Delayed;
            self.deadlines.arm(Due::Retry(id.clone()), now.saturating_add(PERSIST_RETRY));
        }
    }
}
