//! A member.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::names::{ConnectionId, InstanceId, Kind, MemberId, MemberStream};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) presence: Presence,
    pub(super) instance: Option<InstanceId>,
    pub(super) wants: Wants,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) warms_up: bool,
}

/// Whether a member can be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Connected(ConnectionId),
    /// Its stream has ended; it may come back.
    Lost,
    /// It owned units before the node restarted, and has not come back yet.
    Awaited,
}

#[derive(Debug)]
pub(super) enum Wants {
    /// Partitions of these topics.
    Topics(BTreeSet<Arc<str>>),
    /// Any of the units that the group's members declare.
    Units,
    /// Nobody knows, since it is awaited.
    Unknown,
}

impl Member {
    /// One that has to come back until its session ends.
    pub(super) fn awaited(instance: Option<InstanceId>, session_timeout: Duration) -> Self {
        Self {
            presence: Presence::Awaited,
            instance,
            wants: Wants::Unknown,
            session_timeout,
            rebalance_timeout: session_timeout,
            warms_up: false,
        }
    }

    /// And for so long at least.
    pub(super) fn is_awaited_for(&mut self, session_timeout: Duration) {
        self.session_timeout = self.session_timeout.max(session_timeout);
    }

    pub(super) fn kind(&self) -> Option<Kind> {
        match self.wants {
            Wants::Topics(_) => Some(Kind::Plain),
            Wants::Units => Some(Kind::Units),
            Wants::Unknown => None,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        matches!(self.presence, Presence::Connected(_))
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.presence == Presence::Awaited
    }

    /// Where to reach it, if at all.
    pub(super) fn stream(&self, id: &MemberId) -> Option<MemberStream> {
        match self.presence {
            Presence::Connected(connection) => Some(MemberStream { member: id.clone(), connection }),
            Presence::Lost | Presence::Awaited => None,
        }
    }
}
