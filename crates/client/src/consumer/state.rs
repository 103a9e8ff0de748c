//! What a consumer owns, what waits to be handed out, and what waits to be sent: its decisions, without any I/O.
//!
//! Events go before records. That is safe, because records of a unit that is to be given up, or is lost, are taken back
//! when the event comes.
//!
//! Invariants: `unread_bytes` is what the node has sent against credit that it was not granted anew; a unit is given up
//! once, when its handler has finished with it and no commit of it is under way; records of a partition are handed out in
//! the order of their offsets, each once for an assignment, also where the connection breaks in between.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use logmill_proto::v1;
use logmill_proto::v1::chunk::Data;
use logmill_proto::v1::consume_request::Request;
use logmill_proto::v1::consume_response::Reply;
use logmill_record::{Batch, Offset};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::unit::Owned;
use super::{Assignment, ConsumerEvent, LostReason, UnitRecords};
use crate::convert::partition_from;
use crate::error::in_reply;
use crate::{Error, ErrorKind, OffsetToCommit, PartitionData, UnitEpoch};

/// Between two commits of the consumer's own for a unit: each costs the node a sync, and of two so close the second says
/// what the first did.
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

/// The stream to the node.
impl State {
    /// A stream begins. Gives its number.
    pub(super) fn begin_stream(&mut self) -> u64 {
        self.end_stream();
        self.says_join = true;
        self.stream
    }

    /// Nothing goes out on the present stream any more. What it leaves without an answer is said again on the next one.
    pub(super) fn end_stream(&mut self) {
        self.stream += 1;
        (self.joined, self.says_join, self.beats) = (false, false, false);
        self.outgoing.clear();
        for owned in self.units.values_mut() {
            owned.confirmed = false;
        }
        let own: Vec<u64> =
            self.commits.iter().filter(|(_, commit)| commit.answer.is_none()).map(|(&id, _)| id).collect();
        for commit in self.commits.values_mut() {
            commit.again = true;
        }
        for id in own {
            let Some(commit) = self.commits.remove(&id) else { continue };
            if let Some(owned) = self.owned(&commit.unit) {
                owned.commits_under_way -= 1;
                owned.not_committed(&commit.offsets);
            }
        }
    }

    /// What goes out next on the present stream.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        if std::mem::take(&mut self.says_join) {
            // What is unread was sent against credit of the stream before.
            let credit = self.join.credit_bytes;
            let unread = i64::try_from(self.unread_bytes).unwrap_or(i64::MAX);
            self.grants_bytes = 0;
            let credit_bytes = credit.saturating_sub(unread).max(0);
            return Some(Request::Join(v1::JoinGroup { credit_bytes, ..self.join.clone() }));
        }
        if !self.joined {
            return None;
        }
        if let Some(request) = self.outgoing.pop_front() {
            return Some(request);
        }
        let bytes = std::mem::take(&mut self.grants_bytes);
        if bytes > 0 && self.join.credit_bytes > 0 {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            return Some(Request::Credit(v1::SubscribeCredit { bytes }));
        }
        std::mem::take(&mut self.beats).then_some(Request::Heartbeat(v1::Heartbeat {}))
    }

    /// Every few seconds: a sign of life, and what has to be tried again.
    pub(super) fn tick(&mut self) {
        if !self.joined {
            return;
        }
        self.beats = true;
        // The node names what is the consumer's at once when it joins: what it has not named is not.
        let expired: Vec<UnitEpoch> = self
            .units
            .iter()
            .filter(|(_, owned)| !owned.confirmed)
            .map(|(unit, owned)| UnitEpoch::new(unit.clone(), owned.epoch))
            .collect();
        for unit in expired {
            self.lose(&unit, LostReason::Expired);
        }
        self.commit_done();
    }

    /// The node has answered.
    pub(super) fn reply(&mut self, reply: Reply) -> Result<(), Error> {
        match reply {
            Reply::Joined(joined) => self.join_again(joined),
            Reply::Assigned(assigned) => self.assign(assigned.try_into()?),
            Reply::Revoke(unit) => self.revoke(UnitEpoch::received(Some(unit))?),
            Reply::Lost(lost) => {
                let why = lost.reason().into();
                self.lose(&UnitEpoch::received(lost.unit)?, why);
            }
            Reply::WarmUp(v1::WarmUp { unit }) => self.events.push_back(ConsumerEvent::WarmUp(unit)),
            Reply::WarmUpCancelled(v1::WarmUp { unit }) => {
                self.events.push_back(ConsumerEvent::WarmUpCancelled(unit));
            }
            Reply::Data(data) => self.accept(data)?,
            Reply::Committed(committed) => self.committed(committed),
        }
        Ok(())
    }

    fn join_again(&mut self, joined: v1::GroupJoined) {
        self.joined = true;
        self.join.member_id = Some(joined.member_id);
        self.session_timeout =
            Duration::from_millis(u64::try_from(joined.session_timeout_ms).unwrap_or(30_000).max(1));
        // Somebody waits for these, whatever became of them the first time.
        let mut again: Vec<(u64, &Commit)> = self.commits.iter().map(|(&id, commit)| (id, commit)).collect();
        again.sort_unstable_by_key(|(id, _)| *id);
        self.outgoing.extend(again.into_iter().filter_map(|(id, commit)| commit.request(id)));
        if self.leaving {
            self.outgoing.push_back(Request::Leave(v1::LeaveGroup {}));
        }
    }

    /// The node has ended the stream without an error, as it does when a member has left.
    pub(super) fn stream_ended(&mut self) {
        self.left = self.leaving;
    }

    fn assign(&mut self, assignment: Assignment) {
        let unit = assignment.unit.clone();
        if self.given_up.get(&unit.unit).is_some_and(|&epoch| epoch >= unit.epoch) {
            return;
        }
        self.given_up.remove(&unit.unit);
        match self.units.get_mut(&unit.unit) {
            Some(owned) if owned.epoch == unit.epoch => owned.confirmed = true,
            Some(owned) => {
                let before = UnitEpoch::new(unit.unit.clone(), owned.epoch);
                self.lose(&before, LostReason::Expired);
                self.begin(assignment);
            }
            None => self.begin(assignment),
        }
        self.commit_done();
    }

    fn begin(&mut self, assignment: Assignment) {
        self.units.insert(assignment.unit.unit.clone(), Owned::new(&assignment));
        self.events.push_back(ConsumerEvent::Assigned(assignment));
    }

    fn revoke(&mut self, unit: UnitEpoch) {
        let Some(owned) = self.owned(&unit) else {
            // The node has not heard that it was given up.
            if self.given_up.get(&unit.unit) == Some(&unit.epoch) {
                self.outgoing.push_back(Request::Revoked(v1::UnitRevoked { unit: Some(unit.to_proto()) }));
            }
            return;
        };
        if std::mem::replace(&mut owned.revoked, true) {
            self.give_up_if_done(&unit);
            return;
        }
        self.take_back(&unit);
        self.events.push_back(ConsumerEvent::Revoke(unit));
    }

    fn lose(&mut self, unit: &UnitEpoch, why: LostReason) {
        if self.owned(unit).is_none() {
            return;
        }
        self.units.remove(&unit.unit);
        self.take_back(unit);
        let is_of = |event: &ConsumerEvent| matches!(event, ConsumerEvent::Revoke(it) if it == unit);
        self.events.retain(|event| !is_of(event));
        self.events.push_back(ConsumerEvent::Lost { unit: unit.clone(), why });
    }

    /// Records of the unit are not handed out any more.
    fn take_back(&mut self, unit: &UnitEpoch) {
        let mut bytes = 0;
        self.data.retain(|records| {
            let keeps = records.unit != *unit;
            bytes += if keeps { 0 } else { records.data.size_bytes() };
            keeps
        });
        self.grant(bytes);
    }

    fn accept(&mut self, sent: v1::UnitData) -> Result<(), Error> {
        let unit = UnitEpoch::received(sent.unit)?;
        let data = sent.data.ok_or_else(|| Error::nonsense("records of a unit that are of no partition"))?;
        let partition = partition_from(data.partition)?;
        let Some(owned) = self.owned(&unit).filter(|owned| !owned.revoked) else {
            return self.leave_out(data);
        };
        let (floor, epoch) = owned.received(&data.topic, partition);
        if let Some(from) = diverges(&data, floor, epoch) {
            return Err(self.take_back_lost(&unit, &data.topic, partition, from));
        }
        let next = Offset::try_from(data.next_offset).unwrap_or_default();
        // After a break the node goes on at what is committed, and some of it has been here already.
        if data.error.is_none() && next <= floor {
            return self.leave_out(data);
        }
        let data = PartitionData::received(data, floor)?;
        if data.error.is_none() {
            owned.set_received(&data.topic, partition, data.next_offset, data.last_epoch);
        }
        self.unread_bytes += data.size_bytes();
        self.data.push_back(UnitRecords { unit, data });
        Ok(())
    }

    /// Records that were received are not in the partition any more, and others have their offsets, from `from` on. The
    /// unit is begun again, at what is committed, on another stream: this error ends the present one.
    fn take_back_lost(&mut self, unit: &UnitEpoch, topic: &str, partition: u32, from: Offset) -> Error {
        self.lose(unit, LostReason::Truncated);
        self.trouble.push_back(truncated(topic, partition, from));
        Error::new(
            ErrorKind::Unavailable,
            "UNAVAILABLE",
            "a partition has lost records, and its unit begins again",
        )
    }

    fn leave_out(&mut self, data: v1::PartitionData) -> Result<(), Error> {
        let bytes = PartitionData::received(data, Offset::ZERO)?.size_bytes();
        self.unread_bytes += bytes;
        self.grant(bytes);
        Ok(())
    }

    fn grant(&mut self, bytes: usize) {
        self.unread_bytes -= bytes;
        self.grants_bytes += bytes;
    }

    fn committed(&mut self, committed: v1::OffsetsCommitted) {
        let Some(commit) = self.commits.remove(&committed.correlation_id) else { return };
        let mut error = committed.error.map(in_reply);
        if commit.again && error.as_ref().is_some_and(|error| error.reason() == "COMMIT_WENT_BACK") {
            // It was on disk, and so is one of those after it.
            error = None;
        }
        if let Some(owned) = self.owned(&commit.unit) {
            owned.commits_under_way -= 1;
            match &error {
                None => owned.committed(&commit.offsets),
                // Tried again at the next tick, or when the handler has done more: not as soon as a good one.
                Some(error) if commit.answer.is_none() && may_be_tried_again(error) => {
                    owned.not_committed(&commit.offsets);
                    owned.paced_until = None;
                }
                Some(_) => {}
            }
        }
        match (commit.answer, error) {
            (Some(answer), error) => {
                // Who asked may have stopped waiting.
                let _ = answer.send(error.map_or(Ok(()), Err));
            }
            (None, Some(error)) if error.reason() == "STALE_ASSIGNMENT" => {
                self.lose(&commit.unit, LostReason::Expired);
            }
            (None, Some(error)) if !may_be_tried_again(&error) => {
                self.trouble.push_back(error);
            }
            (None, Some(_)) => return,
            (None, None) => {}
        }
        self.commit_done();
    }

    /// The error ends the consumer.
    pub(super) fn fail(&mut self, error: Error) {
        self.end_stream();
        self.over = true;
        for commit in std::mem::take(&mut self.commits).into_values() {
            if let Some(answer) = commit.answer {
                let _ = answer.send(Err(error.clone()));
            }
        }
        self.ended = Some(error);
    }

    /// The handler is told that the node cannot be reached, and the consumer goes on trying.
    pub(super) fn report(&mut self, error: Error) {
        self.unreachable.get_or_insert(error);
    }
}

/// The handler.
impl State {
    /// The handler has finished with what it was given.
    pub(super) fn handled(&mut self) {
        let bytes = std::mem::take(&mut self.handed_out_bytes);
        self.grant(bytes);
        for owned in self.units.values_mut() {
            owned.finish_handed_out();
        }
        for unit in std::mem::take(&mut self.told) {
            if let Some(owned) = self.owned(&unit) {
                owned.finished = true;
            }
        }
        self.commit_done();
    }

    pub(super) fn pop(&mut self) -> Option<Result<ConsumerEvent, Error>> {
        if let Some(event) = self.events.pop_front() {
            if let ConsumerEvent::Revoke(unit) = &event {
                self.told.push(unit.clone());
            }
            return Some(Ok(event));
        }
        // Before the records: a handler that is always behind would never hear of it.
        if let Some(error) = self.trouble.pop_front() {
            return Some(Err(error));
        }
        if let Some(records) = self.data.pop_front() {
            self.handed_out_bytes += records.data.size_bytes();
            if records.data.error.is_none()
                && let Some(owned) = self.owned(&records.unit)
            {
                owned.hand_out(OffsetToCommit::from(&records.data));
            }
            return Some(Ok(ConsumerEvent::Records(records)));
        }
        self.unreachable.take().or_else(|| self.ended.take()).map(Err)
    }

    /// Commits by hand.
    pub(super) fn commit(&mut self, unit: UnitEpoch, offsets: Vec<OffsetToCommit>, answer: Answer) {
        if self.over {
            let _ = answer.send(Err(closed()));
            return;
        }
        self.start_commit(unit, offsets, Some(answer));
    }

    pub(super) fn warmed(&mut self, unit: &str) {
        self.outgoing.push_back(Request::Warmed(v1::UnitWarmed { unit: unit.to_owned() }));
    }

    /// Whether nothing is left to commit.
    pub(super) fn is_settled(&self) -> bool {
        let is_dirty = |owned: &Owned| self.auto_commit && owned.has_to_commit();
        self.over || (self.commits.is_empty() && !self.units.values().any(is_dirty))
    }

    /// The handler has finished with everything: what is left is to commit, and to leave.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.handled();
    }

    /// When what is done is to be committed, if something waits for that.
    pub(super) fn commit_due(&self) -> Option<Instant> {
        if !self.auto_commit || !self.joined {
            return None;
        }
        let waits = |owned: &&Owned| owned.may_commit() && owned.has_to_commit();
        self.units.values().filter(waits).filter_map(|owned| owned.paced_until).min()
    }

    /// The last thing that the consumer says.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.outgoing.push_back(Request::Leave(v1::LeaveGroup {}));
    }

    /// Why something that was handed out may come to another member, unless the handler was told.
    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.trouble.pop_front().or_else(|| self.ended.take())
    }

    /// Commits what is done, one commit for a unit at a time and none too soon after another, and gives up what is
    /// finished.
    pub(super) fn commit_done(&mut self) {
        if !self.joined {
            return;
        }
        let now = Instant::now();
        let mut to_commit = Vec::new();
        for (unit, owned) in &mut self.units {
            let is_due = owned.paced_until.is_none_or(|until| until <= now) || owned.finished || self.closing;
            if self.auto_commit && owned.may_commit() && is_due {
                let offsets = owned.take_to_commit();
                if !offsets.is_empty() {
                    owned.paced_until = Some(now + COMMIT_PACE);
                    to_commit.push((UnitEpoch::new(unit.clone(), owned.epoch), offsets));
                }
            }
        }
        for (unit, offsets) in to_commit {
            for part in offsets.chunks(MOST_OFFSETS) {
                self.start_commit(unit.clone(), part.to_vec(), None);
            }
        }
        let finished = self.units.iter().filter(|(_, owned)| owned.finished);
        let finished: Vec<UnitEpoch> =
            finished.map(|(unit, owned)| UnitEpoch::new(unit.clone(), owned.epoch)).collect();
        for unit in finished {
            self.give_up_if_done(&unit);
        }
    }

    fn start_commit(&mut self, unit: UnitEpoch, offsets: Vec<OffsetToCommit>, answer: Option<Answer>) {
        self.last_correlation += 1;
        let id = self.last_correlation;
        let commit = Commit { unit, offsets, answer, again: false };
        match commit.request(id) {
            Some(request) if self.joined => self.outgoing.push_back(request),
            // It goes out when the consumer has joined again.
            _ => {}
        }
        if let Some(owned) = self.owned(&commit.unit) {
            owned.commits_under_way += 1;
        }
        self.commits.insert(id, commit);
    }

    fn give_up_if_done(&mut self, unit: &UnitEpoch) {
        let (auto_commit, joined) = (self.auto_commit, self.joined);
        let Some(owned) = self.owned(unit) else { return };
        let is_dirty = auto_commit && owned.has_to_commit();
        if !joined || !owned.finished || !owned.confirmed || owned.commits_under_way > 0 || is_dirty {
            return;
        }
        self.units.remove(&unit.unit);
        self.given_up.insert(unit.unit.clone(), unit.epoch);
        self.outgoing.push_back(Request::Revoked(v1::UnitRevoked { unit: Some(unit.to_proto()) }));
    }

    fn owned(&mut self, unit: &UnitEpoch) -> Option<&mut Owned> {
        self.units.get_mut(&unit.unit).filter(|owned| owned.epoch == unit.epoch)
    }
}

impl Commit {
    fn request(&self, correlation_id: u64) -> Option<Request> {
        // Partitions were checked when the commit was asked for.
        let offsets = self.offsets.iter().map(OffsetToCommit::to_proto).collect::<Result<_, _>>().ok()?;
        Some(Request::Commit(v1::CommitOffsets { correlation_id, unit: Some(self.unit.to_proto()), offsets }))
    }
}

/// Where records begin that others stood in for when they were received before: below `floor`, up to which they came
/// with `epoch`, a later leader epoch cannot be unless the partition has lost some.
fn diverges(data: &v1::PartitionData, floor: Offset, epoch: Option<i32>) -> Option<Offset> {
    let epoch =
        epoch.filter(|&epoch| data.error.is_none() && data.last_epoch.is_some_and(|last| last > epoch))?;
    let runs = data.chunks.iter().filter_map(|chunk| match &chunk.data {
        Some(Data::Batches(run)) => Some(run.clone()),
        _ => None,
    });
    let mut batches =
        runs.flat_map(|mut run| std::iter::from_fn(move || Batch::split_from(&mut run).ok().flatten()));
    let newer = |batch: &Batch| {
        let header = batch.header();
        header.base_offset < floor && header.leader_epoch > epoch
    };
    batches.find(newer).map(|batch| batch.header().base_offset)
}

fn truncated(topic: &str, partition: u32, from: Offset) -> Error {
    let message = format!(
        "partition {partition} of topic {topic} has lost records that were read from it, from offset {from} on, and has \
         others there: take back what came of those; the unit begins again at what is committed"
    );
    let metadata = [("topic", topic.to_owned()), ("partition", partition.to_string())];
    let diverging = [("diverging_offset", from.to_string())];
    Error::new(ErrorKind::Truncated, "LOG_TRUNCATED", message)
        .with_metadata(metadata.into_iter().chain(diverging))
}

/// Now, or after the consumer has joined again.
fn may_be_tried_again(error: &Error) -> bool {
    error.kind().is_retriable()
        || error.kind() == ErrorKind::OutcomeUnknown
        || error.reason() == "MEMBER_UNKNOWN"
}

pub(super) fn closed() -> Error {
    let message = "the consumer is closed, and commits nothing more: join its group again";
    Error::new(ErrorKind::Closed, "CLOSED", message)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
