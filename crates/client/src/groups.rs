//! Groups, as whoever looks after them sees them: who has what, how far it has come, and where it is to go on.

use std::fmt;
use std::time::Duration;

use logmill_proto::v1;
use logmill_record::{Offset, TimestampMs};

use crate::convert::{count_from, count32_from, offset_from, partition_from, partition_to};
use crate::paging::all_pages;
use crate::{Client, Error, Position};

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// It has no members, and awaits none.
    Empty,
    /// Every unit that a member can have is owned, and stays where it is.
    Stable,
    /// Units are on their way from one member to another.
    Rebalancing,
    /// What a newer node says, and this client does not know.
    Unknown,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GroupState::Empty => "empty",
            GroupState::Stable => "stable",
            GroupState::Rebalancing => "rebalancing",
            GroupState::Unknown => "unknown",
        })
    }
}

/// A group, in short; from [`Client::list_groups`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupSummary {
    /// Its name.
    pub group: String,
    /// What it is doing.
    pub state: GroupState,
    /// How many members it has, those included that may come back.
    pub member_count: u32,
}

/// A group and all that it has; from [`Client::describe_group`].
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Partitions of its units for which it has committed nothing, as topic and number: how far it is behind there is not
    /// known.
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
    pub connected: bool,
    /// What it owns.
    pub units: Vec<GroupUnit>,
}

/// A unit of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupUnit {
    /// Its name.
    pub unit: String,
    /// The epoch of its last assignment; 0 if it had none.
    pub epoch: i32,
    /// What is happening to it, in a word or two.
    pub status: String,
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
    pub topic_id: String,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the next record to read.
    pub offset: Offset,
    /// What was said with the commit.
    pub metadata: String,
    /// When it was committed.
    pub committed_at: TimestampMs,
    /// Offsets from there, or from the first that is kept, to the end that readers of committed records see: no fewer
    /// than there are records to read. `None` if the topic was deleted.
    pub lag_records: Option<u64>,
    /// How long the next record has waited to be read, 0 if there is none; `None` if it is not known.
    pub lag: Option<Duration>,
}

/// Where a group goes on in a partition after a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetReset {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// What was committed before; `None` if nothing was.
    pub from: Option<Offset>,
    /// What is committed, or would be.
    pub to: Offset,
}

/// Groups, for whoever looks after a node.
impl Client {
    /// All groups by name.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn list_groups(&self) -> Result<Vec<GroupSummary>, Error> {
        all_pages("groups", |page_token| async {
            let request = v1::ListGroupsRequest { page_size: 0, page_token };
            let reply = self.call("ListGroups", self.groups_rpc().list_groups(request)).await?;
            let groups = reply.groups.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
            Ok((groups, reply.next_page_token))
        })
        .await
    }

    /// A group: its members, their units, and how far it has come.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), and those of every call.
    ///
    /// ```no_run
    /// # async fn example(client: logmill_client::Client) -> Result<(), logmill_client::Error> {
    /// let group = client.describe_group("alarms").await?;
    /// let behind: u64 = group.offsets.iter().filter_map(|it| it.lag_records).sum();
    /// println!("{} members, {behind} records behind", group.members.len());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        let request = v1::DescribeGroupRequest { group: group.to_owned() };
        self.call("DescribeGroup", self.groups_rpc().describe_group(request)).await?.try_into()
    }

    /// What a reset would do: where the group, whose members are stopped, would go on in these topics and partitions; no
    /// partitions means all of a topic.
    ///
    /// # Errors
    /// As [`reset_offsets`](Client::reset_offsets).
    pub async fn plan_offset_reset(
        &self,
        group: &str,
        topics: &[(&str, &[u32])],
        to: Position,
    ) -> Result<Vec<OffsetReset>, Error> {
        self.reset(group, topics, to, false).await
    }

    /// Has a group go on elsewhere. Its members are stopped before.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) for a group with members (`GROUP_NOT_EMPTY`),
    /// [`NotFound`](crate::ErrorKind::NotFound) for a topic or partition,
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for an offset that a partition does not have, and those of every
    /// call; nothing has changed then. After [`Timeout`](crate::ErrorKind::Timeout) it may have; asking again does no
    /// harm.
    ///
    /// ```no_run
    /// use logmill_client::{Client, Position};
    ///
    /// # async fn example(client: Client) -> Result<(), logmill_client::Error> {
    /// let topics: [(&str, &[u32]); 1] = [("readings", &[])];
    /// for reset in client.plan_offset_reset("alarms", &topics, Position::Earliest).await? {
    ///     println!("{}/{}: {:?} to {}", reset.topic, reset.partition, reset.from, reset.to);
    /// }
    /// client.reset_offsets("alarms", &topics, Position::Earliest).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reset_offsets(
        &self,
        group: &str,
        topics: &[(&str, &[u32])],
        to: Position,
    ) -> Result<Vec<OffsetReset>, Error> {
        self.reset(group, topics, to, true).await
    }

    async fn reset(
        &self,
        group: &str,
        topics: &[(&str, &[u32])],
        to: Position,
        execute: bool,
    ) -> Result<Vec<OffsetReset>, Error> {
        let of = |(topic, partitions): &(&str, &[u32])| {
            let partitions = partitions.iter().copied().map(partition_to).collect::<Result<_, _>>()?;
            Ok(v1::TopicPartitions { topic: (*topic).to_owned(), partitions })
        };
        let topics = topics.iter().map(of).collect::<Result<_, Error>>()?;
        let request =
            v1::ResetOffsetsRequest { group: group.to_owned(), topics, to: Some(to.into()), execute };
        let reply = self.call("ResetOffsets", self.groups_rpc().reset_offsets(request)).await?;
        reply.resets.into_iter().map(TryInto::try_into).collect()
    }

    /// Deletes what a group has committed for a topic, also for one that was deleted. Says for how many partitions that was.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Conflict`](crate::ErrorKind::Conflict) for a group with members
    /// (`GROUP_NOT_EMPTY`), and those of every call.
    pub async fn delete_group_offsets(&self, group: &str, topic: &str) -> Result<u32, Error> {
        let request = v1::DeleteOffsetsRequest { group: group.to_owned(), topic: topic.to_owned() };
        let reply = self.call("DeleteOffsets", self.groups_rpc().delete_offsets(request)).await?;
        count32_from("partition_count", reply.partition_count)
    }

    /// Deletes a group: what it has committed, and who had which unit. Its members are stopped before.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Conflict`](crate::ErrorKind::Conflict) for a group with members
    /// (`GROUP_NOT_EMPTY`), and those of every call. After [`Timeout`](crate::ErrorKind::Timeout) it may be gone.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let request = v1::DeleteGroupRequest { group: group.to_owned() };
        self.call("DeleteGroup", self.groups_rpc().delete_group(request)).await?;
        Ok(())
    }
}

impl From<v1::GroupState> for GroupState {
    fn from(state: v1::GroupState) -> GroupState {
        match state {
            v1::GroupState::Empty => GroupState::Empty,
            v1::GroupState::Stable => GroupState::Stable,
            v1::GroupState::Rebalancing => GroupState::Rebalancing,
            v1::GroupState::Unspecified => GroupState::Unknown,
        }
    }
}

impl TryFrom<v1::GroupSummary> for GroupSummary {
    type Error = Error;

    fn try_from(group: v1::GroupSummary) -> Result<GroupSummary, Error> {
        Ok(GroupSummary {
            state: group.state().into(),
            member_count: count32_from("member_count", group.member_count)?,
            group: group.group,
        })
    }
}

impl TryFrom<v1::DescribeGroupResponse> for GroupDescription {
    type Error = Error;

    fn try_from(group: v1::DescribeGroupResponse) -> Result<GroupDescription, Error> {
        let units = |units: Vec<v1::GroupUnit>| units.into_iter().map(GroupUnit::from).collect();
        let member = |member: v1::GroupMember| GroupMember {
            member_id: member.member_id,
            instance_id: member.instance_id,
            connected: member.connected,
            units: units(member.units),
        };
        let partition = |it: v1::TopicPartition| Ok((it.topic, partition_from(it.partition)?));
        Ok(GroupDescription {
            state: group.state().into(),
            group: group.group,
            members: group.members.into_iter().map(member).collect(),
            unowned: units(group.unowned),
            offsets: group.offsets.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            not_committed: group.not_committed.into_iter().map(partition).collect::<Result<_, Error>>()?,
        })
    }
}

impl From<v1::GroupUnit> for GroupUnit {
    fn from(unit: v1::GroupUnit) -> GroupUnit {
        let v1::GroupUnit { unit, epoch, status, next_member } = unit;
        GroupUnit { unit, epoch, status, next_member }
    }
}

impl TryFrom<v1::GroupOffset> for GroupOffset {
    type Error = Error;

    fn try_from(offset: v1::GroupOffset) -> Result<GroupOffset, Error> {
        let lag_ms = offset.lag_ms.map(|ms| count_from("lag_ms", ms)).transpose()?;
        Ok(GroupOffset {
            topic: offset.topic,
            partition: partition_from(offset.partition)?,
            offset: offset_from(offset.offset)?,
            metadata: offset.metadata,
            committed_at: TimestampMs(offset.committed_at_ms),
            topic_id: offset.topic_id,
            lag_records: offset.lag_records.map(|count| count_from("lag_records", count)).transpose()?,
            lag: lag_ms.map(Duration::from_millis),
        })
    }
}

impl TryFrom<v1::OffsetReset> for OffsetReset {
    type Error = Error;

    fn try_from(reset: v1::OffsetReset) -> Result<OffsetReset, Error> {
        Ok(OffsetReset {
            topic: reset.topic,
            partition: partition_from(reset.partition)?,
            from: reset.from.map(offset_from).transpose()?,
            to: offset_from(reset.to)?,
        })
    }
}
