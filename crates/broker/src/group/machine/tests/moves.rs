//! How many units move, against the fewest that can.

use std::collections::BTreeMap;

use logmill_log::sim::SimRandom;

use super::super::*;
use super::node::Node;
use super::{join, stream, topic, topics};

/// The fewest units that have to leave members that stay, for counts that differ by at most one.
fn fewest(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>, units: usize) -> usize {
    let mut counts: Vec<usize> =
        before.iter().filter(|(id, _)| after.contains_key(*id)).map(|(_, n)| *n).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let (each, with_one_more) = (units / after.len(), units % after.len());
    let may_keep = |rank: usize| each + usize::from(rank < with_one_more);
    counts.iter().enumerate().map(|(rank, count)| count.saturating_sub(may_keep(rank))).sum()
}

/// Members come and go, and units are moved from those who stay.
fn come_and_go(random: &SimRandom, units: u32, interest: impl Fn() -> Interest) -> (usize, usize) {
    let mut node = Node::default();
    let mut there: Vec<(String, u64)> = Vec::new();
    let (mut moved, mut needed) = (0, 0);
    for connection in 0..60 {
        let before = node.loads();
        if there.len() > 1 && random.one_in(2) {
            let at = usize::try_from(random.below(there.len() as u64)).expect("small");
            let (name, connection) = there.swap_remove(at);
            node.leave(&stream(&name, connection));
        } else {
            let name = format!("m{}", random.below(1_000_000));
            node.join(join(&name, connection, interest()));
            there.push((name, connection));
        }
        let told = node.confirm_all();
        moved += told.iter().filter(|action| matches!(action, Action::Revoke { .. })).count();
        let after = node.loads();
        needed += fewest(&before, &after, units as usize);
        let (least, most) = (after.values().min(), after.values().max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{after:?}");
        assert_eq!(node.group.state(), GroupState::Stable);
    }
    (moved, needed)
}

#[test]
fn where_all_may_have_all_no_more_moves_than_must() {
    for seed in 0..100 {
        let random = SimRandom::new(seed);
        let partitions = u32::try_from(random.below(60) + 1).expect("small");
        let (a, b) = (topic(1, partitions), topic(2, 7));
        let (moved, needed) = come_and_go(&random, partitions + 7, || topics(&[("a", a), ("b", b)]));
        assert_eq!(moved, needed, "seed {seed}");
    }
}

#[test]
fn who_comes_back_moves_nothing() {
    let t = topic(1, 12);
    let mut node = Node::default();
    for (name, connection) in [("x", 1), ("y", 2), ("z", 3)] {
        node.join(join(name, connection, topics(&[("a", t)])));
    }
    node.confirm_all();
    let before = node.owners();
    for (name, connection) in [("x", 1), ("y", 2), ("z", 3)] {
        node.lose(&stream(name, connection));
    }
    for (name, connection) in [("z", 4), ("x", 5), ("y", 6)] {
        assert_eq!(node.join(join(name, connection, topics(&[("a", t)]))).held.len(), 4);
    }
    assert_eq!((node.told(), node.owners()), (Vec::new(), before));
}

/// `x` may have only `a`, `z` only `c`; `y` is in between.
#[test]
fn units_go_along_a_chain_to_a_member_that_the_fullest_cannot_give_to() {
    let (a, b, c) = (topic(1, 4), topic(2, 4), topic(3, 2));
    let mut node = Node::default();
    node.join(join("x", 1, topics(&[("a", a)])));
    node.join(join("y", 2, topics(&[("a", a), ("b", b), ("c", c)])));
    node.confirm_all();
    node.join(join("z", 3, topics(&[("c", c)])));
    node.confirm_all();
    assert_eq!(node.loads(), BTreeMap::from([("x".into(), 4), ("y".into(), 4), ("z".into(), 2)]));
    node.join(join("w", 4, topics(&[("a", a)])));
    let moved = node.confirm_all();
    assert_eq!(moved.iter().filter(|action| matches!(action, Action::Revoke { .. })).count(), 2);
}
