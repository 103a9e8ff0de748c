//! Batches that are not waited for any more: their time is over, or their producer's is.

use tokio::time::Instant;

use super::{Accumulator, Drained, Identity, InFlight, Tracked};

impl Accumulator {
    /// Takes back every batch that is not under way.
    pub(in crate::producer) fn drain_waiting(&mut self) -> Drained {
        self.drain_where(|_| true)
    }

    /// Gives up every batch that is under way.
    pub(in crate::producer) fn drain_in_flight(&mut self) -> Vec<Tracked> {
        let ids: Vec<u64> = self.in_flight.keys().copied().collect();
        let gone = ids.into_iter().filter_map(|id| self.abandon(id)).map(|it| it.tracked).collect();
        self.check_ready();
        gone
    }

    /// The batches whose time has run out.
    pub(in crate::producer) fn expire(&mut self, now: Instant) -> Drained {
        let mut drained = self.drain_where(|tracked| tracked.deadline <= now);
        let late: Vec<u64> =
            self.in_flight.iter().filter(|(_, it)| it.tracked.deadline <= now).map(|(&id, _)| id).collect();
        drained.unknown.extend(late.into_iter().filter_map(|id| self.abandon(id)).map(|it| it.tracked));
        self.check_ready();
        drained
    }

    /// A batch under way is not waited for any more: it may be stored.
    fn abandon(&mut self, correlation_id: u64) -> Option<InFlight> {
        let it = self.in_flight.remove(&correlation_id)?;
        self.bytes_in_flight -= it.size_bytes;
        let queue = &mut self.queues[it.queue];
        queue.in_flight -= 1;
        if self.identity != Identity::None {
            queue.numbering.give_up();
        }
        self.after_giving_up(it.queue);
        Some(it)
    }

    pub(super) fn after_giving_up(&mut self, index: usize) {
        if let Identity::Known(id) = self.identity
            && self.queues[index].numbering.uses_up(id)
        {
            self.identity = Identity::Wanted;
        }
        self.make_ready(index);
    }

    fn drain_where(&mut self, which: impl Fn(&Tracked) -> bool) -> Drained {
        let mut drained = Drained::default();
        for index in 0..self.queues.len() {
            self.queues[index].drain_where(&which, &mut drained);
        }
        self.waiting -= drained.not_stored.len() + drained.unknown.len();
        if !drained.unknown.is_empty() {
            for index in 0..self.queues.len() {
                self.after_giving_up(index);
            }
        }
        self.check_ready();
        drained
    }
}
