//! What a consumer owns, what waits to be handed out, and what waits to be sent: its decisions, without any I/O.
//!
//! Events go before records. That is safe, because records of a unit that is to be given up, or is lost, are taken back
//! when the event comes.
//!
//! Invariants: `unread_bytes` is what the node has sent against credit that it was not granted anew; a unit is given up
//! once, when its handler has finished with it and no commit of it is under way; records of a partition are handed out in
//! the order of their offsets, each once for an assignment, also where the connection breaks in between.

mod handler;
mod stream;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use logmill_proto::v1;
use logmill_proto::v1::consume_request::Request;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::unit::Owned;
use super::{ConsumerEvent, UnitRecords};
use crate::{Error, ErrorKind, OffsetToCommit, UnitEpoch};

/// Between two commits of the consumer's own: each costs the node a sync, and of two so close the second says what the
/// first did.
const COMMIT_PACE: Duration = Duration::from_millis(10);

/// A node takes so many in one commit unless it is told otherwise (`max_commit_partitions`).
const MOST_OFFSETS: usize = 1_000;

pub(super) type Answer = oneshot::Sender<Result<(), Error>>;

#[derive(Debug)]
pub(super) struct State {
    /// What the consumer joins with.
    join: v1::JoinGroup,
    auto_commit: bool,
    /// The stream whose requests count; those of others end.
    pub(super) stream: u64,
    pub(super) session_timeout: Duration,

    units: BTreeMap<String, Owned>,
    /// Units that were given up, and in which epoch: a node that did not hear of it says them again.
    given_up: BTreeMap<String, i32>,
    events: VecDeque<ConsumerEvent>,
    data: VecDeque<UnitRecords>,
    unread_bytes: usize,
    /// Bytes handed out since the handler asked for more.
    handed_out_bytes: usize,
    /// Revokes that the handler has heard of.
    told: Vec<UnitEpoch>,

    /// The consumer commits nothing by itself before. One time for all units: what goes out together costs one sync.
    paced_until: Option<Instant>,
    commits: HashMap<u64, Commit>,
    last_correlation: u64,

    /// Nothing goes out before, but the join.
    pub(super) joined: bool,
    says_join: bool,
    grants_bytes: usize,
    beats: bool,
    outgoing: VecDeque<Request>,
    /// What is done is committed without waiting for more.
    closing: bool,
    pub(super) leaving: bool,
    /// The node has heard that it leaves.
    pub(super) left: bool,
    pub(super) requests_waker: Option<Waker>,

    /// What the handler has to know before it goes on: a commit of the consumer's own that was refused for good, a
    /// partition that has lost what was read from it.
    trouble: VecDeque<Error>,
    /// The node has not been reached for long, and the handler does not know.
    unreachable: Option<Error>,
    /// Why nothing comes any more, as long as the handler does not know.
    ended: Option<Error>,
    /// Nothing comes any more.
    pub(super) over: bool,
}

#[derive(Debug)]
struct Commit {
    unit: UnitEpoch,
    offsets: Vec<OffsetToCommit>,
    /// Who waits for the answer; nobody for a commit of the consumer's own.
    answer: Option<Answer>,
    /// It went out on a stream that broke before the answer.
    again: bool,
}

impl State {
    pub(super) fn new(join: v1::JoinGroup, auto_commit: bool) -> State {
        State {
            join,
            auto_commit,
            stream: 0,
            session_timeout: Duration::from_secs(30),
            units: BTreeMap::new(),
            given_up: BTreeMap::new(),
            events: VecDeque::new(),
            data: VecDeque::new(),
            unread_bytes: 0,
            handed_out_bytes: 0,
            told: Vec::new(),
            paced_until: None,
            commits: HashMap::new(),
            last_correlation: 0,
            joined: false,
            says_join: false,
            grants_bytes: 0,
            beats: false,
            outgoing: VecDeque::new(),
            closing: false,
            leaving: false,
            left: false,
            requests_waker: None,
            trouble: VecDeque::new(),
            unreachable: None,
            ended: None,
            over: false,
        }
    }

    pub(super) fn member_id(&self) -> &str {
        self.join.member_id.as_deref().unwrap_or_default()
    }

    pub(super) fn is_static(&self) -> bool {
        self.join.instance_id.is_some()
    }
}
impl Commit {
    fn request(&self, correlation_id: u64) -> Option<Request> {
        // Partitions were checked when the commit was asked for.
        let offsets = self.offsets.iter().map(OffsetToCommit::to_proto).collect::<Result<_, _>>().ok()?;
        Some(Request::Commit(v1::CommitOffsets { correlation_id, unit: Some(self.unit.to_proto()), offsets }))
    }
}
pub(super) fn closed() -> Error {
    let message = "the consumer is closed, and commits nothing more: join its group again";
    Error::new(ErrorKind::Closed, "CLOSED", message)
}
#[cfg(test)]
#[path = "tests.rs"]
mod tests;
