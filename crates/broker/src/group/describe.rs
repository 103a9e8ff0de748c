//! What operators ask of groups: which there are, and how one stands.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use logmill_record::{Offset, TimestampMs};
use uuid::Uuid;

use super::hold::name_of;
use super::machine::{GroupState as State, MemberDescription, Presence, UnitDescription, UnitStatus};
use super::not_found;
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::catalog::Partition;
use crate::context::RequestContext;
use crate::error::Error;
use crate::offsets::{Committed, Key};

/// Which groups to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListGroups {
    /// At most so many; 0 means 1,000, which is also the most.
    pub page_size: usize,
    /// The last page's `next_page_token`, or empty for the first page.
    pub page_token: String,
}

/// A page of groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPage {
    /// In order of their names.
    pub groups: Vec<GroupSummary>,
    /// Where the next page starts; empty at the end.
    pub next_page_token: String,
}

/// A group, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupSummary {
    /// Its name.
    pub group: String,
    /// What it is doing.
    pub state: GroupState,
    /// How many members it has, those included that may come back.
    pub member_count: usize,
}

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupState {
    /// It has no members, and awaits none.
    Empty,
    /// Every unit that a member can have is owned, and stays where it is.
    Stable,
    /// Units are on their way from one member to another.
    Rebalancing,
}

/// A group and all that it has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupDescription {
    /// Its name.
    pub group: String,
    /// What it is doing.
    pub state: GroupState,
    /// Its members, those included that may come back.
    pub members: Vec<GroupMember>,
    /// Units that nobody owns now.
    pub unowned: Vec<GroupUnit>,
    /// How far it has come, in each partition for which it has committed something.
    pub offsets: Vec<GroupOffset>,
    /// Partitions of its units for which it has committed nothing, in order: how far it is behind there is not known.
    pub not_committed: Vec<(String, u32)>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// Its place, if it is a static member.
    pub instance_id: Option<String>,
    /// Whether it can be spoken to; else it may come back.
    pub is_connected: bool,
    /// What it owns.
    pub units: Vec<GroupUnit>,
}

/// A unit of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupUnit {
    /// Its name: of a group of topics `topic/partition`.
    pub unit: String,
    /// The highest epoch so far. It also grows when the unit becomes nobody's; 0 if it was never assigned.
    pub epoch: i32,
    /// What is happening to it, in a word, such as `owned` or `revoking`.
    pub status: &'static str,
    /// The member that it is on its way to.
    pub next_member: Option<String>,
}

/// How far a group has come in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOffset {
    /// The topic's name.
    pub topic: String,
    /// The topic's UUID: another may have its name by now.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the next record to read.
    pub offset: Offset,
    /// What was said with the commit.
    pub metadata: String,
    /// When it was committed.
    pub committed_at: TimestampMs,
    /// Offsets from there to the end that readers of committed records see: an upper bound on the records left, since
    /// transaction markers, aborted and compacted records count too; `None` if the topic was deleted.
    pub lag_records: Option<u64>,
    /// How long the next record has waited to be read; zero if there is none, `None` if that is not known.
    pub lag: Option<Duration>,
}

impl Broker {
    /// Lists groups in order of their names, a page at a time: those that have members, and those that have committed
    /// something.
    ///
    /// # Errors
    /// [`NodeClosing`](crate::Reason::NodeClosing).
    pub fn list_groups(
        &self,
        context: &RequestContext,
        request: ListGroups,
    ) -> impl Future<Output = Result<GroupPage, Error>> + Send + 'static + use<> {
        let page = authorize(context, &Operation::ListGroups)
            .and_then(|()| self.core().check_open())
            .map(|()| page(self.core(), request));
        std::future::ready(page)
    }

    /// Describes a group: its members, their units, and how far it has come.
    ///
    /// # Errors
    /// [`GroupNotFound`](crate::Reason::GroupNotFound).
    pub fn describe_group(
        &self,
        context: &RequestContext,
        group: &str,
    ) -> impl Future<Output = Result<GroupDescription, Error>> + Send + 'static + use<> {
        let allowed =
            authorize(context, &Operation::DescribeGroup { group }).and_then(|()| self.core().check_open());
        let group = group.to_owned();
        // The time of the next record is looked up in files.
        self.core().read("a description", move |core| {
            allowed?;
            describe(core, &group)
        })
    }
}

pub(super) fn exists(core: &Core, group: &str) -> Result<(), Error> {
    if core.groups.find(group).is_some() || !core.offsets.all_of(group).is_empty() {
        Ok(())
    } else {
        Err(not_found(group))
    }
}

fn page(core: &Core, request: ListGroups) -> GroupPage {
    let ListGroups { page_size, page_token: after } = request;
    let size = crate::paging::page_size(page_size);
    let mut names: BTreeSet<String> = core.offsets.groups().into_iter().collect();
    names.extend(core.groups.all().iter().map(|coordinator| coordinator.name.to_string()));
    let mut shown = names.into_iter().filter(|name| after.is_empty() || *name > after);
    let groups: Vec<_> = shown.by_ref().take(size).map(|name| summary(core, name)).collect();
    let more = shown.next().is_some();
    let last = groups.last().map(|group| group.group.clone());
    GroupPage { groups, next_page_token: last.filter(|_| more).unwrap_or_default() }
}

fn summary(core: &Core, group: String) -> GroupSummary {
    let coordinator = core.groups.find(&group);
    let (state, member_count) = coordinator.map_or((GroupState::Empty, 0), |coordinator| {
        let machine = &coordinator.state.lock().machine;
        (public(machine.state()), machine.member_count())
    });
    GroupSummary { group, state, member_count }
}

fn public(state: State) -> GroupState {
    match state {
        State::Empty => GroupState::Empty,
        State::Stable => GroupState::Stable,
        State::Rebalancing => GroupState::Rebalancing,
    }
}

fn describe(core: &Arc<Core>, group: &str) -> Result<GroupDescription, Error> {
    exists(core, group)?;
    let (described, partitions) = match core.groups.find(group) {
        Some(coordinator) => {
            let machine = &coordinator.state.lock().machine;
            (Some(machine.describe()), machine.partitions())
        }
        None => (None, BTreeSet::new()),
    };
    let offsets = core.offsets.all_of(group);
    let offsets: Vec<_> = offsets.into_iter().map(|(key, committed)| lag(core, key, committed)).collect();
    // Not what is of a topic that was deleted, whose name another may have.
    let known = offsets.iter().filter(|of| of.lag_records.is_some());
    let known: BTreeSet<_> = known.map(|of| (of.topic.as_str(), of.partition)).collect();
    let named = partitions.into_iter().filter_map(|it| Some((core.catalog.name_of(it.topic)?, it.partition)));
    let named = named.map(|(topic, partition)| (topic.to_string(), partition));
    let not_committed: BTreeSet<_> =
        named.filter(|(topic, partition)| !known.contains(&(topic.as_str(), *partition))).collect();
    let unit = |unit: &UnitDescription| GroupUnit {
        unit: name_of(core, &unit.unit),
        epoch: unit.epoch.0,
        status: status(unit.status),
        next_member: unit.next.as_ref().map(ToString::to_string),
    };
    let member = |member: &MemberDescription| GroupMember {
        member_id: member.id.to_string(),
        instance_id: member.instance.as_ref().map(ToString::to_string),
        is_connected: matches!(member.presence, Presence::Connected(_)),
        units: member.units.iter().map(unit).collect(),
    };
    Ok(GroupDescription {
        group: group.to_owned(),
        state: described.as_ref().map_or(GroupState::Empty, |described| public(described.state)),
        members: described.iter().flat_map(|it| &it.members).map(member).collect(),
        unowned: described.iter().flat_map(|it| &it.unowned).map(unit).collect(),
        not_committed: not_committed.into_iter().collect(),
        offsets,
    })
}

const fn status(status: UnitStatus) -> &'static str {
    match status {
        UnitStatus::Owned => "owned",
        UnitStatus::WarmingUp => "warming up",
        UnitStatus::Revoking => "revoking",
        UnitStatus::Settling => "settling",
        UnitStatus::Persisting => "assigning",
        UnitStatus::PersistFailed => "not assigned: the disk failed",
        UnitStatus::Unassigned => "unassigned",
    }
}

/// How far a group is behind in a partition.
fn lag(core: &Core, key: Key, committed: Committed) -> GroupOffset {
    let topic = core.catalog.topic(&key.topic).ok().filter(|topic| topic.id == committed.topic_id);
    let partition = topic.as_ref().and_then(|topic| topic.partition(key.partition).ok());
    let range = partition.map(Partition::range);
    let next = range.map(|range| committed.offset.max(range.start));
    let lag_records = range.zip(next).map(|(range, next)| range.last_stable.get().saturating_sub(next.get()));
    let waited = || {
        // Where its reads hang it is not known, and this one does not hang with them.
        let _turn = partition?.reads().try_take()?;
        let appended_at = partition?.appended_at(next?)?;
        let now = core.config.env.clock.now();
        u64::try_from(now.get().saturating_sub(appended_at.get())).ok().map(Duration::from_millis)
    };
    let lag = if lag_records == Some(0) { Some(Duration::ZERO) } else { waited() };
    GroupOffset {
        topic: key.topic,
        topic_id: committed.topic_id,
        partition: key.partition,
        offset: committed.offset,
        metadata: committed.metadata,
        committed_at: committed.at,
        lag_records,
        lag,
    }
}
