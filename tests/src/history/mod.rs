//! What many producers and readers of a broker did, and whether it keeps the broker's promises.
//!
//! A driver tells a [`History`] what it does, from as many threads as it has: each record *before* it is
//! sent, each answer and each record read after it came, and every fault. [`History::check`] then looks for
//! what must never be, an [`Anomaly`], and a [`Tally`] adds up and prints many histories.
//!
//! Records tell who sent them: their value begins with [`Id`], of which the number rises with each record
//! of the producer. What the checker holds against the broker:
//!
//! - what was acknowledged is in the partition, at the offset of the answer. Of an answer at
//!   [`Ack::Written`] only if there was no power cut and no failed sync between it being sent and it being
//!   seen durable;
//! - a producer that promises each record once ([`Sending::Once`]) has it once, in the order sent, of what
//!   is there at one time: with its last records a producer may be forgotten;
//! - what was refused, or never sent there, is nowhere;
//! - a reader sees offsets rise and leaves none out, and what it saw is what is there in the end;
//! - where a topic is [compacted](History::compacted), a record may be gone for a later one with its [`Id::key`]
//!   that is there, and for no other reason.
//!
//! Records that were neither acknowledged nor refused may be there or not.
//!
//! ```
//! use logmill_tests::history::{Ack, Cut, History, Place, Sending};
//! use logmill_record::Offset;
//!
//! let history = History::new();
//! let place = Place::new("payments", 0);
//! let producer = history.producer(Sending::Once);
//!
//! let id = history.sent(&place, producer); // before it is sent, its value beginning with `id.value("")`
//! history.acknowledged(&place, id, Offset(0), Ack::Durable);
//! let lost = history.sent(&place, producer);
//! history.acknowledged(&place, lost, Offset(1), Ack::Durable);
//! history.cut(&Cut::Kill);
//!
//! let reader = history.session(&place, Offset(0));
//! history.read(reader, Offset(0), Some(id));
//! history.contents(&place, Offset(0), vec![(Offset(0), Some(id))]);
//!
//! let report = history.check();
//! assert_eq!(report.anomalies.len(), 1);
//! println!("{}", report.anomalies[0]); // lost: payments/0: record 0 1, acknowledged at offset 1, is not there
//! ```

mod check;
mod event;
mod report;

use std::fmt;
use std::sync::Arc;

use logmill_record::Offset;
use parking_lot::{Mutex, MutexGuard};

use event::Event;
pub use report::{Anomaly, Kind, Report, Tally};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic's name. A topic that is deleted and created again needs another name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: u32,
}

/// Where a record is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// To a partition that the sender names.
    Partition(Place),
    /// To a topic, of which the broker chooses the partition.
    Topic(Arc<str>),
}

/// Which record it is, unique in a history: what its value begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// Who sent it, as [`History::producer`] numbered it.
    pub producer: u32,
    /// Which of that producer's records it is, over all partitions, from 0 in the order sent.
    pub number: u64,
}

/// What a producer does about an answer that does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// It is idempotent, or sends each record once: each is there at most once, in the order sent.
    Once,
    /// It sends again without a producer id: records may be there more than once and out of order.
    Again,
}

/// What an answer promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The record is on disk.
    Durable,
    /// The record is written: a kill does not take it back, a power cut or a failed sync may.
    Written,
}

/// What readers of a topic may be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visible {
    /// What is on disk: the topic's `durability` is `durable`.
    #[default]
    Durable,
    /// What is written: it is `relaxed`, and a power cut or a failed sync may take back what was read.
    Written,
}

/// What ends answers under way. Each counts as a fault of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The process was killed: nothing that was written is lost.
    Kill,
    /// The power went: what was not synced may be lost, in every partition.
    Power,
    /// A sync of this partition failed: what was not synced may be lost, in this one.
    FailedSync(Place),
}

/// A reader of one partition, from one offset on, without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(u64);

/// What was done, in the order in which it was told. Any thread may tell.
#[derive(Debug, Default)]
pub struct History {
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    events: Vec<Event>,
    /// By producer: what it promises, and its next number.
    producers: Vec<(Sending, u64)>,
    sessions: u64,
}

impl Place {
    /// Partition `partition` of `topic`.
    #[must_use]
    pub fn new(topic: &str, partition: u32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl From<&Place> for To {
    fn from(place: &Place) -> Self {
        Self::Partition(place.clone())
    }
}

impl From<&Self> for To {
    fn from(to: &Self) -> Self {
        to.clone()
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(place) => place.fmt(f),
            Self::Topic(topic) => topic.fmt(f),
        }
    }
}

impl Id {
    /// A record's value that begins with it: `filler` makes it longer, to any length.
    #[must_use]
    pub fn value(self, filler: &str) -> String {
        format!("{self} {filler}")
    }

    /// The record's key, if it has one: every fourth of a producer has the same.
    #[must_use]
    pub fn key(self) -> String {
        format!("{} {}", self.producer, self.number % 4)
    }

    /// What a value begins with; `None` if no [`value`](Self::value) made it.
    #[must_use]
    pub fn of(value: &[u8]) -> Option<Self> {
        let mut words = value.splitn(3, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<u64>().ok();
        let (producer, number) = (u32::try_from(number()?).ok()?, number()?);
        words.next().map(|_filler| Self { producer, number })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.producer, self.number)
    }
}

impl History {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What readers of `topic` may be shown from now on: what is durable, if this is never told.
    ///
    /// Tell [`Visible::Written`] before the setting is asked for, and [`Visible::Durable`] after it was
    /// answered.
    pub fn visible(&self, topic: &str, visible: Visible) {
        self.tell(Event::Visible { topic: topic.into(), visible });
    }

    /// A new producer.
    pub fn producer(&self, sending: Sending) -> u32 {
        let mut told = self.lock();
        told.producers.push((sending, 0));
        u32::try_from(told.producers.len() - 1).expect("a test has fewer producers")
    }

    /// The topic is compacted, from before anything is sent there: its records have the key [`Id::key`].
    pub fn compacted(&self, topic: &str) {
        self.tell(Event::Compacted { topic: topic.into() });
    }

    /// The next record of a producer is about to be sent there; to be told in the order in which they are sent.
    /// One of which the broker chooses the partition is to be sent once: the checker looks into each partition by
    /// itself for what is doubled.
    ///
    /// # Panics
    /// If there is no such producer.
    pub fn sent(&self, to: impl Into<To>, producer: u32) -> Id {
        let mut told = self.lock();
        let next = &mut told.producers[producer as usize].1;
        let id = Id { producer, number: *next };
        *next += 1;
        told.events.push(Event::Sent { to: to.into(), id });
        id
    }

    /// The broker said where the record is. Every such answer may be told, also those of duplicates.
    pub fn acknowledged(&self, place: &Place, id: Id, offset: Offset, ack: Ack) {
        self.tell(Event::Acknowledged { place: place.clone(), id, offset, ack });
    }

    /// The broker said that the record is not stored, and it is not sent again.
    pub fn refused(&self, to: impl Into<To>, id: Id) {
        self.tell(Event::Refused { to: to.into(), id });
    }

    /// Nobody will ever know whether the record is stored. Only counted: a record of which nothing was
    /// told is the same.
    pub fn unknown(&self, to: impl Into<To>, id: Id) {
        self.tell(Event::Unknown { to: to.into(), id });
    }

    /// A reader is about to read `place` from `from` on. One that connects again, or is told to start
    /// elsewhere, is a new one.
    pub fn session(&self, place: &Place, from: Offset) -> Session {
        let mut told = self.lock();
        let session = Session(told.sessions);
        told.sessions += 1;
        told.events.push(Event::Session { place: place.clone(), session, from });
        session
    }

    /// The reader was given this record next; `None` if its value is no [`Id::value`].
    pub fn read(&self, session: Session, offset: Offset, id: Option<Id>) {
        self.tell(Event::Read { session, offset, id });
    }

    /// Something was cut off. A kill or a power cut is told after it happened and before what comes after
    /// it is sent; a failed sync at any time after it happened, and again when the partition is open again: until
    /// then readers of what is written are shown what is lost.
    pub fn cut(&self, cut: &Cut) {
        self.tell(Event::Cut { cut: cut.clone() });
    }

    /// Another fault was made, which takes nothing back. Only counted, by its kind.
    pub fn fault(&self, kind: &'static str) {
        self.tell(Event::Fault { kind });
    }

    /// Records below `below` may go: their removal was asked for, or a retention rule is in force
    /// (`Offset(u64::MAX)`: any). To be told before it is asked for.
    pub fn may_remove(&self, place: &Place, below: Offset) {
        self.tell(Event::MayRemove { place: place.clone(), below });
    }

    /// All that a partition holds when everything is over: its start offset, and every record.
    pub fn contents(&self, place: &Place, start: Offset, records: Vec<(Offset, Option<Id>)>) {
        self.tell(Event::Contents { place: place.clone(), start, records });
    }

    /// How many operations were told: records sent, answers, sessions, records read, faults.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.lock().events.len()
    }

    /// The last operations, one in a line, to print beside a seed that failed.
    #[must_use]
    pub fn last(&self, count: usize) -> String {
        let told = self.lock();
        let lines = told.events.iter().rev().take(count).rev().map(|event| format!("  {event}\n"));
        lines.collect()
    }

    /// Looks for what must never be. Partitions without [`contents`](Self::contents) are checked by what
    /// readers and answers say alone.
    pub fn check(&self) -> Report {
        let told = self.lock();
        let sending: Vec<_> = told.producers.iter().map(|(sending, _)| *sending).collect();
        check::check(&told.events, &sending)
    }

    fn tell(&self, event: Event) {
        self.lock().events.push(event);
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock()
    }
}
