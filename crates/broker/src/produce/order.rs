//! The order of one stream's requests for one partition, when one of them fails.
//!
//! After a failure those behind it fail too, or records would be stored in another order than they were sent:
//! until one comes that says that it knows of the failure. The requests from there on are a [`Run`] of their
//! own, so what failed in the run before is no matter to them. Within a run only the first failure counts,
//! whoever notices it first: a request that is refused before it gets to the lane, the lane, or a sync that
//! fails long after the write.
//!
//! Lock order: a run's lock is a leaf.

use std::collections::VecDeque;
use std::sync::Arc;

use logmill_record::Offset;
use parking_lot::Mutex;

use crate::error::{Error, PartitionName, Reason};

/// Whose batch it is, and the number of its first record among those of its producer for the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProducerSequence {
    /// The producer's id, from [`Broker::init_producer_id`](crate::Broker::init_producer_id).
    pub id: i64,
    /// The producer's epoch for the partition, from 0 on.
    pub epoch: i16,
    /// The number of the first record: 0 in a new epoch, and 0 again after 2³¹ − 1.
    pub base_sequence: i32,
}

/// A stream's requests for a partition.
#[derive(Debug, Default)]
pub(super) struct Order {
    last_ticket: u64,
    run: Arc<Run>,
}

/// Requests between which nothing may be missing.
#[derive(Debug, Default)]
pub(super) struct Run(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The first that has failed.
    failed: Option<Request>,
    /// In the order written.
    unconfirmed: VecDeque<Unconfirmed>,
}

/// One request of a stream for the partition.
#[derive(Clone, Copy, Debug)]
struct Request {
    ticket: u64,
    sequence: Option<ProducerSequence>,
}

/// A request that was written and may not be on disk yet.
#[derive(Clone, Copy, Debug)]
struct Unconfirmed {
    request: Request,
    first_offset: Offset,
    /// Which time the log had been opened.
    generation: u64,
}

/// How the partition's log stands, for those who have written to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// How often the log was opened again.
    pub(super) generation: u64,
    /// Where it was durable at its last opening: what was written before, from here on, is gone.
    pub(super) opened_at: Offset,
    /// Up to where it is on disk.
    pub(super) durable_end: Offset,
    /// It takes nothing more until it is opened again: what is not on disk is lost, or will be.
    pub(super) poisoned: bool,
}

/// The place of a request in its run. One that is dropped has failed.
#[derive(Debug)]
pub(super) struct Place {
    run: Arc<Run>,
    /// The run in which a request failed of which this one knows.
    after: Option<Arc<Run>>,
    here: Request,
    appended: bool,
}

impl Order {
    /// The place of the next request.
    pub(super) fn next(&mut self, sequence: Option<ProducerSequence>, after_failure: bool) -> Place {
        self.last_ticket += 1;
        let after = after_failure.then(|| std::mem::take(&mut self.run));
        let here = Request { ticket: self.last_ticket, sequence };
        Place { run: Arc::clone(&self.run), after, here, appended: false }
    }

    /// Whether it can be forgotten: nothing is under way, and nothing has failed.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.run) == 1 && self.run.0.lock().failed.is_none()
    }
}

impl Run {
    fn fail(&self, failed: Request) {
        let mut state = self.0.lock();
        if state.failed.is_none_or(|first| failed.ticket < first.ticket) {
            state.failed = Some(failed);
        }
    }

    /// The first failure, also if it is of a sync and nobody has told.
    fn first_failure(&self, log: Standing) -> Option<Request> {
        let lost = {
            let mut state = self.0.lock();
            let lost = state.unconfirmed.iter().find(|it| it.is_lost(log)).map(|lost| lost.request);
            if lost.is_some() {
                state.unconfirmed.clear();
            }
            lost
        };
        if let Some(lost) = lost {
            self.fail(lost);
        }
        self.0.lock().failed
    }
}

impl Unconfirmed {
    fn is_lost(&self, log: Standing) -> bool {
        if self.generation < log.generation {
            self.first_offset >= log.opened_at
        } else {
            log.poisoned && self.first_offset >= log.durable_end
        }
    }
}

impl Place {
    /// Whether the request may be appended, as far as those before it matter.
    pub(super) fn check(&self, name: &PartitionName, log: Standing) -> Result<(), Error> {
        if let Some(after) = &self.after
            && let Some(failed) = after.first_failure(log)
            && !self.here.goes_on_from(failed)
        {
            // The failure is this run's as well: it still has to be gone on from.
            self.run.fail(Request { ticket: self.here.ticket, ..failed });
            return Err(preceding_failed(name, failed));
        }
        match self.run.first_failure(log) {
            Some(failed) if failed.ticket < self.here.ticket => Err(preceding_failed(name, failed)),
            _ => Ok(()),
        }
    }

    /// The request was written from this offset on.
    pub(super) fn appended(mut self, first_offset: Offset, log: Standing) {
        self.appended = true;
        let mut state = self.run.0.lock();
        while state
            .unconfirmed
            .front()
            .is_some_and(|first| first.generation == log.generation && first.first_offset < log.durable_end)
        {
            state.unconfirmed.pop_front();
        }
        let generation = log.generation;
        state.unconfirmed.push_back(Unconfirmed { request: self.here, first_offset, generation });
    }
}

impl Request {
    /// Whether a request that knows of the failure is the right one: of a producer's batches the one that failed,
    /// or the first of a newer epoch.
    fn goes_on_from(&self, failed: Request) -> bool {
        let Some(first) = failed.sequence else { return true };
        self.sequence.is_some_and(|next| {
            next.id != first.id || next == first || (next.epoch > first.epoch && next.base_sequence == 0)
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.appended {
            self.run.fail(self.here);
        }
    }
}

fn preceding_failed(name: &PartitionName, failed: Request) -> Error {
    let message = format!(
        "a request before this one on the stream failed, so {name} did not take this one either: send from the \
         failed one on again, the first with after_failure; or go on without it, in the same way"
    );
    let error = Error::new(Reason::PrecedingFailed, message)
        .with("topic", &name.topic)
        .with("partition", name.partition);
    match failed.sequence {
        Some(first) => error.with("first_failed_sequence", first.base_sequence),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Standing =
        Standing { generation: 0, opened_at: Offset::ZERO, durable_end: Offset::ZERO, poisoned: false };

    fn name() -> PartitionName {
        PartitionName { topic: "t".into(), partition: 0 }
    }

    fn of(sequence: i32) -> Option<ProducerSequence> {
        Some(ProducerSequence { id: 7, epoch: 0, base_sequence: sequence })
    }

    fn passes(place: &Place, log: Standing) -> bool {
        place.check(&name(), log).is_ok()
    }

    #[test]
    fn a_refusal_counts_for_those_behind_it_and_not_for_those_before() {
        let mut order = Order::default();
        let (before, refused, behind) =
            (order.next(None, false), order.next(None, false), order.next(None, false));
        drop(refused);
        assert!(passes(&before, LOG) && !passes(&behind, LOG));
        let again = order.next(None, true);
        let after = order.next(None, false);
        assert!(passes(&again, LOG) && passes(&after, LOG));
        assert!(!passes(&behind, LOG), "it is of the run that failed");
        drop(before);
        assert!(passes(&after, LOG), "what fails in an earlier run is no matter to a later one");
    }

    #[test]
    fn a_producer_goes_on_from_its_first_failed_batch_or_in_a_newer_epoch() {
        let mut order = Order::default();
        let (first, second) = (order.next(of(3), false), order.next(of(5), false));
        drop(second);
        drop(first);
        for wrong in [of(5), of(0), None] {
            let error = order.next(wrong, true).check(&name(), LOG).unwrap_err();
            assert_eq!(error.reason(), Reason::PrecedingFailed);
            assert!(error.metadata().contains(&("first_failed_sequence", "3".to_owned())), "{error:?}");
        }
        let newer = |epoch, base_sequence| Some(ProducerSequence { id: 7, epoch, base_sequence });
        assert!(!passes(&order.next(newer(1, 4), true), LOG));
        assert!(passes(&order.next(of(3), true), LOG));
        assert!(passes(&order.next(newer(1, 0), true), LOG), "dropped without an append, it failed as well");
    }

    #[test]
    fn what_a_sync_has_lost_fails_those_behind_it_also_when_the_log_is_open_again() {
        let mut order = Order::default();
        let places: Vec<Place> = (0..4).map(|sequence| order.next(of(sequence), false)).collect();
        let [kept, lost, too, queued] = <[Place; 4]>::try_from(places).unwrap();
        kept.appended(Offset(10), LOG);
        lost.appended(Offset(11), LOG);
        too.appended(Offset(12), LOG);
        assert!(passes(&queued, LOG));
        let poisoned = Standing { poisoned: true, durable_end: Offset(11), ..LOG };
        let open_again =
            Standing { generation: 1, opened_at: Offset(11), durable_end: Offset(11), poisoned: false };
        for log in [poisoned, open_again] {
            let error = queued.check(&name(), log).unwrap_err();
            assert!(error.metadata().contains(&("first_failed_sequence", "1".to_owned())), "{error:?}");
        }
        assert!(passes(&order.next(of(1), true), open_again));
    }

    #[test]
    fn what_is_on_disk_is_not_kept() {
        let mut order = Order::default();
        for sequence in 0..1_000_u32 {
            let log = Standing { durable_end: Offset(sequence.saturating_sub(3).into()), ..LOG };
            order.next(of(sequence.cast_signed()), false).appended(Offset(sequence.into()), log);
        }
        assert!(order.run.0.lock().unconfirmed.len() < 10);
        assert!(order.is_idle());
        let open_again = Standing { generation: 1, opened_at: Offset(1_000), ..LOG };
        assert!(passes(&order.next(of(1_000), false), open_again), "nothing was lost");
    }
}
