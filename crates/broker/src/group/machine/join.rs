//! How members come, stay and go.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Group;
use super::action::{Action, CloseWhy};
use super::deadlines::Due;
use super::member::{Member, Presence, Wants};
use super::names::{AssignmentEpoch, ConnectionId, InstanceId, Kind, MemberId, MemberStream, UnitId};
use super::topics::Topic;
use super::unit::Stage;
use crate::topic::TopicPartition;

/// A member that joins, or rejoins.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    pub(crate) member: MemberId,
    pub(crate) connection: ConnectionId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) interest: Interest,
    /// How long it keeps its units without a heartbeat.
    pub(crate) session_timeout: Duration,
    /// How long it may take to confirm a revoke.
    pub(crate) rebalance_timeout: Duration,
    /// Whether it wants to prepare for units before they are taken from their owner.
    pub(crate) warms_up: bool,
}

/// What a member comes for.
#[derive(Clone, Debug)]
pub(crate) enum Interest {
    /// The topics that it subscribes to, each with what the catalog has under that name, if anything. One that is made
    /// later comes with [`Group::topics_changed`].
    Topics(BTreeMap<Arc<str>, Option<Topic>>),
    /// All units of the group, each with its partitions.
    Units(BTreeMap<Arc<str>, Vec<TopicPartition>>),
}

impl Interest {
    fn kind(&self) -> Kind {
        match self {
            Self::Topics(_) => Kind::Plain,
            Self::Units(_) => Kind::Units,
        }
    }

    fn wants(&self) -> Wants {
        match self {
            Self::Topics(topics) => Wants::Topics(topics.keys().cloned().collect()),
            Self::Units(_) => Wants::Units,
        }
    }
}

/// What a member has at its join. Whatever else it may remember to own, it does not any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The units that it owns, by name. Those that it is to give up are among them; the revoke follows as an action.
    pub(crate) held: Vec<(UnitId, AssignmentEpoch)>,
}

/// Why somebody may not join. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JoinError {
    /// The group is divided in another way as long as it has members, or units that were assigned before.
    OtherKind { group: Kind },
    /// The other members declare other units; here is one that differs.
    UnitsDiffer { unit: Arc<str> },
}

/// Why somebody is not heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotMember {
    /// It never was one, or its session ended, or another has its instance id: it has to join again, or to stop.
    Unknown,
    /// The member speaks on another stream by now.
    Replaced,
}

impl fmt::Display for NotMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the group has no such member",
            Self::Replaced => "the member has come on another stream",
        })
    }
}

impl Group {
    /// A member joins, rejoins on another stream, or wants something else.
    ///
    /// * A member that is known keeps what it owns, in the same epochs. Its former stream is closed.
    /// * One that brings the instance id of another takes over all that one had, and no other unit moves for it. The
    ///   other is no member any more; its units get new epochs.
    pub(crate) fn join(&mut self, now: Duration, join: Join) -> Result<Joined, JoinError> {
        self.admit(&join)?;
        self.end_former_stream(&join);
        self.succeed_instance(&join);
        let Join { member, connection, instance, interest, session_timeout, rebalance_timeout, warms_up } =
            join;
        let wants = interest.wants();
        match interest {
            Interest::Topics(topics) => self.learn_topics(topics),
            Interest::Units(units) => self.declare(units),
        }
        let presence = Presence::Connected(connection);
        let joined = Member { presence, instance, wants, session_timeout, rebalance_timeout, warms_up };
        self.members.insert(member.clone(), joined);
        self.deadlines.arm(Due::Session(member.clone()), now.saturating_add(session_timeout));
        self.tell_again(&MemberStream { member: member.clone(), connection });
        self.rebalance(now);
        Ok(Joined { held: self.held_by(&member) })
    }

    /// A heartbeat, which begins the session anew. Everything else that comes from a member is one too.
    pub(crate) fn heartbeat(&mut self, now: Duration, from: &MemberStream) -> Result<(), NotMember> {
        let member = self.speaker(from)?;
        let until = now.saturating_add(member.session_timeout);
        self.deadlines.arm(Due::Session(from.member.clone()), until);
        Ok(())
    }

    /// The member gives up its units, confirmed or not, and is gone.
    pub(crate) fn leave(&mut self, now: Duration, from: &MemberStream) -> Result<(), NotMember> {
        self.speaker(from)?;
        self.remove_member(&from.member);
        self.rebalance(now);
        Ok(())
    }

    /// The stream has ended without a word. The member keeps its units until its session ends, and gets no other; that
    /// a stream was lost is no heartbeat. Nothing happens if the member has come on another stream already.
    pub(crate) fn lost(&mut self, now: Duration, stream: &MemberStream) {
        let Some(member) = self.members.get_mut(&stream.member) else { return };
        if member.presence == Presence::Connected(stream.connection) {
            member.presence = Presence::Lost;
            self.rebalance(now);
        }
    }

    /// The member, if it speaks on its stream.
    pub(super) fn speaker(&self, from: &MemberStream) -> Result<&Member, NotMember> {
        let member = self.members.get(&from.member).ok_or(NotMember::Unknown)?;
        if member.presence == Presence::Connected(from.connection) {
            Ok(member)
        } else {
            Err(NotMember::Replaced)
        }
    }

    fn admit(&self, join: &Join) -> Result<(), JoinError> {
        if let Some(group) = self.kind().filter(|kind| *kind != join.interest.kind()) {
            return Err(JoinError::OtherKind { group });
        }
        let Interest::Units(units) = &join.interest else { return Ok(()) };
        let succeeds = |member: &Member| member.instance.is_some() && member.instance == join.instance;
        let mut others = self.members.iter().filter(|(id, member)| **id != join.member && !succeeds(member));
        if others.any(|(_, member)| !member.is_awaited()) {
            self.same_units(units)?;
        }
        Ok(())
    }

    fn same_units(&self, units: &BTreeMap<Arc<str>, Vec<TopicPartition>>) -> Result<(), JoinError> {
        let declared = || {
            self.units.iter().filter_map(|(id, unit)| match id {
                UnitId::Named(name) => Some((name, unit.declared.as_deref()?)),
                UnitId::Partition(_) => None,
            })
        };
        let missing = declared().map(|(name, _)| name).find(|name| !units.contains_key(*name));
        let differs = || {
            let same = |(name, partitions): (&Arc<str>, &Vec<TopicPartition>)| {
                let unit = self.units.get(&UnitId::Named(Arc::clone(name)));
                unit.and_then(|unit| unit.declared.as_deref()) == Some(partitions.as_slice())
            };
            units.iter().find(|(name, partitions)| !same((name, partitions))).map(|(name, _)| name)
        };
        match missing.or_else(differs) {
            Some(unit) => Err(JoinError::UnitsDiffer { unit: Arc::clone(unit) }),
            None => Ok(()),
        }
    }

    /// Nothing more is told there: what the member has is in the answer to its join. It may also join on the same stream
    /// again, which then goes on.
    fn end_former_stream(&mut self, join: &Join) {
        let Some(member) = self.members.get_mut(&join.member) else { return };
        let former = member.stream(&join.member).filter(|stream| stream.connection != join.connection);
        if let Some(to) = former {
            self.actions.push(Action::Close { to, why: CloseWhy::Replaced });
        }
        member.presence = Presence::Lost;
    }

    /// Who had the instance id is no member any more. What it owned is fenced, and what was meant for it is meant for
    /// the one who has come.
    ///
    /// After a restart it may be several who had it: where one had succeeded another, and that was on disk of some
    /// units only.
    fn succeed_instance(&mut self, join: &Join) {
        let Some(instance) = &join.instance else { return };
        let members = self.members.iter();
        let former = members
            .filter(|(id, member)| **id != join.member && member.instance.as_ref() == Some(instance))
            .map(|(id, member)| (id.clone(), member.stream(id)));
        let former: Vec<(MemberId, Option<MemberStream>)> = former.collect();
        for (former, stream) in former {
            if let Some(to) = stream {
                self.actions.push(Action::Close { to, why: CloseWhy::InstanceTaken });
            }
            self.remove_member(&former);
            for unit in self.units.values_mut().filter(|unit| unit.target.as_ref() == Some(&former)) {
                unit.target = Some(join.member.clone());
            }
        }
    }

    /// Ends what the member owns and what it warms up for. Where units are to go is left to a rebalance.
    pub(super) fn remove_member(&mut self, id: &MemberId) {
        self.members.remove(id);
        self.deadlines.disarm(&Due::Session(id.clone()));
        for (unit_id, unit) in &mut self.units {
            if unit.warming.as_ref().is_some_and(|warming| warming.member == *id) {
                unit.warming = None;
            }
            if unit.is_owned_by(id) {
                Self::release(unit_id, unit, &mut self.deadlines, &mut self.actions);
            }
        }
    }

    /// What was said on a former stream and is not over yet.
    fn tell_again(&mut self, to: &MemberStream) {
        for (id, unit) in &self.units {
            if unit.warming.as_ref().is_some_and(|warming| warming.member == to.member) {
                self.actions.push(Action::WarmUp { to: to.clone(), unit: id.clone() });
            }
            if matches!(&unit.stage, Stage::Owned { member, revoking: true } if *member == to.member) {
                self.actions.push(Action::Revoke { to: to.clone(), unit: id.clone(), epoch: unit.epoch });
            }
        }
    }

    fn held_by(&self, member: &MemberId) -> Vec<(UnitId, AssignmentEpoch)> {
        let owned = self.units.iter().filter(|(_, unit)| unit.is_owned_by(member));
        owned.map(|(id, unit)| (id.clone(), unit.epoch)).collect()
    }
}
