//! Which records of a batch compaction keeps.
//!
//! A record goes if its key has a later one. Records without a key have none and stay. A tombstone
//! stays until its delete horizon (KIP-534), which is set when all that it deletes has gone; so
//! does the marker that ends a transaction, once the log holds no batch of that transaction.
//!
//! What is compacted lies below the last stable offset, so that each transaction there has ended.
//! The records of one that was committed are records as any other. Those of one that was aborted take
//! nothing's place: what they would have replaced is the last value of its key. They give way to later
//! records all the same.

use std::collections::BTreeSet;
use std::time::Duration;

use logmill_record::{Batch, BatchError, BatchHeader, Inflater, Offset, Record, TimestampMs};

use super::KeyMap;
use crate::format::state::AbortedTxn;

/// One pass over a log, from its first segment to the end of what the key map covers.
#[derive(Debug)]
pub(crate) struct Cleaner {
    /// Where the key map's range ends. Records from here on stay.
    pub(crate) end: Offset,
    pub(crate) now: TimestampMs,
    pub(crate) delete_retention: Duration,
    /// A batch was met whose records cannot be read: a tombstone behind it may be all that hides
    /// one of them, and stays.
    blind: bool,
    /// Producers with a batch in a transaction whose end has not been met. One without records
    /// counts: what is known of a producer is made anew from its batches, and a transaction that
    /// one of them opens must have its end.
    in_transaction: BTreeSet<i64>,
    /// The transactions with records in the present segment that were aborted.
    aborted: Vec<AbortedTxn>,
    inflater: Inflater,
    /// The first delete horizon that is still to come.
    pub(crate) next_horizon: Option<TimestampMs>,
}

impl Cleaner {
    pub(crate) fn new(end: Offset, now: TimestampMs, delete_retention: Duration) -> Self {
        Self {
            end,
            now,
            delete_retention,
            blind: false,
            in_transaction: BTreeSet::new(),
            aborted: Vec::new(),
            inflater: Inflater::default(),
            next_horizon: None,
        }
    }

    /// The batches of another segment come next, in which these transactions were aborted.
    pub(crate) fn enter(&mut self, aborted: Vec<AbortedTxn>) {
        self.aborted = aborted;
    }

    /// What is left of a batch, if it is below the end: perhaps no record, perhaps all of them.
    pub(crate) fn clean(&mut self, keys: &KeyMap, batch: &Batch) -> Batch {
        if batch.header().base_offset >= self.end {
            return batch.clone();
        }
        let cleaned = if batch.header().attributes.is_control() {
            self.clean_marker(batch)
        } else {
            self.clean_records(keys, batch)
        };
        cleaned.unwrap_or_else(|error| {
            // No codec for it, or a producer's own making: it was stored as it came and stays so.
            let offset = batch.header().base_offset;
            tracing::debug!(%offset, %error, "compaction cannot look into a batch and keeps it whole");
            self.blind = true;
            batch.clone()
        })
    }

    fn clean_records(&mut self, keys: &KeyMap, batch: &Batch) -> Result<Batch, BatchError> {
        let header = batch.header();
        if header.attributes.is_transactional() {
            self.in_transaction.insert(header.producer_id);
        }
        // What an aborted transaction deletes is still there, so its tombstones stay too.
        let counts = !is_aborted(header, &self.aborted);
        let gone = counts && self.is_over(header);
        let mut tombstones = false;
        let keep = |record: &Record<'_>| {
            let Some(key) = record.key.filter(|_| record.offset < self.end) else { return true };
            if keys.last(key).is_some_and(|last| last > record.offset) {
                return false;
            }
            let tombstone = record.value.is_none();
            tombstones |= tombstone;
            !(tombstone && gone)
        };
        let kept = batch.retain_records(&mut self.inflater, None, keep)?;
        if tombstones && counts { self.with_horizon(kept) } else { Ok(kept) }
    }

    fn clean_marker(&mut self, batch: &Batch) -> Result<Batch, BatchError> {
        let header = batch.header();
        if self.in_transaction.remove(&header.producer_id) {
            return Ok(batch.clone());
        }
        if self.is_over(header) {
            return batch.retain_records(&mut self.inflater, None, |_| false);
        }
        self.with_horizon(batch.clone())
    }

    /// Whether the batch's tombstones, or its marker, have stayed for long enough.
    fn is_over(&self, header: &BatchHeader) -> bool {
        !self.blind && header.delete_horizon().is_some_and(|horizon| horizon <= self.now)
    }

    /// Gives a batch a delete horizon if it has none. One that reaches past the end does not get it
    /// yet: what its last tombstones delete is still there.
    fn with_horizon(&mut self, batch: Batch) -> Result<Batch, BatchError> {
        let header = batch.header();
        if header.record_count == 0 || self.blind || header.next_offset() > self.end {
            return Ok(batch);
        }
        let retention_ms = i64::try_from(self.delete_retention.as_millis()).unwrap_or(i64::MAX);
        let horizon = header.delete_horizon().unwrap_or(TimestampMs(self.now.0.saturating_add(retention_ms)));
        if horizon > self.now {
            self.next_horizon = Some(self.next_horizon.map_or(horizon, |next| next.min(horizon)));
        }
        batch.retain_records(&mut self.inflater, Some(horizon), |_| true)
    }
}

/// Whether a batch belongs to one of these transactions.
fn is_aborted(header: &BatchHeader, aborted: &[AbortedTxn]) -> bool {
    let has = |txn: &AbortedTxn| {
        txn.producer_id == header.producer_id
            && (txn.first_offset..=txn.last_offset).contains(&header.base_offset)
    };
    header.attributes.is_transactional() && aborted.iter().any(has)
}

/// Notes where the last record of each key of a batch is, from an offset on, unless it belongs to an `aborted`
/// transaction. Returns the first offset for whose key there was no room.
pub(crate) fn note_keys(
    keys: &mut KeyMap,
    batch: &Batch,
    from: Offset,
    aborted: &[AbortedTxn],
    inflater: &mut Inflater,
) -> Option<Offset> {
    let header = batch.header();
    if header.attributes.is_control() || is_aborted(header, aborted) {
        return None;
    }
    // What cannot be read supersedes nothing.
    let records = batch.records_with(inflater).ok()?;
    for record in records.map_while(Result::ok) {
        if let Some(key) = record.key.filter(|_| record.offset >= from)
            && !keys.put(key, record.offset)
        {
            return Some(record.offset);
        }
    }
    None
}
