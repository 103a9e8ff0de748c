//! From members and units to where each unit belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Group;
use super::balance::{Class, Place, balance};
use super::member::{Member, Wants};
use super::names::{MemberId, UnitId};
use super::unit::Unit;

/// The members as they are numbered for [`balance`], and which of them may have which units.
struct Plan<'a> {
    ids: Vec<&'a MemberId>,
    numbers: BTreeMap<&'a MemberId, usize>,
    takers: Vec<bool>,
    classes: Vec<Class>,
    /// The class of the units of a topic.
    by_topic: BTreeMap<&'a Arc<str>, usize>,
    /// The class of units that members declare.
    declared: Option<usize>,
}

impl Group {
    /// Finds out anew where units belong, and begins what follows from it.
    pub(super) fn rebalance(&mut self, now: Duration) {
        self.forget_unwanted();
        for (id, target) in self.plan() {
            if let Some(unit) = self.units.get_mut(&id) {
                unit.target = target;
            }
        }
        let under_way = self.units.iter().filter(|(_, unit)| !unit.is_at_rest());
        let under_way: Vec<UnitId> = under_way.map(|(id, _)| id.clone()).collect();
        for id in under_way {
            self.drive(now, &id);
        }
    }

    pub(super) fn is_subscribed(&self, topic: &Arc<str>) -> bool {
        self.members.values().any(|member| member.subscribes_to(topic))
    }

    /// Whether the member may have the unit.
    pub(super) fn is_eligible(&self, member: &MemberId, id: &UnitId) -> bool {
        let Some(member) = self.members.get(member) else { return false };
        match id {
            UnitId::Partition(of) => {
                self.topics.name(of.topic).is_some_and(|topic| member.subscribes_to(topic))
            }
            UnitId::Named(_) => {
                matches!(member.wants, Wants::Units)
                    && self.units.get(id).is_some_and(|unit| unit.declared.is_some())
            }
        }
    }

    /// Topics that nobody subscribes to, units of no member, and units that were never anybody's.
    fn forget_unwanted(&mut self) {
        let subscribed: BTreeSet<&Arc<str>> = self.members.values().flat_map(Member::topics).collect();
        self.topics.retain(&subscribed);
        let nobody = self.members.values().all(Member::is_awaited);
        let topics = &self.topics;
        self.units.retain(|id, unit| {
            if nobody {
                unit.declared = None;
            }
            let wanted = match id {
                UnitId::Partition(of) => topics.name(of.topic).is_some(),
                UnitId::Named(_) => unit.declared.is_some(),
            };
            wanted || unit.was_ever_assigned()
        });
    }

    /// The units whose place changes, and where they belong now.
    fn plan(&self) -> Vec<(UnitId, Option<MemberId>)> {
        let mut plan = self.classify();
        let (mut placed, mut changes) = (Vec::new(), Vec::new());
        for (id, unit) in &self.units {
            if unit.keeper().and_then(|keeper| self.members.get(keeper)).is_some_and(Member::is_awaited) {
                continue;
            }
            match plan.class_of(self, id, unit) {
                Some(class) => {
                    let place = plan.place(class, unit);
                    plan.classes[class].units.push(place);
                    placed.push((id, unit, class, plan.classes[class].units.len() - 1));
                }
                None if unit.target.is_some() => changes.push((id.clone(), None)),
                None => {}
            }
        }
        balance(&plan.takers, &mut plan.classes);
        for (id, unit, class, index) in placed {
            let target = plan.classes[class].units[index].at.map(|member| plan.ids[member]);
            if target != unit.target.as_ref() {
                changes.push((id.clone(), target.cloned()));
            }
        }
        changes
    }

    /// Topics with the same subscribers are one class, so that there are few.
    fn classify(&self) -> Plan<'_> {
        let members: Vec<(&MemberId, &Member)> =
            self.members.iter().filter(|(_, member)| !member.is_awaited()).collect();
        let mut subscribers: BTreeMap<&Arc<str>, Vec<usize>> = BTreeMap::new();
        for (number, (_, member)) in members.iter().enumerate() {
            member.topics().for_each(|topic| subscribers.entry(topic).or_default().push(number));
        }
        let mut plan = Plan {
            ids: members.iter().map(|(id, _)| *id).collect(),
            numbers: members.iter().enumerate().map(|(number, (id, _))| (*id, number)).collect(),
            takers: members.iter().map(|(_, member)| member.is_connected()).collect(),
            classes: Vec::new(),
            by_topic: BTreeMap::new(),
            declared: None,
        };
        let of_units = (0..members.len()).filter(|number| matches!(members[*number].1.wants, Wants::Units));
        let of_units: Vec<usize> = of_units.collect();
        if !of_units.is_empty() {
            plan.declared = Some(plan.add_class(of_units));
        }
        let mut by_subscribers: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        for (topic, eligible) in subscribers {
            let known = by_subscribers.get(&eligible).copied();
            let class = known.unwrap_or_else(|| plan.add_class(eligible.clone()));
            by_subscribers.entry(eligible).or_insert(class);
            plan.by_topic.insert(topic, class);
        }
        plan
    }
}

impl Plan<'_> {
    fn add_class(&mut self, eligible: Vec<usize>) -> usize {
        self.classes.push(Class { eligible, units: Vec::new() });
        self.classes.len() - 1
    }

    /// None if nobody can have the unit.
    fn class_of(&self, group: &Group, id: &UnitId, unit: &Unit) -> Option<usize> {
        if unit.owner().is_none() && unit.epoch.next().is_none() {
            return None;
        }
        match id {
            UnitId::Partition(of) => self.by_topic.get(group.topics.name(of.topic)?).copied(),
            UnitId::Named(_) => self.declared.filter(|_| unit.declared.is_some()),
        }
    }

    /// Where the unit is if nothing moves: where it belonged so far, if it still can come there, else with its owner.
    fn place(&self, class: usize, unit: &Unit) -> Place {
        let eligible = |member: &MemberId| {
            let number = self.numbers.get(member).copied();
            number.filter(|number| self.classes[class].eligible.binary_search(number).is_ok())
        };
        let owner = unit.keeper().and_then(eligible);
        let target = unit.target.as_ref().and_then(eligible);
        let comes = target.filter(|target| self.takers[*target] || owner == Some(*target));
        Place { at: comes.or(owner), owner }
    }
}

impl Member {
    fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        let topics = match &self.wants {
            Wants::Topics(topics) => Some(topics),
            Wants::Units | Wants::Unknown => None,
        };
        topics.into_iter().flatten()
    }

    fn subscribes_to(&self, topic: &Arc<str>) -> bool {
        matches!(&self.wants, Wants::Topics(topics) if topics.contains(topic))
    }
}
