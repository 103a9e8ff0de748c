//! What members of a plain group see.

use super::super::*;
use super::node::Node;
use super::{join, member, partition, secs, stream, topic, topics};

fn unit(of: Topic, number: u32) -> UnitId {
    UnitId::Partition(partition(of, number))
}

fn assign(to: MemberStream, unit: UnitId, epoch: i32) -> Action {
    Action::Assign { to, unit, epoch: AssignmentEpoch(epoch) }
}

fn revoke(to: MemberStream, unit: UnitId, epoch: i32) -> Action {
    Action::Revoke { to, unit, epoch: AssignmentEpoch(epoch) }
}

fn accepts(group: &Group, who: &str, unit: &UnitId, epoch: i32) -> bool {
    group.check(Some(&member(who)), unit, AssignmentEpoch(epoch)).is_ok()
}

/// `x` has both partitions of `a`.
fn one_member() -> (Node, Topic) {
    let a = topic(1, 2);
    let mut node = Node::default();
    node.join(join("x", 1, topics(&[("a", a)])));
    let both = [assign(stream("x", 1), unit(a, 0), 1), assign(stream("x", 1), unit(a, 1), 1)];
    assert_eq!(node.told(), both);
    (node, a)
}

#[test]
fn nobody_hears_of_an_assignment_before_it_is_durable() {
    let a = topic(1, 1);
    let mut group = Group::default();
    group.join(secs(0), join("x", 1, topics(&[("a", a)]))).expect("it fits");
    let persist = Action::Persist(OwnershipRecord {
        unit: unit(a, 0),
        epoch: AssignmentEpoch(1),
        member: Some(member("x")),
        instance: None,
        session_timeout: secs(10),
    });
    assert_eq!(group.take_actions(), [persist], "there was no owner, so there is nothing to settle");
    assert_eq!(group.owner(&unit(a, 0)), None);
    assert_eq!(group.state(), GroupState::Rebalancing);
    group.persisted(secs(0), &unit(a, 0), AssignmentEpoch(1));
    assert_eq!(group.take_actions(), [assign(stream("x", 1), unit(a, 0), 1)]);
    assert_eq!(group.state(), GroupState::Stable);
}

#[test]
fn an_epoch_that_may_be_on_disk_is_not_used_again() {
    let a = topic(1, 1);
    let mut group = Group::default();
    group.join(secs(0), join("x", 1, topics(&[("a", a)]))).expect("it fits");
    drop(group.take_actions());
    group.persist_failed(secs(0), &unit(a, 0), AssignmentEpoch(1));
    assert_eq!(group.take_actions(), []);
    assert_eq!(group.next_deadline(), Some(secs(1)));
    group.tick(secs(1));
    let persist = Action::Persist(OwnershipRecord {
        unit: unit(a, 0),
        epoch: AssignmentEpoch(2),
        member: Some(member("x")),
        instance: None,
        session_timeout: secs(10),
    });
    assert_eq!(group.take_actions(), [persist]);
    group.persisted(secs(1), &unit(a, 0), AssignmentEpoch(1));
    assert_eq!(group.take_actions(), [], "the first answer is over");
}

#[test]
fn who_leaves_while_its_assignment_is_written_burns_the_epoch() {
    let a = topic(1, 1);
    let mut group = Group::default();
    group.join(secs(0), join("x", 1, topics(&[("a", a)]))).expect("it fits");
    drop(group.take_actions());
    assert_eq!(group.leave(secs(0), &stream("x", 1)), Ok(()));
    group.join(secs(0), join("y", 2, topics(&[("a", a)]))).expect("it fits");
    assert_eq!(group.take_actions(), [], "one write at a time");
    group.persisted(secs(0), &unit(a, 0), AssignmentEpoch(1));
    let persist = Action::Persist(OwnershipRecord {
        unit: unit(a, 0),
        epoch: AssignmentEpoch(2),
        member: Some(member("y")),
        instance: None,
        session_timeout: secs(10),
    });
    assert_eq!(group.take_actions(), [persist], "x was never told, so there is nothing to settle");
}

#[test]
fn a_unit_moves_when_its_owner_has_confirmed_and_was_settled() {
    let (mut node, a) = one_member();
    node.group.join(node.now, join("y", 2, topics(&[("a", a)]))).expect("it fits");
    assert_eq!(node.group.take_actions(), [revoke(stream("x", 1), unit(a, 1), 1)]);
    assert!(accepts(&node.group, "x", &unit(a, 1), 1), "it commits before it confirms");

    let group = &mut node.group;
    assert_eq!(group.revoked(secs(0), &stream("x", 1), &unit(a, 1), AssignmentEpoch(1)), Ok(()));
    assert!(!accepts(group, "x", &unit(a, 1), 1));
    assert_eq!(group.take_actions(), [Action::Settle { unit: unit(a, 1), epoch: AssignmentEpoch(1) }]);
    group.settled(secs(0), &unit(a, 1), AssignmentEpoch(1));
    let actions = group.take_actions();
    assert!(
        matches!(&actions[..], [Action::Persist(OwnershipRecord { epoch: AssignmentEpoch(2), .. })]),
        "{actions:?}"
    );
    group.persisted(secs(0), &unit(a, 1), AssignmentEpoch(2));
    assert_eq!(group.take_actions(), [assign(stream("y", 2), unit(a, 1), 2)]);
    assert!(accepts(group, "y", &unit(a, 1), 2) && accepts(group, "x", &unit(a, 0), 1));
    let stale = group.check(Some(&member("x")), &unit(a, 1), AssignmentEpoch(1));
    assert_eq!(stale, Err(Stale { owner: Some((member("y"), AssignmentEpoch(2))) }));
}

#[test]
fn who_does_not_confirm_in_time_is_fenced_and_stays_a_member() {
    let (mut node, a) = one_member();
    let slow = Join { session_timeout: secs(100), ..join("x", 2, topics(&[("a", a)])) };
    node.join(slow);
    node.join(Join { session_timeout: secs(100), ..join("y", 3, topics(&[("a", a)])) });
    node.told();
    node.pass(29);
    assert!(accepts(&node.group, "x", &unit(a, 1), 1));
    node.pass(1);
    let why = LostWhy::RevokeTimedOut;
    let lost = Action::Lost { to: stream("x", 2), unit: unit(a, 1), epoch: AssignmentEpoch(1), why };
    assert_eq!(node.told(), [lost, assign(stream("y", 3), unit(a, 1), 2)]);
    assert!(!accepts(&node.group, "x", &unit(a, 1), 1));
    node.revoked(&stream("x", 2), &unit(a, 1), 1);
    assert_eq!(node.told(), [], "too late");
}

#[test]
fn a_revoke_is_finished_though_the_one_it_was_for_has_gone() {
    let (mut node, a) = one_member();
    node.join(join("y", 2, topics(&[("a", a)])));
    assert_eq!(node.told(), [revoke(stream("x", 1), unit(a, 1), 1)]);
    node.leave(&stream("y", 2));
    assert_eq!(node.told(), [], "x may have confirmed already");
    node.revoked(&stream("x", 1), &unit(a, 1), 1);
    assert_eq!(node.told(), [assign(stream("x", 1), unit(a, 1), 2)]);
}

#[test]
fn a_lost_stream_keeps_its_units_until_the_session_ends() {
    let (mut node, a) = one_member();
    node.pass(4);
    assert_eq!(node.group.heartbeat(node.now, &stream("x", 1)), Ok(()));
    node.lose(&stream("x", 1));
    node.pass(9);
    assert!(accepts(&node.group, "x", &unit(a, 0), 1));
    let joined = node.join(join("x", 2, topics(&[("a", a)])));
    assert_eq!(joined.held, [(unit(a, 0), AssignmentEpoch(1)), (unit(a, 1), AssignmentEpoch(1))]);
    assert_eq!(node.told(), []);
    node.lose(&stream("x", 2));
    node.pass(10);
    assert!(!accepts(&node.group, "x", &unit(a, 0), 1));
    assert_eq!(node.group.state(), GroupState::Empty);
}

#[test]
fn who_is_silent_is_put_out_though_its_stream_is_there() {
    let (mut node, a) = one_member();
    node.pass(10);
    assert_eq!(node.told(), [Action::Close { to: stream("x", 1), why: CloseWhy::Expired }]);
    assert_eq!(node.group.heartbeat(node.now, &stream("x", 1)), Err(NotMember::Unknown));
    assert_eq!(node.group.owner(&unit(a, 0)), None);
}

#[test]
fn the_same_member_on_another_stream_replaces_the_former() {
    let (mut node, a) = one_member();
    let joined = node.join(join("x", 2, topics(&[("a", a)])));
    assert_eq!(joined.held.len(), 2);
    assert_eq!(node.told(), [Action::Close { to: stream("x", 1), why: CloseWhy::Replaced }]);
    assert_eq!(node.group.leave(node.now, &stream("x", 1)), Err(NotMember::Replaced));
    node.lose(&stream("x", 1));
    assert!(accepts(&node.group, "x", &unit(a, 0), 1), "the former stream ends, which is nothing new");
}

#[test]
fn a_revoke_that_was_not_confirmed_is_told_again_on_the_next_stream() {
    let (mut node, a) = one_member();
    node.join(join("y", 2, topics(&[("a", a)])));
    node.lose(&stream("x", 1));
    node.told();
    let joined = node.join(join("x", 3, topics(&[("a", a)])));
    assert_eq!(joined.held.len(), 2, "it still owns the unit, and may commit");
    assert_eq!(node.told(), [revoke(stream("x", 3), unit(a, 1), 1)]);
}

#[test]
fn a_static_member_succeeds_its_former_incarnation_and_nothing_else_moves() {
    let a = topic(1, 4);
    let fixed = |name: &str, connection| Join {
        instance: Some(InstanceId::new("host-1")),
        ..join(name, connection, topics(&[("a", a)]))
    };
    let mut node = Node::default();
    node.join(join("x", 1, topics(&[("a", a)])));
    node.join(fixed("s1", 2));
    node.confirm_all();
    let others =
        |node: &Node| node.owners().into_iter().filter(|(_, o)| *o == member("x")).collect::<Vec<_>>();
    let before = others(&node);
    node.join(fixed("s2", 3));
    let told = node.told();
    assert_eq!(told[0], Action::Close { to: stream("s1", 2), why: CloseWhy::InstanceTaken });
    assert_eq!(told[1..], [assign(stream("s2", 3), unit(a, 2), 3), assign(stream("s2", 3), unit(a, 3), 3)]);
    assert_eq!(others(&node), before);
    assert!(!accepts(&node.group, "s1", &unit(a, 2), 2), "it is fenced");
    node.restart(secs(10));
    node.join(fixed("s3", 4));
    let told = node.told();
    assert_eq!(told, [assign(stream("s3", 4), unit(a, 2), 4), assign(stream("s3", 4), unit(a, 3), 4)]);
}

#[test]
fn a_static_member_succeeds_all_of_its_former_incarnations_that_a_restart_finds() {
    let a = topic(1, 2);
    let fixed = |name: &str, connection| Join {
        instance: Some(InstanceId::new("host-1")),
        ..join(name, connection, topics(&[("a", a)]))
    };
    let mut node = Node::default();
    node.join(fixed("s1", 1));
    let before = node.rows[&unit(a, 0)].clone();
    node.join(fixed("s2", 2));
    // Of one unit its new owner was not on disk.
    node.rows.insert(unit(a, 0), before);
    node.restart(secs(10));
    assert!(accepts(&node.group, "s1", &unit(a, 0), 1) && accepts(&node.group, "s2", &unit(a, 1), 2));
    drop(node.told());
    node.join(fixed("s3", 3));
    let told = node.told();
    assert_eq!(told, [assign(stream("s3", 3), unit(a, 0), 2), assign(stream("s3", 3), unit(a, 1), 3)]);
    assert!(!accepts(&node.group, "s1", &unit(a, 0), 1) && !accepts(&node.group, "s2", &unit(a, 1), 2));
    assert_eq!(node.group.member_count(), 1);
}

#[test]
fn after_a_restart_units_wait_for_their_owners() {
    let a = topic(1, 4);
    let mut node = Node::default();
    node.join(join("x", 1, topics(&[("a", a)])));
    node.join(join("y", 2, topics(&[("a", a)])));
    node.confirm_all();
    node.restart(secs(10));
    assert!(accepts(&node.group, "y", &unit(a, 3), 2), "a step that was under way");
    node.join(join("z", 3, topics(&[("a", a)])));
    assert_eq!(node.told(), [], "nobody knows yet who comes back");
    assert_eq!(node.join(join("x", 4, topics(&[("a", a)]))).held.len(), 2);
    let told = node.confirm_all();
    assert_eq!(told.len(), 2, "x gives z one of its two: {told:?}");
    node.pass(5);
    for (name, connection) in [("z", 3), ("x", 4)] {
        assert_eq!(node.group.heartbeat(node.now, &stream(name, connection)), Ok(()));
    }
    node.pass(5);
    assert_eq!(node.told().len(), 2, "y had its time");
    assert_eq!(node.loads().into_values().collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_topic_that_is_deleted_and_created_again_is_other_units() {
    let (mut node, a) = one_member();
    node.change(TopicChange::Gone(a.id));
    let lost = |n| Action::Lost {
        to: stream("x", 1),
        unit: unit(a, n),
        epoch: AssignmentEpoch(1),
        why: LostWhy::Gone,
    };
    assert_eq!(node.told(), [lost(0), lost(1)]);
    let again = topic(2, 1);
    node.change(TopicChange::Exists("a".into(), again));
    assert_eq!(
        node.told(),
        [assign(stream("x", 1), unit(again, 0), 2)],
        "what is called the same is told from it"
    );
    node.change(TopicChange::Exists("a".into(), topic(2, 2)));
    assert_eq!(node.told(), [assign(stream("x", 1), unit(again, 1), 2)]);
    node.change(TopicChange::Exists("b".into(), topic(3, 2)));
    assert_eq!(node.told(), [], "nobody subscribes to it");
}

#[test]
fn who_does_not_subscribe_any_more_gives_the_units_up() {
    let (mut node, a) = one_member();
    let b = topic(2, 1);
    node.join(Join { warms_up: true, ..join("y", 2, topics(&[("b", b)])) });
    node.told();
    node.join(join("x", 1, topics(&[("b", b)])));
    let told = node.confirm_all();
    assert_eq!(told, [revoke(stream("x", 1), unit(a, 0), 1), revoke(stream("x", 1), unit(a, 1), 1)]);
    assert_eq!(node.group.state(), GroupState::Stable);
    node.join(join("x", 1, topics(&[("a", a)])));
    let told = node.told();
    assert_eq!(told, [assign(stream("x", 1), unit(a, 0), 3), assign(stream("x", 1), unit(a, 1), 3)]);
}

#[test]
fn a_unit_whose_epochs_are_used_up_is_assigned_no_more() {
    let a = topic(1, 1);
    let row = OwnershipRecord {
        unit: unit(a, 0),
        epoch: AssignmentEpoch(i32::MAX),
        member: Some(member("x")),
        instance: None,
        session_timeout: secs(10),
    };
    let mut group = Group::restore(secs(0), [row], AssignmentEpoch::NONE, secs(10));
    group.join(secs(0), join("y", 1, topics(&[("a", a)]))).expect("it fits");
    assert_eq!(group.heartbeat(secs(9), &stream("y", 1)), Ok(()));
    group.tick(secs(10));
    group.settled(secs(10), &unit(a, 0), AssignmentEpoch(i32::MAX));
    let actions = group.take_actions();
    assert!(matches!(&actions[..], [Action::Settle { .. }]), "{actions:?}");
    assert_eq!(group.state(), GroupState::Stable);
}

#[test]
fn after_a_restart_a_member_is_awaited_for_its_own_session_and_for_the_grace_at_least() {
    let a = topic(1, 2);
    for (session, lost_after) in [(100, 100), (1, 30)] {
        let mut node = Node::default();
        node.join(Join { session_timeout: secs(session), ..join("x", 1, topics(&[("a", a)])) });
        drop(node.told());
        node.restart(secs(30));
        node.join(Join { session_timeout: secs(1_000), ..join("y", 2, topics(&[("a", a)])) });
        node.pass(lost_after - 1);
        assert_eq!(node.told(), [], "x may come back");
        node.pass(1);
        assert_eq!(node.told().len(), 2, "its units go to y");
    }
}
