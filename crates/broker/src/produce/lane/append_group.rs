//! What waits in a lane is checked and appended as one group: one write, one sync.
//!
//! A group that has to wait, for room in the log or for a roll, holds no thread meanwhile. One that the log
//! refuses because of one of its batches, or because it has some of them already, is appended entry by entry:
//! each then gets its own answer. What the log had already is answered as the first time, or with where it was
//! being forgotten, and only when that is on disk, whatever the request asked for.

use std::sync::Arc;

use bytes::Bytes;
use logmill_log::{ErrorKind, Log, OnDisk, Receipt, Step};
use logmill_record::{Batch, Inflater, Offset, TimestampMs};

use super::{Lane, Shared};
use crate::budget::Permit;
use crate::error::Error;
use crate::exec::Sender;
use crate::produce::order::{Place, ProducerSequence, Standing};
use crate::produce::reopen::Serving;
use crate::produce::{ProduceRecord, ingest, next_sequence};
use crate::settings::Rules;
use crate::transaction::{Admitted, ProducerEpoch};

/// A group takes no further entry once it has so many bytes: enough to make the write worth its call, and
/// less than a log takes unsynced.
const APPEND_GROUP_BYTES: usize = 4 * 1024 * 1024;

/// What an entry takes in memory besides its load: twice itself, since the queue grows by doubling, the slot for its
/// answer, and its part of what is shared by a stream's requests. It counts with the bytes: a request may have next to
/// none, and stays in the queue when its caller has given up.
pub(super) const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + size_of::<Answer>() + 256;
// The guide says so.
const _: () = assert!(ENTRY_BYTES < 1024);

/// A smaller load gets bytes of its own. As it comes, it is a slice of the transport's buffer, which is of this size at
/// least and stays as long as any slice of it. What a larger one keeps besides itself is at most about as much again.
pub(super) const DETACH_BELOW_BYTES: usize = 8 * 1024;

/// What is to be appended.
#[derive(Debug)]
pub(crate) enum Load {
    /// A batch that a producer made, not checked yet.
    Batch(Bytes),
    /// Plain records, and the time of those that have none.
    Records(Vec<ProduceRecord>, TimestampMs),
    /// Plain records of an idempotent producer, and the time of those that have none.
    Numbered(ProducerSequence, Vec<ProduceRecord>, TimestampMs),
    /// What a step of this producer appends to the partition, which is numbered when its turn has come; and the time of
    /// records that have none.
    Step(ProducerEpoch, Vec<StepPart>, TimestampMs),
    /// What the node itself made, as it is to be stored.
    Internal(Vec<Batch>),
    /// What the node itself made as a part of this producer's transaction, numbered when its turn has come.
    InternalOf(ProducerEpoch, Vec<Batch>),
}

/// A part of what a step appends to a partition.
#[derive(Debug)]
pub(crate) enum StepPart {
    /// A batch, not checked yet.
    Batch(Bytes),
    /// Plain records.
    Records(Vec<ProduceRecord>),
}

impl Load {
    /// What it takes while it waits.
    pub(super) fn size_bytes(&self) -> usize {
        match self {
            Self::Batch(bytes) => bytes.len(),
            Self::Records(records, _) | Self::Numbered(_, records, _) => ingest::size_of_records(records),
            Self::Step(_, parts, _) => parts.iter().map(StepPart::size_bytes).sum(),
            Self::Internal(batches) | Self::InternalOf(_, batches) => {
                batches.iter().map(|batch| batch.bytes().len()).sum()
            }
        }
    }

    /// Lets go of what its bytes lie in.
    pub(super) fn detach(self) -> Self {
        match self {
            Self::Batch(bytes) => Self::Batch(Bytes::copy_from_slice(&bytes)),
            Self::Records(records, now) => Self::Records(ingest::detach(records), now),
            Self::Numbered(sequence, records, now) => Self::Numbered(sequence, ingest::detach(records), now),
            Self::Step(producer, parts, now) => {
                Self::Step(producer, parts.into_iter().map(StepPart::detach).collect(), now)
            }
            load @ (Self::Internal(_) | Self::InternalOf(..)) => load,
        }
    }

    /// The batches for this log, checked; where they are `transactional`, their transaction has admitted them.
    fn into_batches(
        self,
        log: &Log,
        rules: &Rules,
        transactional: bool,
        inflater: &mut Inflater,
    ) -> Result<Vec<Batch>, Error> {
        match self {
            Self::Batch(bytes) => {
                ingest::check(bytes, rules, transactional, inflater).map(|batch| vec![batch])
            }
            Self::Records(records, now) => ingest::build(&records, now, rules),
            Self::Numbered(sequence, records, now) => {
                let batch = ingest::build_one(sequence, &records, now, rules)?;
                Ok(vec![if transactional { batch.into_transactional() } else { batch }])
            }
            Self::Step(producer, parts, now) => {
                let batches = ingest::build_step(parts, now, rules, inflater)?;
                Ok(ingest::number(batches, next_of(log, producer)))
            }
            Self::Internal(batches) => Ok(batches),
            Self::InternalOf(producer, batches) => Ok(ingest::number(batches, next_of(log, producer))),
        }
    }

    /// Whether a topic that sets the time of append sets it in these too. Markers keep their own, as Kafka's do.
    fn is_stamped(&self) -> bool {
        !matches!(self, Self::Internal(_) | Self::InternalOf(..))
    }
}

impl StepPart {
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Batch(bytes) => bytes.len(),
            Self::Records(records) => ingest::size_of_records(records),
        }
    }

    /// Lets go of the transport's buffer, unless it is large itself: the buffer may be larger by far.
    pub(crate) fn detach_if_small(self) -> Self {
        if self.size_bytes() < DETACH_BELOW_BYTES { self.detach() } else { self }
    }

    fn detach(self) -> Self {
        match self {
            Self::Batch(bytes) => Self::Batch(Bytes::copy_from_slice(&bytes)),
            Self::Records(records) => Self::Records(ingest::detach(records)),
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
    pub(crate) durable: Durable,
}

/// Why an entry was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) error: Error,
    /// Of one that says that its records were stored before.
    pub(crate) stored: Option<Durable>,
}

/// When the records are on disk of which an answer speaks.
#[derive(Debug)]
pub(crate) struct Durable {
    on_disk: OnDisk,
    /// Which of the partition's logs they were written to.
    generation: u64,
}

/// The answer to an entry.
pub(crate) type Answer = Result<Written, Refused>;

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, stored: None }
    }
}

impl Durable {
    /// Waits until they are, as the log of this lane.
    pub(crate) async fn confirm(self, lane: &Lane) -> Result<(), Error> {
        self.on_disk.await.map_err(|error| lane.not_confirmed(self.generation, &error))
    }
}

/// What waits in the queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) load: Load,
    pub(super) bytes: usize,
    /// On a stream, its place in it.
    pub(super) place: Option<Place>,
    /// Its transaction has taken it, and waits for it before it ends.
    pub(super) admitted: Option<Admitted>,
    pub(super) answer: Sender<Answer>,
    /// Its bytes, of the partition and of the node.
    pub(super) _held: Option<[Permit; 2]>,
}

/// What is checked and written at once.
struct AppendGroup {
    entries: Vec<Entry>,
    rules: Arc<Rules>,
    stamp: Option<TimestampMs>,
}

/// An entry whose load has been checked.
struct Ready {
    batches: Vec<Batch>,
    place: Option<Place>,
    admitted: Option<Admitted>,
    answer: Sender<Answer>,
    _held: Option<[Permit; 2]>,
}

impl Ready {
    fn appended(self, log: Standing<'_>, first_offset: Offset, last_offset: Offset, receipt: &Receipt) {
        if let Some(place) = self.place {
            place.appended(first_offset, log);
        }
        if let Some(admitted) = self.admitted {
            admitted.written(log.generation, last_offset);
        }
        self.answer.send(Ok(Written {
            first_offset,
            last_offset,
            appended_at: receipt.appended_at(),
            duplicate: receipt.is_duplicate(),
            durable: Durable { on_disk: receipt.on_disk(last_offset), generation: log.generation },
        }));
    }

    fn refuse(self, why: impl Into<Refused>) {
        // Before the answer: who hears of a failure may rely on those behind it failing.
        drop(self.place);
        self.answer.send(Err(why.into()));
    }
}

impl Shared {
    pub(super) async fn run_append_group(self: &Arc<Self>) {
        let (serving, options) = {
            let mut state = self.state.lock();
            (state.serving.clone(), state.options.take())
        };
        if let Some(options) = options {
            serving.log.set_options(options);
        }
        let group = self.admit(self.check(self.take_append_group(), &serving.log), &serving);
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
            Err(error) => group.into_iter().for_each(|ready| self.refuse(ready, &error, &serving)),
        }
    }

    async fn append_alone(self: &Arc<Self>, ready: Ready, serving: &Serving) {
        match append(&serving.log, &ready.batches).await {
            Ok(receipt) => {
                self.note_written(&receipt, serving);
                let (first, last) = (receipt.first_offset(), receipt.last_offset());
                ready.appended(self.standing(serving), first, last, &receipt);
            }
            Err(error) => self.refuse(ready, &error, serving),
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

    pub(super) fn standing<'a>(&self, serving: &'a Serving) -> Standing<'a> {
        let Serving { log, generation, openings } = serving;
        let state = self.state.lock();
        Standing {
            generation: *generation,
            openings,
            durable_end: log.durable_end(),
            poisoned: state.serving.generation > *generation || state.reopening.is_some(),
        }
    }

    fn take_append_group(&self) -> AppendGroup {
        let mut state = self.state.lock();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = state.queue.pop_front() {
            bytes += entry.bytes;
            entries.push(entry);
            if bytes >= APPEND_GROUP_BYTES {
                break;
            }
        }
        let rules = Arc::clone(&state.rules);
        let stamp = rules.append_time.then(|| {
            state.last_stamp = state.serving.log.env().clock.now().max(state.last_stamp);
            state.last_stamp
        });
        AppendGroup { entries, rules, stamp }
    }

    /// The batches of those entries that may be stored; the others are answered.
    fn check(&self, AppendGroup { entries, rules, stamp }: AppendGroup, log: &Log) -> Vec<Ready> {
        let mut group = Vec::with_capacity(entries.len());
        // Given back with the group: what thousands of lanes kept would be too much.
        let mut inflater = Inflater::default();
        for Entry { load, place, admitted, answer, _held, .. } in entries {
            let stamp = stamp.filter(|_| load.is_stamped());
            let batches = load.into_batches(log, &rules, admitted.is_some(), &mut inflater);
            let mut ready = Ready { batches: Vec::new(), place, admitted, answer, _held };
            match batches {
                Ok(batches) => {
                    ready.batches = match stamp {
                        Some(at) => batches.into_iter().map(|batch| batch.into_log_append_time(at)).collect(),
                        None => batches,
                    };
                    group.push(ready);
                }
                Err(error) => {
                    let named = error.with("topic", &self.name.topic).with("partition", self.name.partition);
                    ready.refuse(named);
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

    fn refuse(self: &Arc<Self>, ready: Ready, error: &logmill_log::Error, serving: &Serving) {
        let Serving { log, generation, .. } = serving;
        // What was stored then is somewhere below the end, and a power cut may still take it.
        let stored = (error.kind() == ErrorKind::SequenceForgotten).then(|| {
            let last = Offset(log.written_end().get().saturating_sub(1));
            Durable { on_disk: log.on_disk(last), generation: *generation }
        });
        ready.refuse(Refused { error: self.refused(error, serving), stored });
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
}

/// The sequence of the next batch that the node itself writes for a producer. Nothing of it is under way but in this
/// lane, whose turn it is.
fn next_of(log: &Log, producer: ProducerEpoch) -> ProducerSequence {
    let ProducerEpoch { id, epoch } = producer;
    let known = log.producer(id).filter(|known| known.epoch == epoch);
    let last = known.and_then(|known| known.last_sequence);
    ProducerSequence { id, epoch, base_sequence: last.map_or(0, |last| next_sequence(last, 1)) }
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
