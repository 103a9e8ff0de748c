//! One partition's way in: a queue of what was accepted, and at most one task that checks and writes it.
//!
//! Whatever waits when the task comes round is checked and appended as one group: one write, one sync. A
//! group that has to wait, for room in the log or for a roll, holds no thread meanwhile.
//!
//! A group that the log refuses because of one of its batches, or because it has some of them already, is
//! appended entry by entry: each then gets its own answer. What the log had already is answered as the first
//! time, and only when that is on disk, whatever the request asked for.
//!
//! Lock order: the queue's lock is a leaf.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use logmill_log::env::{Scheduler, Work};
use logmill_log::{ErrorKind, Log, LogOptions, OnDisk, Receipt, Step};
use logmill_record::{Batch, Inflater, Offset, TimestampMs};
use parking_lot::Mutex;

use super::order::{Openings, Place, ProducerSequence, Standing};
use super::reopen::{Reopening, Serving};
use super::{ProduceRecord, ingest};
use crate::budget::{Budget, Permit};
use crate::error::{Error, PartitionName};
use crate::exec::{Receiver, Sender, drive, reply};
use crate::settings::Rules;

/// A group takes no further entry once it has so many bytes: enough to make the write worth its call, and
/// less than a log takes unsynced.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// What an entry takes in memory besides its load: twice itself, since the queue grows by doubling, the slot for its
/// answer, and its part of what is shared by a stream's requests. It counts with the bytes: a request may have next to
/// none, and stays in the queue when its caller has given up.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + size_of::<Answer>() + 256;
// The guide says so.
const _: () = assert!(ENTRY_BYTES < 1024);

/// A smaller load gets bytes of its own. As it comes, it is a slice of the transport's buffer, which is of this size at
/// least and stays as long as any slice of it. What a larger one keeps besides itself is at most about as much again.
const OWN_BYTES: usize = 8 * 1024;

/// What is to be appended.
#[derive(Debug)]
pub(crate) enum Load {
    /// A batch that a producer made, not checked yet.
    Batch(Bytes),
    /// Plain records, and the time of those that have none.
    Records(Vec<ProduceRecord>, TimestampMs),
    /// Plain records of an idempotent producer, and the time of those that have none.
    Numbered(ProducerSequence, Vec<ProduceRecord>, TimestampMs),
}

impl Load {
    /// What it takes while it waits.
    fn size_bytes(&self) -> usize {
        match self {
            Self::Batch(bytes) => bytes.len(),
            Self::Records(records, _) | Self::Numbered(_, records, _) => ingest::size_of_records(records),
        }
    }

    /// Lets go of what its bytes lie in.
    fn into_own(self) -> Self {
        match self {
            Self::Batch(bytes) => Self::Batch(Bytes::copy_from_slice(&bytes)),
            Self::Records(records, now) => Self::Records(ingest::into_own(records), now),
            Self::Numbered(sequence, records, now) => {
                Self::Numbered(sequence, ingest::into_own(records), now)
            }
        }
    }

    fn into_batches(self, rules: &Rules, inflater: &mut Inflater) -> Result<Vec<Batch>, Error> {
        match self {
            Self::Batch(bytes) => ingest::check(bytes, rules, inflater).map(|batch| vec![batch]),
            Self::Records(records, now) => ingest::build(&records, now, rules),
            Self::Numbered(sequence, records, now) => {
                ingest::build_one(sequence, &records, now, rules).map(|batch| vec![batch])
            }
        }
    }
}

/// Where an entry's records were written.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) first_offset: Offset,
    pub(crate) last_offset: Offset,
    pub(crate) appended_at: TimestampMs,
    /// The log had them already: they are those of the first time.
    pub(crate) duplicate: bool,
    /// Resolves when they are on disk.
    pub(crate) durable: OnDisk,
    /// Which of the partition's logs they were written to.
    pub(crate) generation: u64,
}

/// The answer to an entry.
pub(crate) type Answer = Result<Written, Error>;

/// See the module. A clone is the same lane.
#[derive(Clone, Debug)]
pub(crate) struct Lane(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) name: PartitionName,
    pub(super) scheduler: Arc<dyn Scheduler>,
    /// Bytes of this partition that were accepted and are not yet written.
    queued: Budget,
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

#[derive(Debug)]
struct Entry {
    load: Load,
    bytes: usize,
    /// On a stream, its place in it.
    place: Option<Place>,
    answer: Sender<Answer>,
    _held: [Permit; 2],
}

/// What is checked and written at once.
struct Group {
    entries: Vec<Entry>,
    rules: Arc<Rules>,
    stamp: Option<TimestampMs>,
}

/// An entry whose load has been checked.
struct Ready {
    batches: Vec<Batch>,
    place: Option<Place>,
    answer: Sender<Answer>,
    _held: [Permit; 2],
}

impl Ready {
    fn appended(self, log: Standing<'_>, first_offset: Offset, last_offset: Offset, receipt: &Receipt) {
        if let Some(place) = self.place {
            place.appended(first_offset, log);
        }
        self.answer.send(Ok(Written {
            first_offset,
            last_offset,
            appended_at: receipt.appended_at(),
            duplicate: receipt.is_duplicate(),
            durable: receipt.on_disk(last_offset),
            generation: log.generation,
        }));
    }

    fn refuse(self, error: Error) {
        // Before the answer: who hears of a failure may rely on those behind it failing.
        drop(self.place);
        self.answer.send(Err(error));
    }
}

impl Lane {
    pub(crate) fn new(
        name: PartitionName,
        log: Log,
        scheduler: Arc<dyn Scheduler>,
        rules: Arc<Rules>,
        log_options: LogOptions,
        queued: Budget,
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
        Self(Arc::new(Shared { name, scheduler, queued, state: Mutex::new(state) }))
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

    /// Takes `load` as the last in the queue. `node` is the budget of all partitions together.
    pub(super) fn push(
        &self,
        load: Load,
        place: Option<Place>,
        node: &Budget,
    ) -> Result<Receiver<Answer>, Error> {
        let bytes = load.size_bytes();
        let takes = bytes.saturating_add(ENTRY_BYTES);
        let held = [self.0.take(node, takes)?, self.0.take(&self.0.queued, takes)?];
        if let Some(error) = self.0.reopening() {
            return Err(error);
        }
        let load = if bytes < OWN_BYTES { load.into_own() } else { load };
        let (answer, receiver) = reply();
        let start = {
            let mut state = self.0.state.lock();
            if let Some(refusal) = &state.refusal {
                return Err(refusal.clone());
            }
            state.queue.push_back(Entry { load, bytes, place, answer, _held: held });
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            self.start();
        }
        Ok(receiver)
    }

    /// Takes nothing more, for the reason given. What was accepted is still written.
    pub(crate) fn refuse(&self, refusal: Error) {
        self.0.state.lock().refusal.get_or_insert(refusal);
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
            lane.0.run_group().await;
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
    async fn run_group(self: &Arc<Self>) {
        let (serving, options) = {
            let mut state = self.state.lock();
            (state.serving.clone(), state.options.take())
        };
        if let Some(options) = options {
            serving.log.set_options(options);
        }
        let group = self.admit(self.check(self.take_group()), &serving);
        let batches: Vec<Batch> = group.iter().flat_map(|ready| &ready.batches).cloned().collect();
        if batches.is_empty() {
            return;
        }
        match append(&serving.log, &batches).await {
            Ok(receipt) => {
                self.note_written(&receipt, &serving);
                self.answer(group, &receipt, &serving);
            }
            Err(error) if group.len() > 1 && concerns_one_batch(&error) => {
                drop(batches);
                for ready in group {
                    // One before it may have failed meanwhile.
                    for ready in self.admit(vec![ready], &serving) {
                        self.append_alone(ready, &serving).await;
                    }
                }
            }
            Err(error) => {
                let error = self.refused(&error, &serving);
                for ready in group {
                    ready.refuse(error.clone());
                }
            }
        }
    }

    async fn append_alone(self: &Arc<Self>, ready: Ready, serving: &Serving) {
        match append(&serving.log, &ready.batches).await {
            Ok(receipt) => {
                self.note_written(&receipt, serving);
                let (first, last) = (receipt.first_offset(), receipt.last_offset());
                ready.appended(self.standing(serving), first, last, &receipt);
            }
            Err(error) => ready.refuse(self.refused(&error, serving)),
        }
    }

    fn note_written(&self, receipt: &Receipt, serving: &Serving) {
        let mut state = self.state.lock();
        if state.serving.generation == serving.generation {
            state.written_end = state.written_end.max(receipt.last_offset().next());
        }
    }

    /// Those that no failure before them on their stream holds back; the others are answered.
    fn admit(&self, group: Vec<Ready>, serving: &Serving) -> Vec<Ready> {
        if group.iter().all(|ready| ready.place.is_none()) {
            return group;
        }
        let standing = self.standing(serving);
        let mut admitted = Vec::with_capacity(group.len());
        for ready in group {
            match ready.place.as_ref().map_or(Ok(()), |place| place.check(&self.name, standing)) {
                Ok(()) => admitted.push(ready),
                Err(error) => ready.refuse(error),
            }
        }
        admitted
    }

    fn standing<'a>(&self, serving: &'a Serving) -> Standing<'a> {
        let Serving { log, generation, openings } = serving;
        let state = self.state.lock();
        Standing {
            generation: *generation,
            openings,
            durable_end: log.durable_end(),
            poisoned: state.serving.generation > *generation || state.reopening.is_some(),
        }
    }

    fn take_group(&self) -> Group {
        let mut state = self.state.lock();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = state.queue.pop_front() {
            bytes += entry.bytes;
            entries.push(entry);
            if bytes >= GROUP_BYTES {
                break;
            }
        }
        let rules = Arc::clone(&state.rules);
        let stamp = rules.append_time.then(|| {
            state.last_stamp = state.serving.log.env().clock.now().max(state.last_stamp);
            state.last_stamp
        });
        Group { entries, rules, stamp }
    }

    /// The batches of those entries that may be stored; the others are answered.
    fn check(&self, Group { entries, rules, stamp }: Group) -> Vec<Ready> {
        let mut group = Vec::with_capacity(entries.len());
        // Given back with the group: what thousands of lanes kept would be too much.
        let mut inflater = Inflater::default();
        for Entry { load, place, answer, _held, .. } in entries {
            match load.into_batches(&rules, &mut inflater) {
                Ok(mut batches) => {
                    if let Some(at) = stamp {
                        batches = batches.into_iter().map(|batch| batch.into_log_append_time(at)).collect();
                    }
                    group.push(Ready { batches, place, answer, _held });
                }
                Err(error) => {
                    let named = error.with("topic", &self.name.topic).with("partition", self.name.partition);
                    // Before the answer: who hears of a failure may rely on those behind it failing.
                    drop(place);
                    answer.send(Err(named));
                }
            }
        }
        group
    }

    fn answer(&self, group: Vec<Ready>, receipt: &Receipt, serving: &Serving) {
        let standing = self.standing(serving);
        let mut first_offset = receipt.first_offset();
        for ready in group {
            let records = ready.batches.iter().map(|batch| u64::from(batch.header().record_count)).sum();
            let next = first_offset.saturating_add(records);
            let last_offset = Offset(next.get().saturating_sub(1));
            ready.appended(standing, first_offset, last_offset, receipt);
            first_offset = next;
        }
    }

    /// What an append that failed with `error` means to the producer, and to the partition.
    fn refused(self: &Arc<Self>, error: &logmill_log::Error, serving: &Serving) -> Error {
        if self.has_ended(serving.generation, error) {
            return match error.kind() {
                ErrorKind::OutcomeUnknown => self.name.explain(error),
                _ => self.reopening().unwrap_or_else(|| self.name.reopened(error)),
            };
        }
        match error.kind() {
            // Damage was found when the log was opened. That it can be read does not help here.
            ErrorKind::Corrupt => {
                self.state.lock().failed = true;
                self.name.failed(error)
            }
            ErrorKind::ReadOnly => {
                self.state.lock().failed = true;
                self.explain(error)
            }
            _ => self.explain(error),
        }
    }

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

async fn append(log: &Log, batches: &[Batch]) -> Result<Receipt, logmill_log::Error> {
    loop {
        match log.try_append(batches)? {
            Step::Done(receipt) => return Ok(receipt),
            Step::Wait(wait) => wait.await,
        }
    }
}

/// Whether the log refused a group because of one of its batches, and would take the others without it.
fn concerns_one_batch(error: &logmill_log::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::OutOfSequence
            | ErrorKind::SequenceForgotten
            | ErrorKind::Fenced
            | ErrorKind::Invalid
            | ErrorKind::Limit
    )
}
