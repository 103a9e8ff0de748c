//! What an operator does with a group: has it go on elsewhere, deletes what it has committed, or all of it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use logmill_record::Offset;

use super::Groups;
use super::describe::exists;
use super::machine::{AssignmentEpoch, UnitId};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::budget::Permit;
use crate::catalog::Partition;
use crate::context::RequestContext;
use crate::error::{Error, Reason};
use crate::fetch::{Isolation, locate};
use crate::limits::Limit;
use crate::offsets::{Committed, Key};
use crate::topic::Position;

/// What former owners have left takes a write or two.
const QUIET_PAUSE: Duration = Duration::from_millis(10);

/// Where a group is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetOffsets {
    /// The group. It has no members, and awaits none.
    pub group: String,
    /// The topics, each with the partitions, or with none for all of them.
    pub topics: Vec<(String, Vec<u32>)>,
    /// Where to go on in each.
    pub to: Position,
    /// Whether it is done; else it is only said what would be.
    pub execute: bool,
}

/// Where a group goes on after a reset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetReset {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// What was committed before, if anything.
    pub from: Option<Offset>,
    /// What is committed, or would be.
    pub to: Offset,
}

impl Broker {
    /// Has a group go on elsewhere, or says what that would be. Its members are stopped before.
    ///
    /// # Errors
    /// [`GroupNotEmpty`](crate::Reason::GroupNotEmpty); [`TopicNotFound`](crate::Reason::TopicNotFound);
    /// [`PartitionNotFound`](crate::Reason::PartitionNotFound); [`OffsetOutOfRange`](crate::Reason::OffsetOutOfRange);
    /// [`RequestInvalid`](crate::Reason::RequestInvalid) for a name that no group can have;
    /// [`LimitExceeded`](crate::Reason::LimitExceeded) for too many partitions. Nothing is changed then.
    pub fn reset_offsets(
        &self,
        context: &RequestContext,
        request: ResetOffsets,
    ) -> impl Future<Output = Result<Vec<OffsetReset>, Error>> + Send + 'static + use<> {
        let core = Arc::clone(self.core());
        let topics = request.topics.iter().map(|(topic, _)| topic.as_str()).collect();
        let allowed = authorize(context, &Operation::ResetOffsets { group: &request.group, topics })
            .and_then(|()| core.check_open())
            .and_then(|()| crate::names::check_group(&request.group))
            .and_then(|()| core.groups.check_empty(&request.group));
        let (execute, group) = (request.execute, request.group.clone());
        let plan = core.read("a reset", move |core| allowed.and_then(|()| plan(core, &request)));
        async move {
            let changes = plan.await?;
            let resets: Vec<OffsetReset> = changes.iter().map(|change| change.reset.clone()).collect();
            if !execute {
                return Ok(resets);
            }
            let again = Arc::clone(&core);
            core.carry_on("a reset", async move {
                let changes: Vec<_> =
                    changes.into_iter().map(|change| (change.key, Some(change.committed))).collect();
                let rewrite = |_| again.offsets.rewrite(&again, &group, changes.clone(), &[]);
                let (reset, _quiet) = again.groups.when_quiet(&again, &group, rewrite).await?;
                reset.await
            })
            .await?;
            Ok(resets)
        }
    }

    /// Deletes what a group has committed for a topic, also one that was deleted. Says for how many partitions that was.
    ///
    /// # Errors
    /// [`GroupNotFound`](crate::Reason::GroupNotFound); [`GroupNotEmpty`](crate::Reason::GroupNotEmpty).
    pub fn delete_offsets(
        &self,
        context: &RequestContext,
        group: &str,
        topic: &str,
    ) -> impl Future<Output = Result<usize, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::DeleteGroup { group });
        self.delete_of_group(allowed, group, Some(topic.to_owned()))
    }

    /// Deletes a group: what it has committed, and who had which unit.
    ///
    /// # Errors
    /// [`GroupNotFound`](crate::Reason::GroupNotFound); [`GroupNotEmpty`](crate::Reason::GroupNotEmpty).
    pub fn delete_group(
        &self,
        context: &RequestContext,
        group: &str,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::DeleteGroup { group });
        let deleted = self.delete_of_group(allowed, group, None);
        async move { deleted.await.map(drop) }
    }

    fn delete_of_group(
        &self,
        allowed: Result<(), Error>,
        group: &str,
        topic: Option<String>,
    ) -> impl Future<Output = Result<usize, Error>> + Send + 'static + use<> {
        let core = Arc::clone(self.core());
        let checked = allowed
            .and_then(|()| core.check_open())
            .and_then(|()| exists(&core, group))
            .and_then(|()| core.groups.check_empty(group));
        let (group, again) = (group.to_owned(), Arc::clone(&core));
        let deleted = checked.map(|()| {
            core.carry_on("the deletion of a group", async move {
                match topic {
                    Some(topic) => delete_offsets(&again, &group, &topic).await,
                    None => delete(&again, &group).await.map(|()| 0),
                }
            })
        });
        async move { deleted?.await }
    }
}

async fn delete_offsets(core: &Arc<Core>, group: &str, topic: &str) -> Result<usize, Error> {
    let rewrite = |_| {
        let all = core.offsets.all_of(group).into_iter();
        let gone: Vec<_> = all.filter(|(key, _)| key.topic == topic).map(|(key, _)| (key, None)).collect();
        (gone.len(), core.offsets.rewrite(core, group, gone, &[]))
    };
    let ((count, deleted), _quiet) = core.groups.when_quiet(core, group, rewrite).await?;
    deleted.await.map(|()| count)
}

/// What a group has committed, and who had which unit, is gone in one batch. A member that comes meanwhile finds the
/// group as if it had made it.
async fn delete(core: &Arc<Core>, group: &str) -> Result<(), Error> {
    let rewrite = |units: Vec<(UnitId, AssignmentEpoch)>| {
        let gone = core.offsets.all_of(group).into_iter().map(|(key, _)| (key, None)).collect();
        core.offsets.rewrite(core, group, gone, &units)
    };
    let (deleted, _quiet) = core.groups.when_quiet(core, group, rewrite).await?;
    deleted.await?;
    // Behind it: without them a step of an epoch that came again would be taken for a new one.
    core.transactions.forget_steps(core, group).await?;
    core.groups.drop_deleted(group);
    Ok(())
}

impl Groups {
    /// Refuses to go on behind the back of members.
    fn check_empty(&self, group: &str) -> Result<(), Error> {
        refuse_members(group, self.find(group).map_or(0, |it| it.state.lock().machine.member_count()))
    }

    /// Changes a group that has no members, and of whose last ones nothing is left to be done: what they did lies before.
    /// The change is given the units that were ever assigned, and is to take into the log what it wants. Whoever joins
    /// before the permit is dropped hears of no unit until then.
    async fn when_quiet<T>(
        &self,
        core: &Arc<Core>,
        group: &str,
        mut change: impl FnMut(Vec<(UnitId, AssignmentEpoch)>) -> T,
    ) -> Result<(T, Permit), Error> {
        loop {
            for hold in self.find(group).map(|it| it.state.lock().under_way()).unwrap_or_default() {
                let _ = hold.empty().await;
            }
            core.check_open()?;
            let rewrite = core.offsets.begin_rewrite(group)?;
            {
                // Under both locks, so that no group of that name is made or joined meanwhile.
                let coordinators = self.coordinators.lock();
                let state = coordinators.get(group).map(|coordinator| coordinator.state.lock());
                refuse_members(group, state.as_ref().map_or(0, |state| state.machine.member_count()))?;
                if state.as_ref().is_none_or(|state| state.is_quiet()) {
                    let units =
                        state.as_ref().map(|state| state.machine.assigned_units()).unwrap_or_default();
                    return Ok((change(units), rewrite));
                }
            }
            drop(rewrite);
            core.timer.sleep(QUIET_PAUSE).await;
        }
    }

    /// Nothing is left of a group, unless somebody has joined.
    fn drop_deleted(&self, group: &str) {
        let mut coordinators = self.coordinators.lock();
        let Some(coordinator) = coordinators.get(group).map(Arc::clone) else { return };
        let mut state = coordinator.state.lock();
        if state.machine.member_count() == 0 && state.is_quiet() {
            state.is_gone = true;
            coordinators.remove(group);
        }
    }
}

fn refuse_members(group: &str, count: usize) -> Result<(), Error> {
    if count == 0 {
        return Ok(());
    }
    let members = if count == 1 { "a member" } else { &format!("{count} members") };
    let message = format!(
        "group {group:?} still has {members}, and changing or deleting its offsets now would lose or repeat records: stop \
         all of them, and wait until their session timeouts have passed, which after a restart of the node are 30 s at \
         least"
    );
    Err(Error::new(Reason::GroupNotEmpty, message).with("group", group).with("members", count))
}

/// What a reset changes in a partition.
struct Change {
    key: Key,
    committed: Committed,
    reset: OffsetReset,
}

fn plan(core: &Arc<Core>, request: &ResetOffsets) -> Result<Vec<Change>, Error> {
    let mut changes: Vec<Change> = Vec::new();
    for (name, partitions) in &request.topics {
        let topic = core.catalog.topic(name)?;
        let all: Vec<u32> = (0..topic.identity.partition_count).collect();
        let named = if partitions.is_empty() { &all } else { partitions };
        let count = changes.len() + named.len();
        let doing = || format!("a reset of {count} partitions");
        core.bounds.check(Limit::MaxPositions, count, doing, "reset them in several requests")?;
        for partition in named {
            let to = find(topic.partition(*partition)?, request.to)?;
            let (group, name) = (request.group.clone(), name.clone());
            let before = core.offsets.get(&group, &name, *partition);
            let from = before.filter(|before| before.topic_id == topic.id).map(|before| before.offset);
            let committed = Committed {
                topic_id: topic.id,
                offset: to,
                last_epoch: None,
                metadata: String::new(),
                at: core.config.env.clock.now(),
                unit_epoch: None,
            };
            let reset = OffsetReset { topic: name.clone(), partition: *partition, from, to };
            changes.push(Change { key: Key { group, topic: name, partition: *partition }, committed, reset });
        }
    }
    Ok(changes)
}

/// Where a group is to go on. A time is looked for in files, where no more than a few reads may hang.
fn find(partition: &Partition, to: Position) -> Result<Offset, Error> {
    let is_search = matches!(to, Position::Time(_));
    let turn = is_search.then(|| partition.reads().try_take().ok_or_else(|| partition.too_many_reads()));
    let _turn = turn.transpose()?;
    Ok(locate(partition, to, Isolation::ReadCommitted)?.0)
}
