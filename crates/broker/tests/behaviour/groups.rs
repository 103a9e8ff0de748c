//! Groups: units are shared among members, move when they have to, and are committed by their owners alone.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use logmill_broker::{
    Assignment, Error, GroupEvent, GroupState, JoinGroup, ListGroups, LostReason, Member, OffsetToCommit,
    Position, Reason, ResetOffsets,
};
use logmill_log::env::Clock as _;
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_record::Offset;

use crate::common::hook_fs::{Call, hooked, is_segment};
use crate::common::members::{assigned, committed, three_records_each};
use crate::common::{Node, config, on, simulated, with_env};

fn join(node: &Node, request: JoinGroup) -> Result<Member, Error> {
    node.broker.join_group(&node.context, request)
}

fn subscriber(node: &Node) -> Member {
    join(node, JoinGroup::topics("g", ["t"])).unwrap()
}

fn next(node: &Node, member: &mut Member) -> GroupEvent {
    node.wait(member.next())
}

fn revoked(node: &Node, member: &mut Member) -> (String, i32) {
    match next(node, member) {
        GroupEvent::Revoke { unit, epoch } => (unit, epoch),
        other => panic!("{other:?}"),
    }
}

fn commit(node: &Node, member: &Member, of: &Assignment, offset: u64) -> Result<(), Error> {
    let partition = of.partitions[0].partition;
    let offsets = vec![OffsetToCommit::new("t", partition, Offset(offset))];
    node.wait(member.handle().commit(&of.unit, of.epoch, offsets))
}

#[test]
fn units_are_shared_and_move_with_what_their_owners_committed() {
    let sim = Sim::new(1);
    let node = three_records_each(&sim, 2);
    let mut first = subscriber(&node);
    let both = [assigned(&node, &mut first), assigned(&node, &mut first)];
    assert_eq!(
        both.each_ref().map(|it| (&*it.unit, it.epoch, committed(it))),
        [("t/0", 1, None), ("t/1", 1, None)]
    );
    for of in &both {
        commit(&node, &first, of, 2).unwrap();
    }
    let mut second = subscriber(&node);
    let (unit, epoch) = revoked(&node, &mut first);
    let given_up = both.iter().find(|it| it.unit == unit).unwrap();
    // It finishes first.
    commit(&node, &first, given_up, 3).unwrap();
    first.handle().confirm_revoked(&unit, epoch).unwrap();
    let moved = assigned(&node, &mut second);
    assert_eq!((&moved.unit, moved.epoch, committed(&moved)), (&unit, 2, Some(3)));
    let told = commit(&node, &first, given_up, 3).unwrap_err();
    assert_eq!(told.reason(), Reason::StaleAssignment, "{told}");
    commit(&node, &second, &moved, 3).unwrap();

    // Whoever leaves gives up at once, and the other goes on there.
    second.handle().leave().unwrap();
    let back = assigned(&node, &mut first);
    assert_eq!((&back.unit, back.epoch, committed(&back)), (&unit, 3, Some(3)));
    node.broker.close().unwrap();
    assert!(
        matches!(next(&node, &mut first), GroupEvent::Closed(error) if error.reason() == Reason::NodeClosing)
    );
}

#[test]
fn a_member_that_confirms_nothing_loses_the_unit_in_time_and_what_it_commits_then_does_not_count() {
    let sim = Sim::new(2);
    let node = three_records_each(&sim, 2);
    let mut first = subscriber(&node);
    let both = [assigned(&node, &mut first), assigned(&node, &mut first)];
    let mut second = subscriber(&node);
    let (unit, epoch) = revoked(&node, &mut first);
    sim.scheduler.run_for(Duration::from_secs(61));
    assert!(matches!(
        next(&node, &mut first),
        GroupEvent::Lost { why: LostReason::RevokeTimedOut, epoch: lost, .. } if lost == epoch
    ));
    let moved = assigned(&node, &mut second);
    assert_eq!((&moved.unit, moved.epoch), (&unit, 2));
    let zombie = both.iter().find(|it| it.unit == unit).unwrap();
    assert_eq!(commit(&node, &first, zombie, 3).unwrap_err().reason(), Reason::StaleAssignment);
    // The other unit never stopped.
    let kept = both.iter().find(|it| it.unit != unit).unwrap();
    commit(&node, &first, kept, 1).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_member_that_comes_back_in_time_has_its_units_in_the_same_epochs_also_after_a_start() {
    let sim = Sim::new(3);
    let node = three_records_each(&sim, 1);
    let mut member = subscriber(&node);
    let mine = assigned(&node, &mut member);
    commit(&node, &member, &mine, 1).unwrap();
    let id = member.id();
    drop(member);
    let back = || JoinGroup { member_id: Some(id.clone()), ..JoinGroup::topics("g", ["t"]) };
    let mut member = join(&node, back()).unwrap();
    let again = assigned(&node, &mut member);
    assert_eq!((again.epoch, committed(&again)), (mine.epoch, Some(1)));
    node.broker.close().unwrap();
    drop((member, node));

    let node = simulated(&sim);
    let mut other = subscriber(&node);
    let mut member = join(&node, back()).unwrap();
    let again = assigned(&node, &mut member);
    assert_eq!((again.epoch, committed(&again)), (mine.epoch, Some(1)));
    commit(&node, &member, &again, 2).unwrap();
    drop(member);
    sim.scheduler.run_for(Duration::from_secs(31));
    let moved = assigned(&node, &mut other);
    assert_eq!((moved.epoch, committed(&moved)), (2, Some(2)), "its time was over");
    node.broker.close().unwrap();
}

#[test]
fn an_epoch_never_comes_again_whenever_the_power_goes() {
    let mut seen = 0;
    let mut sim = Sim::new(4);
    let node = three_records_each(&sim, 1);
    node.broker.close().unwrap();
    drop(node);
    for round in 0..60 {
        sim.fs.power_off_at(5 + round * 7 % 90);
        if let Ok(broker) = logmill_broker::Broker::open(on(&sim)) {
            let node = Node::of(broker);
            if let Ok(mut member) = join(&node, JoinGroup::topics("g", ["t"])) {
                sim.scheduler.run_for(Duration::from_secs(40));
                let mut event = pin!(member.next());
                let mut context = Context::from_waker(Waker::noop());
                if let Poll::Ready(GroupEvent::Assigned(mine)) = event.as_mut().poll(&mut context) {
                    assert!(mine.epoch > seen, "round {round}: {} came after {seen}", mine.epoch);
                    seen = mine.epoch;
                }
            }
        }
        sim.crash();
    }
    assert!(seen > 3, "there were assignments: {seen}");
}

#[test]
fn within_an_assignment_a_group_only_goes_forward() {
    let sim = Sim::new(5);
    let node = three_records_each(&sim, 1);
    let mut member = subscriber(&node);
    let mine = assigned(&node, &mut member);
    commit(&node, &member, &mine, 2).unwrap();
    commit(&node, &member, &mine, 2).unwrap();
    assert_eq!(commit(&node, &member, &mine, 1).unwrap_err().reason(), Reason::CommitWentBack);
    // Also while the one before it is on its way.
    let offsets = |offset| vec![OffsetToCommit::new("t", 0, Offset(offset))];
    let forward = member.handle().commit(&mine.unit, mine.epoch, offsets(3));
    let back = member.handle().commit(&mine.unit, mine.epoch, offsets(2));
    assert_eq!(node.wait(back).unwrap_err().reason(), Reason::CommitWentBack);
    node.wait(forward).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn within_an_assignment_a_group_only_goes_forward_also_over_a_restart() {
    let sim = Sim::new(18);
    let node = three_records_each(&sim, 1);
    let mut member = subscriber(&node);
    let (id, mine) = (member.id(), assigned(&node, &mut member));
    commit(&node, &member, &mine, 2).unwrap();
    node.broker.close().unwrap();
    drop((member, node));

    let node = simulated(&sim);
    let back = JoinGroup { member_id: Some(id), ..JoinGroup::topics("g", ["t"]) };
    let mut member = join(&node, back).unwrap();
    let again = assigned(&node, &mut member);
    assert_eq!((again.epoch, committed(&again)), (mine.epoch, Some(2)));
    assert_eq!(commit(&node, &member, &again, 1).unwrap_err().reason(), Reason::CommitWentBack);
    commit(&node, &member, &again, 3).unwrap();
    // An operator may go back, and whoever has the unit then goes forward from there.
    member.handle().leave().unwrap();
    sim.scheduler.run_for(Duration::from_secs(1));
    let topics = vec![("t".to_owned(), Vec::new())];
    let reset = ResetOffsets { group: "g".into(), topics, to: Position::Earliest, execute: true };
    node.wait(node.broker.reset_offsets(&node.context, reset)).unwrap();
    let mut member = subscriber(&node);
    let next = assigned(&node, &mut member);
    commit(&node, &member, &next, 1).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn a_commit_of_nothing_is_one() {
    let sim = Sim::new(13);
    let node = three_records_each(&sim, 1);
    let mut member = subscriber(&node);
    let mine = assigned(&node, &mut member);
    node.wait(member.handle().commit(&mine.unit, mine.epoch, Vec::new())).unwrap();
    let stale = node.wait(member.handle().commit(&mine.unit, mine.epoch + 1, Vec::new())).unwrap_err();
    assert_eq!(stale.reason(), Reason::StaleAssignment);
    node.broker.close().unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_committed() {
    let sim = Sim::new(6);
    let node = three_records_each(&sim, 1);
    node.create("other", 1).unwrap();
    let mut member = subscriber(&node);
    let mine = assigned(&node, &mut member);
    let commit = |unit: &str, epoch, topic: &str, partition, offset| {
        let offsets = vec![OffsetToCommit::new(topic, partition, Offset(offset))];
        node.wait(member.handle().commit(unit, epoch, offsets)).unwrap_err().reason()
    };
    assert_eq!(commit("t/0", mine.epoch, "t", 0, 4), Reason::OffsetOutOfRange);
    assert_eq!(commit("t/0", mine.epoch + 1, "t", 0, 1), Reason::StaleAssignment);
    assert_eq!(commit("t/7", mine.epoch, "t", 0, 1), Reason::StaleAssignment);
    assert_eq!(commit("no unit", mine.epoch, "t", 0, 1), Reason::StaleAssignment);
    assert_eq!(commit("t/0", mine.epoch, "other", 0, 0), Reason::StaleAssignment);
    assert_eq!(commit("t/0", mine.epoch, "t", 9, 0), Reason::PartitionNotFound);
    assert_eq!(commit("t/0", mine.epoch, "nowhere", 0, 0), Reason::TopicNotFound);
    let long = OffsetToCommit { metadata: "x".repeat(4_097), ..OffsetToCommit::new("t", 0, Offset(1)) };
    let long = node.wait(member.handle().commit("t/0", mine.epoch, vec![long])).unwrap_err();
    assert_eq!(long.reason(), Reason::RequestInvalid);

    let refused = |request| join(&node, request).unwrap_err().reason();
    let units = |names: &[&str]| {
        let unit = |name: &&str| ((*name).to_owned(), vec![("t".to_owned(), 0)]);
        JoinGroup::units("g", names.iter().map(unit).collect())
    };
    assert_eq!(refused(units(&["u"])), Reason::GroupMismatch);
    assert_eq!(refused(JoinGroup::topics("", ["t"])), Reason::RequestInvalid);
    assert_eq!(refused(JoinGroup::topics("g", Vec::<String>::new())), Reason::RequestInvalid);
    let hasty = JoinGroup { session_timeout: Duration::ZERO, ..JoinGroup::topics("g", ["t"]) };
    assert_eq!(refused(hasty), Reason::RequestInvalid);
    let _worker = join(&node, JoinGroup { group: "h".into(), ..units(&["u", "v"]) }).unwrap();
    assert_eq!(refused(JoinGroup { group: "h".into(), ..units(&["u"]) }), Reason::GroupMismatch);

    let described = node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
    assert!(described.offsets.is_empty());
    node.broker.close().unwrap();
}

#[test]
fn an_operator_sees_how_far_a_group_is_behind_and_has_it_go_on_elsewhere() {
    let sim = Sim::new(7);
    let node = three_records_each(&sim, 2);
    let mut member = subscriber(&node);
    let mine = [assigned(&node, &mut member), assigned(&node, &mut member)];
    commit(&node, &member, &mine[0], 1).unwrap();
    sim.scheduler.run_for(Duration::from_secs(10));
    let describe = || node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
    let group = describe();
    assert_eq!((group.state, group.members.len(), group.members[0].units.len()), (GroupState::Stable, 1, 2));
    assert_eq!(group.not_committed, [("t".to_owned(), mine[1].partitions[0].partition)]);
    let [offset] = &group.offsets[..] else { panic!("one partition is committed: {:?}", group.offsets) };
    assert_eq!((offset.offset, offset.lag_records), (Offset(1), Some(2)));
    assert!(offset.lag.unwrap() >= Duration::from_secs(10), "{:?}", offset.lag);

    let reset = |execute| {
        let (group, topics) = ("g".to_owned(), vec![("t".to_owned(), vec![])]);
        let request = ResetOffsets { group, topics, to: Position::Earliest, execute };
        node.wait(node.broker.reset_offsets(&node.context, request))
    };
    assert_eq!(reset(true).unwrap_err().reason(), Reason::GroupNotEmpty);
    let delete = || node.wait(node.broker.delete_group(&node.context, "g"));
    assert_eq!(delete().unwrap_err().reason(), Reason::GroupNotEmpty);
    member.handle().leave().unwrap();
    sim.scheduler.run_for(Duration::from_secs(1));
    let plan = reset(false).unwrap();
    assert_eq!(
        plan.iter().map(|it| (it.partition, it.from, it.to)).collect::<Vec<_>>(),
        [(0, Some(Offset(1)), Offset(0)), (1, None, Offset(0)),]
    );
    assert_eq!(describe().offsets.len(), 1, "a plan changes nothing");
    assert_eq!(reset(true).unwrap(), plan);
    assert_eq!(describe().offsets.iter().map(|it| it.offset).collect::<Vec<_>>(), [Offset(0), Offset(0)]);
    assert!(describe().not_committed.is_empty());
    node.broker.close().unwrap();
    drop((member, node));

    let node = simulated(&sim);
    let list = || node.wait(node.broker.list_groups(&node.context, ListGroups::default())).unwrap().groups;
    assert_eq!(list().iter().map(|it| &*it.group).collect::<Vec<_>>(), ["g"]);
    // Who had its units before the start may come back.
    sim.scheduler.run_for(Duration::from_secs(31));
    node.wait(node.broker.delete_group(&node.context, "g")).unwrap();
    assert!(list().is_empty());
    let gone = node.wait(node.broker.describe_group(&node.context, "g")).unwrap_err();
    assert_eq!(gone.reason(), Reason::GroupNotFound);
    node.broker.close().unwrap();
    drop(node);
    let node = simulated(&sim);
    let list = node.wait(node.broker.list_groups(&node.context, ListGroups::default())).unwrap();
    assert!(list.groups.is_empty(), "also after a start");
    node.broker.close().unwrap();
}

/// At any moment of the reset, and in many orders of what the node does in the background.
#[test]
fn who_joins_while_a_group_is_reset_goes_on_where_the_reset_says() {
    let done = (0..24).flat_map(|seed| (0..24).map(move |steps| join_while_a_group_is_reset(seed, steps)));
    let done = done.filter(|is_done| *is_done).count();
    assert!((100..576).contains(&done), "{done} of 576 resets came before the member");
}

/// Whether the reset came before the member, who joins after so many steps.
fn join_while_a_group_is_reset(seed: u64, steps: u64) -> bool {
    let sim = Sim::new(seed);
    let node = three_records_each(&sim, 1);
    let mut first = subscriber(&node);
    let mine = assigned(&node, &mut first);
    commit(&node, &first, &mine, 3).unwrap();
    first.handle().leave().unwrap();
    sim.scheduler.run_for(Duration::from_secs(1));

    let (group, topics) = ("g".to_owned(), vec![("t".to_owned(), vec![])]);
    let request = ResetOffsets { group, topics, to: Position::Earliest, execute: true };
    let mut reset = pin!(node.broker.reset_offsets(&node.context, request));
    let mut context = Context::from_waker(Waker::noop());
    let mut answer = Poll::Pending;
    for _ in 0..steps {
        if answer.is_pending() {
            answer = reset.as_mut().poll(&mut context);
        }
        sim.scheduler.step();
    }
    let mut second = subscriber(&node);
    let goes_on = committed(&assigned(&node, &mut second));
    let answer = match answer {
        Poll::Ready(answer) => answer,
        Poll::Pending => node.wait(reset),
    };
    let is_done = answer.is_ok();
    assert_eq!(goes_on, Some(if is_done { 0 } else { 3 }), "seed {seed}, {steps} steps: {answer:?}");
    node.broker.close().unwrap();
    is_done
}

#[test]
fn topics_come_and_go_and_offsets_of_one_mean_nothing_in_another_of_its_name() {
    let sim = Sim::new(8);
    let node = three_records_each(&sim, 1);
    let mut member = join(&node, JoinGroup::topics("g", ["t", "late"])).unwrap();
    let mine = assigned(&node, &mut member);
    commit(&node, &member, &mine, 3).unwrap();
    node.create("late", 1).unwrap();
    assert_eq!(assigned(&node, &mut member).unit, "late/0");
    node.wait(node.broker.add_partitions(&node.context, "late", 2)).unwrap();
    assert_eq!(assigned(&node, &mut member).unit, "late/1");
    node.delete("t").unwrap();
    assert!(matches!(next(&node, &mut member), GroupEvent::Lost { why: LostReason::Gone, .. }));
    assert_eq!(commit(&node, &member, &mine, 3).unwrap_err().reason(), Reason::StaleAssignment);
    node.create("t", 1).unwrap();
    let new = assigned(&node, &mut member);
    assert_eq!((&*new.unit, new.epoch, committed(&new)), ("t/0", 2, None), "no epoch of a name comes again");
    assert_eq!(commit(&node, &member, &mine, 3).unwrap_err().reason(), Reason::StaleAssignment);
    node.broker.close().unwrap();
}

/// Who had a unit of a group that was deleted is told from who has one of the same name in the next.
#[test]
fn no_epoch_of_a_group_that_was_deleted_comes_again_also_after_a_start() {
    let sim = Sim::new(10);
    let mut node = three_records_each(&sim, 1);
    let mut epochs = Vec::new();
    for round in 0..4 {
        let mut member = subscriber(&node);
        let mine = assigned(&node, &mut member);
        epochs.push(mine.epoch);
        assert_eq!(committed(&mine), None);
        commit(&node, &member, &mine, 3).unwrap();
        member.handle().leave().unwrap();
        sim.scheduler.run_for(Duration::from_secs(1));
        node.wait(node.broker.delete_group(&node.context, "g")).unwrap();
        if round == 1 {
            node.broker.close().unwrap();
            drop((member, node));
            node = simulated(&sim);
        }
    }
    assert!(epochs.is_sorted_by(|before, after| before < after), "{epochs:?}");
    node.broker.close().unwrap();
}

/// Whatever the disk has kept of it: the group is as it was, here and after a start, until it is deleted.
#[test]
fn a_deletion_that_may_not_be_on_disk_has_changed_nothing() {
    for seed in 0..12 {
        let (mut sim, at_once) = (Sim::new(seed), seed % 2 == 0);
        let mut node = three_records_each(&sim, 1);
        let mut member = subscriber(&node);
        let mine = assigned(&node, &mut member);
        commit(&node, &member, &mine, 2).unwrap();
        member.handle().leave().unwrap();
        sim.scheduler.run_for(Duration::from_secs(1));
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/internal/offsets/*").times(1));
        node.wait(node.broker.delete_group(&node.context, "g")).unwrap_err();
        if at_once {
            sim.scheduler.run_for(Duration::from_secs(1));
            node.broker.close().unwrap();
            drop((member, node));
            sim.crash();
            node = simulated(&sim);
        }
        let group = node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
        assert_eq!(group.state, GroupState::Empty);
        assert_eq!(group.offsets.iter().map(|it| it.offset).collect::<Vec<_>>(), [Offset(2)]);
        let mut member = subscriber(&node);
        let again = assigned(&node, &mut member);
        assert_eq!(committed(&again), Some(2));
        assert!(again.epoch > mine.epoch);
        member.handle().leave().unwrap();
        sim.scheduler.run_for(Duration::from_secs(1));

        node.wait(node.broker.delete_group(&node.context, "g")).unwrap();
        node.broker.close().unwrap();
        drop((member, node));
        let node = simulated(&sim);
        let gone = node.wait(node.broker.describe_group(&node.context, "g")).unwrap_err();
        assert_eq!(gone.reason(), Reason::GroupNotFound);
        node.broker.close().unwrap();
    }
}

/// The disk has kept what its sync failed for, which the one before never does.
#[test]
fn a_deletion_that_failed_and_is_on_disk_is_taken_back_there() {
    let dir = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let strikes = Arc::clone(&fails);
    let hook = move |call, path: &Path| {
        let is_meant =
            call == Call::Sync && is_segment(path) && path.to_string_lossy().contains("internal/offsets");
        if is_meant && strikes.swap(false, Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    };
    let node = Node::open(with_env(&dir, hooked(hook)));
    node.create("t", 1).unwrap();
    for value in ["a", "b", "c"] {
        node.say("t", 0, value).unwrap();
    }
    let mut member = subscriber(&node);
    let mine = assigned(&node, &mut member);
    commit(&node, &member, &mine, 2).unwrap();
    member.handle().leave().unwrap();
    let describe = |node: &Node| node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
    while describe(&node).unowned[0].status != "unassigned" {
        std::thread::yield_now();
    }
    fails.store(true, Ordering::Relaxed);
    let told = node.wait(node.broker.delete_group(&node.context, "g")).unwrap_err();
    assert_eq!(told.reason(), Reason::OutcomeUnknown, "{told}");
    let offsets = |node: &Node| describe(node).offsets.iter().map(|it| it.offset).collect::<Vec<_>>();
    assert_eq!(offsets(&node), [Offset(2)]);
    // Where nothing is written anew, the failed log cannot be closed cleanly.
    let _ = node.broker.close();
    drop((member, node));

    let node = Node::open(config(&dir));
    assert_eq!(offsets(&node), [Offset(2)], "a start finds what the group was told");
    node.broker.close().unwrap();
}

#[test]
fn who_has_left_before_a_start_is_not_awaited_after_it() {
    let sim = Sim::new(12);
    let node = three_records_each(&sim, 1);
    let mut member = subscriber(&node);
    let mine = assigned(&node, &mut member);
    commit(&node, &member, &mine, 1).unwrap();
    member.handle().leave().unwrap();
    sim.scheduler.run_for(Duration::from_secs(1));
    node.broker.close().unwrap();
    drop((member, node));

    let node = simulated(&sim);
    let before = sim.clock.monotonic();
    let mut next = subscriber(&node);
    let moved = assigned(&node, &mut next);
    assert!(moved.epoch > mine.epoch);
    assert_eq!(committed(&moved), Some(1));
    assert!(sim.clock.monotonic() - before < Duration::from_secs(1), "at once");
    node.broker.close().unwrap();
}

#[test]
fn an_assignment_is_announced_only_when_it_is_on_disk() {
    let sim = Sim::new(9);
    let node = three_records_each(&sim, 1);
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).path("*/internal/offsets/*").times(2));
    let mut member = subscriber(&node);
    let mine = assigned(&node, &mut member);
    assert!(mine.epoch > 1, "the epoch of the failed one is not used: {}", mine.epoch);
    commit(&node, &member, &mine, 1).unwrap();
    node.broker.close().unwrap();
}

#[test]
fn what_is_committed_for_a_topic_that_was_deleted_is_not_taken_for_that_of_another() {
    let sim = Sim::new(19);
    let node = three_records_each(&sim, 1);
    let mut member = subscriber(&node);
    let mine = assigned(&node, &mut member);
    commit(&node, &member, &mine, 2).unwrap();
    node.delete("t").unwrap();
    let other = node.create("t", 1).unwrap();
    loop {
        if let GroupEvent::Assigned(_) = next(&node, &mut member) {
            break;
        }
    }
    let described = node.wait(node.broker.describe_group(&node.context, "g")).unwrap();
    let [of_the_first] = &described.offsets[..] else { panic!("{described:?}") };
    assert_eq!((of_the_first.offset, of_the_first.lag_records), (Offset(2), None));
    assert_ne!(of_the_first.topic_id, other.id);
    assert_eq!(described.not_committed, [("t".to_owned(), 0)], "and of the other nothing is committed");
    node.broker.close().unwrap();
}
