//! What writers write: records with keys, and in the last log batches of idempotent producers and
//! the markers of their transactions.

use logmill_record::{Batch, BatchBuilder, BatchOptions, ControlRecord, ControlType, NewRecord, TimestampMs};

use crate::known::Producer;
use crate::machine::{Run, WRITERS};
use crate::model::{By, Entry, Group, Kind, What};
use crate::reading::{MARKER, sequence_after};

/// The writers of the last log but one, which is none.
pub(crate) const PRODUCERS: std::ops::Range<i64> = 0..WRITERS.cast_signed() as i64 - 1;

impl Run {
    /// What a writer writes next, and whether the log must take it.
    pub(crate) fn group(&mut self, which: usize, nth: usize) -> Group {
        let id = i64::try_from(nth).unwrap();
        if self.slots[which].model.kind == Kind::Transactional && PRODUCERS.contains(&id) {
            return self.produced(which, id);
        }
        let mut group = Group::default();
        for _ in 0..=self.below(2) {
            self.fill(&mut group, BatchOptions::new(), None);
        }
        group
    }

    /// What follows for a producer from all that is written: it has one append on its way at most.
    pub(crate) fn producer(&self, which: usize, id: i64) -> Option<Producer> {
        let model = &self.slots[which].model;
        model.known(model.written.len() as u64).producers.remove(&id)
    }

    fn produced(&mut self, which: usize, id: i64) -> Group {
        let mut group = Group::default();
        let known = self.producer(which, id);
        let in_transaction = known.as_ref().is_some_and(|known| known.transaction.is_some());
        let epoch = known.as_ref().map_or(0, |known| known.epoch);
        // The numbers of one of them soon begin again at 0.
        let first = if id == 0 { i32::MAX - 5 } else { 0 };
        let next = known.map_or(first, |known| known.last_sequence.map_or(0, |last| sequence_after(last, 1)));
        let what = if in_transaction || self.below(2) == 0 { What::InTransaction } else { What::Plain };
        match self.below(8) {
            0 | 1 if in_transaction => {
                let (kind, what) = if self.below(2) == 0 {
                    self.count("aborts");
                    (ControlType::Abort, What::Abort)
                } else {
                    self.count("commits");
                    (ControlType::Commit, What::Commit)
                };
                // A coordinator may move the epoch on with it.
                let epoch = epoch + i16::from(self.below(3) == 0);
                self.marker(&mut group, kind, By { id, epoch, sequence: -1, what });
            }
            2 => self.fill_as(&mut group, By { id, epoch: epoch + 1, sequence: 0, what }),
            _ => {
                let mut by = By { id, epoch, sequence: next, what };
                for _ in 0..=self.below(2) {
                    self.fill_as(&mut group, by);
                    let last = group.entries.last().and_then(|last| last.by).unwrap();
                    by.sequence = sequence_after(last.sequence, 1);
                }
            }
        }
        group
    }

    fn marker(&mut self, group: &mut Group, kind: ControlType, by: By) {
        self.next_id += 1;
        let at = TimestampMs(self.next_id.cast_signed());
        let marker = ControlRecord { kind, coordinator_epoch: 1 };
        group.batches.push(marker.batch(by.id, by.epoch, at).unwrap());
        let entry = Entry { id: self.next_id, key: MARKER, epoch: 0, is_last: true, by: Some(by) };
        group.entries.push(entry);
    }

    pub(crate) fn fill_as(&mut self, group: &mut Group, by: By) {
        let options = BatchOptions::new().producer(by.id, by.epoch, by.sequence);
        let in_transaction = by.what == What::InTransaction;
        let options = if in_transaction { options.transactional() } else { options };
        self.fill(group, options, Some(by));
    }

    fn fill(&mut self, group: &mut Group, options: BatchOptions, by: Option<By>) {
        let mut batch = BatchBuilder::with_options(options, 0);
        for nth in 0..=self.below(3) {
            self.next_id += 1;
            let key = u8::try_from(self.below(5)).unwrap();
            let by = by.map(|by| By { sequence: sequence_after(by.sequence, nth.cast_signed()), ..by });
            group.entries.push(Entry { id: self.next_id, key, epoch: 0, is_last: false, by });
            let filler = usize::try_from(self.below(350)).unwrap();
            let value: Vec<u8> = self.next_id.to_be_bytes().iter().copied().chain(vec![7; filler]).collect();
            let record = NewRecord {
                timestamp: TimestampMs(1_000),
                key: Some(&[key]),
                value: Some(&value),
                headers: &[],
            };
            batch.push(&record).unwrap();
        }
        group.entries.last_mut().unwrap().is_last = true;
        group.batches.push(batch.build().unwrap());
    }

    /// A batch that comes before its time, and one of an epoch that is over.
    pub(crate) fn untimely(&mut self, id: i64, known: &Producer) -> Option<(Batch, logmill_log::ErrorKind)> {
        use logmill_log::ErrorKind::{Fenced, OutOfSequence};
        let what = if known.transaction.is_some() { What::InTransaction } else { What::Plain };
        let next = sequence_after(known.last_sequence?, 2);
        let (epoch, kind) = if known.epoch > 0 && self.below(2) == 0 {
            (known.epoch - 1, Fenced)
        } else {
            (known.epoch, OutOfSequence)
        };
        let mut group = Group::default();
        self.fill_as(&mut group, By { id, epoch, sequence: next, what });
        Some((group.batches.remove(0), kind))
    }
}
