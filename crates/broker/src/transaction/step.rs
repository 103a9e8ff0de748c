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

mod commit;

use std::collections::BTreeMap;
use std::sync::Arc;

use logmill_record::{Offset, TimestampMs};

use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::budget::Permit;
use crate::catalog::TopicState;
use crate::context::RequestContext;
use crate::error::{Error, shorten};
use crate::limits::Limit;
use crate::offsets::OffsetToCommit;
use crate::produce::{Lane, Payload, StepPart, step_parts};
use crate::topic::TopicPartition;
use crate::transaction::errors::step_running;

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
pub struct StepAppended {
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
pub struct CommittedStep {
    /// Where its records are: one for each partition that it appended to, in order.
    pub appended: Vec<StepAppended>,
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
    /// that is another's now, [`TransactionEnding`](crate::Reason::TransactionEnding) while another step of the unit, or
    /// this one when it was sent before, is being committed, and [`LimitExceeded`](crate::Reason::LimitExceeded) where
    /// there is no room for its bytes.
    ///
    /// ```
    /// use logmill_broker::{
    ///     Broker, Config, CreateTopic, GroupEvent, JoinGroup, OffsetToCommit, Payload, ProduceRecord, RequestContext,
    ///     StepHeader,
    /// };
    /// use logmill_log::env::block_on;
    /// use logmill_record::Offset;
    /// # use logmill_broker::{Acks, Produce};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, async {
    ///     broker.create_topic(&context, CreateTopic::new("readings")).await?;
    ///     broker.create_topic(&context, CreateTopic::new("alarms")).await?;
    /// #   let record = ProduceRecord { value: Some("21.5".into()), ..ProduceRecord::default() };
    /// #   let payload = Payload::Records(vec![record]);
    /// #   let (topic, acks) = ("readings".into(), Acks::Durable);
    /// #   broker.produce(&context, Produce { topic, partition: Some(0), payload, acks, sent_at: None }).await?;
    ///     let mut member = broker.join_group(&context, JoinGroup::topics("alarms", ["readings"]))?;
    ///     let GroupEvent::Assigned(mine) = member.next().await else { panic!("it is alone") };
    ///
    ///     // ... reads one record, and makes another of it:
    ///     let alarm = ProduceRecord { value: Some("too hot".into()), ..ProduceRecord::default() };
    ///     let header = StepHeader {
    ///         group: "alarms".into(),
    ///         unit: mine.unit,
    ///         unit_epoch: mine.epoch,
    ///         sequence: mine.last_step.map_or(0, |last| last + 1),
    ///         offsets: vec![OffsetToCommit::new("readings", 0, Offset(1))],
    ///         topics: vec!["alarms".into()],
    ///         total_bytes: "too hot".len() as u64,
    ///     };
    ///     let mut step = broker.begin_step(&context, header)?;
    ///     step.append("alarms", Some(0), Payload::Records(vec![alarm]))?;
    ///     let committed = step.commit().await?;
    ///     assert_eq!(committed.appended[0].first_offset, Offset(0));
    ///     Ok::<(), logmill_broker::Error>(())
    /// })?;
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin_step(&self, context: &RequestContext, header: StepHeader) -> Result<Step, Error> {
        let core = self.core();
        core.check_open()?;
        let topics = header.topics.iter().map(String::as_str).collect();
        authorize(context, &Operation::CommitStep { group: &header.group, topics })?;
        let touched = header.topics.len() + header.offsets.len();
        let doing = || format!("a step that touches {touched} topics and partitions");
        core.bounds.check(Limit::MaxCommitPartitions, touched, doing, "make several steps")?;
        let mut topics = BTreeMap::new();
        for name in &header.topics {
            let topic = core.catalog.topic(name)?;
            if topics.insert(name.clone(), topic).is_some() {
                return Err(Error::field("topics", shorten(name), "each topic is named once"));
            }
        }
        // Fails early: it may be another's by the time that all has come.
        drop(core.groups.hold(core, &header.group, &header.unit, header.unit_epoch)?);
        // One that hangs keeps its room, and would be joined by each that is sent again for it.
        if core.transactions.table.lock().is_step_running(&step_name(&header.group, &header.unit)) {
            return Err(step_running(&header.group, &header.unit));
        }
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
        if matches!(&payload, Payload::Batch(batch) if batch.is_empty()) {
            return Err(Error::missing("batch", "each message of a step has a batch, or records"));
        }
        let bytes = self.bytes.saturating_add(payload.data_bytes());
        let total_bytes = self.header.total_bytes;
        if bytes > total_bytes {
            let rule = "what follows the header has more bytes than that";
            return Err(Error::field("total_bytes", total_bytes, rule).with("bytes", bytes));
        }
        self.hold(size_of::<StepPart>() + payload.size_bytes())?;
        for (partition, part) in step_parts(&self.core, &state, partition, payload)? {
            let id = TopicPartition { topic: state.id, partition };
            let lane = state.partition(partition)?.lane()?;
            let new = || Part { lane: lane.clone(), parts: Vec::new() };
            self.parts.entry(id).or_insert_with(new).parts.push(part.detach_if_small());
        }
        self.bytes = bytes;
        let doing = || format!("a step that touches {} partitions", self.parts.len());
        self.core.bounds.check(Limit::MaxCommitPartitions, self.parts.len(), doing, "make several steps")
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
}

/// Under what name the steps of a unit are known among transactional ids, which have no control characters.
pub(super) fn step_name(group: &str, unit: &str) -> String {
    format!("{group}\0{unit}")
}

/// Whether a name is that of a unit's steps.
pub(super) fn is_step(name: &str) -> bool {
    name.contains('\0')
}
