//! A node on which everything succeeds at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::*;
use super::secs;

/// A group whose settling and persisting is done as it is asked for, and what its members are told.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) group: Group,
    pub(super) now: Duration,
    pub(super) rows: BTreeMap<UnitId, OwnershipRecord>,
    forgotten: AssignmentEpoch,
    told: Vec<Action>,
}

impl Node {
    pub(super) fn join(&mut self, join: Join) -> Joined {
        let joined = self.group.join(self.now, join).expect("it fits");
        self.work();
        joined
    }

    pub(super) fn leave(&mut self, stream: &MemberStream) {
        assert_eq!(self.group.leave(self.now, stream), Ok(()));
        self.work();
    }

    pub(super) fn lose(&mut self, stream: &MemberStream) {
        self.group.lost(self.now, stream);
        self.work();
    }

    pub(super) fn revoked(&mut self, stream: &MemberStream, unit: &UnitId, epoch: i32) {
        assert_eq!(self.group.revoked(self.now, stream, unit, AssignmentEpoch(epoch)), Ok(()));
        self.work();
    }

    pub(super) fn warmed(&mut self, stream: &MemberStream, unit: &UnitId) {
        assert_eq!(self.group.warmed(self.now, stream, unit), Ok(()));
        self.work();
    }

    pub(super) fn change(&mut self, change: TopicChange) {
        self.group.topics_changed(self.now, [change]);
        self.work();
    }

    pub(super) fn pass(&mut self, time: u64) {
        self.now += secs(time);
        self.group.tick(self.now);
        self.work();
    }

    pub(super) fn restart(&mut self, grace: Duration) {
        self.group = Group::restore(self.now, self.rows.values().cloned(), self.forgotten, grace);
        self.work();
    }

    /// What members were told since the last time.
    pub(super) fn told(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.told)
    }

    /// Members confirm whatever they are told to give up.
    pub(super) fn confirm_all(&mut self) -> Vec<Action> {
        let mut all = Vec::new();
        loop {
            let told = self.told();
            for action in &told {
                if let Action::Revoke { to, unit, epoch } = action {
                    self.revoked(to, unit, epoch.0);
                }
            }
            if told.is_empty() {
                return all;
            }
            all.extend(told);
        }
    }

    fn work(&mut self) {
        loop {
            let actions = self.group.take_actions();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Settle { unit, epoch } => self.group.settled(self.now, &unit, epoch),
                    Action::Persist(row) => {
                        let (unit, epoch) = (row.unit.clone(), row.epoch);
                        self.rows.insert(unit.clone(), row);
                        self.group.persisted(self.now, &unit, epoch);
                    }
                    Action::Forget { unit, epoch } => {
                        self.rows.remove(&unit);
                        self.forgotten = self.forgotten.max(epoch);
                    }
                    told => self.told.push(told),
                }
            }
        }
    }

    /// Who owns how many units.
    pub(super) fn loads(&self) -> BTreeMap<String, usize> {
        let members = self.group.describe().members.into_iter();
        members.map(|member| (member.id.to_string(), member.units.len())).collect()
    }

    pub(super) fn owners(&self) -> BTreeMap<UnitId, MemberId> {
        let described = self.group.describe();
        let owned = described.members.into_iter().flat_map(|member| {
            let id = member.id;
            member.units.into_iter().map(move |unit| (unit.unit, id.clone()))
        });
        owned.collect()
    }
}
