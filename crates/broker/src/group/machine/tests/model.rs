//! Random schedules, with faults and restarts at any point.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::world::World;

/// One schedule, and the rest that has to follow on it.
fn run(seed: u64, steps: usize) {
    let mut world = World::new(seed);
    (0..steps).for_each(|_| world.step());
    world.calm_down();
    all_is_owned(&world);
    is_balanced(&world);
}

#[test]
fn whatever_happens_a_unit_has_one_owner_and_finds_one() {
    for seed in 0..3_000 {
        let failed = std::panic::catch_unwind(|| run(seed, 200)).is_err();
        assert!(!failed, "seed {seed}");
    }
}

fn owners(world: &World) -> BTreeMap<UnitId, MemberId> {
    let described = world.group.describe();
    let units = described.members.into_iter().flat_map(|member| {
        let id = member.id;
        member.units.into_iter().map(move |unit| (unit.unit, id.clone()))
    });
    units.collect()
}

/// By those who are there: the rest had its time.
fn all_is_owned(world: &World) {
    let owners = owners(world);
    let there: Vec<_> = world.clients.iter().filter(|client| client.connection.is_some()).collect();
    for unit in world.all_units() {
        let eligible: BTreeSet<_> =
            there.iter().filter(|c| world.is_eligible(c, &unit)).map(|c| &c.id).collect();
        match owners.get(&unit) {
            Some(owner) => assert!(eligible.contains(owner), "{unit:?} is with {owner}"),
            None => assert!(eligible.is_empty(), "{unit:?} is nobody's, and may be had by {eligible:?}"),
        }
    }
    assert_eq!(owners.keys().filter(|unit| !world.all_units().contains(unit)).count(), 0);
    let state = world.group.state();
    let expected = if there.is_empty() { GroupState::Empty } else { GroupState::Stable };
    assert_eq!(state, expected, "{:?}", world.group.describe());
}

/// No chain of hand-overs goes from a member to one with two units less.
fn is_balanced(world: &World) {
    let owners = owners(world);
    let there: Vec<_> = world.clients.iter().filter(|client| client.connection.is_some()).collect();
    let load = |id: &MemberId| owners.values().filter(|owner| *owner == id).count();
    for from in &there {
        let mut reached = BTreeSet::from([&from.id]);
        loop {
            let given = owners.iter().filter(|(_, owner)| reached.contains(owner)).map(|(unit, _)| unit);
            let takers = given.flat_map(|unit| there.iter().filter(|c| world.is_eligible(c, unit)));
            let more: BTreeSet<_> = takers.map(|client| &client.id).collect();
            let before = reached.len();
            reached.extend(more);
            if reached.len() == before {
                break;
            }
        }
        for to in reached {
            let (from, less) = (load(&from.id), load(to));
            assert!(from < less + 2, "{from} and {less}: {:?}", world.group.describe());
        }
    }
}
