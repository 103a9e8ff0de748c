//! A group as the node runs it: what happens is told to the machine, and what it wants done is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logmill_log::env::{Wanted, Work};
use parking_lot::Mutex;

use super::DEFAULT_SESSION_TIMEOUT;
use super::hold::name_of;
use super::machine::{
    Action, AssignmentEpoch, ConnectionId, Group, Kind, MemberStream, OwnershipRecord, TopicChange, UnitId,
};
use super::mailbox::{Mailbox, Post};
use crate::broker::Core;
use crate::budget::Budget;
use crate::error::Error;
use crate::topic::TopicPartition;

/// See the module.
#[derive(Debug)]
pub(super) struct Coordinator {
    pub(super) name: Arc<str>,
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) machine: Group,
    /// The group was deleted, and whoever comes makes another.
    pub(super) is_gone: bool,
    /// What is under way of each unit that somebody owns or owned.
    holds: BTreeMap<UnitId, Budget>,
    pub(super) mailboxes: BTreeMap<ConnectionId, Arc<Mailbox>>,
    /// For when the next look at the clock is ordered.
    armed: Option<Duration>,
}

/// What cannot be done under the group's lock.
#[derive(Debug, Default)]
struct Deferred {
    settle: Vec<(UnitId, AssignmentEpoch)>,
    persist: Vec<OwnershipRecord>,
    forget: Vec<(UnitId, AssignmentEpoch)>,
}

impl Deferred {
    /// Puts who has which unit, and what is forgotten, into the log; what is returned resolves when it is on disk.
    fn write(
        &self,
        core: &Arc<Core>,
        group: &str,
        is_gone: bool,
    ) -> Option<impl Future<Output = Result<(), Error>> + Send + 'static + use<>> {
        if is_gone || self.persist.is_empty() && self.forget.is_empty() {
            return None;
        }
        Some(core.offsets.write_units(core, group, &self.persist, &self.forget))
    }
}

impl State {
    /// The unit of that name.
    pub(super) fn unit_id(&self, core: &Core, unit: &str) -> Option<UnitId> {
        if self.machine.kind() != Some(Kind::Plain) {
            return Some(UnitId::Named(unit.into()));
        }
        let (topic, number) = unit.rsplit_once('/')?;
        // By one name alone: steps and transactions know it by that.
        let partition: u32 = number.parse().ok().filter(|partition: &u32| partition.to_string() == number)?;
        let topic = core.catalog.topic(topic).ok()?.id;
        Some(UnitId::Partition(TopicPartition { topic, partition }))
    }

    pub(super) fn holds_of(&mut self, unit: &UnitId) -> &Budget {
        self.holds.entry(unit.clone()).or_insert_with(Budget::unbounded)
    }

    /// Whether nothing is left to be done of what members did who are none any more.
    pub(super) fn is_quiet(&self) -> bool {
        self.machine.is_at_rest() && self.holds.values().all(|hold| hold.used() == 0)
    }

    /// All that is under way.
    pub(super) fn under_way(&self) -> Vec<Budget> {
        self.holds.values().cloned().collect()
    }

    /// Posts what members are to hear; the rest is for later.
    fn take_actions(&mut self) -> Deferred {
        let mut deferred = Deferred::default();
        for action in self.machine.take_actions() {
            match action {
                Action::Settle { unit, epoch } => deferred.settle.push((unit, epoch)),
                Action::Persist(row) => deferred.persist.push(row),
                Action::Forget { unit, epoch } => {
                    // What is under way of it is waited for by who deletes the group.
                    if self.holds.get(&unit).is_some_and(|hold| hold.used() == 0) {
                        self.holds.remove(&unit);
                    }
                    deferred.forget.push((unit, epoch));
                }
                Action::Assign { to, unit, epoch } => {
                    self.post(&to, Post::Assign(unit, epoch));
                }
                Action::Revoke { to, unit, epoch } => {
                    self.post(&to, Post::Revoke(unit, epoch));
                }
                Action::WarmUp { to, unit } => self.post(&to, Post::WarmUp(unit)),
                Action::CancelWarmUp { to, unit } => self.post(&to, Post::CancelWarmUp(unit)),
                Action::Lost { to, unit, epoch, why } => {
                    self.post(&to, Post::Lost(unit, epoch, why));
                }
                Action::Close { to, why } => {
                    self.post(&to, Post::Close(why));
                    self.mailboxes.remove(&to.connection);
                }
            }
        }
        deferred
    }

    fn post(&self, to: &MemberStream, post: Post) {
        if let Some(mailbox) = self.mailboxes.get(&to.connection) {
            mailbox.post(post);
        }
    }
}

impl Coordinator {
    /// With what the last run left.
    pub(super) fn restored(core: &Arc<Core>, name: Arc<str>, rows: Vec<OwnershipRecord>) -> Arc<Self> {
        let now = core.config.env.clock.monotonic();
        let machine = Group::restore(now, rows, core.offsets.forgotten(), DEFAULT_SESSION_TIMEOUT);
        let coordinator = Arc::new(Self { name, state: Mutex::new(State { machine, ..State::default() }) });
        coordinator.update(core, |_, _| ());
        coordinator
    }

    /// Tells the machine something, and sees to what it wants done.
    pub(super) fn update<T>(
        self: &Arc<Self>,
        core: &Arc<Core>,
        what: impl FnOnce(&mut State, Duration) -> T,
    ) -> T {
        let now = core.config.env.clock.monotonic();
        let (result, deferred, written, deadline) = {
            let mut state = self.state.lock();
            let result = what(&mut state, now);
            let deferred = state.take_actions();
            // Under the lock, so that the log has it in the order in which it was decided.
            let written = deferred.write(core, &self.name, state.is_gone);
            (result, deferred, written, state.next_deadline())
        };
        if let Some(deadline) = deadline {
            self.arm(core, deadline.saturating_sub(now));
        }
        for (unit, epoch) in deferred.settle {
            self.settle(core, unit, epoch);
        }
        if let Some(written) = written {
            self.persist(core, deferred.persist, written);
        }
        result
    }

    /// Waits until nothing is under way of what former owners did, and ends what they have left.
    fn settle(self: &Arc<Self>, core: &Arc<Core>, unit: UnitId, epoch: AssignmentEpoch) {
        let under_way = self.state.lock().holds_of(&unit).clone();
        let (coordinator, again) = (Arc::clone(self), Arc::clone(core));
        drop(core.carry_on("the change of a unit's owner", async move {
            let name = name_of(&again, &unit);
            again.transactions.abort_those_that_hold(&again, &coordinator.name, &name).await;
            let _ = under_way.empty().await;
            coordinator.update(&again, |state, now| state.machine.settled(now, &unit, epoch));
            Ok(())
        }));
    }

    /// Tells the machine when it is on disk who has which unit.
    fn persist(
        self: &Arc<Self>,
        core: &Arc<Core>,
        rows: Vec<OwnershipRecord>,
        written: impl Future<Output = Result<(), Error>> + Send + 'static,
    ) {
        let (coordinator, again) = (Arc::clone(self), Arc::clone(core));
        drop(core.carry_on("an assignment", async move {
            let written = written.await;
            if let Err(error) = &written {
                tracing::warn!(group = %coordinator.name, %error, "an assignment could not be written");
            }
            again.offsets.rewritten(&coordinator.name).await;
            coordinator.update(&again, |state, now| {
                for row in &rows {
                    match &written {
                        Ok(()) => state.machine.persisted(now, &row.unit, row.epoch),
                        Err(_) => state.machine.persist_failed(now, &row.unit, row.epoch),
                    }
                }
            });
            Ok(())
        }));
    }

    pub(super) fn topic_changed(self: &Arc<Self>, core: &Arc<Core>, change: TopicChange) {
        self.update(core, |state, now| state.machine.topics_changed(now, [change]));
    }

    /// Orders a look at the clock, unless an earlier one is ordered.
    fn arm(self: &Arc<Self>, core: &Arc<Core>, delay: Duration) {
        let wanted: Wanted = Arc::<Self>::downgrade(self);
        let (coordinator, weak) = (Arc::downgrade(self), Arc::downgrade(core));
        let task = move || {
            let (Some(coordinator), Some(core)) = (coordinator.upgrade(), weak.upgrade()) else { return };
            coordinator.update(&core, State::tick);
        };
        core.config.env.scheduler.spawn_after_if_wanted(Work::Wake, delay, wanted, Box::new(task));
    }
}

impl State {
    /// When to look at the clock, if that is not ordered yet.
    fn next_deadline(&mut self) -> Option<Duration> {
        let deadline = self.machine.next_deadline()?;
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return None;
        }
        self.armed = Some(deadline);
        Some(deadline)
    }

    fn tick(&mut self, now: Duration) {
        self.armed = self.armed.filter(|armed| *armed > now);
        // Members in this process live as long as their handles.
        let local: Vec<_> = self.mailboxes.values().filter_map(|mailbox| mailbox.local()).collect();
        for stream in local {
            // One that is no member any more hears so.
            let _ = self.machine.heartbeat(now, &stream);
        }
        self.machine.tick(now);
    }
}
