//! Someone who sees what goes in and what comes out, and knows the rules but not how the machine keeps them.
//!
//! What ends an ownership is taken from what goes in (a confirmation, a timeout that has passed, a topic that is
//! gone), never from the machine's word for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::*;
use crate::topic::TopicPartition;

pub(super) type Declared = BTreeMap<Arc<str>, Vec<TopicPartition>>;

#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) connection: Option<ConnectionId>,
    pub(super) instance: Option<InstanceId>,
    pub(super) awaited: bool,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    due: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) members: BTreeMap<MemberId, Seen>,
    /// Whose commits count.
    pub(super) owners: BTreeMap<UnitId, (MemberId, AssignmentEpoch)>,
    /// Until when who was told to stop may confirm.
    revokes: BTreeMap<UnitId, Duration>,
    /// Every assignment that anybody ever heard of.
    pub(super) announced: BTreeMap<(UnitId, AssignmentEpoch), MemberId>,
    /// The highest epoch that went to be persisted since the last restart.
    attempted: BTreeMap<UnitId, AssignmentEpoch>,
    settled: BTreeMap<UnitId, AssignmentEpoch>,
    /// The units that were ever meant for anybody, and the highest epoch of those that are forgotten.
    known: BTreeSet<UnitId>,
    pub(super) forgotten: AssignmentEpoch,
    /// What is on disk.
    pub(super) rows: BTreeMap<UnitId, OwnershipRecord>,
    /// Streams of members that have expired in this tick, and may have been told something before that.
    expiring: BTreeSet<MemberStream>,
    /// What the members declare, of a group of units.
    pub(super) declared: Option<Declared>,
}

impl Watch {
    pub(super) fn is_current(&self, stream: &MemberStream) -> bool {
        self.members.get(&stream.member).is_some_and(|seen| seen.connection == Some(stream.connection))
    }

    /// Whether anybody else has a say in what is declared.
    pub(super) fn others(&self, join: &Join) -> bool {
        let succeeded = |seen: &Seen| seen.instance.is_some() && seen.instance == join.instance;
        self.members.iter().any(|(id, seen)| *id != join.member && !succeeded(seen) && !seen.awaited)
    }

    pub(super) fn joins(&mut self, now: Duration, join: &Join) {
        if let Interest::Units(units) = &join.interest {
            let before = self.declared.take().unwrap_or_default();
            for (name, partitions) in before {
                if units.get(&name) != Some(&partitions) {
                    self.fence(&UnitId::Named(name));
                }
            }
        }
        // Several, where a restart has found units of one and of who had succeeded it.
        let former = self.members.iter().filter(|(id, seen)| {
            **id != join.member && seen.instance.is_some() && seen.instance == join.instance
        });
        let former: Vec<_> = former.map(|(id, _)| id.clone()).collect();
        former.iter().for_each(|former| self.leaves(former));
        let seen = Seen {
            connection: Some(join.connection),
            instance: join.instance.clone(),
            awaited: false,
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            due: now + join.session_timeout,
        };
        self.members.insert(join.member.clone(), seen);
        if let Interest::Units(units) = &join.interest {
            self.declared = Some(units.clone());
        }
    }

    /// What the join has answered: no less than it owned, and else only what is on disk for it.
    pub(super) fn joined(&mut self, member: &MemberId, joined: &Joined) {
        let held: BTreeMap<_, _> = joined.held.iter().cloned().collect();
        for (unit, (owner, epoch)) in &self.owners {
            if owner == member && !self.unseen(unit, *epoch) {
                assert_eq!(held.get(unit), Some(epoch), "{member} came back and did not keep {unit:?}");
            }
        }
        for (unit, epoch) in held {
            if self.owners.get(&unit) != Some(&(member.clone(), epoch)) {
                self.announce(&unit, epoch, member);
            }
            self.announced.insert((unit, epoch), member.clone());
        }
    }

    fn unseen(&self, unit: &UnitId, epoch: AssignmentEpoch) -> bool {
        !self.announced.contains_key(&(unit.clone(), epoch))
    }

    pub(super) fn heard(&mut self, now: Duration, stream: &MemberStream) {
        if self.is_current(stream)
            && let Some(seen) = self.members.get_mut(&stream.member)
        {
            seen.due = now + seen.session_timeout;
        }
    }

    pub(super) fn loses(&mut self, stream: &MemberStream) {
        if self.is_current(stream)
            && let Some(seen) = self.members.get_mut(&stream.member)
        {
            seen.connection = None;
        }
    }

    pub(super) fn leaves(&mut self, member: &MemberId) {
        self.members.remove(member);
        let owned: Vec<_> = self
            .owners
            .iter()
            .filter(|(_, (owner, _))| owner == member)
            .map(|(unit, _)| unit.clone())
            .collect();
        owned.iter().for_each(|unit| self.fence(unit));
        if self.members.values().all(|seen| seen.awaited) {
            self.declared = None;
        }
    }

    pub(super) fn confirms(&mut self, stream: &MemberStream, unit: &UnitId, epoch: AssignmentEpoch) {
        let owns = self.owners.get(unit) == Some(&(stream.member.clone(), epoch));
        if self.is_current(stream) && owns && self.revokes.contains_key(unit) {
            self.fence(unit);
        }
    }

    fn fence(&mut self, unit: &UnitId) {
        self.owners.remove(unit);
        self.revokes.remove(unit);
    }

    pub(super) fn ticks(&mut self, now: Duration) {
        let late: Vec<_> =
            self.revokes.iter().filter(|(_, due)| **due <= now).map(|(u, _)| u.clone()).collect();
        late.iter().for_each(|unit| self.fence(unit));
        let over: Vec<_> =
            self.members.iter().filter(|(_, seen)| seen.due <= now).map(|(id, _)| id.clone()).collect();
        self.expiring.clear();
        for member in over {
            let connection = self.members.get(&member).and_then(|seen| seen.connection);
            self.expiring
                .extend(connection.map(|connection| MemberStream { member: member.clone(), connection }));
            self.leaves(&member);
        }
    }

    pub(super) fn topic_gone(&mut self, id: uuid::Uuid) {
        let is_of = |partition: &TopicPartition| partition.topic == id;
        let mut gone: BTreeSet<UnitId> = BTreeSet::new();
        gone.extend(self.owners.keys().filter(|u| matches!(u, UnitId::Partition(p) if is_of(p))).cloned());
        if let Some(declared) = &mut self.declared {
            let with_part = declared.iter().filter(|(_, partitions)| partitions.iter().any(is_of));
            let with_part: Vec<_> = with_part.map(|(name, _)| Arc::clone(name)).collect();
            with_part.iter().for_each(|name| drop(declared.remove(name)));
            gone.extend(with_part.into_iter().map(UnitId::Named));
        }
        gone.iter().for_each(|unit| self.fence(unit));
    }

    pub(super) fn restarts(&mut self, now: Duration, grace: Duration) {
        let owned = |row: &OwnershipRecord| Some((row.unit.clone(), (row.member.clone()?, row.epoch)));
        self.owners = self.rows.values().filter_map(owned).collect();
        self.revokes.clear();
        self.attempted.clear();
        self.declared = None;
        self.members.clear();
        for row in self.rows.values() {
            let Some(member) = row.member.clone() else { continue };
            let seen = self.members.entry(member).or_insert_with(|| Seen {
                connection: None,
                instance: row.instance.clone(),
                awaited: true,
                session_timeout: grace,
                rebalance_timeout: grace,
                due: now + grace,
            });
            seen.session_timeout = seen.session_timeout.max(row.session_timeout);
            seen.due = now + seen.session_timeout;
        }
    }

    pub(super) fn settled(&mut self, unit: &UnitId, epoch: AssignmentEpoch) {
        let settled = self.settled.entry(unit.clone()).or_default();
        *settled = (*settled).max(epoch);
    }

    pub(super) fn sees(&mut self, now: Duration, action: &Action) {
        match action {
            Action::Settle { unit, .. } => {
                let owner = self.owners.get(unit).filter(|(_, epoch)| !self.unseen(unit, *epoch));
                assert_eq!(owner, None, "fenced without need");
                self.owners.remove(unit);
            }
            Action::Persist(row) => self.persists(&row.unit, row.epoch, row.member.as_ref()),
            Action::Forget { unit, epoch } => {
                assert!(!self.owners.contains_key(unit), "{unit:?} is forgotten and owned");
                assert!(*epoch >= self.last_announced(unit), "{unit:?} was somebody's after {epoch}");
                self.forgotten = self.forgotten.max(*epoch);
                self.rows.remove(unit);
            }
            Action::Assign { to, unit, epoch } => {
                assert!(self.is_current(to), "{action:?} to a former stream");
                self.announce(unit, *epoch, &to.member);
            }
            Action::Revoke { to, unit, epoch } => {
                assert!(self.is_current(to), "{action:?} to a former stream");
                assert_eq!(self.owners.get(unit), Some(&(to.member.clone(), *epoch)), "{action:?}");
                self.revoking(now, unit);
            }
            Action::WarmUp { to, .. } | Action::CancelWarmUp { to, .. } => {
                assert!(self.is_current(to), "{action:?} to a former stream");
            }
            Action::Lost { to, unit, .. } => {
                assert!(self.is_current(to) || self.expiring.contains(to), "{action:?} to a former stream");
                assert!(!self.owners.contains_key(unit), "{action:?} and still its");
            }
            Action::Close { to, .. } => {
                assert!(!self.is_current(to), "{action:?} of a stream that is in use");
            }
        }
    }

    /// The owner has its time to confirm from the first telling on.
    pub(super) fn revoking(&mut self, now: Duration, unit: &UnitId) {
        let Some((owner, _)) = self.owners.get(unit) else { return };
        if let Some(seen) = self.members.get(owner) {
            self.revokes.entry(unit.clone()).or_insert(now + seen.rebalance_timeout);
        }
    }

    fn persists(&mut self, unit: &UnitId, epoch: AssignmentEpoch, member: Option<&MemberId>) {
        let is_there = |member: &MemberId| self.members.contains_key(member);
        assert!(member.is_none_or(is_there), "{unit:?} for {member:?}, who is no member");
        let owner = self.owners.get(unit).filter(|(_, epoch)| !self.unseen(unit, *epoch));
        assert_eq!(owner, None, "{unit:?} is to go to {member:?}");
        let before = self.attempted.insert(unit.clone(), epoch).unwrap_or_default();
        let on_disk = self.rows.get(unit).map(|row| row.epoch).unwrap_or_default();
        assert!(epoch > before.max(on_disk), "{unit:?}: {epoch} after {before}, and {on_disk} on disk");
        let is_new = self.known.insert(unit.clone());
        assert!(
            !is_new || epoch > self.forgotten,
            "{unit:?} begins with {epoch}, as what is forgotten had it"
        );
        let heard_of = self.last_announced(unit);
        let settled = self.settled.get(unit).copied().unwrap_or_default();
        assert!(heard_of <= settled, "{unit:?} is not settled: up to {settled}, but {heard_of} was used");
    }

    /// Whether a restart would await only those who own something now.
    pub(super) fn awaits_nobody(&self) -> bool {
        let owner = |row: &OwnershipRecord| self.owners.get(&row.unit).map(|(member, _)| member);
        self.rows.values().all(|row| row.member.is_none() || row.member.as_ref() == owner(row))
    }

    fn last_announced(&self, unit: &UnitId) -> AssignmentEpoch {
        let all = (unit.clone(), AssignmentEpoch::NONE)..=(unit.clone(), AssignmentEpoch(i32::MAX));
        self.announced.range(all).next_back().map(|((_, epoch), _)| *epoch).unwrap_or_default()
    }

    fn announce(&mut self, unit: &UnitId, epoch: AssignmentEpoch, member: &MemberId) {
        let on_disk = self.rows.get(unit).map(|row| (row.epoch, row.member.as_ref()));
        assert_eq!(on_disk, Some((epoch, Some(member))), "{unit:?} is announced, and this is on disk");
        let owner = self.owners.get(unit).filter(|(_, epoch)| !self.unseen(unit, *epoch));
        assert_eq!(owner, None, "{unit:?} goes to {member} too");
        assert!(epoch > self.last_announced(unit), "{unit:?}: {epoch} was used before");
        self.announced.insert((unit.clone(), epoch), member.clone());
        self.owners.insert(unit.clone(), (member.clone(), epoch));
    }
}
