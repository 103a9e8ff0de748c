//! The stream to the node: what goes out, and what comes.

use std::time::Duration;

use logmill_proto::v1;
use logmill_proto::v1::chunk::Data;
use logmill_proto::v1::consume_request::Request;
use logmill_proto::v1::consume_response::Reply;
use logmill_record::{Batch, Offset};

use super::{Commit, State};
use crate::consumer::unit::Owned;
use crate::consumer::{Assignment, ConsumerEvent, LostReason, UnitRecords};
use crate::convert::partition_from;
use crate::error::in_reply;
use crate::{Error, ErrorKind, PartitionData, UnitEpoch};

impl State {
    /// A stream begins. Gives its number.
    pub(in crate::consumer) fn begin_stream(&mut self) -> u64 {
        self.end_stream();
        self.says_join = true;
        self.stream
    }

    /// Nothing goes out on the present stream any more. What it leaves without an answer is said again on the next one.
    pub(in crate::consumer) fn end_stream(&mut self) {
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
    pub(in crate::consumer) fn next_request(&mut self) -> Option<Request> {
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
    pub(in crate::consumer) fn tick(&mut self) {
        if !self.joined {
            return;
        }
        self.beats = true;
        self.units.values_mut().for_each(|owned| owned.commit_failed = false);
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
    pub(in crate::consumer) fn reply(&mut self, reply: Reply) -> Result<(), Error> {
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
    pub(in crate::consumer) fn stream_ended(&mut self) {
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
        let mut owned = Owned::new(&assignment);
        // In this epoch it may have been the consumer's before, and lost.
        owned.commits_under_way =
            self.commits.values().filter(|commit| commit.unit == assignment.unit).count();
        self.units.insert(assignment.unit.unit.clone(), owned);
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

    pub(super) fn grant(&mut self, bytes: usize) {
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
                Some(error) if commit.answer.is_none() && may_be_tried_again(error) => {
                    owned.not_committed(&commit.offsets);
                    owned.commit_failed = true;
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
    pub(in crate::consumer) fn fail(&mut self, error: Error) {
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
    pub(in crate::consumer) fn report(&mut self, error: Error) {
        self.unreachable.get_or_insert(error);
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
