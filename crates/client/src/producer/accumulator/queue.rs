//! The batches of one partition that wait to be sent.

use std::collections::VecDeque;
use std::sync::Arc;

use logmill_record::{BatchBuilder, BatchError, NewRecord};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Entry;
use crate::producer::delivery::{Completion, Delivery};

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    /// Batches of this partition that are under way.
    pub(super) in_flight: usize,
    /// Whether it stands in the line of those that may send.
    pub(super) ready: bool,
    batches: VecDeque<WaitingBatch>,
}

#[derive(Debug)]
pub(in crate::producer) struct WaitingBatch {
    pub(in crate::producer) builder: BatchBuilder,
    pub(in crate::producer) tracked: Tracked,
    /// Whether more records may join: at most the last one of a queue is open.
    open: bool,
}

/// What is kept of a batch until its end is known.
#[derive(Debug)]
pub(in crate::producer) struct Tracked {
    pub(in crate::producer) completion: Arc<Completion>,
    pub(in crate::producer) topic: Arc<str>,
    pub(in crate::producer) record_count: u32,
    /// When the oldest record has waited long enough.
    pub(super) deadline: Instant,
    /// Gives its share of the buffer back when dropped.
    charge: OwnedSemaphorePermit,
}

impl Queue {
    pub(super) fn new(topic: Arc<str>, partition: u32) -> Queue {
        Queue { topic, partition, in_flight: 0, ready: false, batches: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &WaitingBatch> {
        self.batches.iter()
    }

    pub(super) fn may_send(&self) -> bool {
        self.batches.front().is_some_and(|first| !first.open || self.in_flight == 0)
    }

    pub(super) fn first_size_bytes(&self) -> usize {
        self.batches.front().map_or(0, |first| first.builder.size_bytes())
    }

    pub(super) fn pop(&mut self) -> Option<WaitingBatch> {
        self.batches.pop_front()
    }

    pub(super) fn seal(&mut self) {
        if let Some(last) = self.batches.back_mut() {
            last.open = false;
        }
    }

    /// After an error the queue is as it was.
    pub(super) fn push(
        &mut self,
        record: &NewRecord<'_>,
        batch_bytes: usize,
        entry: Entry<'_>,
    ) -> Result<Delivery, BatchError> {
        if let Some(last) = self.batches.back_mut()
            && last.open
            && last.builder.size_with(record) <= batch_bytes
        {
            last.builder.push(record)?;
            last.tracked.charge.merge(entry.charge);
            return Ok(last.tracked.next_delivery(self.partition));
        }
        // Only a producer that fills batches gets the room of a whole one from the start.
        let mut builder = match self.batches.back() {
            Some(_) => BatchBuilder::with_capacity(batch_bytes),
            None => BatchBuilder::new(),
        };
        builder.push(record)?;
        let open = builder.size_bytes() < batch_bytes;
        let mut tracked = Tracked {
            completion: Completion::new(),
            topic: Arc::clone(&self.topic),
            record_count: 0,
            deadline: entry.deadline,
            charge: entry.charge,
        };
        let delivery = tracked.next_delivery(self.partition);
        self.seal();
        self.batches.push_back(WaitingBatch { builder, tracked, open });
        Ok(delivery)
    }

    pub(super) fn drain_where(&mut self, which: impl Fn(&Tracked) -> bool, drained: &mut Vec<Tracked>) {
        let (gone, kept) =
            std::mem::take(&mut self.batches).into_iter().partition(|batch| which(&batch.tracked));
        self.batches = kept;
        let gone: VecDeque<WaitingBatch> = gone;
        drained.extend(gone.into_iter().map(|batch| batch.tracked));
    }
}

impl Tracked {
    fn next_delivery(&mut self, partition: u32) -> Delivery {
        let delivery = Delivery::new(Arc::clone(&self.completion), partition, self.record_count);
        self.record_count += 1;
        delivery
    }
}
