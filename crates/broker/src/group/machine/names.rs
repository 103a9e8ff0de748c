//! What members, their streams and units are called.

use std::fmt;
use std::sync::Arc;

use crate::topic::TopicPartition;

/// A member of a group. The node makes the id up at the first join, and the client gives it back when it rejoins:
/// whoever has the id is that member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(Arc<str>);

impl MemberId {
    pub(crate) fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of a static member, which the one who runs it names: whoever joins with it succeeds who had it before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InstanceId(Arc<str>);

impl InstanceId {
    pub(crate) fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One stream of a client, among all that the node ever had since its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// A member as it speaks on one stream. What arrives late on a stream that was replaced is known by its connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberStream {
    pub(crate) member: MemberId,
    pub(crate) connection: ConnectionId,
}

/// What is assigned as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum UnitId {
    /// Of a plain group: one partition. People are shown `topic/partition`, with the name from the catalog.
    Partition(TopicPartition),
    /// Of a group of units: one that its members declare, with the partitions in it.
    Named(Arc<str>),
}

/// Which assignment of a unit it is: more with each, and never the same twice under a name. The first is 1, unless something
/// was forgotten before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AssignmentEpoch(pub(crate) i32);

impl AssignmentEpoch {
    /// There was no assignment yet.
    pub(crate) const NONE: Self = Self(0);

    /// The one after it. None after 2³¹ − 1: such a unit is assigned no more, since an epoch that came again would let
    /// commits of a former owner pass.
    pub(crate) fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for AssignmentEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a group is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Members subscribe to topics, and each partition is a unit.
    Plain,
    /// Members declare units, all the same ones.
    Units,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "topics",
            Self::Units => "units",
        })
    }
}
