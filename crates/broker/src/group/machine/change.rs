//! Units come and go: with topics, and with what members declare.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Group;
use super::action::{Action, LostWhy};
use super::deadlines::Due;
use super::names::{AssignmentEpoch, UnitId};
use super::topics::{Topic, TopicChange};
use super::unit::{Stage, Unit};
use crate::topic::TopicPartition;

impl Group {
    /// The catalog has changed. Units of a topic that is gone are lost at once. What nobody subscribes to is passed
    /// over, so the caller may tell everything.
    pub(crate) fn topics_changed(&mut self, now: Duration, changes: impl IntoIterator<Item = TopicChange>) {
        for change in changes {
            match change {
                TopicChange::Exists(name, topic) if self.is_subscribed(&name) => {
                    self.learn_topic(&name, topic);
                }
                TopicChange::Exists(..) => {}
                TopicChange::Gone(id) => self.topic_gone(id),
            }
        }
        self.rebalance(now);
    }

    pub(super) fn learn_topics(&mut self, topics: BTreeMap<Arc<str>, Option<Topic>>) {
        for (name, topic) in topics {
            if let Some(topic) = topic {
                self.learn_topic(&name, topic);
            }
        }
    }

    fn learn_topic(&mut self, name: &Arc<str>, topic: Topic) {
        if let Some(other) = self.topics.insert(name, topic) {
            self.topic_gone(other);
        }
        for partition in 0..topic.partitions {
            let id = UnitId::Partition(TopicPartition { topic: topic.id, partition });
            self.units.entry(id).or_insert_with(|| Unit::new(AssignmentEpoch::NONE, Stage::Free));
        }
    }

    fn topic_gone(&mut self, topic: Uuid) {
        self.topics.remove(topic);
        let first = UnitId::Partition(TopicPartition { topic, partition: 0 });
        let last = UnitId::Partition(TopicPartition { topic, partition: u32::MAX });
        let own: Vec<UnitId> = self.units.range(first..=last).map(|(id, _)| id.clone()).collect();
        for id in own {
            self.remove_unit(&id);
        }
        let is_of_topic = |partition: &TopicPartition| partition.topic == topic;
        let has_part = |unit: &Unit| unit.declared.as_deref().is_some_and(|all| all.iter().any(is_of_topic));
        let with_part = self.units.iter().filter(|(_, unit)| has_part(unit));
        let with_part: Vec<UnitId> = with_part.map(|(id, _)| id.clone()).collect();
        for id in with_part {
            self.undeclare(&id);
        }
    }

    /// The unit never comes again, so nothing is kept of it but its epoch: what comes under its name begins later.
    fn remove_unit(&mut self, id: &UnitId) {
        self.tell_gone(id);
        let Some(unit) = self.units.remove(id) else { return };
        self.deadlines.disarm(&Due::Revoke(id.clone()));
        self.deadlines.disarm(&Due::Retry(id.clone()));
        let warming = unit.warming.as_ref().map(|warming| &warming.member);
        if let Some(to) = warming.and_then(|id| self.members.get(id)?.stream(id)) {
            self.actions.push(Action::CancelWarmUp { to, unit: id.clone() });
        }
        if unit.was_ever_assigned() {
            self.forgotten = self.forgotten.max(unit.epoch);
            self.actions.push(Action::Forget { unit: id.clone(), epoch: unit.epoch });
        }
    }

    /// These are the group's units from now on.
    pub(super) fn declare(&mut self, units: BTreeMap<Arc<str>, Vec<TopicPartition>>) {
        let is_other = |id: &UnitId, unit: &Unit| match (id, unit.declared.as_deref()) {
            (UnitId::Named(name), Some(partitions)) => units.get(name).map(Vec::as_slice) != Some(partitions),
            _ => false,
        };
        let others = self.units.iter().filter(|(id, unit)| is_other(id, unit));
        let others: Vec<UnitId> = others.map(|(id, _)| id.clone()).collect();
        for id in others {
            self.undeclare(&id);
        }
        for (name, partitions) in units {
            let unit = self.units.entry(UnitId::Named(name));
            let unit = unit.or_insert_with(|| Unit::new(AssignmentEpoch::NONE, Stage::Free));
            unit.declared.get_or_insert_with(|| partitions.into());
        }
    }

    /// The name may come again, so the unit is kept for its epoch; and its owner may have left something in
    /// other topics.
    fn undeclare(&mut self, id: &UnitId) {
        self.tell_gone(id);
        let Some(unit) = self.units.get_mut(id) else { return };
        unit.declared = None;
        if unit.owner().is_some() {
            Self::release(id, unit, &mut self.deadlines, &mut self.actions);
        }
    }

    fn tell_gone(&mut self, id: &UnitId) {
        let Some(unit) = self.units.get(id) else { return };
        let Some(owner) = unit.owner() else { return };
        if let Some(to) = self.members.get(owner).and_then(|member| member.stream(owner)) {
            let why = LostWhy::Gone;
            self.actions.push(Action::Lost { to, unit: id.clone(), epoch: unit.epoch, why });
        }
    }
}
