//! Compressing takes longer than the lock may be held that senders wait for: a batch is taken out for it, and keeps
//! its place in the queue meanwhile. Nothing of its partition overtakes it, and time may run out for it.

use logmill_record::{Batch, BatchBuilder, BatchError};

use super::{Accumulator, Tracked};

/// The records of a batch, to be compressed outside of the lock.
#[derive(Debug)]
pub(in crate::producer) struct ToCompress {
    pub(in crate::producer) builder: BatchBuilder,
    pub(in crate::producer) place: Place,
}

/// Where the batch is missing.
#[derive(Clone, Copy, Debug)]
pub(in crate::producer) struct Place {
    pub(super) queue: usize,
    pub(super) order: u64,
}

impl Accumulator {
    /// Takes the records out of a queue's first batch, if they have to be compressed before they are sent.
    pub(super) fn take_to_compress(&mut self, index: usize) -> Option<ToCompress> {
        let (order, builder) = self.queues[index].start_compressing()?;
        Some(ToCompress { builder, place: Place { queue: index, order } })
    }

    /// The batch is compressed, and goes next unless its time ran out. Gives it up if it could not be built.
    pub(in crate::producer) fn compressed(
        &mut self,
        place: Place,
        built: Result<Batch, BatchError>,
    ) -> Option<(Tracked, BatchError)> {
        let rules = self.rules();
        let queue = &mut self.queues[place.queue];
        let failed = queue.end_compressing(place.order, built);
        if failed.is_some() {
            self.waiting -= 1;
        }
        if !queue.ready && queue.may_send(rules) {
            queue.ready = true;
            self.ready.push_front(place.queue);
        }
        failed
    }
}
