//! Batches of transactions: all of one producer id and epoch, which are over together.
//!
//! Nothing here goes on after a failure. A batch that is given up ends its transaction, which its producer is told, and
//! no later one takes its place in the same epoch.

use super::numbering::Numbering;
use super::{Accumulator, Identity, Tracked};

impl Accumulator {
    pub(in crate::producer) fn is_transactional(&self) -> bool {
        matches!(self.identity, Identity::Transaction(..))
    }

    /// The records from here on are of the next transaction. Nothing of the last one is left.
    pub(in crate::producer) fn begin_transaction(&mut self, id: i64, epoch: i16, after_failure: bool) {
        debug_assert!(self.is_idle(), "the last one was answered or given up");
        self.identity = Identity::Transaction(id, epoch);
        for queue in &mut self.queues {
            queue.numbering = Numbering::of_transaction(after_failure);
        }
    }

    /// Takes back all that is waiting or under way.
    pub(in crate::producer) fn drain(&mut self) -> Vec<Tracked> {
        let mut drained = self.drain_in_flight();
        let waiting = self.drain_waiting();
        drained.extend(waiting.not_stored.into_iter().chain(waiting.unknown));
        drained
    }
}
