//! What a group has read, as a part of a transaction.

use std::future::Future;
use std::sync::Arc;

use logmill_log::env::Work;

use super::end::{end, end_in_turn};
use super::entry::AddedOffsets;
use super::table::EndRequest;
use super::{Outcome, ProducerEpoch, Transactions};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::context::RequestContext;
use crate::error::Error;
use crate::internal::{OFFSETS_ID, written};
use crate::limits::Limit;
use crate::offsets::OffsetToCommit;

/// How far the owner of a unit has read, to be committed with a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddOffsets {
    /// The transactional id.
    pub transactional_id: String,
    /// Its producer.
    pub producer: ProducerEpoch,
    /// The group.
    pub group: String,
    /// The unit.
    pub unit: String,
    /// The epoch of its assignment.
    pub unit_epoch: i32,
    /// Where the group is to go on; all within the unit.
    pub offsets: Vec<OffsetToCommit>,
}

impl Broker {
    /// Adds what a group has read to the transaction that is going on, or to one that begins with it: committed with
    /// it, or not at all. Until the transaction has ended the unit stays with its owner; should it have to move, the
    /// transaction is aborted.
    ///
    /// # Errors
    /// As [`end_transaction`](Broker::end_transaction), and those of a [commit](crate::MemberHandle::commit);
    /// [`GroupNotFound`](crate::Reason::GroupNotFound); [`UnitUndeclared`](crate::Reason::UnitUndeclared) of a named
    /// unit that no member has declared since the restart.
    ///
    /// ```
    /// use logmill_broker::{
    ///     AddOffsets, Broker, Config, CreateTopic, GroupEvent, InitTransactions, JoinGroup, OffsetToCommit, Outcome,
    ///     RequestContext,
    /// };
    /// use logmill_log::env::block_on;
    /// use logmill_record::Offset;
    /// # use logmill_broker::{Acks, Payload, Produce, ProduceRecord};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, async {
    ///     broker.create_topic(&context, CreateTopic::new("orders")).await?;
    /// #   let record = ProduceRecord { value: Some("one".into()), ..ProduceRecord::default() };
    /// #   let payload = Payload::Records(vec![record]);
    /// #   let (topic, acks) = ("orders".into(), Acks::Durable);
    /// #   broker.produce(&context, Produce { topic, partition: Some(0), payload, acks, sent_at: None }).await?;
    ///     let mut member = broker.join_group(&context, JoinGroup::topics("billing", ["orders"]))?;
    ///     let GroupEvent::Assigned(mine) = member.next().await else { panic!("it is alone") };
    ///     let producer = broker.init_transactions(&context, InitTransactions::new("billing-1")).await?;
    ///     // ... produces what it makes of the order, in the transaction. Then how far it has read:
    ///     let read = AddOffsets {
    ///         transactional_id: "billing-1".into(),
    ///         producer,
    ///         group: "billing".into(),
    ///         unit: mine.unit,
    ///         unit_epoch: mine.epoch,
    ///         offsets: vec![OffsetToCommit::new("orders", 0, Offset(1))],
    ///     };
    ///     broker.add_offsets(&context, read).await?;
    ///     broker.end_transaction(&context, "billing-1", producer, Outcome::Commit).await?;
    ///     let group = broker.describe_group(&context, "billing").await?;
    ///     assert_eq!(group.offsets[0].offset, Offset(1));
    ///     Ok::<(), logmill_broker::Error>(())
    /// })?;
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_offsets(
        &self,
        context: &RequestContext,
        request: AddOffsets,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let core = self.core();
        let (transactional_id, group) = (&*request.transactional_id, &*request.group);
        let allowed = authorize(context, &Operation::AddOffsets { transactional_id, group });
        let added = allowed.and_then(|()| core.check_open()).map(|()| {
            let again = Arc::clone(core);
            core.carry_on_with(Work::Append, "the addition of offsets", add(again, request))
        });
        async move { added?.await }
    }
}

async fn add(core: Arc<Core>, request: AddOffsets) -> Result<(), Error> {
    let AddOffsets { transactional_id: name, producer, group, unit, unit_epoch, offsets } = request;
    let turn = {
        let table = core.transactions.table.lock();
        let entry = table.get(&name)?;
        entry.check(&name, producer)?;
        entry.turn.clone()
    };
    let _turn = turn.take().await;
    let held = core.groups.hold(&core, &group, &unit, unit_epoch)?;
    let commits = core.offsets.check(&core, &held, offsets)?;
    if commits.is_empty() {
        return Ok(());
    }
    let count = core.transactions.table.lock().added_offsets(&name) + commits.len();
    let doing = || format!("a transaction with {count} offsets");
    core.bounds.check(Limit::MaxCommitPartitions, count, doing, "make several transactions")?;
    let lane = core.offsets.lane().clone();
    let admitted = core.transactions.admit(&core, producer, OFFSETS_ID, &lane)?;
    let (answer, pending) = core.offsets.push(&core, &commits, Some((producer, admitted)))?;
    // On disk it is before the transaction is committed.
    let at = written(&lane, answer).await?.first_offset;
    core.transactions
        .table
        .lock()
        .add_offsets(&name, AddedOffsets { at, commits, held, _pending: pending })?;
    // Whoever takes the unit away aborts the transactions that hold it, but did not see this one if that was meanwhile.
    let Err(stale) = core.groups.hold(&core, &group, &unit, unit_epoch) else { return Ok(()) };
    end_in_turn(&core, &name.into(), &EndRequest::Node(taken_away(&group, &unit)), Outcome::Abort).await?;
    Err(stale)
}

/// Why a transaction is aborted.
fn taken_away(group: &str, unit: &str) -> String {
    format!("the unit {unit:?} of group {group:?}, whose offsets it has, was taken from its owner")
}

impl Transactions {
    /// Aborts the transactions that keep a unit with an owner that it is taken from.
    pub(crate) async fn abort_those_that_hold(&self, core: &Arc<Core>, group: &str, unit: &str) {
        let names = self.table.lock().holding(group, unit);
        for name in names {
            let request = EndRequest::Node(taken_away(group, unit));
            let ended = end(Arc::clone(core), name, request, Outcome::Abort).await;
            if let Err(error) = ended {
                tracing::warn!(%error, "a transaction of a former owner could not be aborted");
            }
        }
    }
}
