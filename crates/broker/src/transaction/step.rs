//! A step: what a unit of a group has made of what it has read, and how far it has read, in one transaction and one
//! call.
//!
//! Its bytes are admitted whole before any of them has come, and nothing is written before all have: steps that are
//! half sent take nothing from each other but that room. What many small records take in memory besides is counted as
//! they come, and a step is refused where there is no room for that. Then it is the protocol of every transaction, by a
//! producer that the unit has for itself, whose epoch moves with the unit's owner. The unit stays with its owner
//! meanwhile.
//!
//! The last step of a unit is remembered with its answer, in the decision itself: sent again, because the answer was
//! lost on its way, it has no effect and the same answer. Something else under the same number is refused: who has made
//! another step of more than it had read the first time would take the answer of that for its own, and lose the rest.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use logmill_log::env::Work;
use logmill_record::{Offset, TimestampMs};

use super::admit::{Admitted, AllTouched, Touched, next_of, offsets_batch};
use super::end::{Decision, all_durable};
use super::entry::Next;
use super::record::StepRecord;
use super::table::{Ending, StepCheck};
use super::{Outcome, ProducerEpoch};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::budget::{Budget, Permit};
use crate::catalog::TopicState;
use crate::context::RequestContext;
use crate::error::{Error, shorten};
use crate::exec::Receiver;
use crate::group::Held;
use crate::internal::{OFFSETS_ID, written};
use crate::limits::Limit;
use crate::offsets::{CheckedCommit, OffsetToCommit, PendingCommits};
use crate::produce::{Answer, Lane, Load, Payload, StepPart, step_parts};
use crate::topic::TopicPartition;

/// What a step is, and all that it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepHeader {
    /// The group.
    pub group: String,
    /// The unit whose step it is.
    pub unit: String,
    /// The epoch that the unit's assignment has.
    pub unit_epoch: i32,
    /// The number of the step among those of its unit: one more than the last one, which the assignment says. The
    /// first is 0. A step whose answer did not come is sent again as it was, or as far as it had read; with other
    /// `offsets` it is [`StepOutOfSequence`](crate::Reason::StepOutOfSequence) once the first one was committed.
    pub sequence: i64,
    /// Where the group is to go on; all within the unit.
    pub offsets: Vec<OffsetToCommit>,
    /// Every topic that it appends to.
    pub topics: Vec<String>,
    /// The bytes of all that follows: batches, or keys, values and headers of plain records.
    pub total_bytes: u64,
}

/// Where records of a step were appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAppend {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The offset of the first record; the others follow one by one.
    pub first_offset: Offset,
    /// The offset of the last record.
    pub last_offset: Offset,
    /// When the node appended them.
    pub appended_at: TimestampMs,
}

/// A step that is committed: its records can be read, and its offsets are where the group goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepCommitted {
    /// Where its records are: one for each partition that it appended to, in order.
    pub appended: Vec<StepAppend>,
    /// It was committed before, and this is the answer of the first time.
    pub duplicate: bool,
}

/// A step on its way: see [`Broker::begin_step`]. Dropped, it has no effect.
#[derive(Debug)]
pub struct Step {
    core: Arc<Core>,
    header: StepHeader,
    topics: BTreeMap<String, Arc<TopicState>>,
    parts: BTreeMap<TopicPartition, Part>,
    bytes: u64,
    /// What has come takes so much in memory.
    held: usize,
    /// The larger of the two: what is to come, and what has.
    room: Permit,
}

/// What a step appends to one partition.
#[derive(Debug)]
struct Part {
    lane: Lane,
    parts: Vec<StepPart>,
}

impl Broker {
    /// Begins a step: what it touches is checked, and there is room for all of its bytes. Its records are
    /// [appended](Step::append) next, and then it is [committed](Step::commit).
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid), [`TopicNotFound`](crate::Reason::TopicNotFound),
    /// [`GroupNotFound`](crate::Reason::GroupNotFound), [`StaleAssignment`](crate::Reason::StaleAssignment) of a unit
    /// that is another's now, and [`LimitExceeded`](crate::Reason::LimitExceeded) where there is no room for its bytes.
    pub fn begin_step(&self, context: &RequestContext, header: StepHeader) -> Result<Step, Error> {
        let core = self.core();
        core.check_open()?;
        let topics = header.topics.iter().map(String::as_str).collect();
        authorize(context, &Operation::CommitStep { group: &header.group, topics })?;
        let touched = header.topics.len() + header.offsets.len();
        let doing = || format!("a step that touches {touched} topics and partitions");
        core.bounds.check(Limit::MaxStepPartitions, touched, doing, "make several steps")?;
        let mut topics = BTreeMap::new();
        for name in &header.topics {
            let topic = core.catalog.topic(name)?;
            if topics.insert(name.clone(), topic).is_some() {
                return Err(Error::field("topics", shorten(name), "each topic is named once"));
            }
        }
        // Fails early: it may be another's by the time that all has come.
        drop(core.groups.hold(core, &header.group, &header.unit, header.unit_epoch)?);
        let room = core.take_step_room(header.total_bytes)?;
        let mut step =
            Step { core: Arc::clone(core), header, topics, parts: BTreeMap::new(), bytes: 0, held: 0, room };
        step.hold(step.header.size_bytes())?;
        Ok(step)
    }
}

impl StepHeader {
    /// A checksum of how far it has read; of one that has read nothing, of how much it appends.
    pub(super) fn input_checksum(&self) -> u32 {
        let mut read: Vec<_> =
            self.offsets.iter().map(|it| (&*it.topic, it.partition, it.offset.get())).collect();
        read.sort_unstable();
        let mut checksum = crc32fast::Hasher::new();
        for (topic, partition, offset) in read {
            checksum.update(topic.as_bytes());
            checksum.update(&[0]);
            checksum.update(&partition.to_be_bytes());
            checksum.update(&offset.to_be_bytes());
        }
        if self.offsets.is_empty() {
            checksum.update(&self.total_bytes.to_be_bytes());
        }
        checksum.finalize()
    }

    /// What it takes in memory.
    fn size_bytes(&self) -> usize {
        let offset = |it: &OffsetToCommit| size_of::<OffsetToCommit>() + it.topic.len() + it.metadata.len();
        let topic = |it: &String| size_of::<String>() + it.len();
        self.offsets.iter().map(offset).sum::<usize>() + self.topics.iter().map(topic).sum::<usize>()
    }
}

impl Core {
    fn take_step_room(&self, total_bytes: u64) -> Result<Permit, Error> {
        let bytes = usize::try_from(total_bytes).unwrap_or(usize::MAX);
        let doing = || format!("a step of {bytes} bytes");
        let most = self.bounds.limits().get(Limit::MaxStepBytes);
        if bytes > most {
            return Err(self.bounds.refuse(Limit::MaxStepBytes, &doing(), "make several steps of it"));
        }
        self.steps.take_for(bytes, doing, "send it again when earlier steps have been answered")
    }
}

impl Step {
    /// Adds records to the step. Nothing is written yet.
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid) for a topic that its header does not name, and for more bytes
    /// than that says; [`PartitionNotFound`](crate::Reason::PartitionNotFound). The step has no effect then.
    pub fn append(&mut self, topic: &str, partition: Option<u32>, payload: Payload) -> Result<(), Error> {
        let Some(state) = self.topics.get(topic).map(Arc::clone) else {
            return Err(Error::field("topic", shorten(topic), "a step names every topic in its header"));
        };
        let bytes = self.bytes.saturating_add(payload.data_bytes());
        let total_bytes = self.header.total_bytes;
        if bytes > total_bytes {
            let rule = "what follows the header has more bytes than that";
            return Err(Error::field("total_bytes", total_bytes, rule).with("bytes", bytes));
        }
        self.hold(payload.size_bytes())?;
        for (partition, part) in step_parts(&self.core, &state, partition, payload)? {
            let id = TopicPartition { topic: state.id, partition };
            let lane = state.partition(partition)?.lane()?;
            let new = || Part { lane: lane.clone(), parts: Vec::new() };
            self.parts.entry(id).or_insert_with(new).parts.push(part);
        }
        self.bytes = bytes;
        let doing = || format!("a step that touches {} partitions", self.parts.len());
        self.core.bounds.check(Limit::MaxStepPartitions, self.parts.len(), doing, "make several steps")
    }

    /// So much more of it lies in memory.
    fn hold(&mut self, bytes: usize) -> Result<(), Error> {
        self.held = self.held.saturating_add(bytes);
        let more = self.held.saturating_sub(self.room.amount());
        if more == 0 || self.room.grow(more) {
            return Ok(());
        }
        let doing = format!("a step whose records take {} bytes in memory", self.held);
        Err(self
            .core
            .steps
            .refusal(&doing, "send it again when earlier steps have been answered, or make several of it"))
    }

    /// Commits the step: all of it, or nothing. It goes on when the future is dropped.
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid) for fewer bytes than its header says, and for offsets outside
    /// the unit; [`OffsetOutOfRange`](crate::Reason::OffsetOutOfRange) for one past the end of its partition;
    /// [`StaleAssignment`](crate::Reason::StaleAssignment) of a unit that is another's now;
    /// [`UnitUndeclared`](crate::Reason::UnitUndeclared) of a named one that no member has declared since the start;
    /// [`StepOutOfSequence`](crate::Reason::StepOutOfSequence); those of [`Broker::produce`]. It has no effect then.
    /// After [`OutcomeUnknown`](crate::Reason::OutcomeUnknown), which comes when the node stops meanwhile, the same
    /// step is sent again when it is back.
    pub fn commit(self) -> impl Future<Output = Result<StepCommitted, Error>> + Send + 'static + use<> {
        let (total_bytes, bytes) = (self.header.total_bytes, self.bytes);
        let whole = if bytes == total_bytes {
            Ok(())
        } else {
            let rule = "what follows the header has fewer bytes than that";
            Err(Error::field("total_bytes", total_bytes, rule).with("bytes", bytes))
        };
        let committed = whole.and_then(|()| self.core.check_open()).map(|()| {
            let core = Arc::clone(&self.core);
            core.carry_on_with(Work::Append, "a step", self.run())
        });
        async move { committed?.await }
    }

    async fn run(self) -> Result<StepCommitted, Error> {
        let Self { core, mut header, parts, room: _room, .. } = self;
        let name: Arc<str> = step_name(&header.group, &header.unit).into();
        let turn = core.transactions.table.lock().step_turn(&name);
        let _turn = turn.take().await;
        let held = core.groups.hold(&core, &header.group, &header.unit, header.unit_epoch)?;
        let checked = {
            let mut table = core.transactions.table.lock();
            table.check_step(&name, &header, || core.fresh_producer_id())?
        };
        let producer = match checked {
            StepCheck::Repeated(appended) => return Ok(StepCommitted { appended, duplicate: true }),
            StepCheck::Fresh(producer) => producer,
        };
        let input_checksum = header.input_checksum();
        let offsets = core.offsets.check(&core, &held, std::mem::take(&mut header.offsets))?;
        let run = Run { core, name, header, input_checksum, producer, _held: held };
        run.commit(parts, offsets).await
    }
}

/// Under what name the steps of a unit are known among transactional ids, which have no control characters.
pub(super) fn step_name(group: &str, unit: &str) -> String {
    format!("{group}\0{unit}")
}

/// Whether a name is that of a unit's steps.
pub(super) fn is_step(name: &str) -> bool {
    name.contains('\0')
}

/// A step that is being written.
struct Run {
    core: Arc<Core>,
    name: Arc<str>,
    header: StepHeader,
    /// See [`StepRecord`].
    input_checksum: u32,
    producer: ProducerEpoch,
    _held: Held,
}

/// What has been written, or is on its way.
#[derive(Default)]
struct Written {
    touched: AllTouched,
    /// Under way, by partition.
    answers: Vec<(TopicPartition, Lane, Receiver<Answer>)>,
    /// Its offsets, until they count or never will.
    offsets: Option<PendingCommits>,
}

impl Run {
    async fn commit(
        self,
        parts: BTreeMap<TopicPartition, Part>,
        offsets: Vec<CheckedCommit>,
    ) -> Result<StepCommitted, Error> {
        let under_way = Budget::unbounded();
        let started_at = self.core.config.env.clock.now();
        let mut written = Written::default();
        let pushed = self.push(parts, &offsets, &under_way, &mut written);
        let _offsets = written.offsets.take();
        let (touched, answered) = written.answered(pushed).await;
        let outcome = match answered {
            Ok(appends) => all_durable(&touched).await.map(|()| appends),
            Err(error) => Err(error),
        };
        let ending = Ending { producer: self.producer, started_at, touched, ..Ending::of_step(under_way) };
        let (mut appended, failed) = match outcome {
            Ok(appended) => (appended, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let offsets_at = appended.remove(&OFFSETS_ID).map(|append| append.first_offset);
        let appended: Vec<StepAppend> = appended.into_values().collect();
        let record = match &failed {
            None => Some(self.record(&appended)),
            // What is remembered is the step before.
            Some(_) => self.core.transactions.table.lock().get(&self.name)?.step.clone(),
        };
        let outcome = if failed.is_some() { Outcome::Abort } else { Outcome::Commit };
        let next = Next { markers: self.producer, next_id: None };
        let decision = Decision { outcome, next, step: record.clone() };
        let ended = decision.carry_out(&self.core, &self.name, &ending).await;
        if ended.is_err() {
            // It may be decided, and has partitions without a marker: a start ends it, and until then no step comes after.
            self.core.transactions.table.lock().set_ending(&self.name, outcome, started_at);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        ended.map_err(|error| not_known(&self.header, &error))?;
        if let Some(at) = offsets_at {
            self.core.offsets.apply(at, Some(self.header.unit_epoch), offsets);
        }
        self.core.transactions.table.lock().step_ended(&self.name, record);
        Ok(StepCommitted { appended, duplicate: false })
    }

    /// Hands everything to its partitions.
    fn push(
        &self,
        parts: BTreeMap<TopicPartition, Part>,
        offsets: &[CheckedCommit],
        under_way: &Budget,
        written: &mut Written,
    ) -> Result<(), Error> {
        let now = self.core.config.env.clock.now();
        for (id, Part { lane, parts }) in parts {
            let load = Load::Step(next_of(&lane, self.producer), parts, now);
            let admitted = Some(written.admit(id, &lane, under_way)?);
            let answer = lane.push(load, None, admitted, &self.core.queued)?;
            written.answers.push((id, lane, answer));
        }
        if !offsets.is_empty() {
            let lane = self.core.offsets.lane().clone();
            let batch = offsets_batch(&lane, self.producer, offsets, now);
            let admitted = Some(written.admit(OFFSETS_ID, &lane, under_way)?);
            let unit_epoch = self.header.unit_epoch;
            let (answer, pending) = self.core.offsets.push(unit_epoch, offsets, batch, admitted)?;
            written.answers.push((OFFSETS_ID, lane, answer));
            written.offsets = Some(pending);
        }
        Ok(())
    }

    fn record(&self, appended: &[StepAppend]) -> StepRecord {
        let StepHeader { group, unit, unit_epoch, sequence, .. } = &self.header;
        StepRecord {
            group: group.clone(),
            unit: unit.clone(),
            unit_epoch: *unit_epoch,
            sequence: *sequence,
            input_checksum: self.input_checksum,
            appended: appended.to_vec(),
        }
    }
}

impl Written {
    fn admit(&mut self, id: TopicPartition, lane: &Lane, under_way: &Budget) -> Result<Admitted, Error> {
        let touched = Touched::new(Arc::clone(&lane.name().topic), lane.clone());
        self.touched.insert(id, Arc::clone(&touched));
        let under_way = under_way.take(1).ok_or_else(|| Error::fault("a step"))?;
        Ok(Admitted { touched, _under_way: under_way })
    }

    /// Waits until everything is written, or has failed; and where it is, by partition, unless something has failed.
    async fn answered(
        self,
        pushed: Result<(), Error>,
    ) -> (AllTouched, Result<BTreeMap<TopicPartition, StepAppend>, Error>) {
        let mut outcome = pushed.map(|()| BTreeMap::new());
        for (id, lane, answer) in self.answers {
            match (written(&lane, answer).await, &mut outcome) {
                (Ok(at), Ok(appends)) => {
                    let append = StepAppend {
                        topic: lane.name().topic.to_string(),
                        partition: id.partition,
                        first_offset: at.first_offset,
                        last_offset: at.last_offset,
                        appended_at: at.appended_at,
                    };
                    appends.insert(id, append);
                }
                (Err(error), Ok(_)) => outcome = Err(error),
                (_, Err(_)) => {}
            }
        }
        (self.touched, outcome)
    }
}

/// The node closes before the step has ended.
fn not_known(header: &StepHeader, error: &Error) -> Error {
    let message = format!(
        "the node stops, and whether step {} of unit {:?} is committed is decided by what is on disk when it starts \
         again: send it again then ({error})",
        header.sequence, header.unit
    );
    Error::new(crate::error::Reason::OutcomeUnknown, message).because(error.clone())
}
