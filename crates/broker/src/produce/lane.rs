//! One partition's way in: a queue of what was accepted, and at most one task that checks and writes it.
//!
//! Whatever waits when the task comes round is one [`append_group`].
//!
//! Lock order: the queue's lock is a leaf.

mod append_group;

use std::collections::VecDeque;
use std::sync::Arc;

pub(super) use append_group::Refused;
pub(crate) use append_group::{Answer, Load, StepPart, Written};
use append_group::{DETACH_BELOW_BYTES, ENTRY_BYTES, Entry};
use logmill_log::env::{Scheduler, Work};
use logmill_log::{ErrorKind, Log, LogOptions};
use logmill_record::{Batch, Offset, TimestampMs};
use parking_lot::Mutex;

use super::order::{Openings, Place, Standing};
use super::reopen::{Reopening, Serving};
use crate::budget::{Budget, Permit};
use crate::error::{Error, PartitionName, Reason};
use crate::exec::{Receiver, Sender, Turns, drive, reply};
use crate::settings::Rules;
use crate::transaction::{Admitted, ProducerEpoch};

/// See the module. A clone is the same lane.
#[derive(Clone, Debug)]
pub(crate) struct Lane(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: PartitionName,
    pub(super) scheduler: Arc<dyn Scheduler>,
    /// Bytes of this partition that were accepted and are not yet written.
    queued: Budget,
    /// Turns to open a log again, which all partitions share.
    pub(super) reopenings: Turns,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) serving: Serving,
    /// How its log works, also when it is opened again.
    pub(super) log_options: LogOptions,
    pub(super) reopening: Option<Reopening>,
    queue: VecDeque<Entry>,
    running: bool,
    /// The offset after the last record that was written to the log as it is now.
    pub(super) written_end: Offset,
    /// What is asked of records: read once for each group.
    rules: Arc<Rules>,
    /// How the log is to work, if it has not been told.
    options: Option<LogOptions>,
    /// The last time that was stamped into a batch in place of its own.
    last_stamp: TimestampMs,
    /// Set when nothing more is taken.
    pub(super) refusal: Option<Error>,
    /// The log takes nothing more, and will not: it can only be read.
    pub(super) failed: bool,
}

impl Lane {
    pub(crate) fn new(
        name: PartitionName,
        log: Log,
        scheduler: Arc<dyn Scheduler>,
        rules: Arc<Rules>,
        log_options: LogOptions,
        queued: Budget,
        reopenings: Turns,
    ) -> Self {
        let written_end = log.end_offset();
        let openings = Arc::new(Openings::default());
        let state = State {
            serving: Serving { log, generation: 0, openings },
            log_options,
            reopening: None,
            queue: VecDeque::new(),
            running: false,
            written_end,
            rules,
            options: None,
            last_stamp: TimestampMs::NONE,
            refusal: None,
            failed: false,
        };
        Self(Arc::new(Shared { name, scheduler, queued, reopenings, state: Mutex::new(state) }))
    }

    /// Works by these rules and options from the next group on, and soon if there is none. Never waits for
    /// the log, which may be busy writing.
    pub(crate) fn set_rules(&self, rules: Arc<Rules>, options: LogOptions) {
        {
            let mut state = self.0.state.lock();
            (state.rules, state.log_options) = (rules, options);
        }
        self.apply_options();
    }

    /// Tells the log how to work, with the next group, or soon if there is none.
    pub(super) fn apply_options(&self) {
        let start = {
            let mut state = self.0.state.lock();
            state.options = Some(state.log_options);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            self.start();
        }
    }

    /// Takes `load` as the last in the queue. `node` is the budget of all partitions together. Where it is part of a
    /// transaction, that has `admitted` it.
    pub(crate) fn push(
        &self,
        load: Load,
        place: Option<Place>,
        admitted: Option<Admitted>,
        node: &Budget,
    ) -> Result<Receiver<Answer>, Error> {
        let bytes = load.size_bytes();
        let takes = bytes.saturating_add(ENTRY_BYTES);
        let held = [self.0.take(node, takes)?, self.0.take(&self.0.queued, takes)?];
        if let Some(error) = self.0.reopening() {
            return Err(error);
        }
        let load = if bytes < DETACH_BELOW_BYTES { load.detach() } else { load };
        self.enqueue(|answer| Entry { load, bytes, place, admitted, answer, _held: Some(held) }, |_| true)
    }

    /// Takes what the node itself writes, which counts for no limit: what there is at once is bounded by those on
    /// whose behalf it is. Also while the node is closing, since what has begun is finished first.
    pub(crate) fn push_internal(&self, batches: Vec<Batch>) -> Result<Receiver<Answer>, Error> {
        self.push_without_limit(Load::Internal(batches), None)
    }

    /// The same as a part of a producer's transaction, which has `admitted` it.
    pub(crate) fn push_internal_of(
        &self,
        producer: ProducerEpoch,
        batches: Vec<Batch>,
        admitted: Admitted,
    ) -> Result<Receiver<Answer>, Error> {
        self.push_without_limit(Load::InternalOf(producer, batches), Some(admitted))
    }

    fn push_without_limit(&self, load: Load, admitted: Option<Admitted>) -> Result<Receiver<Answer>, Error> {
        if let Some(error) = self.0.reopening() {
            return Err(error);
        }
        let bytes = load.size_bytes();
        self.enqueue(
            |answer| Entry { load, bytes, place: None, admitted, answer, _held: None },
            |refusal| refusal.reason() != Reason::NodeClosing,
        )
    }

    /// Takes the entry as the last in the queue, unless there is a refusal that `counts`.
    fn enqueue(
        &self,
        entry: impl FnOnce(Sender<Answer>) -> Entry,
        counts: impl FnOnce(&Error) -> bool,
    ) -> Result<Receiver<Answer>, Error> {
        let (answer, receiver) = reply();
        let start = {
            let mut state = self.0.state.lock();
            if let Some(refusal) = state.refusal.as_ref().filter(|refusal| counts(refusal)) {
                return Err(refusal.clone());
            }
            state.queue.push_back(entry(answer));
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            self.start();
        }
        Ok(receiver)
    }

    /// Takes nothing more, for the reason given. What was accepted is still written. The last reason holds: a topic
    /// of which the deletion was uncertain may be deleted for certain, and whoever tries again has to hear of it.
    pub(crate) fn refuse(&self, refusal: Error) {
        self.0.state.lock().refusal = Some(refusal);
        self.0.end_reopening();
    }

    /// Why nothing more is taken, if that is so.
    pub(crate) fn refusal(&self) -> Option<Error> {
        self.0.state.lock().refusal.clone()
    }

    /// Whether it takes records, as far as is known without asking the log, which may be busy writing.
    pub(crate) fn takes_records(&self) -> bool {
        let state = self.0.state.lock();
        !state.failed && state.refusal.is_none() && state.reopening.is_none()
    }

    /// Whether something was accepted that is not on disk. Asks nothing of the log, which may be busy writing.
    pub(crate) fn has_unsynced(&self) -> bool {
        let state = self.0.state.lock();
        self.0.queued.used() > 0 || state.written_end > state.serving.log.durable_end()
    }

    /// How its log stands now, to be looked at.
    pub(super) fn look<T>(&self, look: impl FnOnce(Standing<'_>) -> T) -> T {
        let serving = self.0.state.lock().serving.clone();
        look(self.0.standing(&serving))
    }

    /// What `error` of the log means to a caller.
    pub(crate) fn explain(&self, error: &logmill_log::Error) -> Error {
        self.0.explain(error)
    }

    fn start(&self) {
        let lane = self.clone();
        drive(&self.0.scheduler, Work::Append, async move {
            // From here on, and not before: a scheduler that is gone drops the task without running it.
            let _next = Next(&lane);
            lane.0.run_append_group().await;
        });
    }
}

/// Starts the next group when one has ended, also if it ended by a panic.
struct Next<'a>(&'a Lane);

impl Drop for Next<'_> {
    fn drop(&mut self) {
        let more = {
            let mut state = self.0.0.state.lock();
            state.running = !state.queue.is_empty() || state.options.is_some();
            state.running
        };
        if more {
            self.0.start();
        }
    }
}

impl Shared {
    fn explain(&self, error: &logmill_log::Error) -> Error {
        // A log is closed because its topic or the node goes, and that is the answer; or to be opened again.
        let refusal = || self.state.lock().refusal.clone();
        match error.kind() {
            ErrorKind::Closed => refusal().unwrap_or_else(|| self.name.reopened(error)),
            ErrorKind::Poisoned => self.reopening().unwrap_or_else(|| self.name.reopened(error)),
            _ => self.name.explain(error),
        }
    }

    fn take(&self, budget: &Budget, bytes: usize) -> Result<Permit, Error> {
        let doing = || format!("{bytes} bytes more for {}", self.name);
        let advice = "the disk does not keep up; send again when earlier records have been answered";
        budget
            .take_for(bytes, doing, advice)
            .map_err(|error| error.with("topic", &self.name.topic).with("partition", self.name.partition))
    }
}
