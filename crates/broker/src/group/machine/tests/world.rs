//! Clients, a disk and a catalog around a group, all of which fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use logmill_log::sim::SimRandom;

use super::super::*;
use super::watch::{Declared, Watch};
use super::{secs, topic};
use crate::topic::TopicPartition;

const TOPICS: [&str; 4] = ["a", "b", "c", "d"];

/// One process that wants to be a member.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: MemberId,
    instance: Option<InstanceId>,
    pub(super) connection: Option<ConnectionId>,
    pub(super) wants: BTreeSet<Arc<str>>,
    warms_up: bool,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    pub(super) holds: BTreeMap<UnitId, AssignmentEpoch>,
    /// What it was told to give up.
    revokes: BTreeMap<UnitId, AssignmentEpoch>,
    warm_ups: BTreeMap<UnitId, bool>,
}

impl Client {
    fn stream(&self) -> Option<MemberStream> {
        Some(MemberStream { member: self.id.clone(), connection: self.connection? })
    }

    fn told(&mut self, action: &Action) {
        match action {
            Action::Assign { unit, epoch, .. } => {
                self.warm_ups.remove(unit);
                self.holds.insert(unit.clone(), *epoch);
            }
            Action::Revoke { unit, epoch, .. } => drop(self.revokes.insert(unit.clone(), *epoch)),
            Action::Lost { unit, .. } => {
                assert!(self.holds.remove(unit).is_some(), "{action:?}, which it did not have");
                self.revokes.remove(unit);
            }
            Action::WarmUp { unit, .. } => drop(self.warm_ups.insert(unit.clone(), false)),
            Action::CancelWarmUp { unit, .. } => {
                assert!(self.warm_ups.remove(unit).is_some(), "{action:?}, of which it was not told");
            }
            Action::Close { .. } => self.forget(),
            Action::Settle { .. } | Action::Persist(_) | Action::Forget { .. } => {}
        }
    }

    /// Its stream is gone.
    fn forget(&mut self) {
        self.connection = None;
        self.holds.clear();
        self.revokes.clear();
        self.warm_ups.clear();
    }
}

#[derive(Debug)]
pub(super) struct World {
    random: SimRandom,
    plain: bool,
    pub(super) now: Duration,
    pub(super) group: Group,
    pub(super) watch: Watch,
    pub(super) clients: Vec<Client>,
    pub(super) topics: BTreeMap<Arc<str>, Topic>,
    /// What clients that start now declare.
    release: Declared,
    settles: Vec<(UnitId, AssignmentEpoch)>,
    persists: Vec<OwnershipRecord>,
    next_id: u64,
    /// The last streams that ended, on which something may still arrive.
    former: Vec<MemberStream>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let random = SimRandom::new(seed);
        let mut world = Self {
            plain: !random.one_in(3),
            random,
            now: Duration::ZERO,
            group: Group::default(),
            watch: Watch::default(),
            clients: Vec::new(),
            topics: BTreeMap::new(),
            release: Declared::new(),
            settles: Vec::new(),
            persists: Vec::new(),
            next_id: 1,
            former: Vec::new(),
        };
        for name in TOPICS {
            let partitions = world.below(5) + 1;
            let id = world.id();
            world.topics.insert(name.into(), topic(u128::from(id), partitions));
        }
        world.make_release();
        world
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn below(&self, bound: u64) -> u32 {
        u32::try_from(self.random.below(bound)).unwrap_or(0)
    }

    fn index(&self, len: usize) -> usize {
        usize::try_from(self.random.below(len as u64)).unwrap_or(0)
    }

    /// Units over the topics that there are.
    fn make_release(&mut self) {
        let mut release = Declared::new();
        for n in 0..self.random.below(7) + 1 {
            let parts = self.topics.values().filter(|_| self.random.one_in(2));
            let parts = parts.map(|topic| TopicPartition { topic: topic.id, partition: 0 }).collect();
            release.insert(format!("u{n}").into(), parts);
        }
        self.release = release;
    }

    /// One thing happens.
    pub(super) fn step(&mut self) {
        match self.random.below(100) {
            0..7 => self.start_client(),
            7..13 => self.with_client(Self::join_again),
            13..16 => self.with_client(Self::lose_stream),
            16..19 => self.with_client(Self::leave),
            19..20 => self.with_client(Self::stop_for_good),
            20..35 => self.with_client(Self::heartbeat),
            35..50 => self.with_client(Self::confirm),
            50..58 => self.with_client(Self::warmed),
            58..68 => self.settle(),
            68..82 => self.persist(),
            82..93 => self.pass(),
            93..94 => self.restart(),
            94..96 => self.change_topics(),
            96..97 => self.speak_on_former_stream(),
            _ => self.answer_again(),
        }
        self.check();
    }

    fn with_client(&mut self, what: fn(&mut Self, usize)) {
        if !self.clients.is_empty() {
            what(self, self.index(self.clients.len()));
        }
    }

    fn start_client(&mut self) {
        if self.clients.len() >= 8 {
            return;
        }
        let id = self.id();
        let static_one = self.random.one_in(3);
        let client = Client {
            id: MemberId::new(format!("m{id}")),
            instance: static_one.then(|| InstanceId::new(format!("i{}", self.random.below(3)))),
            connection: None,
            wants: self.draw_topics(),
            warms_up: self.random.one_in(3),
            session_timeout: secs(self.random.below(20) + 5),
            rebalance_timeout: secs(self.random.below(20) + 5),
            holds: BTreeMap::new(),
            revokes: BTreeMap::new(),
            warm_ups: BTreeMap::new(),
        };
        self.clients.push(client);
        self.join(self.clients.len() - 1);
    }

    fn draw_topics(&self) -> BTreeSet<Arc<str>> {
        let all = self.random.one_in(2);
        TOPICS.iter().filter(|_| all || self.random.one_in(2)).map(|name| (*name).into()).collect()
    }

    fn join_again(&mut self, at: usize) {
        if self.random.one_in(4) {
            self.clients[at].wants = self.draw_topics();
        }
        if self.random.one_in(8) {
            self.make_release();
        }
        self.join(at);
    }

    pub(super) fn join(&mut self, at: usize) {
        let connection = ConnectionId(self.id());
        let client = &self.clients[at];
        let interest = if self.plain {
            let known = client.wants.iter().map(|name| (Arc::clone(name), self.topics.get(name).copied()));
            Interest::Topics(known.collect())
        } else {
            Interest::Units(self.release.clone())
        };
        let join = Join {
            member: client.id.clone(),
            connection,
            instance: client.instance.clone(),
            interest,
            session_timeout: client.session_timeout,
            rebalance_timeout: client.rebalance_timeout,
            warms_up: client.warms_up,
        };
        let differs = !self.plain && self.watch.declared.as_ref().is_some_and(|there| *there != self.release);
        if differs && self.watch.others(&join) {
            assert!(matches!(self.group.join(self.now, join), Err(JoinError::UnitsDiffer { .. })));
            return;
        }
        self.former.extend(self.clients[at].stream());
        self.watch.joins(self.now, &join);
        let joined = self.group.join(self.now, join).expect("it fits");
        let id = self.clients[at].id.clone();
        self.watch.joined(&id, &joined);
        let client = &mut self.clients[at];
        client.forget();
        client.connection = Some(connection);
        client.holds = joined.held.into_iter().collect();
        self.act(None);
    }

    fn heartbeat(&mut self, at: usize) {
        let Some(stream) = self.clients[at].stream() else { return };
        self.watch.heard(self.now, &stream);
        let heard = self.group.heartbeat(self.now, &stream);
        assert_eq!(heard.is_ok(), self.watch.is_current(&stream));
        self.act(None);
    }

    fn lose_stream(&mut self, at: usize) {
        let Some(stream) = self.clients[at].stream() else { return };
        self.watch.loses(&stream);
        self.clients[at].forget();
        self.group.lost(self.now, &stream);
        self.former.push(stream);
        self.act(None);
    }

    fn leave(&mut self, at: usize) {
        let Some(stream) = self.clients[at].stream() else { return };
        self.watch.leaves(&stream.member);
        self.clients[at].forget();
        assert_eq!(self.group.leave(self.now, &stream), Ok(()));
        self.former.push(stream);
        self.act(None);
    }

    /// The process dies: nothing comes from it any more, and its stream may look alive.
    fn stop_for_good(&mut self, at: usize) {
        if self.random.one_in(2) {
            self.lose_stream(at);
        }
        self.clients.remove(at);
    }

    fn confirm(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(stream) = client.stream() else { return };
        let Some((unit, epoch)) = client.revokes.pop_last() else { return };
        client.holds.remove(&unit);
        self.watch.heard(self.now, &stream);
        self.watch.confirms(&stream, &unit, epoch);
        assert_eq!(self.group.revoked(self.now, &stream, &unit, epoch), Ok(()));
        self.act(Some(&unit));
    }

    fn warmed(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(stream) = client.stream() else { return };
        let Some((unit, done)) = client.warm_ups.iter_mut().find(|(_, done)| !**done) else { return };
        *done = true;
        let unit = unit.clone();
        self.watch.heard(self.now, &stream);
        assert_eq!(self.group.warmed(self.now, &stream, &unit), Ok(()));
        self.act(Some(&unit));
    }

    fn settle(&mut self) {
        if self.settles.is_empty() {
            return;
        }
        let at = self.index(self.settles.len());
        let (unit, epoch) = self.settles.swap_remove(at);
        self.watch.settled(&unit, epoch);
        self.group.settled(self.now, &unit, epoch);
        self.act(Some(&unit));
    }

    /// The write of an assignment ends: durable, or with an error, of which nobody knows what it left.
    fn persist(&mut self) {
        if self.persists.is_empty() {
            return;
        }
        let at = self.index(self.persists.len());
        let row = self.persists.swap_remove(at);
        let (unit, epoch) = (row.unit.clone(), row.epoch);
        if self.random.one_in(5) {
            if self.random.one_in(2) {
                self.write(row);
            }
            self.group.persist_failed(self.now, &unit, epoch);
        } else {
            self.write(row);
            self.group.persisted(self.now, &unit, epoch);
        }
        self.act(Some(&unit));
    }

    fn write(&mut self, row: OwnershipRecord) {
        let exists = match &row.unit {
            UnitId::Partition(of) => self.topics.values().any(|topic| topic.id == of.topic),
            UnitId::Named(_) => true,
        };
        if exists {
            self.watch.rows.insert(row.unit.clone(), row);
        }
    }

    /// Time passes. The tick may come late, and then there may be much that is due.
    fn pass(&mut self) {
        let most = if self.random.one_in(20) { 60_000 } else { 4_000 };
        self.now += Duration::from_millis(self.random.below(most));
        if !self.random.one_in(4) {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.watch.ticks(self.now);
        self.group.tick(self.now);
        self.act(None);
        assert!(self.group.next_deadline().is_none_or(|next| next > self.now), "all that was due is done");
    }

    /// The node is killed. What was being written may be on disk.
    fn restart(&mut self) {
        for row in std::mem::take(&mut self.persists) {
            if self.random.one_in(2) {
                self.write(row);
            }
        }
        self.settles.clear();
        self.former.clear();
        self.clients.iter_mut().for_each(Client::forget);
        self.now += Duration::from_millis(self.random.below(10_000));
        let grace = secs(10);
        self.watch.restarts(self.now, grace);
        let rows: Vec<OwnershipRecord> = self.watch.rows.values().cloned().collect();
        self.group = Group::restore(self.now, rows, self.watch.forgotten, grace);
        self.act(None);
    }

    fn change_topics(&mut self) {
        let name: Arc<str> = TOPICS[self.index(TOPICS.len())].into();
        let mut changes = Vec::new();
        let before = self.topics.get(&name).copied();
        let grows = before.filter(|_| self.random.one_in(2));
        let after = match (before, grows) {
            (_, Some(same)) => Some(Topic { partitions: same.partitions + 1, ..same }),
            (Some(_), None) if self.random.one_in(2) => None,
            _ => Some(topic(u128::from(self.id()), self.below(5) + 1)),
        };
        if let Some(gone) = before.filter(|before| after.is_none_or(|after| after.id != before.id)) {
            changes.push(TopicChange::Gone(gone.id));
            self.watch.topic_gone(gone.id);
            self.topics.remove(&name);
        }
        if let Some(after) = after {
            changes.push(TopicChange::Exists(Arc::clone(&name), after));
            self.topics.insert(name, after);
        }
        self.group.topics_changed(self.now, changes);
        self.act(None);
        self.make_release();
    }

    fn speak_on_former_stream(&mut self) {
        let Some(stream) = self.former.pop() else { return };
        if self.watch.is_current(&stream) {
            return;
        }
        let Some(unit) = self.watch.owners.keys().next().cloned() else { return };
        let epoch = self.watch.owners[&unit].1;
        assert!(self.group.heartbeat(self.now, &stream).is_err());
        assert!(self.group.revoked(self.now, &stream, &unit, epoch).is_err());
        assert!(self.group.warmed(self.now, &stream, &unit).is_err());
        assert!(self.group.leave(self.now, &stream).is_err());
        self.group.lost(self.now, &stream);
        assert_eq!(self.group.take_actions(), [], "nobody speaks there");
    }

    /// Something that was answered is answered once more, long after.
    fn answer_again(&mut self) {
        let all = self.watch.announced.len();
        if all == 0 {
            return;
        }
        let ((unit, epoch), _) =
            self.watch.announced.iter().nth(self.index(all)).expect("it is below their count");
        if self.settles.contains(&(unit.clone(), *epoch)) {
            return;
        }
        self.group.settled(self.now, unit, *epoch);
        self.group.persisted(self.now, unit, *epoch);
        self.group.persist_failed(self.now, unit, *epoch);
        assert_eq!(self.group.take_actions(), [], "it had been answered");
    }

    /// What the machine wants is put where it is done; what concerns one unit alone has no effect on others.
    fn act(&mut self, only: Option<&UnitId>) {
        for action in self.group.take_actions() {
            self.watch.sees(self.now, &action);
            let (to, unit) = parties(&action);
            if let (Some(only), Some(unit)) = (only, unit) {
                assert_eq!(unit, only, "{action:?}");
            }
            let client = to.and_then(|to| self.clients.iter_mut().find(|c| c.stream().as_ref() == Some(to)));
            if let Some(client) = client {
                client.told(&action);
            }
            match action {
                Action::Settle { unit, epoch } => self.settles.push((unit, epoch)),
                Action::Persist(row) => {
                    assert!(self.persists.iter().all(|other| other.unit != row.unit), "one at a time");
                    self.persists.push(row);
                }
                Action::Close { to, .. } => self.former.push(to),
                _ => {}
            }
        }
    }

    /// What holds at any time.
    fn check(&mut self) {
        let described = self.group.describe();
        let ids: Vec<&MemberId> = described.members.iter().map(|member| &member.id).collect();
        assert_eq!(ids, self.watch.members.keys().collect::<Vec<_>>(), "the members");
        for member in &described.members {
            for unit in member.units.iter().filter(|unit| unit.status == UnitStatus::Revoking) {
                self.watch.revoking(self.now, &unit.unit);
            }
            let client = self.clients.iter().find(|client| client.id == member.id);
            if let Some(client) = client.filter(|client| client.connection.is_some()) {
                let has: BTreeMap<_, _> = member.units.iter().map(|u| (u.unit.clone(), u.epoch)).collect();
                assert_eq!(client.holds, has, "what {} was told", client.id);
            }
        }
        for ((unit, epoch), member) in &self.watch.announced {
            let counts = self.watch.owners.get(unit) == Some(&(member.clone(), *epoch));
            let by_name = self.group.check(Some(member), unit, *epoch);
            assert_eq!(by_name.is_ok(), counts, "a commit of {member} for {unit:?} in {epoch}");
            assert_eq!(self.group.check(None, unit, *epoch), by_name);
        }
    }

    /// No more faults: who is there answers, and everything that is begun ends.
    pub(super) fn calm_down(&mut self) {
        for _ in 0..400 {
            while !self.settles.is_empty() {
                self.settle();
            }
            while !self.persists.is_empty() {
                let row = self.persists.remove(0);
                let (unit, epoch) = (row.unit.clone(), row.epoch);
                self.write(row);
                self.group.persisted(self.now, &unit, epoch);
                self.act(Some(&unit));
            }
            for at in 0..self.clients.len() {
                self.heartbeat(at);
                // One in three never confirms a revoke: time does it.
                if at % 3 > 0 {
                    self.confirm(at);
                }
                self.warmed(at);
            }
            self.check();
            self.now += Duration::from_millis(500);
            self.tick();
            self.check();
            if self.is_calm() {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.group.describe());
    }

    fn is_calm(&self) -> bool {
        let there = self.clients.iter().filter(|client| client.connection.is_some()).count();
        let nothing_open = self.settles.is_empty() && self.persists.is_empty();
        nothing_open
            && self.watch.members.len() == there
            && self.group.state() != GroupState::Rebalancing
            && self.watch.awaits_nobody()
    }

    /// Whether a member, as it joined last, may have the unit.
    pub(super) fn is_eligible(&self, client: &Client, unit: &UnitId) -> bool {
        match unit {
            UnitId::Partition(of) => {
                client.wants.iter().filter_map(|name| self.topics.get(name)).any(|t| t.id == of.topic)
            }
            UnitId::Named(name) => self.watch.declared.as_ref().is_some_and(|all| all.contains_key(name)),
        }
    }

    /// Every unit that there is.
    pub(super) fn all_units(&self) -> Vec<UnitId> {
        if self.plain {
            let partitions = |topic: &Topic| {
                let topic = *topic;
                (0..topic.partitions).map(move |n| UnitId::Partition(super::partition(topic, n)))
            };
            self.topics.values().flat_map(partitions).collect()
        } else {
            self.watch.declared.iter().flatten().map(|(name, _)| UnitId::Named(Arc::clone(name))).collect()
        }
    }
}

fn parties(action: &Action) -> (Option<&MemberStream>, Option<&UnitId>) {
    match action {
        Action::Settle { unit, .. }
        | Action::Persist(OwnershipRecord { unit, .. })
        | Action::Forget { unit, .. } => (None, Some(unit)),
        Action::Assign { to, unit, .. }
        | Action::Revoke { to, unit, .. }
        | Action::WarmUp { to, unit }
        | Action::CancelWarmUp { to, unit }
        | Action::Lost { to, unit, .. } => (Some(to), Some(unit)),
        Action::Close { to, .. } => (Some(to), None),
    }
}
