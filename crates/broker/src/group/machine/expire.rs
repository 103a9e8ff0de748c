//! What time does.

use std::time::Duration;

use super::Group;
use super::action::{Action, CloseWhy, LostWhy};
use super::deadlines::Due;
use super::names::{MemberId, UnitId};
use super::unit::Stage;

impl Group {
    /// Does what is due: sessions end, those who did not confirm lose their units, assignments are tried again. To be
    /// called at [`next_deadline`](Self::next_deadline), after everything that came from members before it: a member
    /// whose heartbeat waited for the node is not to blame.
    pub(crate) fn tick(&mut self, now: Duration) {
        let (mut expired, mut retried) = (false, Vec::new());
        while let Some(due) = self.deadlines.pop(now) {
            match due {
                Due::Session(member) => {
                    self.expire(&member);
                    expired = true;
                }
                Due::Revoke(unit) => self.revoke_timed_out(&unit),
                Due::Retry(unit) => retried.extend(self.end_delay(unit)),
            }
        }
        // Only now is it known who is still there.
        if expired {
            self.rebalance(now);
        }
        for unit in retried {
            self.drive(now, &unit);
        }
    }

    fn expire(&mut self, id: &MemberId) {
        if let Some(to) = self.members.get(id).and_then(|member| member.stream(id)) {
            self.actions.push(Action::Close { to, why: CloseWhy::Expired });
        }
        self.remove_member(id);
    }

    fn revoke_timed_out(&mut self, id: &UnitId) {
        let Some(unit) = self.units.get_mut(id) else { return };
        let Some(owner) = unit.owner() else { return };
        if let Some(to) = self.members.get(owner).and_then(|member| member.stream(owner)) {
            let why = LostWhy::RevokeTimedOut;
            self.actions.push(Action::Lost { to, unit: id.clone(), epoch: unit.epoch, why });
        }
        Self::release(id, unit, &mut self.deadlines, &mut self.actions);
    }

    fn end_delay(&mut self, id: UnitId) -> Option<UnitId> {
        let unit = self.units.get_mut(&id)?;
        if unit.stage != Stage::Delayed {
            return None;
        }
        unit.stage = Stage::Free;
        Some(id)
    }
}
