//! A unit's next step to where it belongs.

use std::time::Duration;

use super::Group;
use super::action::Action;
use super::deadlines::{Deadlines, Due};
use super::names::{MemberId, UnitId};
use super::restore::OwnershipRecord;
use super::unit::{Stage, Unit, Warming};

impl Group {
    /// Begins what has to happen next with the unit, if it does not wait for anything.
    pub(super) fn drive(&mut self, now: Duration, id: &UnitId) {
        self.call_off_warm_up(id);
        let Some(unit) = self.units.get(id) else { return };
        match (&unit.stage, &unit.target) {
            (Stage::Free, Some(target)) => {
                let target = target.clone();
                self.persist(id, Some(target));
            }
            (Stage::Free, None) if unit.names_member => self.persist(id, None),
            (Stage::Owned { member, revoking: false }, target) if target.as_ref() != Some(member) => {
                let (owner, target) = (member.clone(), target.clone());
                match target.filter(|target| self.waits_for_warm_up(id, &owner, target)) {
                    Some(target) => self.warm_up(id, target),
                    None => self.revoke(now, id, &owner),
                }
            }
            _ => {}
        }
    }

    /// It is over for whoever warms up for a unit that does not come to it.
    fn call_off_warm_up(&mut self, id: &UnitId) {
        let Some(unit) = self.units.get_mut(id) else { return };
        let target = unit.target.clone();
        let Some(warming) = unit.warming.take_if(|warming| Some(&warming.member) != target.as_ref()) else {
            return;
        };
        if let Some(to) = self.members.get(&warming.member).and_then(|m| m.stream(&warming.member)) {
            self.actions.push(Action::CancelWarmUp { to, unit: id.clone() });
        }
    }

    fn persist(&mut self, id: &UnitId, member: Option<MemberId>) {
        let Some(unit) = self.units.get_mut(id) else { return };
        let after = if unit.was_ever_assigned() { unit.epoch } else { self.forgotten };
        let Some(epoch) = after.next() else { return };
        unit.epoch = epoch;
        unit.stage = Stage::Persisting(member.clone());
        unit.names_member |= member.is_some();
        let owner = member.as_ref().and_then(|id| self.members.get(id));
        let instance = owner.and_then(|owner| owner.instance.clone());
        let session_timeout = owner.map_or(Duration::ZERO, |owner| owner.session_timeout);
        let row = OwnershipRecord { unit: id.clone(), epoch, member, instance, session_timeout };
        self.actions.push(Action::Persist(row));
    }

    /// Whether the target is to be ready first. Not if the owner wants the unit no more: it does not work on it.
    fn waits_for_warm_up(&self, id: &UnitId, owner: &MemberId, target: &MemberId) -> bool {
        let warming = self.units.get(id).and_then(|unit| unit.warming.as_ref());
        self.members.get(target).is_some_and(|target| target.warms_up)
            && !warming.is_some_and(|warming| warming.done)
            && self.is_eligible(owner, id)
    }

    fn warm_up(&mut self, id: &UnitId, member: MemberId) {
        let Some(unit) = self.units.get_mut(id).filter(|unit| unit.warming.is_none()) else { return };
        if let Some(to) = self.members.get(&member).and_then(|target| target.stream(&member)) {
            self.actions.push(Action::WarmUp { to, unit: id.clone() });
        }
        unit.warming = Some(Warming { member, done: false });
    }

    /// One whose stream is lost is told when it comes back, if that is in time.
    fn revoke(&mut self, now: Duration, id: &UnitId, owner: &MemberId) {
        let (Some(unit), Some(member)) = (self.units.get_mut(id), self.members.get(owner)) else { return };
        unit.stage = Stage::Owned { member: owner.clone(), revoking: true };
        self.deadlines.arm(Due::Revoke(id.clone()), now.saturating_add(member.rebalance_timeout));
        if let Some(to) = member.stream(owner) {
            self.actions.push(Action::Revoke { to, unit: id.clone(), epoch: unit.epoch });
        }
    }

    /// From now on the owner's commits are refused.
    pub(super) fn release(
        id: &UnitId,
        unit: &mut Unit,
        deadlines: &mut Deadlines,
        actions: &mut Vec<Action>,
    ) {
        unit.stage = Stage::Settling;
        deadlines.disarm(&Due::Revoke(id.clone()));
        actions.push(Action::Settle { unit: id.clone(), epoch: unit.epoch });
    }
}
