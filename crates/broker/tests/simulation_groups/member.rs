//! A member of a group, whatever it does with its units.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_broker::{
    AssignedPartition, Error, Fetch, FetchFrom, GroupEvent, JoinGroup, MemberHandle, OffsetToCommit,
    PartitionData, Position, Uuid,
};
use logmill_record::Offset;

use crate::reading::{has_read, records};
use crate::succession::Before;
use crate::world::{Call, IN, PARTITIONS, World, answer};

pub(crate) struct Member {
    pub(crate) group: &'static str,
    /// Whether the group is one of units, each a partition.
    has_units: bool,
    /// Its place, if it is a static member: whoever else has it succeeds it, and is succeeded.
    pub(crate) instance: Option<&'static str>,
    /// The id to come again with.
    pub(crate) id: Option<String>,
    pub(crate) handle: Option<MemberHandle>,
    next: Option<Call<(logmill_broker::Member, GroupEvent)>>,
    /// What it owns, as far as it knows.
    pub(crate) units: BTreeMap<String, Owned>,
    /// Assignments that it lost, and may still believe in.
    pub(crate) former: Vec<(String, Owned, MemberHandle)>,
}

/// An assignment: each unit has one partition.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) epoch: i32,
    pub(crate) topic_id: Uuid,
    pub(crate) partition: u32,
    pub(crate) committed: Offset,
    pub(crate) last_step: Option<i64>,
    /// It is to be given up.
    pub(crate) revoked: bool,
    /// Of the group in this partition: see [`standing`](crate::standing).
    pub(crate) pass: usize,
}

/// What a member is told of, and others of it.
pub(crate) enum News {
    Assigned(String),
    Lost(String),
}

impl Member {
    pub(crate) fn new(group: &'static str, has_units: bool, instance: Option<&'static str>) -> Self {
        let (units, former) = (BTreeMap::new(), Vec::new());
        Self { group, has_units, instance, id: None, handle: None, next: None, units, former }
    }

    /// What a unit of the partition is called.
    pub(crate) fn unit(&self, partition: u32) -> String {
        if self.has_units { format!("unit-{partition}") } else { format!("{IN}/{partition}") }
    }

    pub(crate) fn is_in(&self) -> bool {
        self.handle.is_some()
    }

    /// Whether the node knows it as one who is there.
    pub(crate) fn is_there(&self, world: &World) -> bool {
        self.is_in() && self.id.as_ref().is_some_and(|id| !world.ledger.owners.is_succeeded(id))
    }

    /// The group is to be stopped: it leaves, or is just gone.
    pub(crate) fn stop(&mut self, world: &mut World) {
        if self.is_in() && world.one_in(4) {
            self.lost();
        } else if self.is_in() {
            self.leave(world);
        }
    }

    pub(crate) fn join(&mut self, world: &mut World) {
        let units = || (0..PARTITIONS).map(|it| (self.unit(it), vec![(IN.to_owned(), it)])).collect();
        let new = if self.has_units {
            JoinGroup::units(self.group, units())
        } else {
            JoinGroup::topics(self.group, [IN])
        };
        let seconds = |world: &World| Duration::from_millis(1_000 + world.below(5_000));
        let join = JoinGroup {
            member_id: self.id.clone(),
            instance_id: self.instance.map(str::to_owned),
            session_timeout: seconds(world),
            rebalance_timeout: seconds(world),
            warms_up: world.one_in(3),
            ..new
        };
        let instance = self.instance.filter(|_| self.id.is_none() && world.one_in(2));
        let before = instance.and_then(|instance| Before::look(world, self.group, instance));
        let joined = world.broker.join_group(&world.context, join);
        let told = joined.as_ref().map(logmill_broker::Member::id).map_err(Error::reason);
        world.told(self.group, "join", told);
        let Ok(member) = joined else { return };
        (self.id, self.handle) = (Some(member.id()), Some(member.handle().clone()));
        self.forget_units();
        self.next = Some(next(member));
        self.has_joined(world, before.as_ref());
    }

    fn has_joined(&self, world: &mut World, before: Option<&Before>) {
        let id = self.id.as_deref().expect("it has joined");
        if let Some(former) = world.ledger.owners.joined(self.group, id, self.instance) {
            world.count("static successions");
            world.line(format!("{}: {id} has come for {former}", self.group));
        }
        if let Some(before) = before {
            before.check(world, id);
        }
    }

    /// What it owned it may go on believing in, until it is told better.
    fn forget_units(&mut self) {
        let Some(handle) = &self.handle else { return };
        let units = std::mem::take(&mut self.units);
        self.former.extend(units.into_iter().map(|(unit, owned)| (unit, owned, handle.clone())));
        let old = self.former.len().saturating_sub(4);
        self.former.drain(..old);
    }

    /// Its stream is gone. It may come again as who it was.
    pub(crate) fn lost(&mut self) {
        self.forget_units();
        (self.next, self.handle) = (None, None);
    }

    /// It is another from now on.
    pub(crate) fn reborn(&mut self) {
        self.lost();
        self.id = None;
    }

    pub(crate) fn leave(&mut self, world: &mut World) {
        let Some(handle) = &self.handle else { return };
        let told = handle.leave().map(|()| String::new()).map_err(|error| error.reason());
        if let (Ok(_), Some(id)) = (&told, &self.id) {
            world.ledger.owners.left(self.group, id);
        }
        world.told(self.group, "leave", told);
        self.reborn();
    }

    pub(crate) fn node_ended(&mut self) {
        (self.next, self.handle) = (None, None);
        self.units.clear();
        self.former.clear();
    }

    /// Confirms that a unit is given up.
    pub(crate) fn confirm(&mut self, world: &mut World, unit: &str) {
        let (Some(handle), Some(owned)) = (&self.handle, self.units.remove(unit)) else { return };
        let told = handle.confirm_revoked(unit, owned.epoch);
        if told.is_ok() {
            world.ledger.owners.gave_up(self.group, unit, owned.epoch);
        }
        world.told(self.group, "confirm", told.map(|()| unit.to_owned()).map_err(|error| error.reason()));
        self.former.push((unit.to_owned(), owned, handle.clone()));
    }

    /// Takes what it hears.
    pub(crate) fn listen(&mut self, world: &mut World) -> Vec<News> {
        let mut news = Vec::new();
        while let Some((member, event)) = self.next.as_mut().and_then(answer) {
            self.next = Some(next(member));
            self.hear(world, event, &mut news);
        }
        news
    }

    fn hear(&mut self, world: &mut World, event: GroupEvent, news: &mut Vec<News>) {
        let who = self.id.clone().expect("it has joined");
        let group = self.group;
        world.line(format!("{group}: {} hears {event:?}", &who[..8]));
        match event {
            GroupEvent::Assigned(of) => {
                world.count("assigned");
                let passes = world.ledger.assigned(group, &who, &of);
                let [AssignedPartition { topic_id, partition, committed, .. }] = &of.partitions[..] else {
                    panic!("a unit has one partition: {of:?}");
                };
                let owned = Owned {
                    epoch: of.epoch,
                    topic_id: *topic_id,
                    partition: *partition,
                    committed: committed.as_ref().map_or(Offset(0), |committed| committed.offset),
                    last_step: of.last_step,
                    revoked: false,
                    pass: passes[0],
                };
                if owned.partition >= PARTITIONS {
                    world.count("new partitions assigned");
                }
                assert_eq!(of.unit, self.unit(owned.partition));
                self.units.insert(of.unit.clone(), owned);
                news.push(News::Assigned(of.unit));
            }
            GroupEvent::Revoke { unit, epoch } => {
                world.count("revoked");
                if let Some(owned) = self.units.get_mut(&unit).filter(|owned| owned.epoch == epoch) {
                    owned.revoked = true;
                }
            }
            GroupEvent::WarmUp { unit } => {
                if let Some(handle) = self.handle.as_ref().filter(|_| world.one_in(2)) {
                    drop(handle.warmed(&unit));
                }
            }
            GroupEvent::Lost { unit, epoch, .. } => {
                world.count("lost");
                if self.units.get(&unit).is_some_and(|owned| owned.epoch == epoch) {
                    let owned = self.units.remove(&unit).expect("it was there");
                    let handle = self.handle.clone().expect("it is heard");
                    self.former.push((unit.clone(), owned, handle));
                    news.push(News::Lost(unit));
                }
            }
            GroupEvent::Closed(error) => {
                world.count(format!("closed: {}", error.reason()));
                self.reborn();
            }
            _ => {}
        }
    }
}

fn next(mut member: logmill_broker::Member) -> Call<(logmill_broker::Member, GroupEvent)> {
    Box::pin(async move {
        let event = member.next().await;
        (member, event)
    })
}

/// A read of the input from a place on.
pub(crate) type Input = Call<Result<Vec<PartitionData>, Error>>;

pub(crate) fn ask_input(world: &World, partition: u32, from: Offset) -> Input {
    let from = FetchFrom::new(IN, partition, Position::Offset(from));
    let fetch = Fetch::new(vec![from]).max_bytes(1 + world.index(400));
    Box::pin(world.broker.fetch(&world.context, fetch))
}

/// Where the records are that came, at most so many, and where to go on behind them.
pub(crate) fn take_input(
    world: &mut World,
    come: Result<Vec<PartitionData>, Error>,
    most: usize,
) -> Option<(Vec<Offset>, Offset)> {
    let data = come.ok()?.remove(0);
    if data.error.is_some() {
        return None;
    }
    has_read(world, &data);
    let all: Vec<_> = records(&data).into_iter().map(|(offset, _)| offset).collect();
    let taken: Vec<_> = all.iter().copied().take(most).collect();
    let next = if taken.len() == all.len() { data.next_offset } else { taken.last()?.saturating_add(1) };
    Some((taken, next))
}

/// How far somebody has read, and what is said with it.
pub(crate) fn to_commit(said: &str, partition: u32, offset: Offset) -> OffsetToCommit {
    OffsetToCommit { metadata: said.to_owned(), ..OffsetToCommit::new(IN, partition, offset) }
}
