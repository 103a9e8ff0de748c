//! What follows from the records of a log for its producers and their transactions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use logmill_log::{Error, Log};
use logmill_record::Offset;

use crate::model::{Entry, What};

/// So many batches of a producer are known when they come again.
const REMEMBERED: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    pub(crate) last_sequence: Option<i32>,
    pub(crate) last_offset: u64,
    /// Where its open transaction begins.
    pub(crate) transaction: Option<u64>,
    /// The first offsets of its last batches.
    pub(crate) batches: VecDeque<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) producers: BTreeMap<i64, Producer>,
    /// Producer, first offset, and that of the marker.
    aborted: BTreeSet<(u64, u64, i64)>,
    end: u64,
}

impl Known {
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut known = Self { end: entries.len() as u64, ..Self::default() };
        let mut is_first = true;
        for (offset, entry) in (0..).zip(entries) {
            known.add(offset, entry, is_first);
            is_first = entry.is_last;
        }
        known
    }

    fn add(&mut self, offset: u64, entry: &Entry, is_first: bool) {
        let Some(by) = entry.by else { return };
        let producer = self.producers.entry(by.id).or_default();
        if producer.epoch != by.epoch {
            producer.epoch = by.epoch;
            producer.last_sequence = None;
            producer.batches.clear();
        }
        producer.last_offset = offset;
        if matches!(by.what, What::Commit | What::Abort) {
            if let (Some(begun), What::Abort) = (producer.transaction.take(), by.what) {
                self.aborted.insert((offset, begun, by.id));
            }
            return;
        }
        producer.last_sequence = Some(by.sequence);
        if by.what == What::InTransaction {
            producer.transaction.get_or_insert(offset);
        }
        if is_first {
            producer.batches.push_back(offset);
            if producer.batches.len() > REMEMBERED {
                producer.batches.pop_front();
            }
        }
    }

    fn stable(&self) -> u64 {
        self.producers.values().filter_map(|producer| producer.transaction).min().unwrap_or(self.end)
    }

    /// The log tells readers of committed records what follows from its records up to here.
    pub(crate) fn check_transactions(&self, log: &Log, who: &str) -> Result<(), Error> {
        let stable = log.last_stable_offset().get();
        assert_eq!(stable, self.stable(), "{who}: up to where all is decided, of {}", self.end);
        let aborted = log.aborted(Offset(0)..Offset(self.end.max(1)))?;
        let aborted: BTreeSet<_> = aborted
            .iter()
            .map(|txn| (txn.last_offset.get(), txn.first_offset.get(), txn.producer_id))
            .collect();
        assert_eq!(aborted, self.aborted, "{who}: the transactions that were aborted");
        Ok(())
    }

    /// The log knows of producers what follows from its records.
    pub(crate) fn check_producers(&self, log: &Log, ids: impl Iterator<Item = i64>, who: &str) {
        for id in ids {
            let answered = log.producer(id).map(|view| {
                let transaction = view.transaction.map(Offset::get);
                (view.epoch, view.last_sequence, view.last_offset.get(), transaction, view.remembered_batches)
            });
            let known = self.producers.get(&id).map(|known| {
                let Producer { epoch, last_sequence, last_offset, transaction, ref batches } = *known;
                (epoch, last_sequence, last_offset, transaction, batches.len())
            });
            assert_eq!(answered, known, "{who}: producer {id}");
        }
    }
}
