//! What clients ask of transactions: to begin, to end, and to abort one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use logmill_log::env::Work;
use logmill_record::TimestampMs;

use super::admit::Admitted;
use super::end::{Ended, batch_about, end, end_in_turn};
use super::entry::Next;
use super::record::{Status, TransactionRecord, encode_key};
use super::step::step_name;
use super::table::{Begun, EndRequest};
use super::{Outcome, ProducerEpoch, Transactions};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::context::RequestContext;
use crate::error::Error;
use crate::internal::{append_durable, batch_of};
use crate::limits::Limit;
use crate::names::check_transactional_id;
use crate::produce::Lane;
use crate::topic::TopicPartition;

/// The timeout of a transaction unless another is asked for, which is Kafka's: a minute.
pub const DEFAULT_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest timeout of a transaction, which is Kafka's: a quarter of an hour.
pub const MAX_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// An id that nobody has used for so long is forgotten where there is no room for another: Kafka's
/// `transactional.id.expiration.ms`, a week.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Who wants to write transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitTransactions {
    /// The name under which one producer at a time writes: who asks last is the one.
    pub transactional_id: String,
    /// A transaction that is not ended so long after its first record is aborted.
    pub timeout: Duration,
}

impl InitTransactions {
    /// With a timeout of a minute.
    #[must_use]
    pub fn new(transactional_id: impl Into<String>) -> Self {
        Self { transactional_id: transactional_id.into(), timeout: DEFAULT_TRANSACTION_TIMEOUT }
    }
}

impl Broker {
    /// Makes the caller the one who writes under a transactional id. Who wrote before is fenced, and the transaction
    /// that it left is aborted. It is on disk when the answer comes.
    ///
    /// Records sent with the producer's id and epoch, as [`Payload::InTransaction`](crate::Payload::InTransaction) or
    /// in batches that say so, make a transaction, from the first on until [`end_transaction`](Broker::end_transaction)
    /// answers with the epoch of the next. Sequences begin at 0 in each partition with each epoch. A transaction that
    /// is not ended in time is aborted by the node. So is one that a restart of the node finds undecided, and whoever
    /// wrote before it begins again: it is told [`TransactionAborted`](crate::Reason::TransactionAborted).
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid), [`LimitExceeded`](crate::Reason::LimitExceeded) for too many
    /// transactional ids, [`OutcomeUnknown`](crate::Reason::OutcomeUnknown) where the node stops meanwhile.
    ///
    /// ```
    /// use logmill_broker::{
    ///     Acks, Broker, Config, CreateTopic, InitTransactions, Outcome, Payload, Produce, ProduceRecord,
    ///     ProducerSequence, RequestContext,
    /// };
    /// use logmill_log::env::block_on;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, async {
    ///     broker.create_topic(&context, CreateTopic::new("orders")).await?;
    ///     broker.create_topic(&context, CreateTopic::new("stock")).await?;
    ///     let producer = broker.init_transactions(&context, InitTransactions::new("shop")).await?;
    ///
    ///     for topic in ["orders", "stock"] {
    ///         let sequence = ProducerSequence { id: producer.id, epoch: producer.epoch, base_sequence: 0 };
    ///         let record = ProduceRecord { value: Some("one".into()), ..ProduceRecord::default() };
    ///         let payload = Payload::InTransaction(sequence, vec![record]);
    ///         let (topic, acks) = (topic.into(), Acks::Durable);
    ///         let produce = Produce { topic, partition: Some(0), payload, acks, sent_at: None };
    ///         broker.produce(&context, produce).await?.remove(0).outcome?;
    ///     }
    ///     // Both, or none.
    ///     let next = broker.end_transaction(&context, "shop", producer, Outcome::Commit).await?;
    ///     assert_eq!(next.epoch, producer.epoch + 1);
    ///     Ok::<(), logmill_broker::Error>(())
    /// })?;
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn init_transactions(
        &self,
        context: &RequestContext,
        request: InitTransactions,
    ) -> impl Future<Output = Result<ProducerEpoch, Error>> + Send + 'static + use<> {
        let core = self.core();
        let id = &request.transactional_id;
        let allowed = authorize(context, &Operation::WriteTransactions { transactional_id: id });
        let checked = allowed.and_then(|()| core.check_open()).and_then(|()| check(&request));
        let again = Arc::clone(core);
        let begun = checked.map(|()| {
            let name: Arc<str> = request.transactional_id.into();
            core.carry_on("the beginning of transactions", begin(again, name, request.timeout))
        });
        async move { begun?.await }
    }

    /// Ends the transaction of a producer: all of its records become visible to those who read what is committed, or
    /// none ever does. They are when the answer comes, which says who writes the next transaction. Asked again with the
    /// same producer and outcome, because the answer was lost on its way, it answers again who writes the next one, which
    /// after a restart of the node is another. Without a transaction nothing is written, and the epoch moves.
    ///
    /// It goes on when the future is dropped.
    ///
    /// # Errors
    /// [`TransactionNotFound`](crate::Reason::TransactionNotFound); [`ProducerFenced`](crate::Reason::ProducerFenced);
    /// [`TransactionEnding`](crate::Reason::TransactionEnding); [`TransactionAborted`](crate::Reason::TransactionAborted)
    /// where the node had to abort what was to be committed: because of its timeout, or because records that were
    /// acknowledged as [`Written`](crate::Acks::Written) are lost. After
    /// [`OutcomeUnknown`](crate::Reason::OutcomeUnknown), which comes when the node stops meanwhile, ask again when it
    /// is back.
    pub fn end_transaction(
        &self,
        context: &RequestContext,
        transactional_id: &str,
        producer: ProducerEpoch,
        outcome: Outcome,
    ) -> impl Future<Output = Result<ProducerEpoch, Error>> + Send + 'static + use<> {
        let operation = Operation::WriteTransactions { transactional_id };
        let ended = self.end(context, &operation, transactional_id, EndRequest::Producer(producer), outcome);
        async move { ended.await.map(|ended| ended.next) }
    }

    /// Aborts the transaction that is going on under a transactional id, whoever writes it: for an operator who sees
    /// readers held up by it. Its producer is told when it goes on. Says whether there was a transaction to abort.
    ///
    /// # Errors
    /// As [`end_transaction`](Broker::end_transaction).
    pub fn abort_transaction(
        &self,
        context: &RequestContext,
        transactional_id: &str,
    ) -> impl Future<Output = Result<bool, Error>> + Send + 'static + use<> {
        let operation = Operation::AbortTransaction { transactional_id };
        let request = EndRequest::Node("an operator has asked for it".to_owned());
        let ended = self.end(context, &operation, transactional_id, request, Outcome::Abort);
        async move { ended.await.map(|ended| ended.was_open) }
    }

    fn end(
        &self,
        context: &RequestContext,
        operation: &Operation<'_>,
        transactional_id: &str,
        request: EndRequest,
        outcome: Outcome,
    ) -> impl Future<Output = Result<Ended, Error>> + Send + 'static + use<> {
        let core = self.core();
        let allowed = authorize(context, operation).and_then(|()| core.check_open());
        let ended = allowed.map(|()| {
            let end = end(Arc::clone(core), transactional_id.into(), request, outcome);
            core.carry_on("the end of a transaction", end)
        });
        async move { ended?.await }
    }
}

fn check(request: &InitTransactions) -> Result<(), Error> {
    check_transactional_id(&request.transactional_id)?;
    if request.timeout < Duration::from_millis(1) || request.timeout > MAX_TRANSACTION_TIMEOUT {
        let rule = "it is from 1 to 900,000 ms";
        return Err(Error::field("timeout_ms", request.timeout.as_millis(), rule));
    }
    Ok(())
}

/// Ends what another producer has left, and takes its place.
async fn begin(core: Arc<Core>, name: Arc<str>, timeout: Duration) -> Result<ProducerEpoch, Error> {
    make_room(&core, &name).await;
    let _turn = loop {
        let turns = {
            let mut table = core.transactions.table.lock();
            if table.get(&name).is_err() {
                let doing = || format!("the transactional id {name:?}");
                let advice = "use those that there are, each for one producer at a time";
                core.bounds.check(Limit::MaxTransactionalIds, table.len() + 1, doing, advice)?;
            }
            table.turn(&name, || core.fresh_producer_id())
        };
        let turn = turns.take().await;
        if core.transactions.table.lock().has_turns(&name, &turns) {
            break turn;
        }
    };
    let taken = take_over(&core, &name, timeout).await;
    if taken.is_err() {
        core.transactions.table.lock().remove_if_never_initialized(&name);
    }
    taken
}

/// Forgets the id that was used the longest ago, where another is to come and there are as many as there may be.
async fn make_room(core: &Core, name: &str) {
    let most = core.bounds.limits().get(Limit::MaxTransactionalIds);
    let now = core.config.env.clock.now();
    let age_ms = i64::try_from(FORGOTTEN_AFTER.as_millis()).unwrap_or(i64::MAX);
    let idle = {
        let mut table = core.transactions.table.lock();
        // One less makes no room where the limit was lowered.
        if table.get(name).is_ok() || table.len() != most {
            return;
        }
        table.take_idle(TimestampMs(now.get().saturating_sub(age_ms)))
    };
    let Some((idle, _turn)) = idle else { return };
    match core.transactions.forget(core, &idle).await {
        Ok(()) => {
            tracing::info!(transactional_id = %idle, "an id that nobody has used for a week is forgotten");
        }
        Err(error) => {
            core.transactions.table.lock().set_empty(&idle);
            tracing::warn!(%error, transactional_id = %idle, "an id that nobody uses could not be forgotten");
        }
    }
}

async fn take_over(core: &Arc<Core>, name: &Arc<str>, timeout: Duration) -> Result<ProducerEpoch, Error> {
    let request = EndRequest::Node("another instance has begun under its transactional id".to_owned());
    let producer = loop {
        end_in_turn(core, name, &request, Outcome::Abort).await?;
        let now = core.config.env.clock.now();
        if let Some(producer) = core.transactions.table.lock().block_writers(name, now)? {
            break producer;
        }
    };
    // Whoever has that epoch, and has written nothing yet, is fenced too.
    let next = Next::after(producer, || core.fresh_producer_id());
    let now = core.config.env.clock.now();
    let known = TransactionRecord {
        producer: next.markers,
        next_id: next.next_id,
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        status: Status::Empty,
        touched: Vec::new(),
        updated_at: now,
        started_at: now,
        step: None,
    };
    let written = core.transactions.log.write(batch_about(name, &known), &core.timer, &core.closing).await;
    let mut table = core.transactions.table.lock();
    if let Err(error) = written {
        table.set_empty(name);
        return Err(error);
    }
    table.begun(name, next.producer(), timeout, now);
    Ok(next.producer())
}

impl Transactions {
    /// The sequence of the last step of a unit.
    pub(crate) fn last_step(&self, group: &str, unit: &str) -> Option<i64> {
        self.table.lock().last_step(&step_name(group, unit))
    }

    /// Forgets the steps of a group that is deleted: another of its name begins with step 0. One that is decided and has
    /// not ended everywhere is not forgotten: the next start has to know how it ends.
    pub(crate) async fn forget_steps(&self, core: &Core, group: &str) -> Result<(), Error> {
        let names = self.table.lock().steps_of(group);
        for name in names {
            let turn = self.table.lock().step_turn(&name);
            let _turn = turn.take().await;
            self.table.lock().check_ended(&name)?;
            self.forget(core, &name).await?;
        }
        Ok(())
    }

    /// Forgets an id, by who has its turn.
    async fn forget(&self, core: &Core, name: &str) -> Result<(), Error> {
        let batch = batch_of(core.config.env.clock.now(), [(&encode_key(name)[..], None)]);
        append_durable(self.log.lane(), batch).await?;
        self.table.lock().forget(name);
        Ok(())
    }

    /// Takes a part of the producer's transaction, or of one that begins with it.
    pub(crate) fn admit(
        &self,
        core: &Arc<Core>,
        producer: ProducerEpoch,
        at: TopicPartition,
        lane: &Lane,
    ) -> Result<Admitted, Error> {
        let now = core.config.env.clock.now();
        let (admitted, begun) = self.table.lock().admit(producer, at, lane, now)?;
        if let Some(begun) = begun {
            abort_in_time(core, begun);
        }
        Ok(admitted)
    }
}

/// Has the transaction aborted if it does not end in time.
fn abort_in_time(core: &Arc<Core>, begun: Begun) {
    let Begun { name, producer, alive, timeout } = begun;
    let weak = Arc::downgrade(core);
    let wanted: logmill_log::env::Wanted = Arc::<()>::downgrade(&alive);
    let still = Arc::downgrade(&alive);
    let task = move || {
        let (Some(core), true) = (weak.upgrade(), still.strong_count() > 0) else { return };
        let request = EndRequest::TimedOut(producer, timeout);
        let end = end(Arc::clone(&core), name, request, Outcome::Abort);
        drop(core.carry_on("the end of a transaction", end));
    };
    core.config.env.scheduler.spawn_after_if_wanted(Work::Wake, timeout, wanted, Box::new(task));
}
