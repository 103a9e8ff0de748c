//! What a log knows of its producers: which batches it has of whom, and which transactions are open.
//!
//! An idempotent producer numbers its records. The table remembers the last 64 batches of each
//! producer, so that one sent again is recognised and answered with its first offsets, and one
//! that comes too early, because an earlier one was lost, is refused. It is pure logic: checked
//! under the log's lock before a write, applied after it, so that a failed write leaves it as it
//! was; and made anew by applying the batches that are found in the files.
//!
//! Rules that Kafka has too (KIP-98, KIP-890): sequences go from 2³¹ − 1 back to 0; a new epoch
//! begins at sequence 0, and an older one is fenced off; of a producer that is not known any
//! sequence is taken, since retention or expiry may have taken what was known of it. Inside a
//! transaction every batch must be transactional, until a marker ends it.
//!
//! # Bounds
//!
//! A producer that was not heard of for [`LogOptions::producer_expiry`](crate::LogOptions) is
//! forgotten. Clients that take a new id at each start would fill the memory before that, so there
//! is a bound of 10,000 too: a new producer then takes the place of the one longest unheard of. To
//! refuse the new one instead would let one faulty client shut out all others. A producer whose
//! transaction is open is never forgotten; only if all 10,000 are in one is a new one refused.

mod check;
mod note;
#[cfg(all(test, feature = "sim"))]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logmill_record::{Batch, Offset, TimestampMs};

pub(crate) use check::Verdict;
pub(crate) use note::{Kind, Note, concerns};

use crate::format::state::{AbortedTxn, Producer, REMEMBERED_BATCHES, Remembered, StateFile};
use crate::segment::Txns;

/// So many producers are known per log.
pub(crate) const MOST_PRODUCERS: usize = 10_000;

/// A transaction whose marker is written and may not be on disk yet.
#[derive(Clone, Copy, Debug)]
struct Ended {
    first_offset: Offset,
    marker: Offset,
}

/// The producers of a log, up to its written end.
#[derive(Debug)]
pub(crate) struct Producers {
    by_id: BTreeMap<i64, Producer>,
    /// By the last offset of their last batch: the one longest unheard of comes first.
    by_use: BTreeMap<Offset, i64>,
    /// Producers with an open transaction, by its first offset.
    open: BTreeMap<Offset, i64>,
    /// Transactions that hold back the last stable offset until their marker is on disk.
    ended: Vec<Ended>,
    /// Aborted transactions whose marker lies in the active segment, in the order of the markers.
    aborted: Vec<AbortedTxn>,
    most: usize,
}

impl Default for Producers {
    fn default() -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_use: BTreeMap::new(),
            open: BTreeMap::new(),
            ended: Vec::new(),
            aborted: Vec::new(),
            most: MOST_PRODUCERS,
        }
    }
}

impl Producers {
    /// As a `.state` has them; nothing is aborted in the segment that follows.
    pub(crate) fn at_start(producers: Vec<Producer>) -> Self {
        let mut table = Self::default();
        for producer in producers {
            table.by_use.insert(producer.last_offset, producer.id);
            if let Some(first) = producer.transaction {
                table.open.insert(first, producer.id);
            }
            table.by_id.insert(producer.id, producer);
        }
        table
    }

    /// As a `.state` has them, at the end of its own segment.
    pub(crate) fn at_end(state: StateFile) -> Self {
        Self { aborted: state.aborted, ..Self::at_start(state.producers) }
    }

    /// What a `.state` says at the end of the segment.
    pub(crate) fn to_file(&self) -> StateFile {
        StateFile { producers: self.by_id.values().cloned().collect(), aborted: self.aborted.clone() }
    }

    /// Whether there is nothing to say in a `.state`.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.aborted.is_empty()
    }

    /// Takes note of a batch that was written, or is found in the log.
    pub(crate) fn apply(&mut self, note: &Note, first_offset: Offset, appended_at: TimestampMs) {
        let last_offset = first_offset.saturating_add(note.last_offset_delta.into());
        let mut producer = self.take(note, last_offset, appended_at);
        if producer.epoch != note.epoch {
            producer.epoch = note.epoch;
            producer.batches.clear();
            producer.starts_anew = true;
        }
        match note.kind {
            Kind::Data { first_sequence, last_sequence, opens } => {
                producer.remember(Remembered {
                    first_sequence,
                    last_sequence,
                    first_offset,
                    last_offset,
                    appended_at,
                });
                if opens && producer.transaction.is_none() {
                    producer.transaction = Some(first_offset);
                    self.open.insert(first_offset, producer.id);
                }
            }
            Kind::Commit => self.end(&mut producer, last_offset, false),
            Kind::Abort => self.end(&mut producer, last_offset, true),
        }
        self.by_use.insert(last_offset, producer.id);
        self.by_id.insert(producer.id, producer);
    }

    /// [`apply`](Self::apply) of each batch of a group that was written from `first` on.
    pub(crate) fn apply_all(
        &mut self,
        batches: &[Batch],
        notes: &[Option<Note>],
        first: Offset,
        appended_at: TimestampMs,
    ) {
        let mut offset = first;
        for (batch, note) in batches.iter().zip(notes) {
            if let Some(note) = note {
                self.apply(note, offset, appended_at);
            }
            offset = offset.saturating_add(u64::from(batch.header().last_offset_delta) + 1);
        }
    }

    /// Takes a producer out to be changed, or begins a new one; in place of another if there are
    /// too many.
    fn take(&mut self, note: &Note, last_offset: Offset, last_used: TimestampMs) -> Producer {
        if let Some(known) = self.by_id.remove(&note.producer_id) {
            self.by_use.remove(&known.last_offset);
            return Producer { last_offset, last_used, ..known };
        }
        if self.by_id.len() >= self.most {
            let oldest = self.by_use.values().copied().find(|id| !self.is_in_transaction(*id));
            oldest.into_iter().for_each(|id| self.forget(id));
        }
        Producer {
            id: note.producer_id,
            epoch: note.epoch,
            starts_anew: false,
            batches: std::collections::VecDeque::new(),
            transaction: None,
            last_offset,
            last_used,
        }
    }

    fn end(&mut self, producer: &mut Producer, marker: Offset, aborted: bool) {
        let Some(first_offset) = producer.transaction.take() else { return };
        self.open.remove(&first_offset);
        self.ended.push(Ended { first_offset, marker });
        if aborted {
            let producer_id = producer.id;
            self.aborted.push(AbortedTxn { producer_id, first_offset, last_offset: marker });
        }
    }

    fn is_in_transaction(&self, id: i64) -> bool {
        self.by_id.get(&id).is_some_and(|producer| producer.transaction.is_some())
    }

    fn forget(&mut self, id: i64) {
        if let Some(producer) = self.by_id.remove(&id) {
            self.by_use.remove(&producer.last_offset);
        }
    }

    /// Forgets who was not heard of for `expiry`. Where the clock went back that is later.
    pub(crate) fn expire(&mut self, now: TimestampMs, expiry: Duration) {
        let expiry_ms = i64::try_from(expiry.as_millis()).unwrap_or(i64::MAX);
        let expired = |producer: &&Producer| now.0.saturating_sub(producer.last_used.0) > expiry_ms;
        let gone: Vec<i64> = self
            .by_use
            .values()
            .filter_map(|id| self.by_id.get(id))
            .filter(|producer| producer.transaction.is_none())
            .take_while(expired)
            .map(|producer| producer.id)
            .collect();
        gone.into_iter().for_each(|id| self.forget(id));
    }

    /// Damage has taken batches that are not known: no sequence is expected of anyone any more.
    /// Transactions stay open until a marker ends them.
    pub(crate) fn lose_sequences(&mut self) {
        let idle: Vec<i64> =
            self.by_id.values().filter(|producer| producer.transaction.is_none()).map(|p| p.id).collect();
        idle.into_iter().for_each(|id| self.forget(id));
        for producer in self.by_id.values_mut() {
            producer.batches.clear();
            producer.starts_anew = false;
        }
    }

    /// All below `durable_end` is on disk: markers there hold nothing back any more.
    pub(crate) fn note_durable(&mut self, durable_end: Offset) {
        self.ended.retain(|ended| ended.marker >= durable_end);
    }

    /// The first offset of the earliest transaction that is not ended by a durable marker.
    pub(crate) fn first_unstable(&self) -> Option<Offset> {
        let open = self.open.keys().next().copied();
        let ended = self.ended.iter().map(|ended| ended.first_offset).min();
        open.into_iter().chain(ended).min()
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Producer> {
        self.by_id.get(&id)
    }

    /// The producers with an open transaction, by its first offset.
    pub(crate) fn open(&self) -> impl Iterator<Item = &Producer> {
        self.open.values().filter_map(|id| self.by_id.get(id))
    }

    /// Aborted transactions whose marker lies in the active segment.
    pub(crate) fn aborted(&self) -> &[AbortedTxn] {
        &self.aborted
    }

    /// The segment is sealed: hands over its aborted transactions.
    pub(crate) fn take_aborted(&mut self) -> Txns {
        let first_open = self.open.keys().next().copied();
        Txns { aborted: std::mem::take(&mut self.aborted), first_open, knows_none: self.by_id.is_empty() }
    }

    /// The last offsets of the batches that what is known of producers follows from: the last one
    /// of each, and its last one with records. Compaction keeps these batches.
    pub(crate) fn last_offsets(&self) -> BTreeSet<Offset> {
        let with_records = |producer: &Producer| producer.batches.back().map(|batch| batch.last_offset);
        self.by_use.keys().copied().chain(self.by_id.values().filter_map(with_records)).collect()
    }
}

impl Producer {
    /// The sequence of its last record, if a batch of its epoch is remembered.
    pub(crate) fn last_sequence(&self) -> Option<i32> {
        self.batches.back().map(|batch| batch.last_sequence)
    }

    fn remember(&mut self, batch: Remembered) {
        let follows =
            self.last_sequence().is_none_or(|last| note::sequence_after(last, 1) == batch.first_sequence);
        if !follows {
            // Compaction took what was between, or the producer was forgotten and came back.
            self.batches.clear();
        }
        if self.batches.len() == REMEMBERED_BATCHES {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
        self.starts_anew = false;
    }
}
