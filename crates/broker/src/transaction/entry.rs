//! How one transactional id stands.

use std::sync::Arc;
use std::time::Duration;

use logmill_record::{Offset, TimestampMs};

use super::admit::{AllTouched, Touched};
use super::errors::{aborted, fenced};
use super::record::{Status, StepRecord, TransactionRecord};
use super::{Outcome, ProducerEpoch};
use crate::budget::Budget;
use crate::error::Error;
use crate::exec::Turns;
use crate::group::Held;
use crate::offsets::{CheckedCommit, PendingCommits};
use crate::topic::TopicPartition;

/// The last epoch of a producer that a transaction can have: the markers have the one after it, and the next
/// transaction has another id.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// Why a transaction was aborted that its producer may still believe in.
pub(super) const RESTARTED: &str = "the node was started again before the transaction was decided";

/// A transactional id.
#[derive(Debug)]
pub(super) struct Entry {
    /// Who writes now.
    pub(super) producer: ProducerEpoch,
    pub(super) timeout: Duration,
    pub(super) state: State,
    /// When its producer began, or ended a transaction.
    pub(super) last_used: TimestampMs,
    /// How the last transaction ended.
    pub(super) last: Option<Last>,
    /// The last step, of an id that is a unit's.
    pub(super) step: Option<StepRecord>,
    /// The epoch of the unit whose owner writes with the producer's epoch.
    pub(super) unit_epoch: i32,
    /// A partition cannot be opened that has to have a marker.
    pub(super) has_unavailable_partition: bool,
    /// Who wrote when the node ended.
    pub(super) producer_before_restart: Option<ProducerEpoch>,
    /// One change of it at a time.
    pub(super) turn: Turns,
}

/// How a transaction has ended.
#[derive(Clone, Debug)]
pub(super) struct Last {
    /// Who wrote it.
    pub(super) producer: ProducerEpoch,
    pub(super) outcome: Outcome,
    /// Why, if nobody asked for it.
    pub(super) why: Option<String>,
}

#[derive(Debug)]
pub(super) enum State {
    /// Nothing was written since the last transaction.
    Empty,
    Ongoing(Ongoing),
    /// It takes nothing more. The outcome is what was asked for.
    Ending {
        outcome: Outcome,
        started_at: TimestampMs,
    },
}

/// A transaction that takes records.
#[derive(Debug)]
pub(super) struct Ongoing {
    pub(super) started_at: TimestampMs,
    /// Dropped when it ends: its timeout is not wanted any more.
    pub(super) alive: Arc<()>,
    pub(super) under_way: Budget,
    pub(super) touched: AllTouched,
    pub(super) offsets: Vec<AddedOffsets>,
}

/// What a group has read, as a part of a transaction.
#[derive(Debug)]
pub(super) struct AddedOffsets {
    /// Where the log of offsets has them.
    pub(super) at: Offset,
    pub(super) commits: Vec<CheckedCommit>,
    /// Their unit stays with its owner until the transaction has ended.
    pub(super) held: Held,
    pub(super) _pending: PendingCommits,
}

impl Ongoing {
    /// The partitions that it has touched.
    pub(super) fn partitions(&self) -> Vec<(String, u32)> {
        let named = |(id, at): (&TopicPartition, &Arc<Touched>)| (at.topic.to_string(), id.partition);
        self.touched.iter().map(named).collect()
    }
}

/// What the markers of a transaction carry, and who writes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) markers: ProducerEpoch,
    /// The id that takes the place of one whose epochs are used up.
    pub(super) next_id: Option<i64>,
}

impl Next {
    /// After a transaction of `producer`; `fresh` is an id that nobody has.
    pub(super) fn after(producer: ProducerEpoch, fresh: impl FnOnce() -> i64) -> Self {
        let markers = ProducerEpoch { epoch: producer.epoch.saturating_add(1), ..producer };
        Self { markers, next_id: (producer.epoch >= LAST_EPOCH).then(fresh) }
    }

    /// Who writes the next transaction.
    pub(super) fn producer(self) -> ProducerEpoch {
        self.next_id.map_or(self.markers, |id| ProducerEpoch { id, epoch: 0 })
    }
}

impl Entry {
    /// Of an id under which nothing was written yet.
    pub(super) fn new(producer: ProducerEpoch, timeout: Duration) -> Self {
        Self {
            producer,
            timeout,
            state: State::Empty,
            last_used: TimestampMs::NONE,
            last: None,
            step: None,
            unit_epoch: 0,
            has_unavailable_partition: false,
            producer_before_restart: None,
            turn: Turns::new(1, Arc::default()),
        }
    }

    /// As it was written.
    pub(super) fn restored(known: &TransactionRecord) -> Self {
        let timeout = Duration::from_millis(u64::try_from(known.timeout_ms).unwrap_or(0));
        let next = Next { markers: known.producer, next_id: known.next_id };
        let mut entry = Self::new(next.producer(), timeout);
        entry.last_used = known.updated_at;
        entry.step.clone_from(&known.step);
        entry.unit_epoch = known.step.as_ref().map_or(0, |step| step.unit_epoch);
        let before = known.producer.epoch.checked_sub(1).filter(|epoch| *epoch >= 0);
        if let (Status::Decided(outcome) | Status::Complete(outcome), Some(epoch), None) =
            (known.status, before, &known.step)
        {
            let producer = ProducerEpoch { epoch, ..known.producer };
            entry.last = Some(Last { producer, outcome, why: None });
        }
        entry
    }

    /// Whether the end of a transaction lets it go on: it is not in another by now, and nothing else holds it.
    pub(super) fn can_go_on(&self) -> bool {
        !matches!(self.state, State::Ongoing(_)) && !self.has_unavailable_partition
    }

    /// Refuses who is not, or no longer, the one who writes under the id.
    pub(super) fn check(&self, name: &str, producer: ProducerEpoch) -> Result<(), Error> {
        if producer == self.producer {
            return Ok(());
        }
        if let Some(Last { why: Some(why), .. }) = self.last.as_ref().filter(|last| last.producer == producer)
        {
            return Err(aborted(name, why));
        }
        let is_fenced = |before: ProducerEpoch| before.id == producer.id && before.epoch <= producer.epoch;
        if self.producer_before_restart.is_some_and(is_fenced) {
            return Err(aborted(name, RESTARTED));
        }
        Err(fenced(name, producer, self.producer))
    }
}
