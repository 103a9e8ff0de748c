//! A producer of transactions: the same batches and the same stream, under an id and epoch that the node gave.
//!
//! A failure of any record ends the transaction: nothing more goes out in it, and it can only be aborted. Whatever of it
//! is on its way then is of an epoch that is over, which the node refuses.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use logmill_proto::v1;
use tokio::time::Instant;

use super::accumulator::Identity;
use super::{Delivery, Producer, ProducerOptions, ProducerRecord};
use crate::backoff::Backoff;
use crate::clock::deadline_in;
use crate::{Acks, Client, Error, ErrorKind, OffsetToCommit, Outcome, UnitEpoch};

/// How a [`TransactionalProducer`] works.
///
/// ```
/// use std::time::Duration;
/// use logmill_client::TransactionalOptions;
///
/// let options = TransactionalOptions { timeout: Duration::from_secs(10), ..TransactionalOptions::default() };
/// assert_eq!(options.producer.max_batch_bytes, 65_536);
/// ```
#[derive(Clone, Debug)]
pub struct TransactionalOptions {
    /// A transaction that is not ended so long after its first record is aborted by the node; 60 s unless set, and at
    /// most 15 minutes.
    pub timeout: Duration,
    /// How records are sent. They are always numbered, and answered when they are on disk: `acks` and `idempotent` are
    /// not looked at. For `delivery_timeout` each call here is tried again as well, when the connection breaks.
    pub producer: ProducerOptions,
}

impl Default for TransactionalOptions {
    fn default() -> TransactionalOptions {
        TransactionalOptions { timeout: Duration::from_secs(60), producer: ProducerOptions::default() }
    }
}

/// Sends records to topics in transactions: readers of committed records see all of one, or none.
///
/// A transaction begins with its first record, or with [`add_offsets`](TransactionalProducer::add_offsets), and ends
/// with [`commit`](TransactionalProducer::commit) or [`abort`](TransactionalProducer::abort); what is sent after that is
/// of the next one. One producer at a time writes under a transactional id: a new one fences who was there before, and
/// what that one left open is aborted.
///
/// When a record fails, its transaction can only be aborted. When the node has aborted it, or another producer has come
/// under the id, this one is over: every call says so, and [`Client::transactional_producer`] begins anew. Dropped in the
/// middle of a transaction it leaves that open, until its time is over; [`close`](TransactionalProducer::close) aborts it.
///
/// ```no_run
/// use logmill_client::{Client, ProducerRecord, TransactionalOptions};
///
/// # async fn example(client: Client) -> Result<(), logmill_client::Error> {
/// let mut producer = client.transactional_producer("billing", TransactionalOptions::default()).await?;
/// for (topic, value) in [("invoices", "12.50"), ("totals", "99.10")] {
///     // Not awaited one by one: `commit` waits for all.
///     let _delivery = producer.send(ProducerRecord::new(topic, value)).await?;
/// }
/// if let Err(error) = producer.commit().await {
///     println!("{error}");
///     producer.abort().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TransactionalProducer {
    inner: Producer,
    transactional_id: String,
    epoch: v1::ProducerEpoch,
    /// Whether the node may have something of the present transaction.
    begun: AtomicBool,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// A transaction is going on, or may begin.
    Open,
    /// The node was asked to end it like this, and has not answered.
    Ending(Outcome),
    /// The node takes nothing more from this producer.
    Over(Error),
}

impl Client {
    /// Makes this the producer of a transactional id. Who wrote under it before is fenced, and the transaction that was
    /// going on is aborted.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for an id or a timeout that is not allowed, those of
    /// [`producer`](Client::producer), and those of every call.
    pub async fn transactional_producer(
        &self,
        transactional_id: &str,
        options: TransactionalOptions,
    ) -> Result<TransactionalProducer, Error> {
        let TransactionalOptions { timeout, producer } = options;
        let producer = ProducerOptions { acks: Acks::Durable, idempotent: true, ..producer };
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let request = v1::InitTransactionsRequest {
            transactional_id: transactional_id.to_owned(),
            timeout_ms: Some(timeout_ms),
        };
        let asked = ask(producer.delivery_timeout, || async {
            self.call("InitTransactions", self.transactions_rpc().init_transactions(request.clone())).await
        });
        let epoch = next_epoch(asked.await?.producer)?;
        let identity = Identity::Transaction(epoch.id, epoch16(&epoch)?);
        Ok(TransactionalProducer {
            inner: self.producer_with(producer, identity)?,
            transactional_id: transactional_id.to_owned(),
            epoch,
            begun: AtomicBool::new(false),
            phase: Phase::Open,
        })
    }
}

impl TransactionalProducer {
    /// Gives a record to the present transaction; otherwise as [`Producer::send`]. That it was answered does not say
    /// that it is committed.
    ///
    /// # Errors
    /// As [`Producer::send`]; [`Conflict`](ErrorKind::Conflict) in a transaction that can only be aborted
    /// (`TRANSACTION_BROKEN`), or whose end was asked for (`TRANSACTION_ENDING`); and why this producer is over, if it
    /// is.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, Error> {
        self.check_open()?;
        self.begun.store(true, Ordering::Relaxed);
        self.inner.send(record).await
    }

    /// Adds to the present transaction how far a group has read: committed with it, or not at all. After an error, or
    /// when this future is dropped before it is ready, the transaction can only be aborted.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) with the reason `STALE_ASSIGNMENT` for a unit that is another member's by
    /// now; those of [`send`](TransactionalProducer::send), and those of every call.
    pub async fn add_offsets(
        &mut self,
        group: &str,
        unit: &UnitEpoch,
        offsets: &[OffsetToCommit],
    ) -> Result<(), Error> {
        self.check_open()?;
        if let Some(cause) = &self.inner.shared.state.lock().broken {
            return Err(broken(cause));
        }
        self.begun.store(true, Ordering::Relaxed);
        let unanswered = Unanswered(self);
        let error = match self.ask_to_add(group, unit, offsets).await {
            Ok(()) => {
                std::mem::forget(unanswered);
                return Ok(());
            }
            Err(error) => error,
        };
        self.break_with(&error);
        drop(unanswered);
        self.note(&error);
        Err(error)
    }

    async fn ask_to_add(
        &self,
        group: &str,
        unit: &UnitEpoch,
        offsets: &[OffsetToCommit],
    ) -> Result<(), Error> {
        let request = v1::AddOffsetsRequest {
            transactional_id: self.transactional_id.clone(),
            producer: Some(self.epoch),
            group: group.to_owned(),
            unit: Some(unit.to_proto()),
            offsets: offsets.iter().map(OffsetToCommit::to_proto).collect::<Result<_, _>>()?,
        };
        let client = &self.inner.shared.client;
        let asked = ask(self.inner.shared.options.delivery_timeout, || async {
            client.call("AddOffsets", client.transactions_rpc().add_offsets(request.clone())).await
        });
        asked.await.map(drop)
    }

    /// Waits until every record is answered, and commits. When this returns, readers of committed records see them all,
    /// and what is sent from here on is of the next transaction.
    ///
    /// A transaction to which nothing was added is not ended, and costs nothing.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if a record has failed (`TRANSACTION_BROKEN`): nothing is committed, and the
    /// transaction can only be [aborted](TransactionalProducer::abort). After
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) it may be committed or not, and committing again finds out; so it
    /// is when this future is dropped. `TRANSACTION_ABORTED` and `PRODUCER_FENCED` mean that nothing is committed, and that
    /// this producer is over.
    pub async fn commit(&mut self) -> Result<(), Error> {
        self.end(Outcome::Commit).await
    }

    /// Gives up what is not answered, and aborts: no reader of committed records ever sees a record of the transaction.
    /// What is sent from here on is of the next one.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) if its commit was asked for and not answered (`TRANSACTION_ENDING`); why this
    /// producer is over, if it is; and those of every call, after which aborting again is right.
    pub async fn abort(&mut self) -> Result<(), Error> {
        self.end(Outcome::Abort).await
    }

    /// Aborts a transaction that is going on, and ends the producer.
    ///
    /// # Errors
    /// As [`abort`](TransactionalProducer::abort); the node aborts it when its time is over.
    pub async fn close(mut self) -> Result<(), Error> {
        let aborted = match self.phase {
            Phase::Over(_) => Ok(()),
            Phase::Open | Phase::Ending(_) => self.abort().await,
        };
        // What it had left was given up.
        let _ = self.inner.close().await;
        aborted
    }

    /// The transactional id.
    #[must_use]
    pub fn transactional_id(&self) -> &str {
        &self.transactional_id
    }

    async fn end(&mut self, outcome: Outcome) -> Result<(), Error> {
        match &self.phase {
            Phase::Over(error) => return Err(error.clone()),
            Phase::Ending(asked) if *asked != outcome => return Err(self.is_ending(*asked)),
            Phase::Ending(_) => {}
            Phase::Open if !self.begun.load(Ordering::Relaxed) => return Ok(()),
            Phase::Open if outcome == Outcome::Commit => {
                let flushed = self.inner.flush().await;
                // A failure that a former flush has told counts as well.
                let broken_by = self.inner.shared.state.lock().broken.clone();
                if let Some(cause) = broken_by.or(flushed.err()) {
                    return Err(if self.note(&cause) { cause } else { broken(&cause) });
                }
            }
            Phase::Open => {
                let message = "the transaction is aborted, and what was not answered of it is given up";
                self.break_with(&Error::new(ErrorKind::Conflict, "TRANSACTION_ABORTED", message));
            }
        }
        let asked_before = matches!(self.phase, Phase::Ending(_));
        self.phase = Phase::Ending(outcome);
        let (ended, asked_again) = self.ask_end(outcome).await;
        match ended {
            Ok(epoch) => self.begin(epoch),
            Err(error) if may_be_asked_again(&error) => Err(self.not_answered(outcome, &error)),
            // Another producer has come, and the node does not remember any more how the last one's transaction ended.
            Err(error) if error.reason() == "PRODUCER_FENCED" && (asked_before || asked_again) => {
                self.note(&error);
                let cause = format!("an answer was lost, and then another producer came: {error}");
                Err(self.inner.shared.client.peer().outcome_unknown(&cause))
            }
            Err(error) => {
                if !self.note(&error) {
                    self.phase = Phase::Open;
                }
                Err(error)
            }
        }
    }

    /// Says also whether it had to be asked more than once.
    async fn ask_end(&self, outcome: Outcome) -> (Result<v1::ProducerEpoch, Error>, bool) {
        let client = &self.inner.shared.client;
        let request = v1::EndTransactionRequest {
            transactional_id: self.transactional_id.clone(),
            producer: Some(self.epoch),
            outcome: outcome.to_proto(),
        };
        let times = AtomicU32::new(0);
        let asked = ask(self.inner.shared.options.delivery_timeout, || async {
            times.fetch_add(1, Ordering::Relaxed);
            client.call("EndTransaction", client.transactions_rpc().end_transaction(request.clone())).await
        });
        let ended = asked.await.and_then(|ended| next_epoch(ended.producer));
        (ended, times.into_inner() > 1)
    }

    fn begin(&mut self, epoch: v1::ProducerEpoch) -> Result<(), Error> {
        let new = epoch16(&epoch)?;
        let mut state = self.inner.shared.state.lock();
        let after_failure = state.broken.take().is_some();
        state.failure = None;
        state.accumulator.begin_transaction(epoch.id, new, after_failure);
        drop(state);
        self.epoch = epoch;
        self.begun.store(false, Ordering::Relaxed);
        self.phase = Phase::Open;
        Ok(())
    }

    /// Nothing more of the present transaction goes out.
    fn break_with(&self, error: &Error) {
        let failed = self.inner.shared.state.lock().break_off(error);
        failed.tell();
    }

    /// Whether the error says that this producer is over.
    fn note(&mut self, error: &Error) -> bool {
        let over =
            matches!(error.reason(), "PRODUCER_FENCED" | "TRANSACTION_ABORTED" | "TRANSACTION_NOT_FOUND");
        if over {
            self.break_with(error);
            self.phase = Phase::Over(error.clone());
        }
        over
    }

    fn check_open(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Open => Ok(()),
            Phase::Ending(outcome) => Err(self.is_ending(*outcome)),
            Phase::Over(error) => Err(error.clone()),
        }
    }

    fn is_ending(&self, outcome: Outcome) -> Error {
        let outcome = outcome.verb();
        let message = format!(
            "the node was asked to {outcome} the present transaction of {:?}, and the answer is missing: {outcome} it \
             again before anything else",
            self.transactional_id
        );
        Error::new(ErrorKind::Conflict, "TRANSACTION_ENDING", message)
    }

    fn not_answered(&self, outcome: Outcome, cause: &Error) -> Error {
        let outcome = outcome.verb();
        let message = format!(
            "it is not known whether the transaction of {:?} has ended: {cause}; {outcome} it again, which finds out",
            self.transactional_id
        );
        Error::new(ErrorKind::OutcomeUnknown, "OUTCOME_UNKNOWN", message).with_source(cause.clone())
    }
}

/// Offsets that the transaction may have or not: unless this is forgotten it can only be aborted.
struct Unanswered<'a>(&'a TransactionalProducer);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let message =
            "offsets were to be added to the transaction, and the call was given up before its answer";
        self.0.break_with(&Error::new(ErrorKind::OutcomeUnknown, "OUTCOME_UNKNOWN", message));
    }
}

/// A call on a transaction that can only be aborted.
pub(super) fn broken(cause: &Error) -> Error {
    let message = format!("the transaction can only be aborted, because something in it has failed: {cause}");
    Error::new(ErrorKind::Conflict, "TRANSACTION_BROKEN", message).with_source(cause.clone())
}

/// Makes a call that may be made again until it is answered, or the time is over.
pub(crate) async fn ask<T, F: Future<Output = Result<T, Error>>>(
    limit: Duration,
    call: impl Fn() -> F,
) -> Result<T, Error> {
    let deadline = deadline_in(limit);
    let mut backoff = Backoff::default();
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let pause = backoff.next();
        if !may_be_asked_again(&error) || Instant::now() + pause >= deadline {
            return Err(error);
        }
        tracing::debug!(%error, "a call is made again");
        tokio::time::sleep(pause).await;
    }
}

/// The node does not answer, or cannot yet.
fn may_be_asked_again(error: &Error) -> bool {
    error.kind().is_retriable()
        || error.kind() == ErrorKind::OutcomeUnknown
        || error.reason() == "TRANSACTION_ENDING"
}

fn next_epoch(producer: Option<v1::ProducerEpoch>) -> Result<v1::ProducerEpoch, Error> {
    producer
        .filter(|producer| producer.id >= 0)
        .ok_or_else(|| Error::nonsense("it does not say who writes the next transaction"))
}

fn epoch16(producer: &v1::ProducerEpoch) -> Result<i16, Error> {
    i16::try_from(producer.epoch)
        .map_err(|_| Error::nonsense(format!("a producer cannot have the epoch {}", producer.epoch)))
}
