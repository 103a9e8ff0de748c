//! A unit stays with its owner while something of it is under way.

use std::sync::Arc;

use super::coordinator::Coordinator;
use super::machine::{AssignmentEpoch, Stale, UnitId};
use crate::broker::Core;
use crate::budget::Permit;
use crate::catalog::Partition;
use crate::error::{Error, Reason, shorten};
use crate::topic::TopicPartition;

/// The right of a unit's owner to something that has to be done before another owns it. It is given back when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Held {
    group: Arc<str>,
    unit: String,
    epoch: i32,
    /// `None` if nobody has said yet which.
    partitions: Option<Vec<TopicPartition>>,
    _place: Permit,
}

impl Held {
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn unit(&self) -> &str {
        &self.unit
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Refuses a partition that is not one of the unit's.
    pub(crate) fn check(&self, of: &Partition, topic: uuid::Uuid, partition: u32) -> Result<(), Error> {
        let Self { group, unit, .. } = self;
        let Some(partitions) = &self.partitions else {
            let message = format!(
                "no member of group {group:?} has come since the node was started, and said which partitions the unit \
                 {unit:?} has: send this again when one has joined"
            );
            let error = Error::new(Reason::UnitUndeclared, message);
            return Err(error.with("group", group).with("unit", shorten(unit)));
        };
        if partitions.contains(&TopicPartition { topic, partition }) {
            return Ok(());
        }
        let message =
            format!("{} is not in unit {unit:?} of group {group:?}: commit what was assigned", of.name());
        Err(of.name().error(Reason::StaleAssignment, message))
    }
}

impl Coordinator {
    /// See [`Groups::hold`](super::Groups::hold).
    pub(super) fn hold(&self, core: &Core, unit: &str, epoch: i32) -> Result<Held, Error> {
        let mut state = self.state.lock();
        let id = state.unit_id(core, unit).ok_or_else(|| self.stale(unit, epoch, None))?;
        state.machine.check(None, &id, AssignmentEpoch(epoch)).map_err(|Stale { owner }| {
            let owner = owner.map(|(member, epoch)| (member.to_string(), epoch.0));
            self.stale(unit, epoch, owner.as_ref())
        })?;
        let partitions = state.machine.is_declared(&id).then(|| state.machine.partitions_of(&id));
        let place = state.holds_of(&id).take(1).ok_or_else(|| Error::fault("a commit"))?;
        let (group, unit) = (Arc::clone(&self.name), unit.to_owned());
        Ok(Held { group, unit, epoch, partitions, _place: place })
    }

    fn stale(&self, unit: &str, epoch: i32, owner: Option<&(String, i32)>) -> Error {
        let shown = shorten(unit);
        let (who, next) = match owner {
            Some((member, current)) => {
                (format!("member {member:?} owns it in epoch {current}"), "the new owner")
            }
            None => ("nobody owns it".to_owned(), "its next owner"),
        };
        let message = format!(
            "unit {shown:?} of group {:?} is not assigned to you in epoch {epoch} ({who}): discard what you made of it \
             since; {next} does that work again",
            self.name
        );
        let error =
            Error::new(Reason::StaleAssignment, message).with("group", &self.name).with("unit", shown);
        match owner {
            Some((_, current)) => error.with("current_epoch", current),
            None => error,
        }
    }
}

/// What people call a unit.
pub(super) fn name_of(core: &Core, unit: &UnitId) -> String {
    match unit {
        UnitId::Named(name) => name.to_string(),
        UnitId::Partition(TopicPartition { topic, partition }) => match core.catalog.name_of(*topic) {
            Some(name) => format!("{name}/{partition}"),
            None => format!("{topic}/{partition}"),
        },
    }
}
