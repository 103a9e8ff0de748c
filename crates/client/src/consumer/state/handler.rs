//! The handler: what it is given, and what follows from its having finished with it.

use logmill_proto::v1;
use logmill_proto::v1::consume_request::Request;
use tokio::time::Instant;

use super::{Answer, COMMIT_PACE, Commit, MOST_OFFSETS, State, closed};
use crate::consumer::ConsumerEvent;
use crate::consumer::unit::Owned;
use crate::{Error, OffsetToCommit, UnitEpoch};

impl State {
    /// The handler has finished with what it was given.
    pub(in crate::consumer) fn handled(&mut self) {
        let bytes = std::mem::take(&mut self.handed_out_bytes);
        self.grant(bytes);
        for owned in self.units.values_mut() {
            owned.finish_handed_out();
            owned.commit_failed = false;
        }
        for unit in std::mem::take(&mut self.told) {
            if let Some(owned) = self.owned(&unit) {
                owned.finished = true;
            }
        }
        self.commit_done();
    }

    pub(in crate::consumer) fn pop(&mut self) -> Option<Result<ConsumerEvent, Error>> {
        if let Some(event) = self.events.pop_front() {
            if let ConsumerEvent::Revoke(unit) = &event {
                self.told.push(unit.clone());
            }
            return Some(Ok(event));
        }
        // Before the records: a handler that is always behind would never hear of it.
        if let Some(error) = self.trouble.pop_front() {
            return Some(Err(error));
        }
        if let Some(records) = self.data.pop_front() {
            self.handed_out_bytes += records.data.size_bytes();
            if records.data.error.is_none()
                && let Some(owned) = self.owned(&records.unit)
            {
                owned.hand_out(OffsetToCommit::from(&records.data));
            }
            return Some(Ok(ConsumerEvent::Records(records)));
        }
        self.unreachable.take().or_else(|| self.ended.take()).map(Err)
    }

    /// Commits by hand.
    pub(in crate::consumer) fn commit(
        &mut self,
        unit: UnitEpoch,
        offsets: Vec<OffsetToCommit>,
        answer: Answer,
    ) {
        if self.over {
            let _ = answer.send(Err(closed()));
            return;
        }
        self.start_commit(unit, offsets, Some(answer));
    }

    pub(in crate::consumer) fn warmed(&mut self, unit: &str) {
        self.outgoing.push_back(Request::Warmed(v1::UnitWarmed { unit: unit.to_owned() }));
    }

    /// Whether nothing is left to commit.
    pub(in crate::consumer) fn is_settled(&self) -> bool {
        let is_dirty = |owned: &Owned| self.auto_commit && owned.has_to_commit();
        self.over || (self.commits.is_empty() && !self.units.values().any(is_dirty))
    }

    /// The handler has finished with everything: what is left is to commit, and to leave.
    pub(in crate::consumer) fn close(&mut self) {
        self.closing = true;
        self.handled();
    }

    /// When what is done is to be committed, if something waits for that.
    pub(in crate::consumer) fn commit_due(&self) -> Option<Instant> {
        if !self.auto_commit || !self.joined {
            return None;
        }
        let waits = |owned: &Owned| owned.may_commit() && owned.has_to_commit() && !owned.commit_failed;
        self.paced_until.filter(|_| self.units.values().any(waits))
    }

    /// The last thing that the consumer says.
    pub(in crate::consumer) fn leave(&mut self) {
        self.leaving = true;
        self.outgoing.push_back(Request::Leave(v1::LeaveGroup {}));
    }

    /// Why something that was handed out may come to another member, unless the handler was told.
    pub(in crate::consumer) fn take_failure(&mut self) -> Option<Error> {
        self.trouble.pop_front().or_else(|| self.ended.take())
    }

    /// Commits what is done, one commit for a unit at a time and none too soon after another, and gives up what is
    /// finished.
    pub(in crate::consumer) fn commit_done(&mut self) {
        if !self.joined {
            return;
        }
        let now = Instant::now();
        let is_time = self.closing || self.paced_until.is_none_or(|until| until <= now);
        let mut to_commit = Vec::new();
        for (unit, owned) in &mut self.units {
            let is_due = is_time || owned.finished;
            if self.auto_commit && is_due && owned.may_commit() && !owned.commit_failed {
                let offsets = owned.take_to_commit();
                if !offsets.is_empty() {
                    to_commit.push((UnitEpoch::new(unit.clone(), owned.epoch), offsets));
                }
            }
        }
        if is_time && !to_commit.is_empty() {
            self.paced_until = Some(now + COMMIT_PACE);
        }
        for (unit, offsets) in to_commit {
            for part in offsets.chunks(MOST_OFFSETS) {
                self.start_commit(unit.clone(), part.to_vec(), None);
            }
        }
        let finished = self.units.iter().filter(|(_, owned)| owned.finished);
        let finished: Vec<UnitEpoch> =
            finished.map(|(unit, owned)| UnitEpoch::new(unit.clone(), owned.epoch)).collect();
        for unit in finished {
            self.give_up_if_done(&unit);
        }
    }

    fn start_commit(&mut self, unit: UnitEpoch, offsets: Vec<OffsetToCommit>, answer: Option<Answer>) {
        self.last_correlation += 1;
        let id = self.last_correlation;
        let commit = Commit { unit, offsets, answer, again: false };
        match commit.request(id) {
            Some(request) if self.joined => self.outgoing.push_back(request),
            // It goes out when the consumer has joined again.
            _ => {}
        }
        if let Some(owned) = self.owned(&commit.unit) {
            owned.commits_under_way += 1;
        }
        self.commits.insert(id, commit);
    }

    pub(super) fn give_up_if_done(&mut self, unit: &UnitEpoch) {
        let (auto_commit, joined) = (self.auto_commit, self.joined);
        let Some(owned) = self.owned(unit) else { return };
        let is_dirty = auto_commit && owned.has_to_commit();
        if !joined || !owned.finished || !owned.confirmed || owned.commits_under_way > 0 || is_dirty {
            return;
        }
        self.units.remove(&unit.unit);
        self.given_up.insert(unit.unit.clone(), unit.epoch);
        self.outgoing.push_back(Request::Revoked(v1::UnitRevoked { unit: Some(unit.to_proto()) }));
    }

    pub(super) fn owned(&mut self, unit: &UnitEpoch) -> Option<&mut Owned> {
        self.units.get_mut(&unit.unit).filter(|owned| owned.epoch == unit.epoch)
    }
}
