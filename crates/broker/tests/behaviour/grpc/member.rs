//! A member of a group on its stream, as tests have it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use v1::consume_request::Request as Sent;
use v1::consume_response::Reply;

use super::*;

/// The shortest that there is.
const SESSION_MS: i32 = 1_000;
const PLENTY: i64 = 1 << 40;

/// A member on its stream.
pub(super) struct Member {
    pub(super) requests: mpsc::Sender<v1::ConsumeRequest>,
    replies: Streaming<v1::ConsumeResponse>,
    /// Those that came while another was waited for.
    waiting: VecDeque<Reply>,
    pub(super) id: String,
}

pub(super) fn topics(group: &str, topics: &[&str]) -> v1::JoinGroup {
    v1::JoinGroup {
        group: group.into(),
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        credit_bytes: PLENTY,
        ..v1::JoinGroup::default()
    }
}

/// One that is not waited for for long.
pub(super) fn short_lived() -> v1::JoinGroup {
    v1::JoinGroup { session_timeout_ms: Some(SESSION_MS), ..topics("g", &["t"]) }
}

impl Member {
    pub(super) async fn join(channel: &Channel, join: v1::JoinGroup) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(1_000);
        requests.send(v1::ConsumeRequest { request: Some(Sent::Join(join)) }).await.unwrap();
        let replies = Groups::new(channel.clone()).consume(ReceiverStream::new(outgoing)).await?;
        let (replies, waiting) = (replies.into_inner(), VecDeque::new());
        let mut member = Self { requests, replies, waiting, id: String::new() };
        match member.next().await? {
            Reply::Joined(joined) => member.id = joined.member_id,
            other => panic!("the first reply is {other:?}"),
        }
        Ok(member)
    }

    pub(super) async fn say(&self, request: Sent) {
        self.requests.send(v1::ConsumeRequest { request: Some(request) }).await.unwrap();
    }

    /// Says so from now on, until its stream has ended.
    pub(super) fn lives(&self) {
        let requests = self.requests.downgrade();
        tokio::spawn(async move {
            while let Some(requests) = requests.upgrade() {
                let heartbeat = v1::ConsumeRequest { request: Some(Sent::Heartbeat(v1::Heartbeat {})) };
                if requests.send(heartbeat).await.is_err() {
                    return;
                }
                drop(requests);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    pub(super) async fn next(&mut self) -> Result<Reply, Status> {
        if let Some(reply) = self.waiting.pop_front() {
            return Ok(reply);
        }
        match self.replies.message().await? {
            Some(reply) => Ok(reply.reply.unwrap()),
            None => Err(Status::ok("the stream has ended")),
        }
    }

    /// Why the stream has ended.
    pub(super) async fn end(mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    /// The first reply that is wanted; the others wait.
    pub(super) async fn find<T>(&mut self, wanted: impl Fn(&Reply) -> Option<T>) -> T {
        let mut aside = VecDeque::new();
        loop {
            let reply = self.next().await.unwrap();
            if let Some(found) = wanted(&reply) {
                aside.append(&mut self.waiting);
                self.waiting = aside;
                return found;
            }
            aside.push_back(reply);
        }
    }

    pub(super) async fn assigned(&mut self) -> v1::UnitAssigned {
        let assigned = |reply: &Reply| match reply {
            Reply::Assigned(assigned) => Some(assigned.clone()),
            _ => None,
        };
        self.find(assigned).await
    }

    pub(super) async fn data(&mut self) -> v1::UnitData {
        let data = |reply: &Reply| match reply {
            Reply::Data(data) => Some(data.clone()),
            _ => None,
        };
        self.find(data).await
    }

    /// Commits for the only partition of a unit, and waits for the answer.
    pub(super) async fn commit(&mut self, unit: &v1::UnitEpoch, offset: i64) -> Option<v1::Error> {
        self.say(Sent::Commit(commit(7, unit, offset))).await;
        let answer = |reply: &Reply| match reply {
            Reply::Committed(answer) => Some(answer.clone()),
            _ => None,
        };
        let answer = self.find(answer).await;
        assert_eq!(answer.correlation_id, 7);
        answer.error
    }
}

pub(super) fn commit(correlation_id: u64, unit: &v1::UnitEpoch, offset: i64) -> v1::CommitOffsets {
    let (topic, partition) = unit.unit.rsplit_once('/').unwrap();
    let partition = partition.parse().unwrap();
    let offset = v1::OffsetToCommit { topic: topic.into(), partition, offset, ..Default::default() };
    v1::CommitOffsets { correlation_id, unit: Some(unit.clone()), offsets: vec![offset] }
}

pub(super) fn unit_of(assigned: &v1::UnitAssigned) -> v1::UnitEpoch {
    assigned.unit.clone().unwrap()
}

/// Offsets and values.
pub(super) fn records_in(data: &v1::UnitData) -> Vec<(i64, String)> {
    let data = data.data.as_ref().unwrap();
    assert_eq!(data.error, None);
    let records = data.chunks.iter().flat_map(|chunk| match &chunk.data {
        Some(v1::chunk::Data::Records(records)) => records.records.clone(),
        other => panic!("{other:?}"),
    });
    let text = |value: Option<bytes::Bytes>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    records.map(|record| (record.offset, text(record.value))).collect()
}
