//! What a step gathers: the source records it has taken, and everything that is to leave the pipeline.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};
use rusqlite::types::Value;

use super::{Discard, NodeId, Origin};

/// A source record that this step has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// Index of the partition in its flow.
    pub(crate) partition: usize,
    pub(crate) offset: Offset,
    /// Event time; meaningless if `bad`.
    pub(crate) time: i64,
    /// The flow's watermark just before this record: what decides whether it is late.
    pub(crate) watermark: i64,
    /// Handled in an earlier run already: only windows that were open then may have it again.
    pub(crate) replayed: bool,
    /// Set aside by the source itself.
    pub(crate) bad: bool,
}

/// A record for a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OutRecord {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) timestamp: TimestampMs,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
    /// Decides the partition of a record that its key does not decide.
    pub(crate) spread: u32,
}

/// A record to be set aside, and why.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) node: NodeId,
    pub(crate) origin: Origin,
    pub(crate) why: Why,
}

#[derive(Clone, Debug)]
pub(crate) enum Why {
    /// It could not be processed.
    Dead(String),
    /// Its window was closed.
    Late { start: i64, end: i64 },
}

/// What one operator did in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records_in: u64,
    pub(crate) records_out: u64,
    pub(crate) replayed: u64,
    pub(crate) dead: u64,
    pub(crate) late: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// One flow's part of a step, while it gathers.
#[derive(Debug, Default)]
pub(crate) struct Step {
    pub(crate) taken: Vec<Taken>,
    /// Start and end of the windows whose results this step emits.
    pub(crate) spans: Vec<(i64, i64)>,
    pub(crate) letters: Vec<Letter>,
    pub(crate) records: BTreeMap<NodeId, Vec<OutRecord>>,
    pub(crate) rows: BTreeMap<NodeId, Vec<Vec<Value>>>,
    pub(crate) counts: BTreeMap<NodeId, Counts>,
    /// Records that an operator panicked on in a way that it could not take back, by operator.
    poison: HashMap<(NodeId, Origin), String>,
    /// The watermark that an earlier run closed windows up to.
    pub(crate) closed: i64,
}

impl Step {
    pub(crate) fn new(closed: i64) -> Self {
        Self { closed, ..Self::default() }
    }

    pub(crate) fn counts(&mut self, node: NodeId) -> &mut Counts {
        self.counts.entry(node).or_default()
    }

    /// The origin of what a window of this span yields.
    pub(crate) fn window(&mut self, start: i64, end: i64) -> Origin {
        self.spans.push((start, end));
        Origin::Window(u32::try_from(self.spans.len() - 1).unwrap_or(u32::MAX))
    }

    /// The source record behind an item, if it is not a window's result.
    pub(crate) fn record(&self, origin: Origin) -> Option<&Taken> {
        match origin {
            Origin::Record(index) => self.taken.get(index as usize),
            Origin::Window(_) => None,
        }
    }

    /// Whether the item was handled by an earlier run, so that nothing may leave the pipeline for it again.
    pub(crate) fn is_replayed(&self, origin: Origin) -> bool {
        self.record(origin).is_some_and(|record| record.replayed)
    }

    /// Sets an item aside because it cannot be processed.
    pub(crate) fn dead(&mut self, node: NodeId, origin: Origin, reason: String) {
        if !self.is_replayed(origin) {
            self.counts(node).dead += 1;
            self.letters.push(Letter { node, origin, why: Why::Dead(reason) });
        }
    }

    /// Sets an item aside because its window is closed.
    pub(crate) fn late(&mut self, node: NodeId, origin: Origin, start: i64, end: i64) {
        self.counts(node).late += 1;
        self.letters.push(Letter { node, origin, why: Why::Late { start, end } });
    }

    /// Why this operator must not touch this record again, if it must not.
    pub(crate) fn poisoned(&self, node: NodeId, origin: Origin) -> Option<&String> {
        if self.poison.is_empty() { None } else { self.poison.get(&(node, origin)) }
    }

    /// Forgets everything that the operators behind `source` made of the records taken so far, and marks the one
    /// that made this necessary.
    pub(crate) fn discard(&mut self, source: NodeId, why: Discard) {
        self.poison.insert((why.node, why.origin), why.reason);
        self.letters.retain(|letter| letter.node == source);
        self.counts.retain(|node, _| *node == source);
        self.records.clear();
        self.rows.clear();
    }

    /// Ready for the next step.
    pub(crate) fn clear(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        taken.clear();
        *self = Self { taken, ..Self::new(self.closed) };
    }
}
