//! The state machine of a group: who owns which unit, and what has to happen before that may change.
//!
//! A [`Group`] does nothing by itself. The caller tells it what has happened and when, on a clock that never goes
//! back, and does the [`Action`]s that it takes afterwards. The same calls give the same actions. It calls nobody, so
//! any lock that guards it is a leaf.
//!
//! # Units
//!
//! What is assigned is a *unit*, a set of topic partitions. A group has one of two [`Kind`]s as long as it has members
//! or units that were ever assigned:
//!
//! * In a *plain* group members subscribe to topics. Each partition of each topic is a unit, and goes to those who
//!   subscribe to its topic. Topics are known by their ids: one that was deleted and created again is other units.
//! * In a group of *units* the members declare them by name, each with its partitions. All members that are there
//!   declare the same; a member that is alone can declare other ones when it rejoins. Units that are not declared
//!   any more are kept for their epochs, since the name may come again.
//!
//! # From one owner to the next
//!
//! ```text
//!          warmed                revoked, timeout,                settled              persisted
//!  Owned ─────────> revoking ──────────────────────> Settling ──────────────> Free ─────────────────> Owned
//!        or no warm-up           owner gone         (Settle)          (Persist, a new epoch)   (Assign)
//! ```
//!
//! * **An epoch is used once.** It is taken when the assignment goes to be persisted. If that fails, or its member has
//!   gone meanwhile, it is burnt, because nobody knows what is on disk; the next attempt takes the next.
//! * **No epoch of a name comes again**, also if the topic or the group was deleted and made anew: what is new begins
//!   after the highest epoch of all that was forgotten.
//! * **Nobody hears of an assignment before it is durable**, so that after a restart the same epoch can only be given
//!   to the same member.
//! * **What nobody is going to own is nobody's on disk too**, in an epoch of its own, so that after a restart a member
//!   who has left is not awaited.
//! * **A revoke is finished**, also if the one for whom it was made has gone: the owner may have confirmed already. The
//!   unit then goes to whoever is next, which may be its former owner, in a new epoch. Until it confirms, or
//!   its rebalance timeout passes, it owns the unit and its commits count.
//! * **A warm-up is called off** if the unit goes elsewhere; its owner has noticed nothing. It has no timeout, since
//!   the unit is being worked on. What nobody owns is not warmed up for.
//! * Each unit goes its way alone: a member that confirms nothing stops no other unit.
//!
//! Where units belong is decided in [`balance`], over all units whenever members, what they want, or topics change, and
//! at no other time. A member whose stream is lost keeps its units and gets none. One that is awaited after a
//! restart keeps them and gives none either, since nobody knows what it wants.
//!
//! # Restart
//!
//! The caller keeps the last [`Action::Persist`] of each unit, by epoch, and the highest epoch of an
//! [`Action::Forget`], and hands them to [`Group::restore`]. Members
//! that come back within the session timeout given there find their units in the same epochs; the others' go on.

mod action;
mod balance;
mod change;
mod confirm;
mod deadlines;
mod describe;
mod drive;
mod expire;
mod join;
mod member;
mod names;
mod ownership;
mod rebalance;
mod restore;
#[cfg(test)]
mod tests;
mod topics;
mod unit;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use action::{Action, CloseWhy, LostWhy};
use deadlines::Deadlines;
#[cfg(test)]
use describe::Description;
pub(crate) use describe::{GroupState, MemberDescription, UnitDescription, UnitStatus};
#[cfg(test)]
use join::Joined;
pub(crate) use join::{Interest, Join, JoinError, NotMember};
use member::Member;
pub(crate) use member::Presence;
pub(crate) use names::{AssignmentEpoch, ConnectionId, InstanceId, Kind, MemberId, MemberStream, UnitId};
pub(crate) use ownership::Stale;
pub(crate) use restore::OwnershipRecord;
use topics::Topics;
pub(crate) use topics::{Topic, TopicChange};
use unit::Unit;

/// A group. See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// Also those whose stream is lost, and those that are awaited.
    members: BTreeMap<MemberId, Member>,
    topics: Topics,
    /// What can be assigned, and what ever was.
    units: BTreeMap<UnitId, Unit>,
    /// The highest epoch of any unit that nothing is known of any more. Units that are new begin after it, so that who
    /// had one of the same name is told from whoever has the new one.
    forgotten: AssignmentEpoch,
    deadlines: Deadlines,
    actions: Vec<Action>,
}

impl Group {
    /// What is to be done, in order. To be asked after every call; after a join, what it answered goes to the member
    /// first.
    #[must_use]
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// When to call [`tick`](Self::tick) at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.next()
    }

    /// How it is divided: by what its members want, else by what was assigned before.
    pub(crate) fn kind(&self) -> Option<Kind> {
        let of_member = self.members.values().find_map(Member::kind);
        of_member.or_else(|| {
            self.units.keys().next().map(|unit| match unit {
                UnitId::Partition(_) => Kind::Plain,
                UnitId::Named(_) => Kind::Units,
            })
        })
    }

    /// Whether a join with this id is that of a member which is there already.
    pub(crate) fn has_member(&self, member: &MemberId) -> bool {
        self.members.contains_key(member)
    }

    /// How many members there are, those included that may come back.
    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// How many units are kept, those included that nobody wants now.
    pub(crate) fn unit_count(&self) -> usize {
        self.units.len()
    }
}
