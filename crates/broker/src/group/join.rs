//! How a member comes to a group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::coordinator::Coordinator;
use super::machine::{InstanceId, Interest, Join, JoinError, Kind, MemberId, MemberStream, Topic};
use super::mailbox::{Mailbox, Post};
use super::member::{Member, MemberHandle};
use super::{DEFAULT_REBALANCE_TIMEOUT, DEFAULT_SESSION_TIMEOUT};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::context::RequestContext;
use crate::error::{Error, Reason, shorten};
use crate::limits::Limit;
use crate::names::{check_group, check_text};
use crate::topic::TopicPartition;

/// A member that joins, or rejoins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroup {
    /// The group, which is made if there is none: 1 to 249 bytes without control characters.
    pub group: String,
    /// The id that an earlier join answered, for a member that rejoins: it keeps its units. `None` for a new one.
    pub member_id: Option<String>,
    /// The place of a static member, by a name that whoever runs it chooses: whoever joins with it succeeds who had it
    /// before, and no other unit moves for it.
    pub instance_id: Option<String>,
    /// What it comes for.
    pub interest: GroupInterest,
    /// How long it keeps its units without a heartbeat, from 1 s to 30 min.
    pub session_timeout: Duration,
    /// How long it may take to give up a unit, from 1 s to 30 min.
    pub rebalance_timeout: Duration,
    /// Whether it wants to prepare for units before they are taken from their owner.
    pub warms_up: bool,
}

/// What a member comes for. All members of a group come for the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupInterest {
    /// Partitions of these topics: each is a unit, named `topic/partition`. A topic may be made later.
    Topics(Vec<String>),
    /// Any of these units, each a name and its partitions. All members declare the same.
    Units(Vec<(String, Vec<(String, u32)>)>),
}

impl JoinGroup {
    /// A new member that subscribes to topics, with the defaults for its times.
    #[must_use]
    pub fn topics<T: Into<String>>(group: impl Into<String>, topics: impl IntoIterator<Item = T>) -> Self {
        Self::new(group.into(), GroupInterest::Topics(topics.into_iter().map(Into::into).collect()))
    }

    /// A new member that works on units, with the defaults for its times.
    #[must_use]
    pub fn units(group: impl Into<String>, units: Vec<(String, Vec<(String, u32)>)>) -> Self {
        Self::new(group.into(), GroupInterest::Units(units))
    }

    fn new(group: String, interest: GroupInterest) -> Self {
        Self {
            group,
            member_id: None,
            instance_id: None,
            interest,
            session_timeout: DEFAULT_SESSION_TIMEOUT,
            rebalance_timeout: DEFAULT_REBALANCE_TIMEOUT,
            warms_up: false,
        }
    }
}

impl Broker {
    /// Joins a group, which shares its units among its members: each belongs to one of them at a time, and moves only
    /// when it has to.
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid); [`GroupMismatch`](crate::Reason::GroupMismatch) of a group
    /// that is divided in another way; [`LimitExceeded`](crate::Reason::LimitExceeded) for too many groups or members.
    ///
    /// ```
    /// use logmill_broker::{Broker, Config, CreateTopic, GroupEvent, JoinGroup, OffsetToCommit, RequestContext};
    /// use logmill_log::env::block_on;
    /// use logmill_record::Offset;
    /// # use logmill_broker::{Acks, Payload, Produce, ProduceRecord};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, async {
    ///     broker.create_topic(&context, CreateTopic::new("readings")).await?;
    /// #   let record = ProduceRecord { value: Some("21.5".into()), ..ProduceRecord::default() };
    /// #   let payload = Payload::Records(vec![record]);
    /// #   let (topic, acks) = ("readings".into(), Acks::Durable);
    /// #   broker.produce(&context, Produce { topic, partition: Some(0), payload, acks, sent_at: None }).await?;
    ///     let mut member = broker.join_group(&context, JoinGroup::topics("alarms", ["readings"]))?;
    ///     let GroupEvent::Assigned(mine) = member.next().await else { panic!("it is alone") };
    ///     assert_eq!((&*mine.unit, mine.epoch), ("readings/0", 1));
    ///     // ... reads, and says how far it has come:
    ///     let read = OffsetToCommit::new("readings", 0, Offset(1));
    ///     member.handle().commit(&mine.unit, mine.epoch, vec![read]).await
    /// })?;
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_group(&self, context: &RequestContext, request: JoinGroup) -> Result<Member, Error> {
        self.join(context, request, true)
    }

    /// As [`join_group`](Broker::join_group); one that is not in this process sends heartbeats.
    pub(crate) fn join(
        &self,
        context: &RequestContext,
        request: JoinGroup,
        is_local: bool,
    ) -> Result<Member, Error> {
        let core = self.core();
        core.check_open()?;
        let topics = request.named_topics();
        authorize(context, &Operation::JoinGroup { group: &request.group, topics })?;
        let request = request.checked(core)?;
        let member = match &request.member_id {
            Some(id) => MemberId::new(id.as_str()),
            None => MemberId::new(core.config.env.new_uuid().to_string()),
        };
        let connection = core.groups.next_connection();
        let stream = MemberStream { member: member.clone(), connection };
        let mailbox = Arc::new(Mailbox::new(stream.clone(), is_local));
        let coordinator = loop {
            let coordinator = core.groups.get_or_make(core, &request.group)?;
            match join_coordinator(core, &coordinator, &request, &mailbox) {
                // It was deleted meanwhile: the next one is another.
                Ok(false) => {}
                Ok(true) => break coordinator,
                Err(error) => {
                    core.groups.drop_unused(&coordinator);
                    return Err(error);
                }
            }
        };
        Ok(Member::new(MemberHandle { core: Arc::clone(core), coordinator, stream }, mailbox))
    }
}

/// Joins a group, unless it is gone.
fn join_coordinator(
    core: &Arc<Core>,
    coordinator: &Arc<Coordinator>,
    request: &JoinGroup,
    mailbox: &Arc<Mailbox>,
) -> Result<bool, Error> {
    let MemberStream { member, connection } = mailbox.stream().clone();
    coordinator.update(core, |state, now| {
        if state.is_gone {
            return Ok(false);
        }
        if !state.machine.has_member(&member) {
            let count = state.machine.member_count() + 1;
            let doing = || format!("one member more in group {:?}", request.group);
            let advice = "use more groups, or fewer members";
            core.bounds.check(Limit::MaxGroupMembers, count, doing, advice)?;
        }
        let join = Join {
            member,
            connection,
            instance: request.instance_id.as_deref().map(InstanceId::new),
            // Looked at under the group's lock, so that a topic that comes after it is told.
            interest: request.interest(core)?,
            session_timeout: request.session_timeout,
            rebalance_timeout: request.rebalance_timeout,
            warms_up: request.warms_up,
        };
        let joined = state.machine.join(now, join).map_err(|why| mismatch(&request.group, &why))?;
        for (unit, epoch) in joined.held {
            mailbox.post(Post::Assign(unit, epoch));
        }
        state.mailboxes.insert(connection, Arc::clone(mailbox));
        Ok(true)
    })
}

impl JoinGroup {
    fn named_topics(&self) -> Vec<&str> {
        let topics: BTreeSet<&str> = match &self.interest {
            GroupInterest::Topics(topics) => topics.iter().map(String::as_str).collect(),
            GroupInterest::Units(units) => {
                units.iter().flat_map(|(_, partitions)| partitions).map(|(topic, _)| topic.as_str()).collect()
            }
        };
        topics.into_iter().collect()
    }

    fn checked(self, core: &Core) -> Result<Self, Error> {
        check_group(&self.group)?;
        self.member_id.as_deref().map_or(Ok(()), |id| check_text("member_id", id))?;
        self.instance_id.as_deref().map_or(Ok(()), |id| check_text("instance_id", id))?;
        for (field, time) in
            [("session_timeout_ms", self.session_timeout), ("rebalance_timeout_ms", self.rebalance_timeout)]
        {
            if time < Duration::from_secs(1) || time > Duration::from_secs(30 * 60) {
                return Err(Error::field(field, time.as_millis(), "it is from 1,000 to 1,800,000 ms"));
            }
        }
        let is_empty = match &self.interest {
            GroupInterest::Topics(topics) => topics.is_empty(),
            GroupInterest::Units(units) => units.is_empty(),
        };
        if is_empty {
            return Err(Error::missing("topics", "a member comes for at least one topic or unit"));
        }
        let count = match &self.interest {
            GroupInterest::Topics(topics) => topics.len(),
            GroupInterest::Units(units) => {
                units.len() + units.iter().map(|(_, partitions)| partitions.len()).sum::<usize>()
            }
        };
        let doing = || format!("a member that comes for {count} topics, or units and their partitions");
        core.bounds.check(Limit::MaxJoinUnits, count, doing, "use several groups")?;
        Ok(self)
    }

    fn interest(&self, core: &Core) -> Result<Interest, Error> {
        match &self.interest {
            GroupInterest::Topics(topics) => {
                let known = |name: &String| (name.as_str().into(), core.catalog.topic(name).ok());
                let named: BTreeMap<Arc<str>, _> = topics.iter().map(known).collect();
                let topic = |(name, topic): (Arc<str>, Option<Arc<crate::catalog::TopicState>>)| {
                    (name, topic.map(|topic| Topic::of(&topic)))
                };
                Ok(Interest::Topics(named.into_iter().map(topic).collect()))
            }
            GroupInterest::Units(units) => {
                let mut all = BTreeMap::new();
                for (name, partitions) in units {
                    check_text("units", name)?;
                    if all.insert(Arc::from(name.as_str()), resolve(core, partitions)?).is_some() {
                        return Err(Error::field("units", shorten(name), "each unit is named once"));
                    }
                }
                Ok(Interest::Units(all))
            }
        }
    }
}

fn resolve(core: &Core, partitions: &[(String, u32)]) -> Result<Vec<TopicPartition>, Error> {
    let one = |(topic, partition): &(String, u32)| {
        let topic = core.catalog.topic(topic)?;
        topic.partition(*partition)?;
        Ok(TopicPartition { topic: topic.id, partition: *partition })
    };
    let all: Result<BTreeSet<_>, Error> = partitions.iter().map(one).collect();
    Ok(all?.into_iter().collect())
}

fn mismatch(group: &str, why: &JoinError) -> Error {
    let message = match why {
        JoinError::OtherKind { group: kind } => {
            let other = match kind {
                Kind::Plain => Kind::Units,
                Kind::Units => Kind::Plain,
            };
            format!(
                "group {group:?} is shared by {kind}, but this member joins by {other}: use another group, or delete \
                 this one once its members have left"
            )
        }
        JoinError::UnitsDiffer { unit } => format!(
            "the members of group {group:?} declare other units; one that differs is {unit:?}: all members of a group \
             declare the same, so stop the others first, or use another group"
        ),
    };
    Error::new(Reason::GroupMismatch, message).with("group", group)
}
