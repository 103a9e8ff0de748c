//! Consumer groups: who reads which partitions, and how far.
//!
//! * [`machine`] decides, and does nothing else: it has no clock, no disk and no streams.
//! * [`coordinator`] is a group as the node runs it: it does what the machine wants done.
//! * [`join`]: how a member comes, and what for.
//! * [`member`] is a member's end: it hears [events](event), by way of its [`mailbox`], and it speaks.
//! * [`consume`] is a member that is given the records of its units, too.
//! * [`commit`]: how far the owner of a unit has read, in the log of [offsets](crate::offsets).
//! * [`hold`]: a unit stays with its owner while something of it is under way.
//! * [`record`]: the bytes that say who has a unit, in the same log, so that their order is that of the commits.
//!
//! Lock order: the registry's lock, then a group's, then a mailbox's or a lane's; the catalog's is a leaf.

mod beginning;
mod commit;
mod consume;
mod coordinator;
mod describe;
mod event;
mod hold;
mod join;
mod machine;
mod mailbox;
mod member;
pub(crate) mod record;
mod rewrite;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use consume::{Consume, ConsumeStart, Consumed, Consumer, UnitData};
use coordinator::Coordinator;
pub use describe::{
    GroupDescription, GroupMember, GroupOffset, GroupPage, GroupState, GroupSummary, GroupUnit, ListGroups,
};
pub use event::{AssignedPartition, Assignment, CommittedOffset, GroupEvent, LostReason};
pub(crate) use hold::Held;
pub use join::{GroupInterest, JoinGroup};
pub(crate) use machine::{AssignmentEpoch, OwnershipRecord, TopicChange, UnitId};
use machine::{ConnectionId, Topic};
pub use member::{Member, MemberHandle};
use parking_lot::Mutex;
pub use rewrite::{OffsetReset, ResetOffsets};

use crate::broker::Core;
use crate::catalog::TopicState;
use crate::error::{Error, Reason, shorten};
use crate::limits::Limit;

/// How long a member keeps its units without a heartbeat, unless it says otherwise: 30 s. And so long the members of
/// the last run are awaited at least.
pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a member may take to give up a unit, unless it says otherwise: 60 s.
pub const DEFAULT_REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);

/// The groups that have, or had, members since the node was started, or own units since before.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    coordinators: Mutex<BTreeMap<Arc<str>, Arc<Coordinator>>>,
    connections: AtomicU64,
}

impl Groups {
    /// Takes up what the last run left: who owned what.
    pub(crate) fn restore(&self, core: &Arc<Core>, rows: BTreeMap<String, Vec<OwnershipRecord>>) {
        // A topic that was deleted never comes again, but its name may.
        let is_gone = |row: &OwnershipRecord| match &row.unit {
            UnitId::Partition(of) => core.catalog.name_of(of.topic).is_none(),
            UnitId::Named(_) => false,
        };
        let gone = rows.values().flatten().filter(|row| is_gone(row)).map(|row| row.epoch);
        core.offsets.forget_up_to(gone.max().unwrap_or_default());
        for (group, mut rows) in rows {
            rows.retain(|row| !is_gone(row));
            if !rows.is_empty() {
                let name: Arc<str> = group.into();
                let coordinator = Coordinator::restored(core, Arc::clone(&name), rows);
                self.coordinators.lock().insert(name, coordinator);
            }
        }
    }

    /// Keeps a unit with its owner as long as what is returned lives.
    pub(crate) fn hold(&self, core: &Core, group: &str, unit: &str, epoch: i32) -> Result<Held, Error> {
        self.get(group)?.hold(core, unit, epoch)
    }

    fn get(&self, group: &str) -> Result<Arc<Coordinator>, Error> {
        self.find(group).ok_or_else(|| not_found(group))
    }

    fn find(&self, group: &str) -> Option<Arc<Coordinator>> {
        self.coordinators.lock().get(group).map(Arc::clone)
    }

    /// The group, which is made if there is none.
    fn get_or_make(&self, core: &Arc<Core>, group: &str) -> Result<Arc<Coordinator>, Error> {
        let mut coordinators = self.coordinators.lock();
        if let Some(coordinator) = coordinators.get(group) {
            return Ok(Arc::clone(coordinator));
        }
        let doing = || format!("the group {:?}", shorten(group));
        let advice = "delete groups that nobody needs";
        core.bounds.check(Limit::MaxGroups, coordinators.len() + 1, doing, advice)?;
        let name: Arc<str> = group.into();
        let coordinator = Coordinator::restored(core, Arc::clone(&name), Vec::new());
        coordinators.insert(name, Arc::clone(&coordinator));
        Ok(coordinator)
    }

    /// A group that was made for a member who may not join is none.
    fn drop_unused(&self, coordinator: &Arc<Coordinator>) {
        let mut coordinators = self.coordinators.lock();
        let mut state = coordinator.state.lock();
        if state.machine.member_count() == 0 && state.machine.unit_count() == 0 && !state.is_gone {
            state.is_gone = true;
            coordinators.remove(&coordinator.name);
        }
    }

    fn all(&self) -> Vec<Arc<Coordinator>> {
        self.coordinators.lock().values().map(Arc::clone).collect()
    }

    fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Tells every group of a topic that is new, or has more partitions.
    pub(crate) fn topic_exists(&self, core: &Arc<Core>, topic: &TopicState) {
        let name: Arc<str> = topic.identity.name.as_str().into();
        self.topic_changed(core, &TopicChange::Exists(name, Topic::of(topic)));
    }

    /// Tells every group of a topic that was deleted.
    pub(crate) fn topic_gone(&self, core: &Arc<Core>, topic: &TopicState) {
        self.topic_changed(core, &TopicChange::Gone(topic.id));
    }

    fn topic_changed(&self, core: &Arc<Core>, change: &TopicChange) {
        for coordinator in self.all() {
            coordinator.topic_changed(core, change.clone());
        }
    }
}

impl Topic {
    fn of(topic: &TopicState) -> Self {
        Self { id: topic.id, partitions: topic.identity.partition_count }
    }
}

fn not_found(group: &str) -> Error {
    let shown = shorten(group);
    let message = format!(
        "there is no group {shown:?}: see which there are ('logmill group ls'); one begins with its first member"
    );
    Error::new(Reason::GroupNotFound, message).with("group", shown)
}
