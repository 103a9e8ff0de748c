//! What a log tells of its producers and their transactions.

use std::ops::Range;
use std::sync::Arc;

use logmill_record::{Offset, TimestampMs};

use super::futures::Beyond;
use super::read::What;
use super::sidecar::producers_after;
use super::{Log, LogInner};
use crate::error::Error;
use crate::format::state::AbortedTxn;
use crate::read::ReadOut;
use crate::segment::{Sealed, Txns};

/// What a log knows of an idempotent producer.
///
/// ```
/// use logmill_log::{Log, LogOptions, ProducerView, SetOptions};
/// use logmill_record::{BatchBuilder, BatchOptions, NewRecord, Offset, TimestampMs};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// let mut batch = BatchBuilder::with_options(BatchOptions::new().producer(4711, 3, 0), 0);
/// batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
/// let batch = batch.build()?;
/// log.append(std::slice::from_ref(&batch))?.wait()?;
///
/// // The answer was lost on its way, so the producer sends the batch again.
/// let receipt = log.append(&[batch])?;
/// assert!(receipt.is_duplicate());
/// assert_eq!(receipt.first_offset(), Offset(0));
///
/// let producer: ProducerView = log.producer(4711).expect("it has just appended");
/// assert_eq!((producer.epoch, producer.last_sequence), (3, Some(0)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerView {
    /// Its epoch; batches of an older one are refused.
    pub epoch: i16,
    /// The sequence of its last record; `None` if none of its batches is remembered.
    pub last_sequence: Option<i32>,
    /// The last offset of its last batch, or marker.
    pub last_offset: Offset,
    /// When that was appended, or an upper bound.
    pub last_used: TimestampMs,
    /// The first offset of its open transaction.
    pub transaction: Option<Offset>,
    /// How many of its batches would be recognised if they came again: at most 64.
    pub remembered_batches: usize,
}

/// A transaction that no marker has ended.
///
/// ```
/// use logmill_log::{Log, OpenTransaction};
///
/// /// What holds back readers of committed records.
/// fn oldest(log: &Log) -> Option<OpenTransaction> {
///     log.open_transactions().into_iter().next()
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenTransaction {
    /// Whose it is.
    pub producer_id: i64,
    /// That producer's epoch.
    pub producer_epoch: i16,
    /// The offset of its first record.
    pub first_offset: Offset,
    /// When the producer last appended, or an upper bound.
    pub last_used: TimestampMs,
}

impl Log {
    /// How far a reader of committed records may read: to the first record of the earliest
    /// transaction that is open, or whose marker is not on disk yet; if there is none, as far as
    /// every reader. While the log is open it never goes back.
    ///
    /// Where readers see records before they are on disk
    /// ([`Durability::Relaxed`](crate::Durability::Relaxed)), it also moves when the log's end does not, with
    /// the sync of a marker: [`stable_beyond`](Log::stable_beyond) is what to wait for.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.inner().state.seen(|view| view.last_stable)
    }

    /// Resolves when the [last stable offset](Log::last_stable_offset) is past `offset`, with an error when it never
    /// will be. What is appended meanwhile and stays undecided wakes nobody.
    pub fn stable_beyond(&self, offset: Offset) -> Beyond {
        Beyond::stable(Arc::clone(self.inner()), offset)
    }

    /// [`Log::read`] for a reader of committed records: nothing at or past the
    /// [last stable offset](Log::last_stable_offset), and nothing from there on. Records of transactions that were
    /// aborted are among what it gives; [`Log::aborted`] names them.
    ///
    /// # Errors
    ///
    /// As [`Log::read`].
    ///
    /// ```
    /// use logmill_log::{Log, LogOptions, SetOptions};
    /// use logmill_record::{
    ///     BatchBuilder, BatchOptions, ControlRecord, ControlType, NewRecord, Offset, TimestampMs,
    /// };
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
    /// let options = BatchOptions::new().producer(4711, 0, 0).transactional();
    /// let mut batch = BatchBuilder::with_options(options, 0);
    /// batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] })?;
    /// log.append(&[batch.build()?])?.wait()?;
    /// assert!(log.read_committed(Offset(0), 1 << 20)?.chunks.is_empty());
    ///
    /// let commit = ControlRecord { kind: ControlType::Commit, coordinator_epoch: 1 };
    /// log.append(&[commit.batch(4711, 0, TimestampMs(6))?])?.wait()?;
    /// assert_eq!(log.read_committed(Offset(0), 1 << 20)?.next_offset, Offset(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_committed(&self, from: Offset, max_bytes: usize) -> Result<ReadOut, Error> {
        self.inner().read(from, max_bytes, What::Stable)
    }

    /// The aborted transactions with records in `range`, in the order of their markers. Those
    /// whose marker is not on disk are left out: their records lie behind
    /// [`last_stable_offset`](Log::last_stable_offset).
    ///
    /// # Errors
    ///
    /// `Closed`; `Io` where files had to be read and could not be.
    pub fn aborted(&self, range: Range<Offset>) -> Result<Vec<AbortedTxn>, Error> {
        self.inner().aborted(&range)
    }

    /// What is known of an idempotent producer; `None` if it never appended, or was forgotten.
    /// Batches count from when they are written, on disk or not.
    #[must_use]
    pub fn producer(&self, id: i64) -> Option<ProducerView> {
        let state = self.inner().state.lock();
        state.producers.get(id).map(|producer| ProducerView {
            epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_offset: producer.last_offset,
            last_used: producer.last_used,
            transaction: producer.transaction,
            remembered_batches: producer.batches.len(),
        })
    }

    /// The transactions that no marker has ended, the earliest first.
    #[must_use]
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        let state = self.inner().state.lock();
        let open = state.producers.open().filter_map(|producer| {
            Some(OpenTransaction {
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                first_offset: producer.transaction?,
                last_used: producer.last_used,
            })
        });
        open.collect()
    }
}

impl LogInner {
    /// Forgets producers that were not heard of for too long.
    pub(crate) fn expire_producers(&self) {
        let now = self.env.clock.now();
        let mut state = self.state.lock();
        let expiry = state.options.producer_expiry;
        state.producers.expire(now, expiry);
    }

    pub(super) fn aborted(&self, range: &Range<Offset>) -> Result<Vec<AbortedTxn>, Error> {
        loop {
            let (sealed, active) = {
                let state = self.state.lock();
                state.check_usable()?;
                let durable_end = state.durable.end;
                let active = state.producers.aborted().iter().filter(|txn| txn.last_offset < durable_end);
                (Arc::clone(&state.sealed), active.copied().collect::<Vec<_>>())
            };
            match self.aborted_in(&sealed, &active, range) {
                // Removed or replaced while its files were read.
                Err(_) if !self.has_all(&sealed) => {}
                found => return found,
            }
        }
    }

    /// A transaction can have its marker in a later segment than its records, so the search goes
    /// on until none is open that began inside the range.
    fn aborted_in(
        &self,
        sealed: &[Arc<Sealed>],
        active: &[AbortedTxn],
        range: &Range<Offset>,
    ) -> Result<Vec<AbortedTxn>, Error> {
        let overlaps = |txn: &&AbortedTxn| txn.first_offset < range.end && txn.last_offset >= range.start;
        let mut found = Vec::new();
        let first = sealed.partition_point(|segment| segment.end() <= range.start);
        for index in first..sealed.len() {
            let txns = self.txns(&sealed[..=index])?;
            found.extend(txns.aborted.iter().filter(overlaps));
            let more = txns.first_open.is_some_and(|open| open < range.end);
            if sealed[index].end() >= range.end && !more {
                return Ok(found);
            }
        }
        found.extend(active.iter().filter(overlaps));
        Ok(found)
    }

    /// What the last of the log's first segments has to do with transactions.
    fn txns<'a>(&self, segments: &'a [Arc<Sealed>]) -> Result<&'a Txns, Error> {
        let segment = segments.last().expect("the caller has one");
        if let Some(txns) = segment.txns() {
            return Ok(txns);
        }
        let (mut producers, _) =
            producers_after(&*self.env.fs, &self.dir, segments, |_| true, Sealed::open_data)?;
        Ok(segment.set_txns(producers.take_aborted()))
    }

    fn has_all(&self, sealed: &[Arc<Sealed>]) -> bool {
        let now = self.state.view().sealed;
        sealed.iter().all(|segment| now.iter().any(|held| Arc::ptr_eq(held, segment)))
    }
}
