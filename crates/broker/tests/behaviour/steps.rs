//! Steps: what was made of what was read, and how far it was read, in one call that has one effect.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use logmill_broker::{
    AddOffsets, Assignment, CommittedStep, Config, Error, GroupEvent, InitTransactions, JoinGroup, Limits,
    Member, OffsetToCommit, Outcome, Payload, ProduceRecord, ProducerEpoch, Reason, StepHeader,
};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_record::Offset;

use crate::common::members::{assigned, committed};
use crate::common::{Node, on, simulated};

/// A node with `in` (ten records) and two topics for what comes out.
pub(crate) fn node(sim: &Sim) -> Node {
    let node = simulated(sim);
    for topic in ["in", "out", "log"] {
        node.create(topic, 1).unwrap();
    }
    for n in 0..10 {
        node.say("in", 0, &format!("{n}")).unwrap();
    }
    node
}

pub(crate) fn join(node: &Node, id: Option<String>) -> Member {
    let join = JoinGroup { member_id: id, ..JoinGroup::topics("g", ["in"]) };
    node.broker.join_group(&node.context, join).unwrap()
}

pub(crate) fn records(value: &str) -> Payload {
    Payload::Records(vec![ProduceRecord { value: Some(value.to_owned().into()), ..ProduceRecord::default() }])
}

/// A step that appends `value` to both topics, and has read up to `offset`.
pub(crate) fn header(epoch: i32, sequence: i64, value: &str, offset: u64) -> StepHeader {
    StepHeader {
        group: "g".into(),
        unit: "in/0".into(),
        unit_epoch: epoch,
        sequence,
        offsets: vec![OffsetToCommit::new("in", 0, Offset(offset))],
        topics: vec!["out".into(), "log".into()],
        total_bytes: 2 * value.len() as u64,
    }
}

pub(crate) fn step(
    node: &Node,
    epoch: i32,
    sequence: i64,
    value: &str,
    offset: u64,
) -> Result<CommittedStep, Error> {
    let mut step = node.broker.begin_step(&node.context, header(epoch, sequence, value, offset))?;
    for topic in ["out", "log"] {
        step.append(topic, Some(0), records(value))?;
    }
    node.wait(step.commit())
}

/// Who writes transactions as `x` from now on.
pub(crate) fn begin(node: &Node) -> ProducerEpoch {
    node.wait(node.broker.init_transactions(&node.context, InitTransactions::new("x"))).unwrap()
}

/// What is read of `in`, as a part of a transaction of `x`.
pub(crate) fn add_offsets(producer: ProducerEpoch, unit: &Assignment, offset: u64) -> AddOffsets {
    AddOffsets {
        transactional_id: "x".into(),
        producer,
        group: "g".into(),
        unit: unit.unit.clone(),
        unit_epoch: unit.epoch,
        offsets: vec![OffsetToCommit::new("in", 0, Offset(offset))],
    }
}

pub(crate) fn read(node: &Node) -> [Vec<String>; 2] {
    ["out", "log"].map(|topic| node.read_all(topic, 0).unwrap())
}

#[test]
fn a_step_has_one_effect_however_often_it_comes() {
    let sim = Sim::new(1);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    assert_eq!((mine.last_step, committed(&mine)), (None, None));
    let first = step(&node, mine.epoch, 0, "a", 1).unwrap();
    assert!(!first.duplicate);
    assert_eq!(first.appended.iter().map(|it| (&*it.topic, it.first_offset)).collect::<Vec<_>>().len(), 2);
    let again = step(&node, mine.epoch, 0, "a", 1).unwrap();
    assert_eq!(again, CommittedStep { duplicate: true, ..first });
    assert_eq!(read(&node), [["a"], ["a"]]);
    step(&node, mine.epoch, 1, "b", 2).unwrap();
    let told = step(&node, mine.epoch, 3, "c", 3).unwrap_err();
    assert_eq!(told.reason(), Reason::StepOutOfSequence, "{told}");
    assert_eq!(step(&node, mine.epoch, 0, "a", 1).unwrap_err().reason(), Reason::StepOutOfSequence);
    assert_eq!(read(&node), [["a", "b"], ["a", "b"]]);
    let id = member.id();
    node.broker.close().unwrap();
    drop((member, node));

    let node = simulated(&sim);
    let mut member = join(&node, Some(id));
    let mine = assigned(&node, &mut member);
    assert_eq!((mine.last_step, committed(&mine)), (Some(1), Some(2)), "also after a start");
    assert!(step(&node, mine.epoch, 1, "b", 2).unwrap().duplicate);
    step(&node, mine.epoch, 2, "c", 3).unwrap();
    assert_eq!(read(&node), [["a", "b", "c"], ["a", "b", "c"]]);
    node.broker.close().unwrap();
}

/// The answer would pass for that of all that it has read, and what lies between would be lost, or done twice.
#[test]
fn another_step_under_the_number_of_the_last_one_is_refused() {
    let sim = Sim::new(14);
    let mut node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    step(&node, mine.epoch, 0, "a", 3).unwrap();
    let id = member.id();
    for _ in 0..2 {
        for (value, offset) in [("ab", 4), ("-", 2)] {
            let told = step(&node, mine.epoch, 0, value, offset).unwrap_err();
            assert_eq!(told.reason(), Reason::StepOutOfSequence, "{told}");
        }
        assert!(step(&node, mine.epoch, 0, "a", 3).unwrap().duplicate);
        // Also after a start.
        node.broker.close().unwrap();
        drop(member);
        drop(node);
        node = simulated(&sim);
        member = join(&node, Some(id.clone()));
        assert_eq!(assigned(&node, &mut member).last_step, Some(0));
    }
    step(&node, mine.epoch, 1, "b", 4).unwrap();
    assert_eq!(read(&node), [["a", "b"], ["a", "b"]]);
    node.broker.close().unwrap();
}

/// A sender that comes back before any member has can send it again, and is not told that the unit is another's.
#[test]
fn a_step_of_a_named_unit_waits_for_the_first_member_after_a_start() {
    let sim = Sim::new(13);
    let node = node(&sim);
    let join = |node: &Node, id: Option<String>| {
        let units = vec![("u".to_owned(), vec![("in".to_owned(), 0)])];
        let join = JoinGroup { member_id: id, ..JoinGroup::units("g", units) };
        node.broker.join_group(&node.context, join).unwrap()
    };
    let step = |node: &Node, epoch, sequence, value: &str, offset| {
        let header = StepHeader { unit: "u".into(), ..header(epoch, sequence, value, offset) };
        let mut step = node.broker.begin_step(&node.context, header)?;
        for topic in ["out", "log"] {
            step.append(topic, Some(0), records(value))?;
        }
        node.wait(step.commit())
    };
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    step(&node, mine.epoch, 0, "a", 1).unwrap();
    let id = member.id();
    node.broker.close().unwrap();
    drop((member, node));

    let node = simulated(&sim);
    assert!(step(&node, mine.epoch, 0, "a", 1).unwrap().duplicate);
    let told = step(&node, mine.epoch, 1, "b", 2).unwrap_err();
    assert_eq!(told.reason(), Reason::UnitUndeclared, "{told}");
    let _member = join(&node, Some(id));
    step(&node, mine.epoch, 1, "b", 2).unwrap();
    assert_eq!(read(&node), [["a", "b"], ["a", "b"]]);
    node.broker.close().unwrap();
}

/// Applied behind the step's, the plain commit would have the next owner do the step's work again.
#[test]
fn a_plain_commit_does_not_take_back_what_a_step_or_transaction_under_way_has_read() {
    let sim = Sim::new(12);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let commit = |offset| {
        let offsets = vec![OffsetToCommit::new("in", 0, Offset(offset))];
        member.handle().commit(&mine.unit, mine.epoch, offsets)
    };
    let mut under_way = node.broker.begin_step(&node.context, header(mine.epoch, 0, "a", 5)).unwrap();
    for topic in ["out", "log"] {
        under_way.append(topic, Some(0), records("a")).unwrap();
    }
    let under_way = under_way.commit();
    // Its offsets are on their way into the log, and nothing is on disk.
    sim.fs.inject(Rule::new(Fault::Stall(Duration::from_millis(50))).on(Op::SyncData).always());
    sim.scheduler.run_for(Duration::from_millis(1));
    let back = node.wait(commit(3));
    node.wait(under_way).unwrap();
    sim.fs.clear_rules();
    assert_eq!(back.unwrap_err().reason(), Reason::CommitWentBack);
    node.wait(commit(6)).unwrap();

    let producer = begin(&node);
    let add = |offset| {
        let add = add_offsets(producer, &mine, offset);
        node.wait(node.broker.add_offsets(&node.context, add))
    };
    add(9).unwrap();
    assert_eq!(node.wait(commit(7)).unwrap_err().reason(), Reason::CommitWentBack);
    assert_eq!(add(8).unwrap_err().reason(), Reason::CommitWentBack);
    node.wait(node.broker.end_transaction(&node.context, "x", producer, Outcome::Abort)).unwrap();
    node.wait(commit(7)).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_group_that_was_deleted_leaves_no_steps_to_another_of_its_name() {
    let sim = Sim::new(11);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    step(&node, mine.epoch, 0, "a", 1).unwrap();
    member.handle().leave().unwrap();
    sim.scheduler.run_for(Duration::from_secs(1));
    node.wait(node.broker.delete_group(&node.context, "g")).unwrap();
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    assert_eq!((mine.last_step, committed(&mine)), (None, None));
    assert!(!step(&node, mine.epoch, 0, "b", 1).unwrap().duplicate);
    assert_eq!(read(&node), [["a", "b"], ["a", "b"]]);
    member.handle().leave().unwrap();
    sim.scheduler.run_for(Duration::from_secs(1));
    node.wait(node.broker.delete_group(&node.context, "g")).unwrap();
    node.broker.close().unwrap();
    drop((member, node));

    let node = simulated(&sim);
    let mut member = join(&node, None);
    assert_eq!(assigned(&node, &mut member).last_step, None, "also after a start");
    node.broker.close().unwrap();
}

#[test]
fn a_step_of_an_epoch_that_is_over_has_no_effect() {
    let sim = Sim::new(2);
    let node = node(&sim);
    let mut zombie = join(&node, None);
    let old = assigned(&node, &mut zombie);
    step(&node, old.epoch, 0, "a", 1).unwrap();
    // It has begun, and all of it has come, when the unit is taken away.
    let mut late = node.broker.begin_step(&node.context, header(old.epoch, 1, "late", 5)).unwrap();
    late.append("out", Some(0), records("late")).unwrap();
    late.append("log", Some(0), records("late")).unwrap();
    zombie.handle().leave().unwrap();
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    assert_eq!((mine.epoch, mine.last_step, committed(&mine)), (2, Some(0), Some(1)));
    assert_eq!(node.wait(late.commit()).unwrap_err().reason(), Reason::StaleAssignment);
    assert_eq!(step(&node, old.epoch, 1, "b", 2).unwrap_err().reason(), Reason::StaleAssignment);
    assert_eq!(step(&node, old.epoch, 0, "a", 1).unwrap_err().reason(), Reason::StaleAssignment);
    step(&node, mine.epoch, 1, "b", 2).unwrap();
    step(&node, mine.epoch, 2, "c", 3).unwrap();
    assert_eq!(read(&node), [["a", "b", "c"], ["a", "b", "c"]]);
    node.broker.close().unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_done() {
    let sim = Sim::new(4);
    let node = node(&sim);
    let mut member = join(&node, None);
    let epoch = assigned(&node, &mut member).epoch;
    let begin = |header| node.broker.begin_step(&node.context, header).map(drop).unwrap_err().reason();
    let whole = || header(epoch, 0, "a", 1);
    assert_eq!(begin(StepHeader { topics: vec!["nowhere".into()], ..whole() }), Reason::TopicNotFound);
    assert_eq!(begin(StepHeader { topics: vec!["__offsets".into()], ..whole() }), Reason::TopicNotFound);
    assert_eq!(
        begin(StepHeader { topics: vec!["out".into(), "out".into()], ..whole() }),
        Reason::RequestInvalid
    );
    assert_eq!(begin(StepHeader { group: "nobody".into(), ..whole() }), Reason::GroupNotFound);
    assert_eq!(begin(StepHeader { unit: "in/1".into(), ..whole() }), Reason::StaleAssignment);
    assert_eq!(begin(StepHeader { unit_epoch: 7, ..whole() }), Reason::StaleAssignment);
    assert_eq!(begin(StepHeader { total_bytes: u64::MAX, ..whole() }), Reason::LimitExceeded);

    let mut lies = node.broker.begin_step(&node.context, whole()).unwrap();
    assert_eq!(lies.append("out", Some(0), records("aaa")).unwrap_err().reason(), Reason::RequestInvalid);
    assert_eq!(lies.append("in", Some(0), records("a")).unwrap_err().reason(), Reason::RequestInvalid);
    assert_eq!(lies.append("out", Some(3), records("a")).unwrap_err().reason(), Reason::PartitionNotFound);
    lies.append("out", Some(0), records("a")).unwrap();
    assert_eq!(node.wait(lies.commit()).unwrap_err().reason(), Reason::RequestInvalid, "it is not whole");
    assert_eq!(step(&node, epoch, 0, "a", 11).unwrap_err().reason(), Reason::OffsetOutOfRange);
    let elsewhere = StepHeader { offsets: vec![OffsetToCommit::new("out", 0, Offset(0))], ..whole() };
    let mut elsewhere = node.broker.begin_step(&node.context, elsewhere).unwrap();
    for topic in ["out", "log"] {
        elsewhere.append(topic, Some(0), records("a")).unwrap();
    }
    assert_eq!(node.wait(elsewhere.commit()).unwrap_err().reason(), Reason::StaleAssignment);
    assert_eq!(read(&node), [vec![], Vec::<String>::new()]);
    step(&node, epoch, 0, "a", 1).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn offsets_of_a_clients_transaction_count_when_it_is_committed_and_only_then() {
    let sim = Sim::new(5);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let mut producer = begin(&node);
    for (offset, outcome, expected) in
        [(3, Outcome::Commit, 3), (5, Outcome::Abort, 3), (4, Outcome::Commit, 4)]
    {
        let add = add_offsets(producer, &mine, offset);
        node.wait(node.broker.add_offsets(&node.context, add)).unwrap();
        producer = node.wait(node.broker.end_transaction(&node.context, "x", producer, outcome)).unwrap();
        let described = node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
        assert_eq!(described.offsets[0].offset, Offset(expected));
    }
    // One that is going on is aborted when the unit goes to another.
    let add = add_offsets(producer, &mine, 9);
    node.wait(node.broker.add_offsets(&node.context, add.clone())).unwrap();
    member.handle().leave().unwrap();
    let mut other = join(&node, None);
    let theirs = assigned(&node, &mut other);
    assert_eq!(committed(&theirs), Some(4));
    let end = node.broker.end_transaction(&node.context, "x", producer, Outcome::Commit);
    assert_eq!(node.wait(end).unwrap_err().reason(), Reason::TransactionAborted);
    let stale = node.wait(node.broker.add_offsets(&node.context, add)).unwrap_err();
    assert!(matches!(stale.reason(), Reason::StaleAssignment | Reason::TransactionAborted), "{stale}");
    node.broker.close().unwrap();
}

#[test]
fn a_unit_that_is_taken_away_while_its_offsets_are_added_does_not_wait_for_the_transaction() {
    let mut refused = 0;
    for steps in 0..20 {
        let sim = Sim::new(7);
        let node = node(&sim);
        let mut member = join(&node, None);
        let mine = assigned(&node, &mut member);
        let producer = begin(&node);
        let add = add_offsets(producer, &mine, 2);
        let added = node.broker.add_offsets(&node.context, add);
        for _ in 0..steps {
            sim.scheduler.step();
        }
        member.handle().leave().unwrap();
        let mut other = join(&node, None);
        sim.scheduler.run_for(Duration::from_secs(5));
        let told = pin!(other.next()).as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(GroupEvent::Assigned(theirs)) = told else {
            panic!("after {steps} steps it waits for the time-out: {told:?}")
        };
        assert_eq!((theirs.epoch, committed(&theirs)), (2, None));
        refused += usize::from(node.wait(added).is_err());
        node.broker.close().unwrap();
    }
    assert!(refused > 1, "it was taken away in between: {refused}");
}

#[test]
fn what_counts_is_what_was_written_last() {
    let sim = Sim::new(6);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let producer = begin(&node);
    let add = add_offsets(producer, &mine, 2);
    node.wait(node.broker.add_offsets(&node.context, add)).unwrap();
    let later = vec![OffsetToCommit::new("in", 0, Offset(5))];
    node.wait(member.handle().commit(&mine.unit, mine.epoch, later)).unwrap();
    node.wait(node.broker.end_transaction(&node.context, "x", producer, Outcome::Commit)).unwrap();
    let described = node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
    assert_eq!(described.offsets[0].offset, Offset(5));
    node.broker.close().unwrap();
    drop((member, node));
    // In a start's view too.
    let node = simulated(&sim);
    let described = node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
    assert_eq!(described.offsets[0].offset, Offset(5));
    node.broker.close().unwrap();
}

#[test]
fn a_step_of_records_that_are_nearly_nothing_is_bounded_by_what_they_take_in_memory() {
    const EMPTY: usize = 100;
    let sim = Sim::new(9);
    let limits = Limits { max_step_bytes: 100_000, ..Limits::default() };
    let node = Node::open(Config { limits, ..on(&sim) });
    for topic in ["in", "out", "log"] {
        node.create(topic, 1).unwrap();
    }
    node.say("in", 0, "0").unwrap();
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let begin = |sequence| {
        let header = StepHeader { total_bytes: 0, ..header(mine.epoch, sequence, "", 1) };
        node.broker.begin_step(&node.context, header)
    };
    let empty = || Payload::Records(vec![ProduceRecord::default(); EMPTY]);
    let mut greedy = begin(0).unwrap();
    let refused = loop {
        if let Err(error) = greedy.append("out", Some(0), empty()) {
            break error;
        }
    };
    assert_eq!(refused.reason(), Reason::LimitExceeded, "{refused}");
    assert!(refused.message().contains("max_step_bytes"), "{refused}");
    // What it holds it holds until it is gone; others are told, and then there is room.
    let told = step(&node, mine.epoch, 0, &"x".repeat(45_000), 1).unwrap_err();
    assert_eq!(told.reason(), Reason::LimitExceeded);
    drop(greedy);
    step(&node, mine.epoch, 0, "a", 1).unwrap();
    assert_eq!(read(&node), [["a"], ["a"]]);
    node.broker.close().unwrap();
}

#[test]
fn a_transaction_takes_so_many_offsets_and_no_more() {
    let sim = Sim::new(10);
    let limits = Limits { max_commit_partitions: 3, ..Limits::default() };
    let node = Node::open(Config { limits, ..on(&sim) });
    node.create("in", 1).unwrap();
    node.say("in", 0, "0").unwrap();
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let producer = begin(&node);
    let add = || {
        let add = add_offsets(producer, &mine, 1);
        node.wait(node.broker.add_offsets(&node.context, add))
    };
    for _ in 0..3 {
        add().unwrap();
    }
    let refused = add().unwrap_err();
    assert_eq!(refused.reason(), Reason::LimitExceeded, "{refused}");
    node.wait(node.broker.end_transaction(&node.context, "x", producer, Outcome::Commit)).unwrap();
    let commits = vec![OffsetToCommit::new("in", 0, Offset(1)); 4];
    let refused = node.wait(member.handle().commit(&mine.unit, mine.epoch, commits)).unwrap_err();
    assert_eq!(refused.reason(), Reason::LimitExceeded, "{refused}");
    node.broker.close().unwrap();
}

#[test]
fn a_unit_has_one_name() {
    let sim = Sim::new(15);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let producer = begin(&node);
    // All of them are numbers of partition 0 to whoever only parses them; the last is too long for the name of a step.
    for unit in ["in/00", "in/+0", &format!("in/{}", "0".repeat(40_000))] {
        let header = StepHeader { unit: unit.to_owned(), ..header(mine.epoch, 0, "a", 1) };
        let refused = node.broker.begin_step(&node.context, header).unwrap_err();
        assert_eq!(refused.reason(), Reason::StaleAssignment, "{unit:.9}");
        let add = AddOffsets { unit: unit.to_owned(), ..add_offsets(producer, &mine, 1) };
        let refused = node.wait(node.broker.add_offsets(&node.context, add)).unwrap_err();
        assert_eq!(refused.reason(), Reason::StaleAssignment, "{unit:.9}");
        let commit = member.handle().commit(unit, mine.epoch, vec![OffsetToCommit::new("in", 0, Offset(1))]);
        assert_eq!(node.wait(commit).unwrap_err().reason(), Reason::StaleAssignment, "{unit:.9}");
    }
    assert_eq!(step(&node, mine.epoch, 0, "a", 1).unwrap().appended.len(), 2);
    node.broker.close().unwrap();
}

#[test]
fn a_batch_of_nothing_is_no_part_of_a_step() {
    let sim = Sim::new(16);
    let node = node(&sim);
    let mut member = join(&node, None);
    let mine = assigned(&node, &mut member);
    let mut step = node.broker.begin_step(&node.context, header(mine.epoch, 0, "a", 1)).unwrap();
    let refused = step.append("out", Some(0), Payload::Batch(Bytes::new())).unwrap_err();
    assert_eq!(refused.reason(), Reason::RequestInvalid);
    node.broker.close().unwrap();
}
