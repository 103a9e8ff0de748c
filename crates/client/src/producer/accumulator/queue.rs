//! The batches of one partition that wait to be sent.

use std::collections::VecDeque;
use std::sync::Arc;

use logmill_record::{Batch, BatchBuilder, BatchError, BatchOptions, Compression, NewRecord};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Entry;
use super::numbering::{Numbering, Rules};
use super::room::Room;
use crate::Error;
use crate::producer::delivery::{Completion, Delivery};

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    /// Batches of this partition that are under way.
    pub(super) in_flight: usize,
    /// Whether it stands in the line of those that may send.
    pub(super) ready: bool,
    pub(super) numbering: Numbering,
    /// How many batches were begun.
    begun: u64,
    /// Those that were sent before are at the front: first those that may be stored, under the sequence that they
    /// were sent with, then those that are not.
    batches: VecDeque<WaitingBatch>,
}

#[derive(Debug)]
pub(super) struct WaitingBatch {
    pub(super) body: Body,
    pub(super) tracked: Tracked,
    /// Of one that was sent, and may be stored: its sequence, in the queue's present epoch.
    pub(super) sequence: Option<i32>,
    /// Whether more records may join: at most the last one of a queue is open.
    open: bool,
    /// Its records were taken out to be [compressed](super::compress).
    compressing: bool,
}

#[derive(Debug)]
pub(super) enum Body {
    /// To be compressed like this when it is full, or when it may go.
    Filling(BatchBuilder, Compression),
    /// It was compressed, or sent before.
    Built(Batch),
}

impl Body {
    /// Before compression as long as it is not compressed.
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Body::Filling(builder, _) => builder.size_bytes(),
            Body::Built(batch) => batch.bytes().len(),
        }
    }
}

/// What is kept of a batch until its end is known.
#[derive(Debug)]
pub(in crate::producer) struct Tracked {
    pub(in crate::producer) completion: Arc<Completion>,
    pub(in crate::producer) topic: Arc<str>,
    pub(in crate::producer) record_count: u32,
    /// Why the node did not take it when it was sent last, if it is to be sent again.
    pub(in crate::producer) put_back: Option<Error>,
    /// Its place among all batches of its partition.
    pub(super) order: u64,
    /// When the oldest record has waited long enough.
    pub(super) deadline: Instant,
    /// Gives its share of the buffer back when dropped.
    charge: OwnedSemaphorePermit,
}

impl Queue {
    pub(super) fn new(topic: Arc<str>, partition: u32) -> Queue {
        Queue {
            topic,
            partition,
            in_flight: 0,
            ready: false,
            numbering: Numbering::default(),
            begun: 0,
            batches: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &WaitingBatch> {
        self.batches.iter()
    }

    pub(super) fn may_send(&self, rules: Rules) -> bool {
        self.batches.front().is_some_and(|first| {
            (!first.open || self.in_flight == 0)
                && !first.compressing
                && self.numbering.may_send(first.sequence.is_some(), self.in_flight, rules)
        })
    }

    pub(super) fn first_size_bytes(&self) -> usize {
        self.batches.front().map_or(0, |first| first.body.size_bytes())
    }

    pub(super) fn pop(&mut self) -> Option<WaitingBatch> {
        self.batches.pop_front()
    }

    /// The records of the first batch, which takes no more of them, if they have to be compressed.
    pub(super) fn start_compressing(&mut self) -> Option<(u64, BatchBuilder)> {
        let first = self.batches.front_mut()?;
        match &mut first.body {
            Body::Filling(builder, compression) if *compression != Compression::None => {
                let builder = std::mem::take(builder);
                (first.open, first.compressing) = (false, true);
                Some((first.tracked.order, builder))
            }
            _ => None,
        }
    }

    /// Puts the batch in its place, if that is still there; takes it out if it could not be built.
    pub(super) fn end_compressing(
        &mut self,
        order: u64,
        built: Result<Batch, BatchError>,
    ) -> Option<(Tracked, BatchError)> {
        let at = self.batches.iter().position(|waiting| waiting.tracked.order == order)?;
        match built {
            Ok(batch) => {
                let waiting = &mut self.batches[at];
                (waiting.body, waiting.compressing) = (Body::Built(batch), false);
                None
            }
            Err(error) => self.batches.remove(at).map(|waiting| (waiting.tracked, error)),
        }
    }

    /// Takes back a batch that was sent, before those that were begun after it.
    pub(super) fn put_back(&mut self, batch: Batch, tracked: Tracked, sequence: Option<i32>) {
        let order = tracked.order;
        let at = self.batches.iter().take_while(|waiting| waiting.tracked.order < order).count();
        let body = Body::Built(batch);
        self.batches.insert(at, WaitingBatch { body, tracked, sequence, open: false, compressing: false });
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
        room: Room,
        is_transactional: bool,
        entry: Entry<'_>,
    ) -> Result<Delivery, BatchError> {
        let Room { fill_bytes, compression } = room;
        if let Some(last) = self.batches.back_mut()
            && last.open
            && let Body::Filling(builder, begun_for) = &mut last.body
            && *begun_for == compression
            && builder.size_with(record) <= fill_bytes
        {
            builder.push(record)?;
            last.tracked.charge.merge(entry.charge);
            return Ok(last.tracked.next_delivery(self.partition));
        }
        // Only a producer that fills batches gets the room of a whole one from the start.
        let capacity = if self.batches.is_empty() { 0 } else { fill_bytes };
        let options = BatchOptions::new().compression(compression);
        let options = if is_transactional { options.transactional() } else { options };
        let mut builder = BatchBuilder::with_options(options, capacity);
        builder.push(record)?;
        let open = builder.size_bytes() < fill_bytes;
        let mut tracked = Tracked {
            completion: Completion::new(),
            topic: Arc::clone(&self.topic),
            record_count: 0,
            put_back: None,
            order: self.begun,
            deadline: entry.deadline,
            charge: entry.charge,
        };
        let delivery = tracked.next_delivery(self.partition);
        self.begun += 1;
        self.seal();
        let body = Body::Filling(builder, compression);
        self.batches.push_back(WaitingBatch { body, tracked, sequence: None, open, compressing: false });
        Ok(delivery)
    }

    /// Takes out the batches for which `which` says so: those that are not stored, and those that may be.
    pub(super) fn drain_where(&mut self, which: impl Fn(&Tracked) -> bool, drained: &mut Drained) {
        let (gone, kept): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.batches).into_iter().partition(|batch| which(&batch.tracked));
        self.batches = kept;
        for batch in gone {
            match batch.sequence {
                None => drained.not_stored.push(batch.tracked),
                Some(_) => {
                    self.numbering.give_up();
                    drained.unknown.push(batch.tracked);
                }
            }
        }
    }
}

/// Batches that are given up.
#[derive(Debug, Default)]
pub(in crate::producer) struct Drained {
    pub(in crate::producer) not_stored: Vec<Tracked>,
    /// They were sent, and may be stored or not.
    pub(in crate::producer) unknown: Vec<Tracked>,
}

impl Drained {
    pub(in crate::producer) fn is_empty(&self) -> bool {
        self.not_stored.is_empty() && self.unknown.is_empty()
    }
}

impl Tracked {
    fn next_delivery(&mut self, partition: u32) -> Delivery {
        let delivery = Delivery::new(Arc::clone(&self.completion), partition, self.record_count);
        self.record_count += 1;
        delivery
    }
}
