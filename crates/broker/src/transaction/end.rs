//! The end of a transaction: what was taken is on disk, the decision is, the markers are, and then the answer.

use std::sync::Arc;

use logmill_record::{Batch, ControlRecord, ControlType, TimestampMs};

use super::admit::{AllTouched, Touched};
use super::entry::{AddedOffsets, Last, Next};
use super::errors::aborted;
use super::record::{self, Status, StepRecord, TransactionRecord};
use super::table::{EndRequest, Ending, ToEnd, names};
use super::{Outcome, ProducerEpoch};
use crate::broker::Core;
use crate::error::{Error, Reason};
use crate::exec::Waits;
use crate::internal::{append_durable, append_until_durable, batch_of};

/// What came of asking for a transaction's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// Who writes the next one.
    pub(super) next: ProducerEpoch,
    /// There was one.
    pub(super) was_open: bool,
}

/// Ends the transaction of an id. It goes on where nobody waits for it.
pub(super) async fn end(
    core: Arc<Core>,
    name: Arc<str>,
    request: EndRequest,
    outcome: Outcome,
) -> Result<Ended, Error> {
    let turn = core.transactions.table.lock().get(&name)?.turn.clone();
    let _turn = turn.take().await;
    end_in_turn(&core, &name, &request, outcome).await
}

/// The same, by who has the turn.
pub(super) async fn end_in_turn(
    core: &Arc<Core>,
    name: &Arc<str>,
    request: &EndRequest,
    outcome: Outcome,
) -> Result<Ended, Error> {
    let fresh = || core.fresh_producer_id();
    let to_end = core.transactions.table.lock().begin_end(name, request, outcome, fresh)?;
    let ending = match to_end {
        ToEnd::Nothing(next) => {
            core.transactions.table.lock().touch(name, core.config.env.clock.now());
            return Ok(Ended { next, was_open: false });
        }
        ToEnd::Ends(ending) => ending,
    };
    // Nothing comes in behind it, and what was taken is answered one way or the other.
    let _ = ending.under_way.empty().await;
    let mut lost = None;
    if outcome == Outcome::Commit {
        lost = all_durable(&ending.touched).await.err();
    }
    let outcome = if lost.is_some() { Outcome::Abort } else { outcome };
    let next = Next::after(ending.producer, || core.fresh_producer_id());
    let decision = Decision { outcome, next, step: None };
    let ended = decision.carry_out(core, name, &ending).await;
    ended.map_err(|error| not_known(name, &error))?;
    if outcome == Outcome::Commit {
        for AddedOffsets { at, commits, .. } in &ending.offsets {
            core.offsets.apply(*at, commits.clone());
        }
    }

    let why = lost.as_ref().map(ToString::to_string).or_else(|| ending.why.clone());
    let last = Last { producer: ending.producer, outcome, why };
    core.transactions.table.lock().ended(name, last, next.producer(), core.config.env.clock.now());
    match lost {
        Some(error) => Err(aborted(name, &error.to_string()).because(error)),
        None => Ok(Ended { next: next.producer(), was_open: true }),
    }
}

/// How a transaction ends.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) outcome: Outcome,
    pub(super) next: Next,
    pub(super) step: Option<StepRecord>,
}

impl Decision {
    /// Decides, and tells every partition.
    ///
    /// # Errors
    /// When the node is closing: the next start goes on from what is on disk.
    pub(super) async fn carry_out(
        self,
        core: &Arc<Core>,
        name: &Arc<str>,
        ending: &Ending,
    ) -> Result<(), Error> {
        let log = &core.transactions.log;
        let now = core.config.env.clock.now();
        let timeout_ms = i32::try_from(ending.timeout.as_millis()).unwrap_or(i32::MAX);
        let mut known = TransactionRecord {
            producer: self.next.markers,
            next_id: self.next.next_id,
            timeout_ms,
            status: Status::Decided(self.outcome),
            touched: names(&ending.touched),
            updated_at: now,
            started_at: ending.started_at,
            step: self.step,
        };
        log.write(batch_about(name, &known), &core.timer, &core.closing).await?;
        mark_all(core, &ending.touched, self.next.markers, self.outcome).await?;
        known.status = Status::Complete(self.outcome);
        known.touched.clear();
        // Nobody waits for it: a restart that does not find it writes the markers once more.
        drop(log.lane().push_internal(vec![batch_about(name, &known)]));
        Ok(())
    }
}

/// A record that says how a transactional id stands.
pub(super) fn batch_about(name: &str, known: &TransactionRecord) -> Batch {
    let (key, value) = (record::encode_key(name), record::encode(known));
    batch_of(known.updated_at, [(&key[..], Some(&value[..]))])
}

/// Resolves when all that was written is on disk.
pub(super) async fn all_durable(touched: &AllTouched) -> Result<(), Error> {
    for_each_touched(touched, |at| async move { at.durable().await }).await
}

/// Appends the markers, and resolves when they are on disk, however often it takes.
pub(super) async fn mark_all(
    core: &Arc<Core>,
    touched: &AllTouched,
    producer: ProducerEpoch,
    outcome: Outcome,
) -> Result<(), Error> {
    for_each_touched(touched, |at| {
        let core = Arc::clone(core);
        async move { mark(&core, &at, producer, outcome).await }
    })
    .await
}

/// Appends the markers, once in each partition.
pub(super) async fn mark_all_once(
    core: &Core,
    touched: &AllTouched,
    producer: ProducerEpoch,
    outcome: Outcome,
) -> Result<(), Error> {
    for_each_touched(touched, |at| {
        let marker = marker(core, producer, outcome);
        async move { append_durable(&at.lane, marker).await.map(drop) }
    })
    .await
}

/// Does the same in all partitions at once, and resolves when it is done in each; with the first error, if any.
async fn for_each_touched<F>(touched: &AllTouched, work: impl Fn(Arc<Touched>) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>> + Send + Sync + 'static,
{
    let mut waits = Waits::new(touched.len());
    for (number, at) in touched.values().enumerate() {
        waits.set(number, work(Arc::clone(at)));
    }
    let mut outcome = Ok(());
    while !waits.is_empty() {
        let (_, one) = waits.next().await;
        outcome = outcome.and(one);
    }
    outcome
}

/// Ends the transaction in one partition.
async fn mark(
    core: &Core,
    touched: &Touched,
    producer: ProducerEpoch,
    outcome: Outcome,
) -> Result<(), Error> {
    let marker = marker(core, producer, outcome);
    if touched.last().is_none() {
        let marked = append_durable(&touched.lane, marker.clone()).await;
        if marked.is_ok() || touched.has_nothing_of(producer.id) {
            return Ok(());
        }
    }
    match append_until_durable(&touched.lane, marker, &core.timer, &core.closing).await {
        Ok(_) => Ok(()),
        // The topic was deleted meanwhile, or a later marker has ended it there.
        Err(error) if matches!(error.reason(), Reason::TopicNotFound | Reason::ProducerFenced) => Ok(()),
        Err(error) => Err(error),
    }
}

fn marker(core: &Core, producer: ProducerEpoch, outcome: Outcome) -> Batch {
    let kind = match outcome {
        Outcome::Commit => ControlType::Commit,
        Outcome::Abort => ControlType::Abort,
    };
    let now: TimestampMs = core.config.env.clock.now();
    let record = ControlRecord { kind, coordinator_epoch: core.set.epoch() };
    record.batch(producer.id, producer.epoch, now).expect("a commit or abort fits a batch")
}

/// The node closes before the transaction has ended.
fn not_known(name: &str, error: &Error) -> Error {
    let message = format!(
        "the node stops, and how the transaction of {name:?} ends is decided by what is on disk when it starts again: \
         ask again then ({error})"
    );
    Error::new(Reason::OutcomeUnknown, message).with("transactional_id", name).because(error.clone())
}
