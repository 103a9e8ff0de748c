//! The order of one stream's requests for one partition, when one of them fails.
//!
//! After a failure those behind it fail too, or records would be stored in another order than they were sent:
//! until one comes that says that it knows of the failure. The requests from there on are a [`Run`] of their
//! own, so what failed in the run before is no matter to them. Within a run only the first failure counts,
//! whoever notices it first: a request that is refused before it gets to the lane, the lane, or a sync that
//! fails long after the write. By then other runs may have begun, and their requests are behind that failure too.
//!
//! Lock order: every lock here is a leaf.

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
pub(super) struct Run {
    /// How many there were before.
    number: u64,
    /// The first that has failed.
    failed: Mutex<Option<Request>>,
    all: Arc<Mutex<AllRuns>>,
}

/// What all runs of a stream's requests for a partition have written.
#[derive(Debug, Default)]
struct AllRuns {
    /// In the order written.
    unconfirmed: VecDeque<Unconfirmed>,
    /// The number of the newest run of which a request was appended or has failed.
    begun: u64,
    /// What a sync has lost first.
    lost: Option<Lost>,
}

/// A failure of every run that had begun when it was noticed. A later one was sent by someone who knows of a failure,
/// and is asked whether it is this one.
#[derive(Clone, Copy, Debug)]
struct Lost {
    request: Request,
    last_run: u64,
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

/// So many openings of a log are kept apart, which a stream can lie idle over and still be told exactly what it lost.
const MAX_OPENINGS: usize = 100;

/// Where a log was durable each time that it was opened again: what had been written before, from there on, is gone.
///
/// By generation, and by place too: one that lost no more than a later one has is not kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Openings(Vec<(u64, Offset)>);

impl Openings {
    /// The log was opened again, as this generation, and was durable up to there.
    pub(super) fn push(&mut self, generation: u64, at: Offset) {
        self.0.retain(|(_, before)| *before < at);
        self.0.push((generation, at));
        if self.0.len() > MAX_OPENINGS {
            // What was written between the oldest two may be called lost and is not: it is sent again, and known again.
            let (_, oldest) = self.0.remove(0);
            self.0[0].1 = oldest;
        }
    }

    /// From where on what was written in that generation is gone.
    pub(super) fn lost_from(&self, generation: u64) -> Option<Offset> {
        self.0.iter().find(|(opened, _)| *opened > generation).map(|(_, at)| *at)
    }
}

/// How the partition's log stands, for those who have written to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing<'a> {
    /// How often the log was opened again.
    pub(super) generation: u64,
    /// Where it was durable then.
    pub(super) openings: &'a Openings,
    /// Up to where it is on disk.
    pub(super) durable_end: Offset,
    /// It takes nothing more until it is opened again: what is not on disk is lost, or will be.
    pub(super) poisoned: bool,
}

/// The place of a request in its run. One that is dropped has failed.
#[derive(Debug)]
pub(crate) struct Place {
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
        let after = after_failure.then(|| {
            let next = Arc::new(self.run.next());
            std::mem::replace(&mut self.run, next)
        });
        let here = Request { ticket: self.last_ticket, sequence };
        Place { run: Arc::clone(&self.run), after, here, appended: false }
    }

    /// Whether it can be forgotten: nothing is under way, nothing has failed, and all is on disk, or gone with the
    /// partition.
    pub(super) fn is_idle(&self, log: Option<Standing<'_>>) -> bool {
        let failed = log.map_or_else(|| self.run.failed(), |log| self.run.first_failure(log));
        let is_settled = log.is_none() || self.run.all.lock().unconfirmed.is_empty();
        Arc::strong_count(&self.run) == 1 && failed.is_none() && is_settled
    }
}

impl Run {
    fn next(&self) -> Self {
        Self { number: self.number + 1, failed: Mutex::default(), all: Arc::clone(&self.all) }
    }

    fn fail(&self, failed: Request) {
        let mut first = self.failed.lock();
        if first.is_none_or(|first| failed.ticket < first.ticket) {
            *first = Some(failed);
        }
    }

    /// The first failure that somebody has noticed.
    fn failed(&self) -> Option<Request> {
        let lost = self.all.lock().lost.filter(|lost| self.number <= lost.last_run).map(|lost| lost.request);
        let failed = *self.failed.lock();
        failed.into_iter().chain(lost).min_by_key(|failed| failed.ticket)
    }

    /// The first failure, also if it is of a sync and nobody has told.
    fn first_failure(&self, log: Standing<'_>) -> Option<Request> {
        self.all.lock().settle(log);
        self.failed()
    }
}

impl AllRuns {
    /// Notices what is lost. While what was written first is neither lost nor on disk, nothing behind it is lost.
    fn settle(&mut self, log: Standing<'_>) {
        self.forget(log);
        if let Some(first) = self.unconfirmed.front().filter(|first| first.is_lost(log)) {
            self.lost = Some(Lost { request: first.request, last_run: self.begun });
            self.unconfirmed.clear();
        }
    }

    /// Forgets what is on disk.
    fn forget(&mut self, log: Standing<'_>) {
        while self.unconfirmed.front().is_some_and(|first| first.is_on_disk(log)) {
            self.unconfirmed.pop_front();
        }
    }
}

impl Unconfirmed {
    fn is_lost(&self, log: Standing<'_>) -> bool {
        if self.generation < log.generation {
            log.openings.lost_from(self.generation).is_some_and(|from| self.first_offset >= from)
        } else {
            log.poisoned && self.first_offset >= log.durable_end
        }
    }

    fn is_on_disk(&self, log: Standing<'_>) -> bool {
        // A log that is opened again begins with what is on disk.
        !self.is_lost(log) && (self.generation < log.generation || self.first_offset < log.durable_end)
    }
}

impl Place {
    /// Whether the request may be appended, as far as those before it matter.
    pub(super) fn check(&self, name: &PartitionName, log: Standing<'_>) -> Result<(), Error> {
        if let Some(after) = &self.after
            && let Some(failed) = after.first_failure(log)
            && !self.here.goes_on_from(failed)
        {
            // The failure is this run's as well: it still has to be gone on from.
            self.run.fail(Request { ticket: self.here.ticket, ..failed });
            return Err(preceding_failed(name, failed.sequence));
        }
        match self.run.first_failure(log) {
            Some(failed) if failed.ticket < self.here.ticket => Err(preceding_failed(name, failed.sequence)),
            _ => Ok(()),
        }
    }

    /// The request was written from this offset on.
    pub(super) fn appended(mut self, first_offset: Offset, log: Standing<'_>) {
        self.appended = true;
        let mut all = self.run.all.lock();
        all.forget(log);
        let generation = log.generation;
        all.unconfirmed.push_back(Unconfirmed { request: self.here, first_offset, generation });
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
        let mut all = self.run.all.lock();
        all.begun = all.begun.max(self.run.number);
    }
}

/// What those behind a failure are told; `first` is the batch that failed, if it is known and numbered.
pub(super) fn preceding_failed(name: &PartitionName, first: Option<ProducerSequence>) -> Error {
    let message = format!(
        "a request before this one on the stream failed, so {name} did not take this one either: send from the \
         failed one on again, the first with after_failure; or go on without it, in the same way"
    );
    let error = Error::new(Reason::PrecedingFailed, message)
        .with("topic", &name.topic)
        .with("partition", name.partition);
    match first {
        Some(first) => error.with("first_failed_sequence", first.base_sequence),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Standing<'static> = Standing {
        generation: 0,
        openings: &Openings(Vec::new()),
        durable_end: Offset::ZERO,
        poisoned: false,
    };

    /// A log that was opened again at each of these places.
    fn opened_at(places: impl IntoIterator<Item = u64>) -> Openings {
        let mut openings = Openings::default();
        (1..).zip(places).for_each(|(generation, at)| openings.push(generation, Offset(at)));
        openings
    }

    /// It was opened again for the last time, and nothing has been written since.
    fn open_again(openings: &Openings) -> Standing<'_> {
        let (generation, durable_end) = *openings.0.last().unwrap();
        Standing { generation, openings, durable_end, poisoned: false }
    }

    fn name() -> PartitionName {
        PartitionName { topic: "t".into(), partition: 0 }
    }

    fn of(sequence: i32) -> Option<ProducerSequence> {
        Some(ProducerSequence { id: 7, epoch: 0, base_sequence: sequence })
    }

    fn passes(place: &Place, log: Standing<'_>) -> bool {
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
        let openings = opened_at([11]);
        let open_again = open_again(&openings);
        for log in [poisoned, open_again] {
            let error = queued.check(&name(), log).unwrap_err();
            assert!(error.metadata().contains(&("first_failed_sequence", "1".to_owned())), "{error:?}");
        }
        assert!(passes(&order.next(of(1), true), open_again));
    }

    #[test]
    fn what_is_on_disk_is_not_kept() {
        let mut order = Order::default();
        let kept = |order: &Order| order.run.all.lock().unconfirmed.len();
        let mut append = |place: u32, log: Standing<'_>| {
            let log = Standing { durable_end: Offset(place.saturating_sub(3).into()), ..log };
            order.next(of(place.cast_signed()), false).appended(Offset(place.into()), log);
            assert!(kept(&order) < 10, "{place}");
        };
        (0..10).for_each(|place| append(place, LOG));
        let openings = opened_at([10]);
        (10..1_000).for_each(|place| append(place, open_again(&openings)));
        assert!(!order.is_idle(Some(open_again(&openings))), "the last ones are not on disk");
        let openings = opened_at([10, 1_000]);
        assert!(order.is_idle(Some(open_again(&openings))), "nothing was lost");
        assert_eq!(kept(&order), 0);
    }

    #[test]
    fn what_one_opening_has_lost_stays_lost_however_often_the_log_is_opened_again() {
        for later in [vec![], vec![20], vec![20, 9, 30], (20..1_000).collect()] {
            let mut order = Order::default();
            let [kept, lost, behind] = [0, 1, 2].map(|sequence| order.next(of(sequence), false));
            kept.appended(Offset(7), LOG);
            lost.appended(Offset(10), LOG);
            let openings = opened_at([8].into_iter().chain(later));
            let error = behind.check(&name(), open_again(&openings)).unwrap_err();
            assert!(error.metadata().contains(&("first_failed_sequence", "1".to_owned())), "{error:?}");
        }
    }

    #[test]
    fn what_was_written_to_a_later_log_is_not_lost_with_what_an_earlier_one_had() {
        let mut order = Order::default();
        let openings = opened_at([8]);
        order.next(of(0), false).appended(Offset(10), open_again(&openings));
        let openings = opened_at([8, 20]);
        assert!(passes(&order.next(of(1), false), open_again(&openings)));
        let many = opened_at(0..1_000);
        assert!(many.0.len() <= MAX_OPENINGS);
        assert_eq!(many.lost_from(998), Some(Offset(998)), "the newest are exact");
    }

    #[test]
    fn a_sync_that_fails_after_a_refusal_was_gone_on_from_is_gone_on_from_at_what_it_has_lost() {
        for written_late in [false, true] {
            let mut order = Order::default();
            let mut first = Some(order.next(of(0), false));
            let mut write = || first.take().into_iter().for_each(|first| first.appended(Offset(10), LOG));
            if !written_late {
                write();
            }
            drop(order.next(of(1), false));
            // It may be refused itself, before what was sent first comes to be written.
            drop(order.next(of(1), true));
            write();
            let again = order.next(of(1), true);
            assert!(passes(&again, LOG));
            again.appended(Offset(11), LOG);
            let behind = order.next(of(2), false);

            let openings = opened_at([10]);
            let log = open_again(&openings);
            let error = behind.check(&name(), log).unwrap_err();
            assert!(error.metadata().contains(&("first_failed_sequence", "0".to_owned())), "{error:?}");
            drop(behind);
            assert!(!passes(&order.next(of(1), true), log), "it is not the first that failed");
            let first = order.next(of(0), true);
            assert!(passes(&first, log), "{:?}", first.check(&name(), log));
            first.appended(Offset(10), log);
            assert!(passes(&order.next(of(1), false), log));
        }
    }
}
