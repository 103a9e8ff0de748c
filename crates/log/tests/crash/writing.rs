//! Several writers of each log: what they append, what they wait for, and what they send again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use logmill_log::{ErrorKind, LogSet, LogState, Receipt, Step, WaitFor};
use logmill_record::{Offset, TimestampMs};

use crate::machine::{Run, WRITERS};
use crate::model::{End, Group, Kind};

/// One of the writers of a log.
pub(crate) struct Writer {
    pub(crate) which: usize,
    pub(crate) nth: usize,
    pub(crate) waiting: Option<Waiting>,
}

/// An append that could not go on.
pub(crate) struct Waiting {
    group: Group,
    wait: WaitFor,
    flag: Arc<Flag>,
}

/// A receipt that has not resolved.
pub(crate) struct Awaited {
    pub(crate) which: usize,
    receipt: Receipt,
}

/// Whether somebody was woken.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Run {
    /// One of the log's writers appends, if none of its appends waits.
    pub(crate) fn append(&mut self, which: usize) {
        let nth = self.index(WRITERS);
        if self.slots[which].log.is_none() && self.below(12) == 0 {
            self.open_late(which);
        }
        if self.slots[which].log.is_none() || self.writers[which * WRITERS + nth].waiting.is_some() {
            return;
        }
        if self.slots[which].model.kind == Kind::Transactional && self.below(8) == 0 {
            return self.send_oddly(which, nth);
        }
        let group = self.group(which, nth);
        self.try_append(which, nth, group);
    }

    fn try_append(&mut self, which: usize, nth: usize, mut group: Group) {
        let Some(log) = self.log(which) else { return };
        let model = &mut self.slots[which].model;
        let stats = log.stats();
        let epoch = stats.epoch;
        // Of a log that is empty again there is no append to come after.
        let not_before = if stats.stored_bytes == 0 { TimestampMs(i64::MIN) } else { model.appended_at };
        group.entries.iter_mut().for_each(|entry| entry.epoch = epoch);
        let step = log.try_append(&group.batches);
        match step {
            Ok(Step::Done(receipt)) => {
                assert!(!receipt.is_duplicate(), "{}: this was never sent before", self.slots[which].name);
                assert_eq!(receipt.first_offset().get(), model.written.len() as u64);
                let at = receipt.appended_at();
                assert!(
                    at >= not_before,
                    "{}: appended at {at:?} after {not_before:?}",
                    self.slots[which].name
                );
                model.appended_at = receipt.appended_at();
                model.add(group);
                self.receipts.push(Awaited { which, receipt });
                self.count("appends");
            }
            Ok(Step::Wait(wait)) => {
                // Whoever waits is polled once, and then when it is woken.
                let waiting = Waiting { group, wait, flag: Arc::new(Flag(AtomicBool::new(true))) };
                self.writers[which * WRITERS + nth].waiting = Some(waiting);
                self.count("waits");
            }
            Err(error) => match error.kind() {
                // A fault may have kept it from being opened again.
                ErrorKind::Poisoned | ErrorKind::Closed => self.reopen(which),
                _ if self.sim.fs.is_off() => model.maybe = group,
                ErrorKind::OutcomeUnknown => {
                    model.maybe = group;
                    self.reopen(which);
                }
                ErrorKind::Full => self.count("refused: full"),
                _ => {
                    // A roll that failed tells the next append.
                    assert!(self.is_struck(), "{}: {error}", self.slots[which].name);
                    self.count("refused: broken");
                }
            },
        }
    }

    /// Those who were woken try again.
    pub(crate) fn resume(&mut self) {
        for writer in 0..self.writers.len() {
            if self.sim.fs.is_off() {
                return;
            }
            let Writer { which, nth, ref mut waiting } = self.writers[writer];
            let is_woken = |waiting: &mut Waiting| {
                waiting.flag.0.swap(false, Ordering::Relaxed) && {
                    let waker = Waker::from(Arc::clone(&waiting.flag));
                    Pin::new(&mut waiting.wait).poll(&mut Context::from_waker(&waker)).is_ready()
                }
            };
            if let Some(waiting) = waiting.take_if(is_woken) {
                self.count("appends resumed");
                self.try_append(which, nth, waiting.group);
            }
        }
    }

    /// Nobody waits for ever.
    pub(crate) fn settle(&mut self) {
        for _ in 0..200 {
            if self.writers.iter().all(|writer| writer.waiting.is_none()) || self.sim.fs.is_off() {
                return;
            }
            self.sim.scheduler.run_for(Duration::from_secs(1));
            self.collect();
            self.resume();
        }
        let waiting = self.writers.iter().filter(|writer| writer.waiting.is_some());
        let waiting: Vec<_> = waiting.map(|writer| (writer.which, writer.nth)).collect();
        panic!("appends wait for ever: {waiting:?}, {:?}", self.set.as_ref().map(LogSet::stats));
    }

    /// Notes which receipts have resolved.
    pub(crate) fn collect(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let slots = &mut self.slots;
        self.receipts.retain_mut(|Awaited { which, receipt }| {
            let Poll::Ready(outcome) = Pin::new(&mut *receipt).poll(&mut context) else { return true };
            let model = &mut slots[*which].model;
            match outcome {
                Ok(()) => model.acknowledged = model.acknowledged.max(receipt.last_offset().get() + 1),
                Err(_) => model.failed = true,
            }
            false
        });
    }

    /// A producer sends again what it has sent, or what it may not.
    fn send_oddly(&mut self, which: usize, nth: usize) {
        let id = i64::try_from(nth).unwrap();
        let (Some(log), Some(known)) = (self.log(which), self.producer(which, id)) else { return };
        if !matches!(log.stats().state, LogState::Open) {
            return;
        }
        let newest = known.batches.iter().rev().take(4).copied().collect::<Vec<_>>();
        if let Some(first) = newest.get(self.index(8)) {
            let batch = &self.slots[which].model.sent[first];
            match log.try_append(std::slice::from_ref(batch)) {
                Ok(Step::Done(receipt)) => {
                    assert!(receipt.is_duplicate(), "the batch at {first} is sent again");
                    assert_eq!(receipt.first_offset(), Offset(*first));
                    self.receipts.push(Awaited { which, receipt });
                    self.count("duplicates");
                }
                other => panic!("the batch at {first} is sent again: {other:?}"),
            }
        } else if let Some((batch, kind)) = self.untimely(id, &known) {
            let refused = log.try_append(&[batch]).map_err(|error| error.kind());
            assert_eq!(refused.err(), Some(kind), "producer {id}: {known:?}");
            self.count(format!("refused: {kind:?}"));
        }
    }

    /// A log was opened again: who waited for the one before is woken, and goes on with this one.
    /// A producer's append may not follow any more, so it is given up.
    pub(crate) fn writers_of_reopened(&mut self, which: usize, how: End) {
        self.receipts.retain(|awaited| awaited.which != which);
        let ends = how != End::Reopen || self.slots[which].model.kind == Kind::Transactional;
        for writer in self.writers.iter_mut().filter(|writer| ends && writer.which == which) {
            writer.waiting = None;
        }
    }
}
