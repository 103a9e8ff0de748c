//! Who owns which unit, and who certainly does not any more.
//!
//! * An epoch of a unit has one owner. No epoch comes again, also not after a start.
//! * Who has left, has confirmed, or was succeeded by another of its instance has nothing from then on, although nobody
//!   else may have it yet.

use std::collections::{BTreeMap, BTreeSet};

use logmill_broker::Assignment;

/// A unit of a group.
type Unit = (String, String);

#[derive(Debug, Default)]
pub(crate) struct Owners {
    epochs: BTreeMap<Unit, BTreeMap<i32, String>>,
    /// Epochs that were there before the last start.
    before_start: BTreeMap<Unit, i32>,
    /// Epochs whose owner has none of it since, unless a start has forgotten that.
    given_up: BTreeMap<Unit, i32>,
    /// Who came last under an instance id.
    instances: BTreeMap<(String, String), String>,
    /// Who was succeeded in this run of the node, and has not come again.
    succeeded: BTreeSet<String>,
}

impl Owners {
    /// A member has joined. Gives whom it has succeeded, who is fenced from now on.
    pub(crate) fn joined(&mut self, group: &str, member: &str, instance: Option<&str>) -> Option<String> {
        self.succeeded.remove(member);
        let place = (group.to_owned(), instance?.to_owned());
        let former = self.instances.insert(place, member.to_owned()).filter(|former| former != member)?;
        self.left(group, &former);
        self.succeeded.insert(former.clone());
        Some(former)
    }

    /// Who came last under an instance id.
    pub(crate) fn instance(&self, group: &str, instance: &str) -> Option<&str> {
        self.instances.get(&(group.to_owned(), instance.to_owned())).map(String::as_str)
    }

    /// Whether another has taken its place.
    pub(crate) fn is_succeeded(&self, member: &str) -> bool {
        self.succeeded.contains(member)
    }

    /// It is no member any more.
    pub(crate) fn left(&mut self, group: &str, member: &str) {
        for (unit, epochs) in self.epochs.iter().filter(|(unit, _)| unit.0 == group) {
            if let Some((epoch, _)) = epochs.last_key_value().filter(|(_, owner)| *owner == member) {
                self.given_up.insert(unit.clone(), *epoch);
            }
        }
    }

    /// It has confirmed that it gives up the unit.
    pub(crate) fn gave_up(&mut self, group: &str, unit: &str, epoch: i32) {
        let last = self.given_up.entry((group.to_owned(), unit.to_owned())).or_insert(epoch);
        *last = epoch.max(*last);
    }

    /// Whether whoever had that epoch is known to have the unit no more.
    pub(crate) fn is_over(&self, group: &str, unit: &str, epoch: i32) -> bool {
        let unit = (group.to_owned(), unit.to_owned());
        let newest = self.epochs.get(&unit).and_then(|of| of.last_key_value());
        newest.is_some_and(|(newest, _)| *newest > epoch)
            || self.given_up.get(&unit).is_some_and(|given_up| *given_up >= epoch)
    }

    /// What was given up may be had again by who had it: nobody has promised that it is on disk.
    pub(crate) fn started(&mut self) {
        self.given_up.clear();
        self.succeeded.clear();
        self.before_start.clear();
        for (unit, epochs) in &self.epochs {
            if let Some((epoch, _)) = epochs.last_key_value() {
                self.before_start.insert(unit.clone(), *epoch);
            }
        }
    }

    /// A member hears that a unit is its own. Whether it is: it may hear of it late.
    pub(crate) fn assigned(&mut self, group: &str, member: &str, of: &Assignment) -> bool {
        let unit = (group.to_owned(), of.unit.clone());
        let before = self.before_start.get(&unit).copied().unwrap_or(0);
        assert!(of.epoch >= before, "{unit:?}: epoch {} comes after {before}", of.epoch);
        let epochs = self.epochs.entry(unit.clone()).or_default();
        let owner = epochs.entry(of.epoch).or_insert_with(|| member.to_owned());
        assert_eq!(owner, member, "{unit:?}: two own it in epoch {}", of.epoch);
        !self.is_over(group, &of.unit, of.epoch)
    }
}
