//! A member's end of a group: what it hears, and what it says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use logmill_record::Offset;
use parking_lot::Mutex;
use uuid::Uuid;

use super::cell::Cell;
use super::hold::name_of;
use super::machine::{
    CloseWhy, InstanceId, Interest, Join, JoinError, LostWhy, MemberId, MemberStream, NotMember, Topic,
    TopicPartition, UnitEpoch, UnitId,
};
use super::{DEFAULT_REBALANCE_TIMEOUT, DEFAULT_SESSION_TIMEOUT};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::context::RequestContext;
use crate::error::{Error, Reason, shorten};
use crate::limits::Limit;
use crate::names::{check_group, check_text};

/// A member that comes, or comes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroup {
    /// The group, which is made if there is none: 1 to 249 bytes without control characters.
    pub group: String,
    /// The id that an earlier join answered, for a member that comes again: it keeps its units. `None` for a new one.
    pub member_id: Option<String>,
    /// The place of a static member, by a name that whoever runs it chooses: whoever joins with it succeeds who had it
    /// before, and no other unit moves for it.
    pub instance_id: Option<String>,
    /// What it comes for.
    pub interest: GroupInterest,
    /// How long it keeps its units without a sign of life, from 1 s to 30 min.
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

/// Something that a member hears.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GroupEvent {
    /// The unit is the member's from now on.
    Assigned(Assignment),
    /// The member is to finish with the unit: it commits, and then [confirms](MemberHandle::confirm_revoked). Until
    /// then, or until its rebalance time-out, the unit is its own.
    Revoke {
        /// The unit.
        unit: String,
        /// The epoch of its assignment.
        epoch: i32,
    },
    /// The unit is going to be the member's, which prepares for it and then says [so](MemberHandle::warmed).
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
        why: LostUnit,
    },
    /// It is no member any more, for this reason. Nothing comes after it.
    Closed(Error),
}

/// Why a member has lost a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostUnit {
    /// It did not confirm that it gives it up within its rebalance time-out.
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
    /// The sequence of the last [step](Broker::begin_step) of the unit that was committed; `None` if none was.
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

/// A member of a group, in this process: see [`Broker::join_group`]. As long as it lives it needs no other sign of
/// life; dropped, it may [come again](JoinGroup::member_id) within its session time-out and keeps its units.
#[derive(Debug)]
pub struct Member {
    handle: MemberHandle,
    mailbox: Arc<Mailbox>,
    /// What its units were called when they were assigned: a topic that is gone has no name any more.
    named: BTreeMap<UnitId, String>,
}

/// What a member says. A clone is the same member.
#[derive(Clone, Debug)]
pub struct MemberHandle {
    pub(super) core: Arc<Core>,
    pub(super) cell: Arc<Cell>,
    pub(super) stream: MemberStream,
}

/// What is on its way to a member.
#[derive(Debug)]
pub(super) struct Mailbox {
    stream: MemberStream,
    /// It lives as long as its handle in this process.
    is_local: bool,
    state: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    posts: VecDeque<Post>,
    waker: Option<Waker>,
}

/// What the machine has to say to a member.
#[derive(Clone, Debug)]
pub(super) enum Post {
    Assign(UnitId, UnitEpoch),
    Revoke(UnitId, UnitEpoch),
    WarmUp(UnitId),
    CancelWarmUp(UnitId),
    Lost(UnitId, UnitEpoch, LostWhy),
    Close(CloseWhy),
}

impl Post {
    fn unit(&self) -> Option<&UnitId> {
        match self {
            Self::Assign(unit, _)
            | Self::Revoke(unit, _)
            | Self::WarmUp(unit)
            | Self::CancelWarmUp(unit)
            | Self::Lost(unit, _, _) => Some(unit),
            Self::Close(_) => None,
        }
    }

    /// Whether `self`, which was not heard yet, need not be heard, since it is over with `later`.
    fn is_over_with(&self, later: &Self) -> bool {
        match (self, later) {
            (Self::WarmUp(before), Self::CancelWarmUp(unit)) => before == unit,
            (Self::Assign(before, of) | Self::Revoke(before, of), Self::Lost(unit, epoch, _)) => {
                before == unit && of == epoch
            }
            _ => false,
        }
    }

    /// Whether it means something only to those who heard of what it ends.
    fn is_nothing_without(&self, before: &Self) -> bool {
        matches!(before, Self::WarmUp(_) | Self::Assign(..)) && before.is_over_with(self)
    }
}

impl Letters {
    /// As the last one. What is over before it was heard of is forgotten with what says so: a member that hears nothing
    /// is owed a few of them for each unit, however often that comes and goes.
    fn push(&mut self, post: Post) {
        let mut was_heard_of = true;
        if matches!(post, Post::CancelWarmUp(_) | Post::Lost(..)) {
            self.posts.retain(|before| {
                was_heard_of &= !post.is_nothing_without(before);
                !before.is_over_with(&post)
            });
        }
        if was_heard_of {
            self.posts.push_back(post);
        }
    }
}

impl Mailbox {
    pub(super) fn post(&self, post: Post) {
        let waker = {
            let mut letters = self.state.lock();
            letters.push(post);
            letters.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Its stream, if it needs no heartbeat.
    pub(super) fn local(&self) -> Option<MemberStream> {
        self.is_local.then(|| self.stream.clone())
    }

    fn next(&self) -> impl Future<Output = Post> + '_ {
        poll_fn(|context| {
            let mut letters = self.state.lock();
            if let Some(post) = letters.posts.pop_front() {
                return Poll::Ready(post);
            }
            letters.waker = Some(context.waker().clone());
            Poll::Pending
        })
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

    /// As [`join_group`](Broker::join_group); one that is not in this process gives signs of life.
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
        let mailbox = Arc::new(Mailbox { stream: stream.clone(), is_local, state: Mutex::default() });
        let cell = loop {
            let cell = core.groups.get_or_make(core, &request.group)?;
            match join_cell(core, &cell, &request, &mailbox) {
                // It was deleted meanwhile: the next one is another.
                Ok(false) => {}
                Ok(true) => break cell,
                Err(error) => {
                    core.groups.drop_unused(&cell);
                    return Err(error);
                }
            }
        };
        let handle = MemberHandle { core: Arc::clone(core), cell, stream };
        Ok(Member { handle, mailbox, named: BTreeMap::new() })
    }
}

/// Joins a group, unless it is gone.
fn join_cell(
    core: &Arc<Core>,
    cell: &Arc<Cell>,
    request: &JoinGroup,
    mailbox: &Arc<Mailbox>,
) -> Result<bool, Error> {
    let MemberStream { member, connection } = mailbox.stream.clone();
    cell.tell(core, |state, now| {
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
        JoinError::OtherKind { group: kind } => format!(
            "the group {group:?} is divided by {kind}, and this member comes for something else: use another group, or \
             delete this one when its members have left"
        ),
        JoinError::UnitsDiffer { unit } => format!(
            "the members of group {group:?} declare other units; one that differs is {unit:?}: all members of a group \
             declare the same, so stop the others first, or use another group"
        ),
    };
    Error::new(Reason::GroupMismatch, message).with("group", group)
}

impl Member {
    /// The member's id, to come again with.
    #[must_use]
    pub fn id(&self) -> String {
        self.handle.stream.member.to_string()
    }

    /// What it says; also while [`next`](Member::next) waits.
    #[must_use]
    pub fn handle(&self) -> &MemberHandle {
        &self.handle
    }

    /// Waits for the next thing to hear. Dropping the future loses nothing.
    pub async fn next(&mut self) -> GroupEvent {
        match self.post().await {
            Some(post) => self.hear(post),
            None => GroupEvent::Closed(Error::closing()),
        }
    }

    /// The next post; `None` when the broker closes.
    async fn post(&self) -> Option<Post> {
        let mut closed = std::pin::pin!(self.handle.core.closing.fired());
        let mut post = std::pin::pin!(self.mailbox.next());
        poll_fn(|context| {
            if let Poll::Ready(post) = post.as_mut().poll(context) {
                return Poll::Ready(Some(post));
            }
            closed.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    fn hear(&mut self, post: Post) -> GroupEvent {
        let named = post.unit().map(|unit| match self.named.get(unit) {
            Some(name) if !matches!(post, Post::Assign(..)) => name.clone(),
            _ => name_of(&self.handle.core, unit),
        });
        let name = named.unwrap_or_default();
        match &post {
            Post::Assign(unit, _) => _ = self.named.insert(unit.clone(), name.clone()),
            Post::Lost(unit, ..) => _ = self.named.remove(unit),
            _ => {}
        }
        self.handle.event(post, name)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let MemberHandle { core, cell, stream } = &self.handle;
        cell.tell(core, |state, now| {
            state.mailboxes.remove(&stream.connection);
            state.machine.lost(now, stream);
        });
    }
}

impl MemberHandle {
    /// A sign of life, for a member that is not in this process.
    ///
    /// # Errors
    /// [`MemberUnknown`](crate::Reason::MemberUnknown): it has to join again.
    pub fn heartbeat(&self) -> Result<(), Error> {
        self.say(|state, now| state.machine.heartbeat(now, &self.stream))
    }

    /// The member has finished with a unit that it was told to give up.
    ///
    /// # Errors
    /// As [`heartbeat`](MemberHandle::heartbeat).
    pub fn confirm_revoked(&self, unit: &str, epoch: i32) -> Result<(), Error> {
        self.say(|state, now| match state.unit_id(&self.core, unit) {
            Some(id) => state.machine.revoked(now, &self.stream, &id, UnitEpoch(epoch)),
            None => Ok(()),
        })
    }

    /// The member is ready for a unit that it was told to prepare for.
    ///
    /// # Errors
    /// As [`heartbeat`](MemberHandle::heartbeat).
    pub fn warmed(&self, unit: &str) -> Result<(), Error> {
        self.say(|state, now| match state.unit_id(&self.core, unit) {
            Some(id) => state.machine.warmed(now, &self.stream, &id),
            None => Ok(()),
        })
    }

    /// The member gives up all that it has, and is none any more.
    ///
    /// # Errors
    /// As [`heartbeat`](MemberHandle::heartbeat).
    pub fn leave(&self) -> Result<(), Error> {
        self.say(|state, now| state.machine.leave(now, &self.stream))
    }

    fn say(
        &self,
        what: impl FnOnce(&mut super::cell::State, Duration) -> Result<(), NotMember>,
    ) -> Result<(), Error> {
        let told = self.cell.tell(&self.core, what);
        told.map_err(|why| {
            let message = format!(
                "the member {:?} of group {:?} is not heard: {why}; join again, and go on with what is assigned then",
                self.stream.member.to_string(),
                self.cell.name
            );
            Error::new(Reason::MemberUnknown, message).with("group", &self.cell.name)
        })
    }

    /// What a post says of the unit that is called so.
    fn event(&self, post: Post, unit: String) -> GroupEvent {
        match post {
            Post::Assign(id, epoch) => GroupEvent::Assigned(self.assignment(&id, unit, epoch)),
            Post::Revoke(_, epoch) => GroupEvent::Revoke { unit, epoch: epoch.0 },
            Post::WarmUp(_) => GroupEvent::WarmUp { unit },
            Post::CancelWarmUp(_) => GroupEvent::WarmUpCancelled { unit },
            Post::Lost(_, epoch, why) => {
                let why = match why {
                    LostWhy::RevokeTimedOut => LostUnit::RevokeTimedOut,
                    LostWhy::Gone => LostUnit::Gone,
                };
                GroupEvent::Lost { unit, epoch: epoch.0, why }
            }
            Post::Close(why) => GroupEvent::Closed(self.closed(why)),
        }
    }

    fn assignment(&self, unit: &UnitId, name: String, epoch: UnitEpoch) -> Assignment {
        let partitions = self.cell.state.lock().machine.partitions_of(unit).to_vec();
        let assigned = |TopicPartition { topic: id, partition }: &TopicPartition| {
            let topic = self.core.catalog.name_of(*id)?;
            let committed = self.core.offsets.get(&self.cell.name, &topic, *partition);
            let committed = committed.filter(|committed| committed.topic_id == *id);
            Some(AssignedPartition {
                topic,
                topic_id: *id,
                partition: *partition,
                committed: committed.map(|it| CommittedOffset {
                    offset: it.offset,
                    last_epoch: it.last_epoch,
                    metadata: it.metadata,
                }),
            })
        };
        Assignment {
            partitions: partitions.iter().filter_map(assigned).collect(),
            last_step: self.core.transactions.last_step(&self.cell.name, &name),
            unit: name,
            epoch: epoch.0,
        }
    }

    fn closed(&self, why: CloseWhy) -> Error {
        let (member, group) = (self.stream.member.to_string(), &self.cell.name);
        let message = match why {
            CloseWhy::Replaced => {
                format!(
                    "the member {member:?} of group {group:?} has come on another stream, and this one ends"
                )
            }
            CloseWhy::InstanceTaken => format!(
                "another member of group {group:?} has come with the instance id of {member:?}: give each process an \
                 instance id of its own, and do not join again before"
            ),
            CloseWhy::Expired => format!(
                "nothing was heard of the member {member:?} of group {group:?} for its session time-out, and its units \
                 went to others: join again"
            ),
        };
        Error::new(Reason::MemberUnknown, message).with("group", group)
    }
}
