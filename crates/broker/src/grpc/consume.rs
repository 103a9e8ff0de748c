//! The streaming rpc of `GroupService`.
//!
//! What the member says is taken beside what it is sent: a member that reads slowly, because its work takes long, still
//! sends heartbeats, commits, and grants. Commits go to the group in the order of the stream, and each is answered
//! when it is on disk. While too much of them is unanswered, because the disk is slow or the member reads no answers,
//! nothing more is read, and HTTP/2's flow control holds the member back.
//!
//! A stream that ends without a word, or with an error, is lost: its member keeps its units until its session ends.

use std::time::Duration;

use bytes::Bytes;
use logmill_proto::v1;
use logmill_proto::v1::consume_request::Request as Sent;
use logmill_proto::v1::consume_response::Reply;
use prost::Message as _;
use tonic::{Status, Streaming};

use super::connection::Connection;
use super::convert::{known, not_negative, number, partition, positive, to_isolation};
use super::encode::Format;
use super::fetch::to_format;
use super::outbox::{Outbox, Replies};
use super::status::with_reason;
use super::transactions::{to_offsets, to_unit};
use super::{Services, pieces};
use crate::budget::{Budget, Permit};
use crate::context::RequestContext;
use crate::error::Error;
use crate::fetch::Credit;
use crate::group::{
    AssignedPartition, Assignment, Consume, ConsumeStart, Consumed, Consumer, DEFAULT_REBALANCE_TIMEOUT,
    DEFAULT_SESSION_TIMEOUT, GroupEvent, GroupInterest, JoinGroup, LostReason, MemberHandle, UnitData,
};
use crate::limits::Limit;
use crate::offsets::OffsetToCommit;

/// What a commit takes besides its bytes until it is answered, and its answer then.
const COMMIT_OVERHEAD_BYTES: usize = 1024;

/// Reads the first message and joins the group.
pub(super) async fn start(
    services: &Services,
    context: &RequestContext,
    connection: Connection,
    mut requests: Streaming<v1::ConsumeRequest>,
) -> Result<Replies, Status> {
    let first = requests.message().await.map_err(with_reason)?.and_then(|message| message.request);
    let Some(Sent::Join(join)) = first else {
        return Err(Error::missing("join", "the first message of a member says which group it joins").into());
    };
    let format = to_format(join.format)?;
    let consume = to_consume(join)?;
    let session_timeout = consume.join.session_timeout;
    let own = connection.replies().clone();
    let consumer = services.broker.consume_within(context, consume, false, own)?;

    let (outbox, replies) = Outbox::new(connection);
    let unanswered = services.broker.core().bounds.budget(Limit::MaxUnansweredBytes);
    let says = Says { handle: consumer.handle().clone(), credit: consumer.credit(), outbox, unanswered };
    let hears = Hears { consumer, format, outbox: says.outbox.clone(), services: services.clone() };
    tokio::spawn(run(says, hears, requests, session_timeout));
    Ok(replies)
}

/// Until one of the two sides ends it.
async fn run(
    says: Says,
    mut hears: Hears,
    requests: Streaming<v1::ConsumeRequest>,
    session_timeout: Duration,
) {
    let stopping = hears.services.stopping.clone();
    let last = tokio::select! {
        last = says.take(requests) => last,
        last = hears.send(session_timeout) => last,
        () = stopping.fired() => Err(Error::closing().into()),
        // The client is gone.
        () = says.outbox.closed() => return,
    };
    // The group hears of it now, and not when the last commit is on disk.
    drop(hears);
    // Every commit that was taken is answered before the stream ends.
    tokio::select! {
        _all = says.unanswered.empty() => {}
        () = says.outbox.closed() => return,
    }
    if let Err(status) = last {
        says.outbox.fail(status).await;
    }
}

/// What the member says.
struct Says {
    handle: MemberHandle,
    credit: Credit,
    outbox: Outbox,
    /// Bytes of commits that are unanswered.
    unanswered: Budget,
}

impl Says {
    /// Takes what the member says, until it leaves or has no more to say.
    async fn take(&self, mut requests: Streaming<v1::ConsumeRequest>) -> Result<(), Status> {
        const RULE: &str = "after the first message of a member, each is one of the others";
        while let Some(message) = requests.message().await.map_err(with_reason)? {
            self.handle.heartbeat()?;
            match message.request {
                Some(Sent::Credit(granted)) => self.credit.grant(positive("bytes", granted.bytes)?),
                Some(Sent::Commit(commit)) => self.commit(commit).await,
                Some(Sent::Heartbeat(v1::Heartbeat {})) => {}
                Some(Sent::Revoked(v1::UnitRevoked { unit })) => {
                    let (unit, epoch) = to_unit(unit)?;
                    self.handle.confirm_revoked(&unit, epoch)?;
                }
                Some(Sent::Warmed(v1::UnitWarmed { unit })) => self.handle.warmed(&unit)?,
                Some(Sent::Leave(v1::LeaveGroup {})) => return Ok(self.handle.leave()?),
                Some(Sent::Join(_)) => return Err(Error::field("join", "sent twice", RULE).into()),
                None => return Err(Error::missing("request", RULE).into()),
            }
        }
        Ok(())
    }

    /// Hands a commit to the group, and its answer to the stream when it is there.
    async fn commit(&self, commit: v1::CommitOffsets) {
        let mut unanswered = self.room().await;
        let offsets = commit.offsets.len() * size_of::<OffsetToCommit>();
        unanswered.keep(COMMIT_OVERHEAD_BYTES + commit.encoded_len() + offsets);
        let v1::CommitOffsets { correlation_id, unit, offsets } = commit;
        let taken = to_unit(unit).and_then(|(unit, epoch)| Ok((unit, epoch, to_offsets(offsets)?)));
        let committed = taken.map(|(unit, epoch, offsets)| self.handle.commit(&unit, epoch, offsets));
        let outbox = self.outbox.clone();
        tokio::spawn(async move {
            let outcome = match committed {
                Ok(committed) => committed.await,
                Err(error) => Err(error),
            };
            let answer = v1::OffsetsCommitted { correlation_id, error: outcome.err().map(Into::into) };
            match to_pieces(Reply::Committed(answer)) {
                Ok(pieces) => outbox.send(pieces).await,
                Err(error) => outbox.fail(error.into()).await,
            }
            drop(unanswered);
        });
    }

    /// Waits until there is room for one commit more, of any size.
    async fn room(&self) -> Permit {
        loop {
            match self.unanswered.take_up_to(COMMIT_OVERHEAD_BYTES) {
                Some(unanswered) => return unanswered,
                None => self.unanswered.room().await,
            }
        }
    }
}

/// What the member hears.
struct Hears {
    consumer: Consumer,
    format: Format,
    outbox: Outbox,
    services: Services,
}

impl Hears {
    /// Sends what there is, until it is no member any more.
    async fn send(&mut self, session_timeout: Duration) -> Result<(), Status> {
        let joined = v1::GroupJoined {
            member_id: self.consumer.id(),
            session_timeout_ms: i32::try_from(session_timeout.as_millis()).unwrap_or(i32::MAX),
        };
        self.outbox.send(to_pieces(Reply::Joined(joined))?).await;
        loop {
            match self.consumer.next().await {
                Consumed::Event(event) => self.outbox.send(to_pieces(to_reply(event)?)?).await,
                Consumed::Data(data) => self.send_data(data).await?,
            }
        }
    }

    async fn send_data(&mut self, data: UnitData) -> Result<(), Error> {
        let UnitData { unit, epoch, data } = data;
        let unit = v1::UnitEpoch { unit, epoch };
        let wrap =
            move |data| to_pieces(Reply::Data(v1::UnitData { unit: Some(unit.clone()), data: Some(data) }));
        let (services, format, credit) = (&self.services, self.format, self.consumer.credit());
        if let Some(error) = self.outbox.send_data(services, data, format, &credit, wrap).await? {
            self.consumer.end_last(error);
        }
        Ok(())
    }
}

fn to_pieces(reply: Reply) -> Result<Vec<Bytes>, Error> {
    pieces::of_consume(v1::ConsumeResponse { reply: Some(reply) })
}

/// What is told of an event; an error if it is the last one.
fn to_reply(event: GroupEvent) -> Result<Reply, Error> {
    Ok(match event {
        GroupEvent::Assigned(assignment) => Reply::Assigned(assignment.into()),
        GroupEvent::Revoke { unit, epoch } => Reply::Revoke(v1::UnitEpoch { unit, epoch }),
        GroupEvent::WarmUp { unit } => Reply::WarmUp(v1::WarmUp { unit }),
        GroupEvent::WarmUpCancelled { unit } => Reply::WarmUpCancelled(v1::WarmUp { unit }),
        GroupEvent::Lost { unit, epoch, why } => {
            let reason = match why {
                LostReason::RevokeTimedOut => v1::LostReason::RevokeTimedOut,
                LostReason::Gone => v1::LostReason::Gone,
            };
            let unit = Some(v1::UnitEpoch { unit, epoch });
            Reply::Lost(v1::UnitLost { unit, reason: reason.into() })
        }
        GroupEvent::Closed(error) => return Err(error),
    })
}

impl From<Assignment> for v1::UnitAssigned {
    fn from(assignment: Assignment) -> Self {
        let Assignment { unit, epoch, partitions, last_step } = assignment;
        let partitions = partitions.into_iter().map(Into::into).collect();
        Self { unit: Some(v1::UnitEpoch { unit, epoch }), partitions, last_step }
    }
}

impl From<AssignedPartition> for v1::AssignedPartition {
    fn from(assigned: AssignedPartition) -> Self {
        let AssignedPartition { topic, topic_id, partition, committed } = assigned;
        Self {
            topic,
            topic_id: topic_id.to_string(),
            partition: number(partition),
            committed_offset: committed.as_ref().map(|committed| committed.offset.into()),
            last_epoch: committed.as_ref().and_then(|committed| committed.last_epoch),
            metadata: committed.map(|committed| committed.metadata).unwrap_or_default(),
        }
    }
}

fn to_consume(join: v1::JoinGroup) -> Result<Consume, Error> {
    let v1::JoinGroup {
        group,
        member_id,
        instance_id,
        topics,
        units,
        session_timeout_ms,
        rebalance_timeout_ms,
        warms_up,
        credit_bytes,
        format: _,
        isolation,
        start,
    } = join;
    let interest = match (topics.is_empty(), units.is_empty()) {
        (_, true) => GroupInterest::Topics(topics),
        (true, false) => GroupInterest::Units(units.into_iter().map(to_declared).collect::<Result<_, _>>()?),
        (false, false) => {
            return Err(Error::field("units", "set beside topics", "a member comes for topics or for units"));
        }
    };
    let timeout = |field, timeout: Option<i32>, default| match timeout {
        Some(timeout_ms) => Ok(Duration::from_millis(not_negative(field, timeout_ms)?)),
        None => Ok(default),
    };
    let join = JoinGroup {
        group,
        member_id,
        instance_id,
        interest,
        session_timeout: timeout("session_timeout_ms", session_timeout_ms, DEFAULT_SESSION_TIMEOUT)?,
        rebalance_timeout: timeout("rebalance_timeout_ms", rebalance_timeout_ms, DEFAULT_REBALANCE_TIMEOUT)?,
        warms_up,
    };
    let start = match start.map(|start| known("start", start)).transpose()? {
        None | Some(v1::position::Edge::Earliest) => ConsumeStart::Earliest,
        Some(v1::position::Edge::Latest) => ConsumeStart::Latest,
        Some(v1::position::Edge::Unspecified) => {
            return Err(Error::missing("start", "it is the earliest or the latest"));
        }
    };
    let credit_bytes = not_negative("credit_bytes", credit_bytes)?;
    Ok(Consume { join, credit_bytes, isolation: to_isolation(isolation)?, start })
}

/// A unit's name and partitions.
fn to_declared(unit: v1::Unit) -> Result<(String, Vec<(String, u32)>), Error> {
    let v1::Unit { name, partitions } = unit;
    let named = |it: v1::TopicPartition| Ok((it.topic, partition(it.partition)?));
    Ok((name, partitions.into_iter().map(named).collect::<Result<_, Error>>()?))
}
