//! A member that is given the records of its units, too.
//!
//! One [`Reader`] reads from the partitions of all of them: they share credit, room and turns, so that none goes short
//! for another, and what comes for one costs nothing for the others. An assignment adds partitions to it, and a revoke
//! or a loss takes them away at once, with what has been read of them already.
//!
//! A partition begins where the group has committed, and says so with the epoch of what it has, as every reader does.
//! Where it is to begin at the latest, nothing being committed, that place is committed before the member hears of its
//! unit: else whoever has the unit after a break would begin at what is the latest by then, and nobody would read what
//! came in between.
//! What retention has taken before the group has read it is gone: it goes on at the earliest record that there is, also
//! where the member would begin at the latest if nothing were committed. The node's log says so, and
//! [`from_offset`](PartitionData::from_offset) of the data shows it.

use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use logmill_record::Offset;

use super::beginning::Beginnings;
use super::{Assignment, GroupEvent, JoinGroup, Member, MemberHandle};
use crate::broker::Broker;
use crate::budget::Budget;
use crate::context::RequestContext;
use crate::error::{Error, Reason};
use crate::fetch::{Credit, FetchFrom, Isolation, PartitionData, Reader, ReplyRoom};
use crate::topic::Position;

/// A member that joins, or rejoins, to be given the records of its units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consume {
    /// The member.
    pub join: JoinGroup,
    /// Bytes of batches that may be given at once. With 0 none are: more can be [granted](Consumer::credit) later.
    pub credit_bytes: u64,
    /// Which records of transactions to read.
    pub isolation: Isolation,
    /// Where to begin in a partition for which nothing is committed.
    pub start: ConsumeStart,
}

impl Consume {
    /// Committed records, from the earliest on, and so many bytes of batches at once.
    #[must_use]
    pub fn new(join: JoinGroup, credit_bytes: u64) -> Self {
        Self { join, credit_bytes, isolation: Isolation::default(), start: ConsumeStart::default() }
    }
}

/// Where a group begins in a partition for which it has committed nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsumeStart {
    /// At the first record that is kept.
    #[default]
    Earliest,
    /// Behind the last one that is there when the unit is assigned, which is committed at once: whoever has the unit
    /// next goes on there, also if nothing else was committed.
    Latest,
}

/// What a [`Consumer`] hears or is given.
#[derive(Clone, Debug)]
pub enum Consumed {
    /// As a [`Member`] hears it.
    Event(GroupEvent),
    /// Records of a partition of one of its units; or why there are none and will not be.
    Data(UnitData),
}

/// Records of a partition of a unit.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnitData {
    /// The unit.
    pub unit: String,
    /// The epoch of its assignment.
    pub epoch: i32,
    /// The records.
    pub data: PartitionData,
}

/// A member of a group with the records of its units: see [`Broker::consume`].
#[derive(Debug)]
pub struct Consumer {
    member: Member,
    reader: Reader,
    isolation: Isolation,
    start: ConsumeStart,
    /// The places of each unit that is read.
    units: BTreeMap<String, Vec<usize>>,
    places: BTreeMap<usize, UnitPlace>,
    /// Assignments that are not told before where they begin is on disk.
    beginnings: Beginnings,
    /// What is heard next.
    held: Option<GroupEvent>,
    /// Why it is no member any more.
    closed: Option<Error>,
}

/// Of which unit a place of the reader is.
#[derive(Debug)]
struct UnitPlace {
    unit: String,
    epoch: i32,
    /// Where it was to begin, or is; where the reader says, as long as nothing is known of it.
    next: Option<Offset>,
}

impl Broker {
    /// Joins a group, as [`join_group`](Broker::join_group) does, and reads the member's units for it, against credit.
    ///
    /// # Errors
    /// As [`join_group`](Broker::join_group). What is wrong with one partition stands in its data.
    ///
    /// ```
    /// use logmill_broker::{
    ///     Broker, Config, Consume, Consumed, CreateTopic, GroupEvent, JoinGroup, OffsetToCommit, RequestContext,
    /// };
    /// use logmill_log::env::block_on;
    /// # use logmill_broker::{Acks, Payload, Produce, ProduceRecord};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, async {
    ///     broker.create_topic(&context, CreateTopic::new("readings")).await?;
    /// #   let record = ProduceRecord { value: Some("21.5".into()), ..ProduceRecord::default() };
    /// #   let payload = Payload::Records(vec![record]);
    /// #   let (topic, acks) = ("readings".into(), Acks::Durable);
    /// #   broker.produce(&context, Produce { topic, partition: Some(0), payload, acks, sent_at: None }).await?;
    ///     let join = JoinGroup::topics("alarms", ["readings"]);
    ///     let mut consumer = broker.consume(&context, Consume::new(join, 1024 * 1024))?;
    ///     let Consumed::Event(GroupEvent::Assigned(mine)) = consumer.next().await else { panic!("it is alone") };
    ///     let Consumed::Data(read) = consumer.next().await else { panic!("there is a record") };
    ///     for record in read.data.records() {
    ///         assert_eq!(record?.value.as_deref(), Some(&b"21.5"[..]));
    ///     }
    ///     consumer.credit().grant(read.data.size_bytes() as u64);
    ///     let up_to = OffsetToCommit::new("readings", 0, read.data.next_offset);
    ///     consumer.handle().commit(&mine.unit, mine.epoch, vec![up_to]).await
    /// })?;
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn consume(&self, context: &RequestContext, request: Consume) -> Result<Consumer, Error> {
        self.consume_within(context, request, true, Budget::unbounded())
    }

    /// As [`consume`](Broker::consume); one that is not in this process sends heartbeats. `own` bounds what is read
    /// and not sent of one connection.
    pub(crate) fn consume_within(
        &self,
        context: &RequestContext,
        request: Consume,
        is_local: bool,
        own: Budget,
    ) -> Result<Consumer, Error> {
        let Consume { join, credit_bytes, isolation, start } = request;
        let core = Arc::clone(self.core());
        let member = self.join(context, join, is_local)?;
        let credit = Credit::default();
        credit.grant(credit_bytes);
        let room = ReplyRoom::new(core.replies.clone(), own);
        let reader = Reader::empty(core, room, credit);
        let (units, places) = (BTreeMap::new(), BTreeMap::new());
        Ok(Consumer {
            member,
            reader,
            isolation,
            start,
            units,
            places,
            beginnings: Beginnings::default(),
            held: None,
            closed: None,
        })
    }
}

impl Consumer {
    /// The member's id, to rejoin with.
    #[must_use]
    pub fn id(&self) -> String {
        self.member.id()
    }

    /// What the member says; also while [`next`](Consumer::next) waits.
    #[must_use]
    pub fn handle(&self) -> &MemberHandle {
        self.member.handle()
    }

    /// The credit, for granting more while [`next`](Consumer::next) waits.
    #[must_use]
    pub fn credit(&self) -> Credit {
        self.reader.credit().clone()
    }

    /// Waits for the next thing to hear, or for the next records of any partition, in turn, at most 1 MiB of them or
    /// one batch. What there is to hear comes first. Dropping the future loses nothing.
    ///
    /// A partition that can be read no longer says so once, in its data; the others go on.
    pub async fn next(&mut self) -> Consumed {
        loop {
            if let Some(error) = &self.closed {
                return Consumed::Event(GroupEvent::Closed(error.clone()));
            }
            match self.came().await {
                Came::Event(event) | Came::Begun(event) => {
                    self.heard(&event);
                    return Consumed::Event(event);
                }
                Came::Data(place, data) => {
                    if let Some(data) = self.read(place, data) {
                        return Consumed::Data(data);
                    }
                }
            }
        }
    }

    /// Nothing more comes from the partition that the last data came from, because of `error`.
    #[cfg(feature = "grpc")]
    pub(crate) fn end_last(&mut self, error: Error) {
        self.reader.end_last(error);
    }

    /// The next thing to hear, or to read.
    async fn came(&mut self) -> Came {
        loop {
            if let Some(event) = self.held.take() {
                return Came::Event(event);
            }
            match self.came_from_all().await {
                Came::Event(GroupEvent::Assigned(assignment)) if self.is_to_begin_at_latest(&assignment) => {
                    self.beginnings.insert(self.member.handle(), self.isolation, assignment);
                }
                // Whoever is to give up a unit has to know of it.
                Came::Event(event @ GroupEvent::Revoke { .. }) => return self.told_before(event),
                Came::Event(event) => {
                    if let GroupEvent::Lost { unit, .. } = &event {
                        drop(self.beginnings.take(unit));
                    }
                    return Came::Event(event);
                }
                told @ (Came::Begun(_) | Came::Data(..)) => return told,
            }
        }
    }

    /// The event, unless its unit is to be told first.
    fn told_before(&mut self, event: GroupEvent) -> Came {
        let GroupEvent::Revoke { unit, .. } = &event else { return Came::Event(event) };
        match self.beginnings.take(unit) {
            Some(assignment) => {
                self.held = Some(event);
                Came::Event(GroupEvent::Assigned(assignment))
            }
            None => Came::Event(event),
        }
    }

    async fn came_from_all(&mut self) -> Came {
        let Self { member, reader, beginnings, .. } = self;
        let mut event = pin!(member.next());
        let mut data = pin!(async {
            match reader.next().await {
                Ok(Some((place, data))) => Came::Data(place, data),
                Ok(None) => pending().await,
                Err(error) => Came::Event(GroupEvent::Closed(error)),
            }
        });
        poll_fn(|context| {
            if let Poll::Ready(begun) = beginnings.poll(context) {
                return Poll::Ready(Came::Begun(begun));
            }
            match event.as_mut().poll(context) {
                Poll::Ready(event) => Poll::Ready(Came::Event(event)),
                Poll::Pending => data.as_mut().poll(context),
            }
        })
        .await
    }

    fn is_to_begin_at_latest(&self, assignment: &Assignment) -> bool {
        self.start == ConsumeStart::Latest && assignment.partitions.iter().any(|of| of.committed.is_none())
    }

    /// Begins to read what it has got, and stops to read what it has not any more.
    fn heard(&mut self, event: &GroupEvent) {
        match event {
            GroupEvent::Assigned(assignment) => self.begin(assignment),
            GroupEvent::Revoke { unit, .. } | GroupEvent::Lost { unit, .. } => self.end(unit),
            GroupEvent::WarmUp { .. } | GroupEvent::WarmUpCancelled { .. } => {}
            GroupEvent::Closed(error) => {
                while let Some(unit) = self.units.keys().next().cloned() {
                    self.end(&unit);
                }
                self.closed = Some(error.clone());
            }
        }
    }

    fn begin(&mut self, assignment: &Assignment) {
        self.end(&assignment.unit);
        let mut places = Vec::new();
        for partition in &assignment.partitions {
            let committed = partition.committed.as_ref();
            let position = match (committed, self.start) {
                (Some(committed), _) => Position::Offset(committed.offset),
                (None, ConsumeStart::Earliest) => Position::Earliest,
                (None, ConsumeStart::Latest) => Position::Latest,
            };
            let from = FetchFrom {
                last_epoch: committed.and_then(|committed| committed.last_epoch),
                topic_id: Some(partition.topic_id),
                ..FetchFrom::new(partition.topic.as_str(), partition.partition, position)
            };
            let place = self.reader.add(from, self.isolation);
            let next = committed.map(|committed| committed.offset);
            let of = UnitPlace { unit: assignment.unit.clone(), epoch: assignment.epoch, next };
            self.places.insert(place, of);
            places.push(place);
        }
        self.units.insert(assignment.unit.clone(), places);
    }

    fn end(&mut self, unit: &str) {
        for place in self.units.remove(unit).unwrap_or_default() {
            self.reader.remove(place);
            self.places.remove(&place);
        }
    }

    /// What was read of a place, as a part of its unit; unless it has to begin elsewhere first.
    fn read(&mut self, place: usize, data: PartitionData) -> Option<UnitData> {
        if self.is_behind_retention(place, &data) {
            self.begin_at_earliest(place, data);
            return None;
        }
        let of = self.places.get_mut(&place)?;
        of.next = Some(data.next_offset);
        Some(UnitData { unit: of.unit.clone(), epoch: of.epoch, data })
    }

    /// Whether what was to be read next is kept no more.
    fn is_behind_retention(&self, place: usize, data: &PartitionData) -> bool {
        let is_out = data.error.as_ref().is_some_and(|error| error.reason() == Reason::OffsetOutOfRange);
        let next = self.places.get(&place).and_then(|of| of.next).unwrap_or(data.next_offset);
        let start = || {
            let topic = self.handle().core.catalog.topic(&data.topic).ok()?;
            topic.partition(data.partition).ok().map(|partition| partition.range().start)
        };
        is_out && start().is_some_and(|start| next < start)
    }

    fn begin_at_earliest(&mut self, place: usize, data: PartitionData) {
        self.reader.remove(place);
        let Some(of) = self.places.remove(&place) else { return };
        tracing::warn!(
            group = %self.handle().coordinator.name,
            topic = data.topic,
            partition = data.partition,
            next_offset = of.next.map(Offset::get),
            "retention has taken records that the group has not read: it goes on at the earliest that there is"
        );
        let from = FetchFrom {
            topic_id: data.topic_id,
            ..FetchFrom::new(data.topic, data.partition, Position::Earliest)
        };
        let again = self.reader.add(from, self.isolation);
        let places = self.units.entry(of.unit.clone()).or_default();
        places.retain(|before| *before != place);
        places.push(again);
        self.places.insert(again, UnitPlace { next: None, ..of });
    }
}

/// What came to a consumer.
enum Came {
    Event(GroupEvent),
    /// An assignment that was not told before.
    Begun(GroupEvent),
    Data(usize, PartitionData),
}
