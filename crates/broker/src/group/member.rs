//! A member's end of a group: it hears, and it speaks.

use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::coordinator::{Coordinator, State};
use super::event::{AssignedPartition, Assignment, CommittedOffset, GroupEvent, LostReason};
use super::hold::name_of;
use super::machine::{AssignmentEpoch, CloseWhy, LostWhy, MemberStream, NotMember, UnitId};
use super::mailbox::{Mailbox, Post};
use crate::broker::Core;
use crate::error::{Error, Reason};
use crate::topic::TopicPartition;

/// A member of a group, in this process: see [`Broker::join_group`](crate::Broker::join_group). As long as it lives it
/// needs no heartbeat; dropped, it may [rejoin](crate::JoinGroup::member_id) within its session timeout and keeps its
/// units.
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
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) stream: MemberStream,
}

impl Member {
    pub(super) fn new(handle: MemberHandle, mailbox: Arc<Mailbox>) -> Self {
        Self { handle, mailbox, named: BTreeMap::new() }
    }

    /// The member's id, to rejoin with.
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
        let mut closed = pin!(self.handle.core.closing.fired());
        let mut post = pin!(self.mailbox.next());
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
        let MemberHandle { core, coordinator, stream } = &self.handle;
        coordinator.update(core, |state, now| {
            state.mailboxes.remove(&stream.connection);
            state.machine.lost(now, stream);
        });
    }
}

impl MemberHandle {
    /// A heartbeat, for a member that is not in this process.
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
            Some(id) => state.machine.revoked(now, &self.stream, &id, AssignmentEpoch(epoch)),
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

    fn say(&self, what: impl FnOnce(&mut State, Duration) -> Result<(), NotMember>) -> Result<(), Error> {
        let result = self.coordinator.update(&self.core, what);
        result.map_err(|why| {
            let message = format!(
                "the request of member {:?} of group {:?} was refused: {why}; join again and continue from what is \
                 assigned then",
                self.stream.member.to_string(),
                self.coordinator.name
            );
            Error::new(Reason::MemberUnknown, message).with("group", &self.coordinator.name)
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
                    LostWhy::RevokeTimedOut => LostReason::RevokeTimedOut,
                    LostWhy::Gone => LostReason::Gone,
                };
                GroupEvent::Lost { unit, epoch: epoch.0, why }
            }
            Post::Close(why) => GroupEvent::Closed(self.closed(why)),
        }
    }

    fn assignment(&self, unit: &UnitId, name: String, epoch: AssignmentEpoch) -> Assignment {
        // First: a step that ends in between makes the offsets newer, and what is done over is refused by its number.
        let last_step = self.core.transactions.last_step(&self.coordinator.name, &name);
        let partitions = self.coordinator.state.lock().machine.partitions_of(unit);
        let assigned = |TopicPartition { topic: id, partition }: &TopicPartition| {
            let topic = self.core.catalog.name_of(*id)?;
            let committed = self.core.offsets.get(&self.coordinator.name, &topic, *partition);
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
            last_step,
            unit: name,
            epoch: epoch.0,
        }
    }

    fn closed(&self, why: CloseWhy) -> Error {
        let (member, group) = (self.stream.member.to_string(), &self.coordinator.name);
        let message = match why {
            CloseWhy::Replaced => {
                format!(
                    "the member {member:?} of group {group:?} has come on another stream, and this one ends"
                )
            }
            CloseWhy::InstanceTaken => format!(
                "another process joined group {group:?} with the instance id of member {member:?}: give each process \
                 its own, then join again"
            ),
            CloseWhy::Expired => format!(
                "nothing was heard of the member {member:?} of group {group:?} for its session timeout, and its units \
                 went to others: join again"
            ),
        };
        Error::new(Reason::MemberUnknown, message).with("group", group)
    }
}
