//! What large and idle groups cost.

use logmill_log::env::{Clock, SystemClock};

use super::super::*;
use super::node::Node;
use super::{join, secs, stream, topic, topics};

/// Shown, not asserted: `cargo test --release -- group::machine::tests::cost --nocapture`.
#[test]
fn a_hundred_members_share_ten_thousand_units() {
    let clock = SystemClock::new();
    let (a, b) = (topic(1, 6_000), topic(2, 4_000));
    let interest = || topics(&[("a", a), ("b", b)]);
    let mut node = Node::default();
    for member in 0..100 {
        node.join(join(&format!("m{member:03}"), member, interest()));
        node.confirm_all();
    }
    let before = clock.monotonic();
    let last = join("one more", 100, interest());
    assert!(node.group.join(node.now, last).is_ok());
    let joined = clock.monotonic();
    let revokes = node.group.take_actions();
    assert_eq!(revokes.len(), 99);
    let left = clock.monotonic();
    assert_eq!(node.group.leave(node.now, &stream("m007", 7)), Ok(()));
    let after = clock.monotonic();
    println!("10,000 units: the 101st joins in {:?}, one leaves in {:?}", joined - before, after - left);
}

#[test]
fn the_second_of_two_members_gets_half_of_ten_thousand_units() {
    let clock = SystemClock::new();
    let mut node = Node::default();
    node.join(join("x", 1, topics(&[("a", topic(1, 10_000))])));
    let before = clock.monotonic();
    node.group.join(node.now, join("y", 2, topics(&[("a", topic(1, 10_000))]))).expect("it fits");
    println!("10,000 units: the second joins in {:?}", clock.monotonic() - before);
    let revokes = node.group.take_actions();
    assert_eq!(revokes.iter().filter(|action| matches!(action, Action::Revoke { .. })).count(), 5_000);
}

/// Each member subscribes to half of the topics, no two to the same: as many classes as topics.
#[test]
fn members_of_many_tastes_are_balanced_too() {
    let clock = SystemClock::new();
    let random = logmill_log::sim::SimRandom::new(1);
    let names: Vec<String> = (0..1_000).map(|n| format!("t{n:04}")).collect();
    let mut node = Node::default();
    let mut longest = secs(0);
    for member in 0..100 {
        let all = names.iter().zip(1..).filter(|_| random.one_in(2));
        let some: Vec<_> = all.map(|(name, id)| (name.as_str(), topic(id, 10))).collect();
        let join = join(&format!("m{member:03}"), member, topics(&some));
        let before = clock.monotonic();
        node.group.join(node.now, join).expect("it fits");
        longest = longest.max(clock.monotonic() - before);
        node.confirm_all();
        node.pass(0);
    }
    println!("10,000 units of 1,000 topics, 100 tastes: a join in at most {longest:?}");
}

#[test]
fn a_group_without_members_and_units_is_small() {
    let size = size_of::<Group>();
    println!("a group: {size} bytes, and nothing on the heap");
    assert!(size <= 256, "{size}");
    let mut node = Node::default();
    node.join(join("x", 1, topics(&[("a", topic(1, 50))])));
    node.leave(&stream("x", 1));
    assert_eq!((node.group.member_count(), node.group.unit_count()), (0, 50));
    assert_eq!(node.group.next_deadline(), None);
    node.change(TopicChange::Gone(topic(1, 50).id));
    assert_eq!(
        (node.group.unit_count(), node.rows.len()),
        (0, 0),
        "and nothing is left of a topic that is gone"
    );
}
