//! What a consumer does with what a node says, without a node.

use bytes::Bytes;
use logmill_proto::v1::chunk::Data;
use logmill_proto::v1::consume_response::Reply;
use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};
use tokio::time::Instant;
use tonic::Code;

use super::*;

const CREDIT: i64 = 1_000_000;

fn state(auto_commit: bool) -> State {
    let join = v1::JoinGroup { group: "g".into(), credit_bytes: CREDIT, ..v1::JoinGroup::default() };
    let mut state = State::new(join, auto_commit);
    rejoin(&mut state);
    state
}

/// A stream begins, and the node says `joined`; gives the credit that was asked for.
fn rejoin(state: &mut State) -> i64 {
    state.begin_stream();
    let Some(Request::Join(join)) = state.next_request() else { panic!("it joins first") };
    assert!(state.next_request().is_none(), "nothing goes out before it is joined");
    let joined = v1::GroupJoined { member_id: "m".into(), session_timeout_ms: 30_000 };
    state.reply(Reply::Joined(joined)).unwrap();
    join.credit_bytes
}

fn unit(epoch: i32) -> v1::UnitEpoch {
    v1::UnitEpoch { unit: "t/0".into(), epoch }
}

fn assign(state: &mut State, epoch: i32, committed: Option<i64>) {
    let partition = v1::AssignedPartition {
        topic: "t".into(),
        committed_offset: committed,
        ..v1::AssignedPartition::default()
    };
    let assigned = v1::UnitAssigned { unit: Some(unit(epoch)), partitions: vec![partition], last_step: None };
    state.reply(Reply::Assigned(assigned)).unwrap();
}

/// Records with these offsets; gives their bytes.
fn data(state: &mut State, epoch: i32, offsets: std::ops::Range<u64>) -> usize {
    data_of(state, epoch, &[(offsets, 1)]).unwrap()
}

/// Records with these offsets, each run of them appended in a leader epoch; gives their bytes.
fn data_of(state: &mut State, epoch: i32, runs: &[(std::ops::Range<u64>, i32)]) -> Result<usize, Error> {
    let mut run = Vec::new();
    let appended =
        runs.iter().flat_map(|(offsets, leader)| offsets.clone().map(move |offset| (offset, *leader)));
    for (offset, leader) in appended {
        let mut builder = BatchBuilder::new();
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(b"v"), headers: &[] };
        builder.push(&record).unwrap();
        let batch = builder.build().unwrap();
        let prefix = logmill_record::stamped_prefix(batch.header(), Offset(offset), leader);
        run.extend_from_slice(&prefix);
        run.extend_from_slice(&batch.bytes()[prefix.len()..]);
    }
    let bytes = run.len();
    let chunk = v1::Chunk {
        appended_at_ms: 1,
        appended_at_estimated: false,
        data: Some(Data::Batches(Bytes::from(run))),
    };
    let (last, leader) = runs.last().unwrap();
    let end = i64::try_from(last.end).unwrap();
    let data = v1::PartitionData {
        topic: "t".into(),
        end_offset: end,
        next_offset: end,
        last_stable_offset: end,
        last_epoch: Some(*leader),
        chunks: vec![chunk],
        ..v1::PartitionData::default()
    };
    state.reply(Reply::Data(v1::UnitData { unit: Some(unit(epoch)), data: Some(data) }))?;
    Ok(bytes)
}

/// What the handler is given next, in a few words.
fn handed_out(state: &mut State) -> Option<String> {
    Some(match state.pop()? {
        Ok(ConsumerEvent::Assigned(assignment)) => format!("assigned {}", assignment.unit.epoch),
        Ok(ConsumerEvent::Records(records)) => {
            let offsets: Vec<String> =
                records.data.records().map(|record| record.unwrap().offset.to_string()).collect();
            offsets.join(" ")
        }
        Ok(ConsumerEvent::Revoke(unit)) => format!("revoke {}", unit.epoch),
        Ok(ConsumerEvent::Lost { unit, why }) => format!("lost {}: {why:?}", unit.epoch),
        Ok(other) => format!("{other:?}"),
        Err(error) => error.reason().to_owned(),
    })
}

/// What goes out, in a few words.
fn said(state: &mut State) -> Vec<String> {
    std::iter::from_fn(|| state.next_request())
        .map(|request| match request {
            Request::Commit(commit) => format!("commit {}", commit.offsets[0].offset),
            Request::Revoked(v1::UnitRevoked { unit }) => format!("revoked {}", unit.unwrap().epoch),
            Request::Credit(credit) => format!("credit {}", credit.bytes),
            Request::Heartbeat(_) => "heartbeat".to_owned(),
            Request::Leave(_) => "leave".to_owned(),
            other => format!("{other:?}"),
        })
        .collect()
}

fn answer(state: &mut State, correlation_id: u64, error: Option<(Code, &str)>) {
    let error = error.map(|(code, reason)| v1::Error {
        code: code.into(),
        reason: reason.into(),
        ..v1::Error::default()
    });
    state.reply(Reply::Committed(v1::OffsetsCommitted { correlation_id, error })).unwrap();
}

/// The time between two commits of the consumer's own passes.
fn pass_pace(state: &mut State) {
    assert!(state.commit_due().is_some_and(|due| due > Instant::now()));
    state.paced_until = None;
    state.commit_done();
}

#[test]
fn what_was_handed_out_is_committed_when_the_next_is_asked_for_one_commit_at_a_time() {
    let mut state = state(true);
    assign(&mut state, 1, None);
    let bytes = data(&mut state, 1, 0..2);
    assert_eq!(handed_out(&mut state).unwrap(), "assigned 1");
    state.handled();
    assert_eq!(handed_out(&mut state).unwrap(), "0 1");
    assert_eq!(said(&mut state), [""; 0], "the handler is at work");
    state.handled();
    assert_eq!(said(&mut state), ["commit 2".to_owned(), format!("credit {bytes}")]);
    for next in 2..5 {
        data(&mut state, 1, next..next + 1);
        handed_out(&mut state);
        state.handled();
    }
    assert_eq!(said(&mut state), [format!("credit {}", bytes / 2 * 3)], "the first is not answered");
    answer(&mut state, 1, None);
    assert_eq!(said(&mut state), [""; 0], "so soon after the first");
    assert!(!state.is_settled());
    pass_pace(&mut state);
    assert_eq!(said(&mut state), ["commit 5"]);
    assert_eq!(state.commit_due(), None, "it is on its way");
    answer(&mut state, 2, None);
    assert!(state.is_settled() && said(&mut state).is_empty());
}

#[test]
fn who_closes_does_not_wait_between_two_commits() {
    let mut state = state(true);
    assign(&mut state, 1, None);
    handed_out(&mut state);
    for next in 0..2 {
        data(&mut state, 1, next..next + 1);
        handed_out(&mut state);
        state.handled();
    }
    assert_eq!(said(&mut state)[0], "commit 1");
    answer(&mut state, 1, None);
    assert_eq!(said(&mut state), [""; 0]);
    state.close();
    assert_eq!(said(&mut state), ["commit 2"]);
}

#[test]
fn a_break_hands_nothing_out_twice_and_commits_again_what_was_not_answered() {
    let mut state = state(true);
    assign(&mut state, 1, Some(0));
    let bytes = data(&mut state, 1, 0..3);
    data(&mut state, 1, 3..6);
    assert_eq!(handed_out(&mut state).unwrap(), "assigned 1");
    assert_eq!(handed_out(&mut state).unwrap(), "0 1 2");
    state.handled();
    assert_eq!(said(&mut state)[0], "commit 3");

    let credit = rejoin(&mut state);
    assert_eq!(credit, CREDIT - i64::try_from(bytes).unwrap(), "the second lot is unread");
    assert_eq!(said(&mut state), [""; 0], "not before the node says whose it is");
    assign(&mut state, 1, Some(0));
    pass_pace(&mut state);
    assert_eq!(said(&mut state), ["commit 3"]);
    // The node goes on at what is committed.
    data(&mut state, 1, 0..3);
    data(&mut state, 1, 3..8);
    assert_eq!(handed_out(&mut state).unwrap(), "3 4 5");
    assert_eq!(handed_out(&mut state).unwrap(), "6 7", "and not `assigned` again");
    assert_eq!(handed_out(&mut state), None);
}

#[test]
fn a_unit_is_given_up_when_its_handler_has_finished_and_its_commit_is_answered() {
    let mut state = state(true);
    assign(&mut state, 1, None);
    let bytes = data(&mut state, 1, 0..1);
    data(&mut state, 1, 1..2);
    handed_out(&mut state);
    assert_eq!(handed_out(&mut state).unwrap(), "0");
    state.reply(Reply::Revoke(unit(1))).unwrap();
    assert_eq!(said(&mut state), [format!("credit {bytes}")], "what was not handed out is taken back");
    state.handled();
    assert_eq!(said(&mut state)[0], "commit 1");
    assert_eq!(handed_out(&mut state).unwrap(), "revoke 1");
    answer(&mut state, 1, None);
    assert_eq!(said(&mut state), [""; 0], "the handler may have something to do");
    state.handled();
    assert_eq!(said(&mut state), ["revoked 1"]);
    // It was lost on its way: the node says it all again, and the handler does not hear of it.
    rejoin(&mut state);
    assign(&mut state, 1, Some(1));
    state.reply(Reply::Revoke(unit(1))).unwrap();
    assert_eq!(said(&mut state), ["revoked 1"]);
    assert_eq!(handed_out(&mut state), None);
    assign(&mut state, 3, Some(1));
    assert_eq!(handed_out(&mut state).unwrap(), "assigned 3", "it has come back");
}

#[test]
fn a_commit_that_failed_for_a_while_is_tried_again_and_holds_the_unit_until_then() {
    let mut state = state(true);
    assign(&mut state, 1, None);
    data(&mut state, 1, 0..1);
    handed_out(&mut state);
    handed_out(&mut state);
    state.reply(Reply::Revoke(unit(1))).unwrap();
    assert_eq!(handed_out(&mut state).unwrap(), "revoke 1");
    state.handled();
    assert_eq!(said(&mut state)[0], "commit 1");
    answer(&mut state, 1, Some((Code::ResourceExhausted, "DISK_FULL")));
    assert_eq!(said(&mut state), [""; 0]);
    assert_eq!(state.commit_due(), None, "at the next tick, and not as soon as after a good one");
    state.tick();
    assert_eq!(said(&mut state), ["commit 1", "heartbeat"]);
    answer(&mut state, 2, None);
    assert_eq!(said(&mut state), ["revoked 1"]);
}

#[test]
fn units_that_the_node_does_not_name_again_are_lost() {
    let mut state = state(true);
    assign(&mut state, 1, None);
    data(&mut state, 1, 0..1);
    handed_out(&mut state);
    rejoin(&mut state);
    state.tick();
    assert_eq!(handed_out(&mut state).unwrap(), "lost 1: Expired");
    assert_eq!(handed_out(&mut state), None, "its records are another's to read");
    assign(&mut state, 2, None);
    assert_eq!(handed_out(&mut state).unwrap(), "assigned 2");
    // Named in another epoch, the one before was lost.
    assign(&mut state, 4, None);
    assert_eq!(handed_out(&mut state).unwrap(), "lost 2: Expired");
    assert_eq!(handed_out(&mut state).unwrap(), "assigned 4");
}

#[test]
fn a_commit_by_hand_is_sent_again_until_it_is_answered() {
    let mut state = state(false);
    assign(&mut state, 1, None);
    data(&mut state, 1, 0..1);
    handed_out(&mut state);
    handed_out(&mut state);
    state.handled();
    assert_eq!(said(&mut state).len(), 1, "only credit: nothing is committed by itself");
    let (sender, mut answered) = oneshot::channel();
    let offset = OffsetToCommit::new("t", 0, Offset(1));
    state.commit(UnitEpoch::new("t/0", 1), vec![offset], sender);
    assert_eq!(said(&mut state), ["commit 1"]);
    rejoin(&mut state);
    assert_eq!(said(&mut state), ["commit 1"]);
    assert!(answered.try_recv().is_err());
    answer(&mut state, 1, Some((Code::FailedPrecondition, "STALE_ASSIGNMENT")));
    assert_eq!(answered.try_recv().unwrap().unwrap_err().reason(), "STALE_ASSIGNMENT");
    assert!(state.is_settled());
}

#[test]
fn a_consumer_that_leaves_says_so_also_when_its_connection_breaks() {
    let mut state = state(true);
    assign(&mut state, 1, None);
    state.leave();
    rejoin(&mut state);
    assert_eq!(said(&mut state), ["leave"]);
}

#[test]
fn a_commit_by_hand_that_was_on_disk_before_the_break_has_not_gone_back() {
    let mut state = state(false);
    assign(&mut state, 1, None);
    let mut answers = Vec::new();
    for offset in [5, 9] {
        let (answer, answered) = oneshot::channel();
        let unit = UnitEpoch::received(Some(unit(1))).unwrap();
        state.commit(unit, vec![OffsetToCommit::new("t", 0, Offset(offset))], answer);
        answers.push(answered);
    }
    assert_eq!(said(&mut state), ["commit 5", "commit 9"]);
    rejoin(&mut state);
    assert_eq!(said(&mut state), ["commit 5", "commit 9"]);
    answer(&mut state, 1, Some((Code::FailedPrecondition, "COMMIT_WENT_BACK")));
    answer(&mut state, 2, None);
    assert!(answers.iter_mut().all(|it| it.try_recv().unwrap().is_ok()));
    // One that goes back the first time does.
    let (answered, mut told) = oneshot::channel();
    let unit = UnitEpoch::received(Some(unit(1))).unwrap();
    state.commit(unit, vec![OffsetToCommit::new("t", 0, Offset(3))], answered);
    answer(&mut state, 3, Some((Code::FailedPrecondition, "COMMIT_WENT_BACK")));
    assert_eq!(told.try_recv().unwrap().unwrap_err().reason(), "COMMIT_WENT_BACK");
}

#[test]
fn a_commit_that_is_refused_for_good_is_told_before_more_records_and_at_the_close() {
    let mut state = state(true);
    assign(&mut state, 1, None);
    let refuse = |state: &mut State, id| answer(state, id, Some((Code::InvalidArgument, "REQUEST_INVALID")));
    for (id, next) in [(1, 0), (2, 2)] {
        data(&mut state, 1, next..next + 1);
        while handed_out(&mut state).unwrap() != next.to_string() {}
        state.handled();
        if id == 2 {
            pass_pace(&mut state);
        }
        data(&mut state, 1, next + 1..next + 2);
        refuse(&mut state, id);
        if id == 1 {
            assert_eq!(handed_out(&mut state).unwrap(), "REQUEST_INVALID");
            assert_eq!(handed_out(&mut state).unwrap(), "1");
        }
    }
    // Not asked for since: whoever closes is told.
    state.close();
    assert_eq!(state.take_failure().unwrap().reason(), "REQUEST_INVALID");
}

#[test]
fn a_unit_of_very_many_partitions_is_committed_in_parts() {
    let mut state = state(true);
    let partition = |partition| v1::AssignedPartition {
        topic: "t".into(),
        partition,
        ..v1::AssignedPartition::default()
    };
    let partitions = (0..2_500).map(partition).collect();
    let assigned = v1::UnitAssigned { unit: Some(unit(1)), partitions, last_step: None };
    state.reply(Reply::Assigned(assigned)).unwrap();
    for partition in 0..2_500 {
        let next = OffsetToCommit::new("t", partition, Offset(1));
        state.units.get_mut("t/0").unwrap().hand_out(next);
    }
    state.handled();
    let sizes: Vec<usize> = std::iter::from_fn(|| state.next_request())
        .map(|request| match request {
            Request::Commit(commit) => commit.offsets.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
}

#[test]
fn records_that_took_the_offsets_of_lost_ones_are_not_left_out() {
    let mut state = state(true);
    assign(&mut state, 1, Some(0));
    data_of(&mut state, 1, &[(0..10, 1)]).unwrap();
    assert_eq!(handed_out(&mut state).unwrap(), "assigned 1");
    handed_out(&mut state).unwrap();
    // A power cut takes 7 to 9, which were not on disk, and 7 and 8 are others.
    rejoin(&mut state);
    assign(&mut state, 1, Some(0));
    let ended = data_of(&mut state, 1, &[(0..7, 1), (7..9, 2)]).unwrap_err();
    assert!(ended.kind().is_retriable(), "the stream is opened again: {ended}");
    assert_eq!(handed_out(&mut state).unwrap(), "lost 1: Truncated");
    let told = state.pop().unwrap().unwrap_err();
    assert_eq!((told.kind(), told.diverging_offset()), (ErrorKind::Truncated, Some(Offset(7))));
    assert!(state.pop().is_none());
    state.handled();
    assert_eq!(said(&mut state).iter().filter(|it| it.starts_with("commit")).count(), 0);

    rejoin(&mut state);
    assign(&mut state, 1, Some(0));
    data_of(&mut state, 1, &[(0..7, 1), (7..12, 2)]).unwrap();
    assert_eq!(handed_out(&mut state).unwrap(), "assigned 1");
    assert_eq!(handed_out(&mut state).unwrap(), "0 1 2 3 4 5 6 7 8 9 10 11");
    // After a restart without a loss there is a later epoch too, and nothing comes twice.
    rejoin(&mut state);
    assign(&mut state, 1, Some(0));
    data_of(&mut state, 1, &[(0..7, 1), (7..12, 2), (12..14, 3)]).unwrap();
    assert_eq!(handed_out(&mut state).unwrap(), "12 13");
}

#[test]
fn a_commit_by_hand_that_outlives_the_loss_of_its_unit_is_counted_once() {
    let mut state = state(false);
    assign(&mut state, 1, Some(0));
    data_of(&mut state, 1, &[(0..10, 1)]).unwrap();
    let (by_hand, mut told) = oneshot::channel();
    let of = UnitEpoch::received(Some(unit(1))).unwrap();
    state.commit(of, vec![OffsetToCommit::new("t", 0, Offset(10))], by_hand);
    rejoin(&mut state);
    assign(&mut state, 1, Some(0));
    data_of(&mut state, 1, &[(0..7, 1), (7..9, 2)]).unwrap_err();
    // It begins again in the same epoch, and the commit is sent for the third time.
    rejoin(&mut state);
    assign(&mut state, 1, Some(0));
    assert_eq!(said(&mut state), ["commit 10"]);
    answer(&mut state, 1, Some((Code::OutOfRange, "OFFSET_OUT_OF_RANGE")));
    assert!(told.try_recv().unwrap().is_err());
    // Nothing is under way, so it can be given up.
    state.reply(Reply::Revoke(unit(1))).unwrap();
    while handed_out(&mut state).is_some_and(|it| !it.starts_with("revoke")) {}
    state.handled();
    assert!(said(&mut state).contains(&"revoked 1".to_owned()));
}
