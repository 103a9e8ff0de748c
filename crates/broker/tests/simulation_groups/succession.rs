//! What a group looks like around the moment when one of a static member's name succeeds another.

use std::collections::BTreeMap;

use logmill_broker::{GroupDescription, GroupState};

use crate::world::World;

/// A group, before somebody joins it who succeeds another.
pub(crate) struct Before {
    group: &'static str,
    former: String,
    described: GroupDescription,
}

/// What the owner of a unit has of it.
type Owned<'a> = BTreeMap<&'a str, (&'a str, i32)>;

impl Before {
    /// The group, if it is at rest and even, so that nothing moves unless for the one who comes.
    pub(crate) fn look(world: &World, group: &'static str, instance: &str) -> Option<Self> {
        let former = world.ledger.owners.instance(group, instance)?.to_owned();
        let described = describe(world, group)?;
        let counts = || described.members.iter().map(|member| member.units.len());
        let is_even = counts().max()? <= counts().min()? + 1;
        let has_former = described.members.iter().any(|member| member.member_id == former);
        let is_at_rest = described.state == GroupState::Stable && described.unowned.is_empty();
        (is_at_rest && is_even && has_former).then_some(Self { group, former, described })
    }

    /// The successor has all that its predecessor had, or is about to; and nobody else has anything more, or less.
    pub(crate) fn check(&self, world: &mut World, successor: &str) {
        let Some(after) = describe(world, self.group) else { return };
        if !self.is_comparable(&after, successor) {
            return world.count("successions in a group that changes");
        }
        let (before, now) = (owned(&self.described), owned(&after));
        let mut its_own = 0;
        for (unit, (owner, epoch)) in &before {
            if *owner != self.former {
                assert_eq!(now.get(unit), Some(&(*owner, *epoch)), "{unit} has moved: {after:#?}");
                continue;
            }
            its_own += 1;
            let next = after.unowned.iter().find(|it| it.unit == *unit);
            let comes = next.and_then(|it| it.next_member.as_deref()) == Some(successor);
            let is_there = now.get(unit).is_some_and(|now| now.0 == successor && now.1 > *epoch);
            assert!(comes || is_there, "{unit} does not come to {successor}: {after:#?}");
        }
        world.count("successions at rest");
        if its_own > 0 {
            world.count("successions at rest, with units");
        }
    }

    /// Whether nothing has happened but that one has come for another.
    fn is_comparable(&self, after: &GroupDescription, successor: &str) -> bool {
        let ids = |described: &GroupDescription, other: &str, id: &str| {
            let name = |member: &logmill_broker::GroupMember| match member.member_id.as_str() {
                it if it == other => id.to_owned(),
                it => it.to_owned(),
            };
            let mut ids: Vec<String> = described.members.iter().map(name).collect();
            ids.sort();
            ids
        };
        let units = |described: &GroupDescription| {
            let of = described.members.iter().flat_map(|member| &member.units).chain(&described.unowned);
            let mut units: Vec<String> = of.map(|unit| unit.unit.clone()).collect();
            units.sort();
            units
        };
        ids(&self.described, &self.former, successor) == ids(after, "", "")
            && units(&self.described) == units(after)
    }
}

fn describe(world: &World, group: &str) -> Option<GroupDescription> {
    world.wait(world.broker.describe_group(&world.context, group)).ok()
}

fn owned(described: &GroupDescription) -> Owned<'_> {
    let units = described.members.iter().flat_map(|member| {
        member.units.iter().map(|unit| (unit.unit.as_str(), (member.member_id.as_str(), unit.epoch)))
    });
    units.collect()
}
