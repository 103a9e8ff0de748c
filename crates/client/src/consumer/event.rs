//! What a consumer hears of its group.

use std::fmt;

use logmill_proto::v1;
use logmill_record::Offset;

use crate::convert::{offset_from, partition_from};
use crate::{Error, PartitionData, UnitEpoch};

/// Something that happens to a [`Consumer`](super::Consumer).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// The unit is the consumer's from now on.
    Assigned(Assignment),
    /// Records of one of its units.
    Records(UnitRecords),
    /// The unit is to be given up, for another member: nothing more of it comes. When
    /// [`next`](super::Consumer::next) is called again, what was handed out of it is committed, unless commits are
    /// manual, and then it is given up.
    Revoke(UnitEpoch),
    /// The unit was the consumer's and is not any more: nothing that it commits from now on counts. What was not
    /// committed of it comes to another member, or comes again.
    #[non_exhaustive]
    Lost {
        /// The unit.
        unit: UnitEpoch,
        /// Why.
        why: LostReason,
    },
    /// The unit, here by its name, is going to be the consumer's, which prepares for it and then says
    /// [so](super::Committer::warmed).
    WarmUp(String),
    /// The unit does not come after all.
    WarmUpCancelled(String),
}

/// Records of a partition of a unit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnitRecords {
    /// The unit, and which assignment of it.
    pub unit: UnitEpoch,
    /// The records. One with an [error](PartitionData::error) says that the partition cannot be read: no more of it
    /// comes, and it is not committed.
    pub data: PartitionData,
}

/// Why a consumer has lost a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// It did not give the unit up within its rebalance time-out.
    RevokeTimedOut,
    /// A topic of the unit was deleted, or the consumer asks for it no more.
    Gone,
    /// The node had not heard of the consumer for its session time-out, and has given the unit to others.
    Expired,
    /// A partition of it has lost records that the consumer was given: those of a relaxed topic that were not on disk
    /// when the node went down, say. Which, says the error that comes next, of the kind
    /// [`Truncated`](crate::ErrorKind::Truncated). The unit is assigned again, at what is committed.
    Truncated,
    /// What a newer node says, and this client does not know.
    Unknown,
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LostReason::RevokeTimedOut => "it was not given up in time",
            LostReason::Gone => "its topic was deleted, or is not asked for any more",
            LostReason::Expired => "the session was over",
            LostReason::Truncated => "it has lost records that were read from it",
            LostReason::Unknown => "the node does not say why",
        })
    }
}

/// A unit that a consumer owns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The unit, and which assignment of it: to be given with what is committed.
    pub unit: UnitEpoch,
    /// Its partitions.
    pub partitions: Vec<AssignedPartition>,
    /// The sequence of the last [step](crate::Step) of the unit that was committed; `None` if none was.
    pub last_step: Option<i64>,
}

/// A partition of an assigned unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AssignedPartition {
    /// The topic's name.
    pub topic: String,
    /// The topic's UUID.
    pub topic_id: String,
    /// The partition's number.
    pub partition: u32,
    /// Where the group goes on; `None` if nothing was committed for this topic.
    pub committed_offset: Option<Offset>,
    /// The leader epoch that was committed with it; `None` if it is not known.
    pub last_epoch: Option<i32>,
    /// What was said with the commit.
    pub metadata: String,
}

impl TryFrom<v1::UnitAssigned> for Assignment {
    type Error = Error;

    fn try_from(assigned: v1::UnitAssigned) -> Result<Assignment, Error> {
        let partitions = assigned.partitions.into_iter().map(TryInto::try_into);
        Ok(Assignment {
            unit: UnitEpoch::received(assigned.unit)?,
            partitions: partitions.collect::<Result<_, _>>()?,
            last_step: assigned.last_step,
        })
    }
}

impl TryFrom<v1::AssignedPartition> for AssignedPartition {
    type Error = Error;

    fn try_from(assigned: v1::AssignedPartition) -> Result<AssignedPartition, Error> {
        Ok(AssignedPartition {
            topic: assigned.topic,
            topic_id: assigned.topic_id,
            partition: partition_from(assigned.partition)?,
            committed_offset: assigned.committed_offset.map(offset_from).transpose()?,
            last_epoch: assigned.last_epoch,
            metadata: assigned.metadata,
        })
    }
}

impl From<v1::LostReason> for LostReason {
    fn from(reason: v1::LostReason) -> LostReason {
        match reason {
            v1::LostReason::RevokeTimedOut => LostReason::RevokeTimedOut,
            v1::LostReason::Gone => LostReason::Gone,
            v1::LostReason::Unspecified => LostReason::Unknown,
        }
    }
}
