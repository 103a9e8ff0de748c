//! What members of a group of units see, and warming up.

use super::super::*;
use super::node::Node;
use super::{declared, join, member, partition, stream, topic, topics};

fn named(name: &str) -> UnitId {
    UnitId::Named(name.into())
}

/// Two units, of which `x` has both.
fn one_member() -> (Node, Interest) {
    let (a, b) = (topic(1, 2), topic(2, 2));
    let interest =
        declared(&[("t0", &[partition(a, 0), partition(b, 0)]), ("t1", &[partition(a, 1), partition(b, 1)])]);
    let mut node = Node::default();
    node.join(join("x", 1, interest.clone()));
    assert_eq!(node.told().len(), 2);
    (node, interest)
}

fn warm(name: &str, connection: u64, interest: Interest) -> Join {
    Join { warms_up: true, ..join(name, connection, interest) }
}

#[test]
fn all_members_declare_the_same_units() {
    let (mut node, _) = one_member();
    let a = topic(1, 2);
    let less = declared(&[("t0", &[partition(a, 0)])]);
    let refused = node.group.join(node.now, join("y", 2, less.clone()));
    assert_eq!(refused, Err(JoinError::UnitsDiffer { unit: "t1".into() }));
    let other = node.group.join(node.now, join("y", 2, topics(&[("a", a)])));
    assert_eq!(other, Err(JoinError::OtherKind { group: Kind::Units }));
    assert_eq!(node.group.take_actions(), []);

    node.leave(&stream("x", 1));
    let other = node.group.join(node.now, join("y", 2, topics(&[("a", a)])));
    assert_eq!(other, Err(JoinError::OtherKind { group: Kind::Units }), "its units are known");
    node.join(join("y", 2, less));
    // In epoch 2 it was nobody's.
    let assigned = Action::Assign { to: stream("y", 2), unit: named("t0"), epoch: AssignmentEpoch(3) };
    assert_eq!(node.told(), [assigned], "nobody else is there, so it may declare what it likes");
    assert!(node.group.partitions_of(&named("t0")).contains(&partition(a, 0)));
    assert!(!node.group.partitions_of(&named("t1")).contains(&partition(a, 1)));
}

#[test]
fn a_plain_group_takes_no_member_with_units() {
    let a = topic(1, 1);
    let mut node = Node::default();
    node.join(join("x", 1, topics(&[("a", a)])));
    let refused = node.group.join(node.now, join("y", 2, declared(&[("t0", &[partition(a, 0)])])));
    assert_eq!(refused, Err(JoinError::OtherKind { group: Kind::Plain }));
    assert!(!node.group.has_member(&member("y")));
}

#[test]
fn who_is_alone_and_changes_a_unit_has_it_in_a_new_epoch() {
    let (mut node, _) = one_member();
    let (a, b) = (topic(1, 2), topic(2, 2));
    let changed = declared(&[("t0", &[partition(a, 0), partition(b, 0)]), ("t1", &[partition(a, 1)])]);
    assert_eq!(node.join(join("x", 2, changed)).held, [(named("t0"), AssignmentEpoch(1))]);
    let told = node.told();
    let closed = Action::Close { to: stream("x", 1), why: CloseWhy::Replaced };
    let assigned = Action::Assign { to: stream("x", 2), unit: named("t1"), epoch: AssignmentEpoch(2) };
    assert_eq!(told, [closed, assigned]);
}

#[test]
fn a_unit_with_a_partition_of_a_topic_that_is_gone_is_lost_but_not_its_epoch() {
    let (mut node, interest) = one_member();
    node.change(TopicChange::Gone(topic(1, 2).id));
    assert_eq!(node.told().len(), 2);
    assert_eq!(node.rows.len(), 2, "the names may come again");
    node.join(join("x", 2, interest));
    let told = node.told();
    assert!(matches!(told[1], Action::Assign { epoch: AssignmentEpoch(3), .. }), "{told:?}");
}

#[test]
fn a_unit_moves_when_its_next_owner_is_warm() {
    let (mut node, interest) = one_member();
    node.join(warm("y", 2, interest.clone()));
    assert_eq!(node.told(), [Action::WarmUp { to: stream("y", 2), unit: named("t1") }]);
    let described = node.group.describe();
    assert_eq!(described.members[0].units[1].status, UnitStatus::WarmingUp);
    assert_eq!(described.members[0].units[1].next, Some(member("y")));

    node.lose(&stream("y", 2));
    assert_eq!(node.told(), [], "x has noticed nothing");
    node.join(warm("y", 3, interest));
    assert_eq!(node.told(), [Action::WarmUp { to: stream("y", 3), unit: named("t1") }]);
    node.warmed(&stream("y", 3), &named("t1"));
    let revoke = Action::Revoke { to: stream("x", 1), unit: named("t1"), epoch: AssignmentEpoch(1) };
    assert_eq!(node.told(), [revoke]);
    node.revoked(&stream("x", 1), &named("t1"), 1);
    assert_eq!(
        node.told(),
        [Action::Assign { to: stream("y", 3), unit: named("t1"), epoch: AssignmentEpoch(2) }]
    );
}

#[test]
fn a_description_says_who_owns_what_and_what_is_under_way() {
    let (mut node, interest) = one_member();
    let instance = Some(InstanceId::new("host-2"));
    node.join(Join { instance: instance.clone(), ..join("y", 2, interest) });
    let unit =
        |name, status, next| UnitDescription { unit: named(name), epoch: AssignmentEpoch(1), status, next };
    let x = MemberDescription {
        id: member("x"),
        instance: None,
        presence: Presence::Connected(ConnectionId(1)),
        units: vec![unit("t0", UnitStatus::Owned, None), unit("t1", UnitStatus::Revoking, Some(member("y")))],
    };
    let presence = Presence::Connected(ConnectionId(2));
    let y = MemberDescription { id: member("y"), instance, presence, units: vec![] };
    let kind = Some(Kind::Units);
    let mut expected =
        Description { state: GroupState::Rebalancing, kind, members: vec![x, y], unowned: vec![] };
    assert_eq!(node.group.describe(), expected);

    let confirmed = node.group.revoked(node.now, &stream("x", 1), &named("t1"), AssignmentEpoch(1));
    assert_eq!(confirmed, Ok(()));
    expected.members[0].units.pop();
    expected.unowned = vec![unit("t1", UnitStatus::Settling, Some(member("y")))];
    assert_eq!(node.group.describe(), expected);
}

#[test]
fn what_nobody_owns_is_not_warmed_up_for() {
    let (mut node, interest) = one_member();
    node.join(warm("y", 2, interest));
    node.told();
    node.leave(&stream("x", 1));
    let told = node.told();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|action| matches!(action, Action::Assign { .. })), "{told:?}");
}

/// Three units: `y` warms up for one that then goes to `z`, as soon as `z` has less.
#[test]
fn a_warm_up_for_what_does_not_come_is_called_off() {
    let (mut node, _) = one_member();
    node.leave(&stream("x", 1));
    let a = topic(1, 4);
    let parts: Vec<_> = (0..4).map(|n| [partition(a, n)]).collect();
    let four = declared(&[("t0", &parts[0]), ("t1", &parts[1]), ("t2", &parts[2]), ("t3", &parts[3])]);
    node.join(join("x", 2, four.clone()));
    node.join(warm("y", 3, four.clone()));
    let told = node.told();
    assert_eq!(told.iter().filter(|action| matches!(action, Action::WarmUp { .. })).count(), 2);
    node.join(warm("z", 4, four));
    let told = node.told();
    let from_y = Action::CancelWarmUp { to: stream("y", 3), unit: named("t3") };
    let for_z = Action::WarmUp { to: stream("z", 4), unit: named("t3") };
    assert_eq!(told, [from_y, for_z], "rather than one that x works on and is to keep");
    node.pass(9);
    assert_eq!(node.loads()["x"], 4, "and x has them until somebody is warm");
}
