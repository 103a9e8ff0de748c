//! What a member hears.

use logmill_record::Offset;
use uuid::Uuid;

use crate::error::Error;

/// Something that a member hears.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// The unit is the member's from now on.
    Assigned(Assignment),
    /// The member is to finish with the unit: it commits, and then [confirms](crate::MemberHandle::confirm_revoked). Until
    /// then, or until its rebalance timeout, the unit is its own.
    Revoke {
        /// The unit.
        unit: String,
        /// The epoch of its assignment.
        epoch: i32,
    },
    /// The unit is going to be the member's, which prepares for it and then says [so](crate::MemberHandle::warmed).
    WarmUp {
        /// The unit.
        unit: String,
    },
    /// The unit does not come after all.
    WarmUpCancelled {
        /// The unit.
        unit: String,
    },
    /// The unit was the member's and is not any more: nothing that it commits from now on counts.
    Lost {
        /// The unit.
        unit: String,
        /// The epoch of its assignment.
        epoch: i32,
        /// Why.
        why: LostReason,
    },
    /// It is no member any more, for this reason. Nothing comes after it.
    Closed(Error),
}

/// Why a member has lost a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// It did not confirm that it gives it up within its rebalance timeout.
    RevokeTimedOut,
    /// A topic of the unit was deleted, or the member declares it no more.
    Gone,
}

/// A unit that a member owns.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assignment {
    /// The unit: of a group of topics `topic/partition`.
    pub unit: String,
    /// Which assignment of it this is: whoever owned it before had a smaller one.
    pub epoch: i32,
    /// Its partitions.
    pub partitions: Vec<AssignedPartition>,
    /// The sequence of the last [step](crate::Broker::begin_step) of the unit that was committed; `None` if none was.
    pub last_step: Option<i64>,
}

/// A partition of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AssignedPartition {
    /// The topic's name.
    pub topic: String,
    /// The topic's UUID.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: u32,
    /// Where the group goes on; `None` if nothing was committed for this topic.
    pub committed: Option<CommittedOffset>,
}

/// Where a group goes on in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedOffset {
    /// The offset of the next record to read.
    pub offset: Offset,
    /// The leader epoch of the last batch before it, if it is known.
    pub last_epoch: Option<i32>,
    /// What was said with the commit.
    pub metadata: String,
}
