//! The rules: what answers, readers and contents say of one partition must fit together.
//!
//! What is said is *firm* if no crash may take it back. What partitions hold in the end is compared with
//! everything firm that still has to be there; what was removed since, with everything else firm.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use logmill_record::Offset;

use super::event::Event;
use super::{Ack, Anomaly, Cut, Id, Kind, Place, Report, Sending, Session, To, Visible};

/// A record where it is; `None` if it is none of the test's.
type Record = (Offset, Option<Id>);

/// Checks a history of these producers.
pub(super) fn check(events: &[Event], sending: &[Sending]) -> Report {
    let mut report = Report::default();
    for event in events {
        let counts = if event.is_fault() { &mut report.faults } else { &mut report.operations };
        *counts.entry(event.name()).or_default() += 1;
    }
    let told = Told::of(events);
    for (place, partition) in &told.partitions {
        let mut check = Check::new(&told, place, partition, sending);
        check.contents();
        check.answers();
        check.readers();
        check.order();
        if check.superseded > 0 {
            *report.operations.entry("compacted away").or_default() += check.superseded;
        }
        let anomaly = |(kind, what)| Anomaly { kind, place: (*place).clone(), what };
        report.anomalies.extend(check.found.into_iter().map(anomaly));
    }
    report
}

/// The events by what they are about. Numbers of events stand for times.
#[derive(Default)]
struct Told<'a> {
    partitions: BTreeMap<&'a Place, Partition<'a>>,
    /// To where each record was sent, and when.
    sent: HashMap<Id, (&'a To, usize)>,
    compacted: HashSet<&'a Arc<str>>,
    refused: HashSet<Id>,
    power_cuts: Vec<usize>,
    /// Since when which visibility was in force.
    visible: HashMap<&'a Arc<str>, Vec<(usize, Visible)>>,
}

#[derive(Default)]
struct Partition<'a> {
    answers: Vec<Answer>,
    sessions: BTreeMap<Session, Reader>,
    failed_syncs: Vec<usize>,
    may_remove: Offset,
    contents: Option<(Offset, &'a [Record])>,
}

struct Answer {
    at: usize,
    id: Id,
    offset: Offset,
    ack: Ack,
}

struct Reader {
    since: usize,
    until: usize,
    from: Offset,
    read: Vec<Record>,
}

impl<'a> Told<'a> {
    fn of(events: &'a [Event]) -> Self {
        let mut told = Self::default();
        let mut places = HashMap::new();
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Session { place, session, from } => {
                    places.insert(session, place);
                    let reader = Reader { since: at, until: at, from: *from, read: Vec::new() };
                    told.partition(place).sessions.insert(*session, reader);
                }
                Event::Read { session, offset, id } => {
                    let reader = told.partition(places[session]).sessions.get_mut(session);
                    let reader = reader.expect("it was told with its place");
                    reader.until = at;
                    reader.read.push((*offset, *id));
                }
                _ => told.take(at, event),
            }
        }
        told
    }

    fn take(&mut self, at: usize, event: &'a Event) {
        match event {
            Event::Sent { to, id } => {
                if let To::Partition(place) = to {
                    self.partition(place);
                }
                self.sent.insert(*id, (to, at));
            }
            Event::Compacted { topic } => {
                self.compacted.insert(topic);
            }
            Event::Acknowledged { place, id, offset, ack } => {
                let answer = Answer { at, id: *id, offset: *offset, ack: *ack };
                self.partition(place).answers.push(answer);
            }
            Event::Refused { id, .. } => {
                self.refused.insert(*id);
            }
            Event::Cut { cut: Cut::Power } => self.power_cuts.push(at),
            Event::Cut { cut: Cut::FailedSync(place) } => self.partition(place).failed_syncs.push(at),
            Event::Visible { topic, visible } => {
                self.visible.entry(topic).or_default().push((at, *visible));
            }
            Event::MayRemove { place, below } => {
                let partition = self.partition(place);
                partition.may_remove = partition.may_remove.max(*below);
            }
            Event::Contents { place, start, records } => {
                self.partition(place).contents = Some((*start, records));
            }
            Event::Session { .. }
            | Event::Read { .. }
            | Event::Unknown { .. }
            | Event::Cut { cut: Cut::Kill }
            | Event::Fault { .. } => {}
        }
    }

    fn partition(&mut self, place: &'a Place) -> &mut Partition<'a> {
        self.partitions.entry(place).or_default()
    }

    /// Whether a reader of `topic` may have been shown what was only written.
    fn relaxed(&self, topic: &Arc<str>, reader: &Reader) -> bool {
        let Some(changes) = self.visible.get(topic) else { return false };
        let before = changes.iter().rfind(|(at, _)| *at < reader.since);
        let meanwhile = changes.iter().filter(|(at, _)| (reader.since..=reader.until).contains(at));
        before.into_iter().chain(meanwhile).any(|(_, visible)| *visible == Visible::Written)
    }
}

impl Reader {
    /// Whether a crash may have taken back what was read.
    fn is_firm(&self, place: &Place, partition: &Partition<'_>, told: &Told<'_>) -> bool {
        let cut = |cuts: &[usize]| cuts.iter().any(|at| *at > self.since);
        !told.relaxed(&place.topic, self) || !(cut(&told.power_cuts) || cut(&partition.failed_syncs))
    }
}

/// The check of one partition.
struct Check<'a> {
    told: &'a Told<'a>,
    place: &'a Place,
    partition: &'a Partition<'a>,
    sending: &'a [Sending],
    /// Each once, though many may have seen it.
    found: BTreeSet<(Kind, String)>,
    /// What firm answers and readers say of offsets that the contents do not speak for.
    gone: BTreeMap<Offset, Id>,
    /// Of a compacted topic, where the last record of each key is.
    newest: HashMap<String, Offset>,
    /// So many were acknowledged and have given way to a later one.
    superseded: u64,
}

impl<'a> Check<'a> {
    fn new(
        told: &'a Told<'a>,
        place: &'a Place,
        partition: &'a Partition<'a>,
        sending: &'a [Sending],
    ) -> Self {
        let (found, gone, newest) = (BTreeSet::new(), BTreeMap::new(), HashMap::new());
        let mut check = Self { told, place, partition, sending, found, gone, newest, superseded: 0 };
        if told.compacted.contains(&place.topic) {
            check.newest = check.there().into_iter().map(|(offset, id)| (id.key(), offset)).collect();
        }
        check
    }

    /// Whether a compacted topic has let go of the record for a later one.
    fn is_superseded(&self, offset: Offset, id: Id) -> bool {
        self.newest.get(&id.key()).is_some_and(|newest| *newest > offset)
    }

    /// What is there was sent there, and is not refused; offsets rise.
    fn contents(&mut self) {
        let Some((_, records)) = self.partition.contents else { return };
        for (offset, id) in records {
            self.belongs(*offset, *id);
        }
        for pair in records.windows(2).filter(|pair| pair[0].0 >= pair[1].0) {
            self.say(Kind::NotMonotone, format!("offset {} lies behind offset {}", pair[1].0, pair[0].0));
        }
    }

    /// What was acknowledged is where the answer said.
    fn answers(&mut self) {
        let there = self.there();
        let places: HashMap<Id, Offset> = there.iter().map(|(offset, id)| (*id, *offset)).collect();
        for Answer { id, offset, .. } in self.firm_answers() {
            if !self.covers(*offset) {
                self.compare(*offset, *id, Kind::WrongOffset);
            } else if !there.contains_key(offset) && self.is_superseded(*offset, *id) {
                self.superseded += 1;
            } else if there.get(offset) != Some(id) {
                let what = format!("record {id}, acknowledged at offset {offset}, is ");
                match places.get(id) {
                    Some(other) => self.say(Kind::WrongOffset, format!("{what}at offset {other}")),
                    None => self.say(Kind::Lost, format!("{what}not there")),
                }
            }
        }
    }

    fn firm_answers(&self) -> Vec<&'a Answer> {
        let partition = self.partition;
        // Up to where the log was known to be durable, by when.
        let answers = partition.answers.iter().filter(|answer| answer.ack == Ack::Durable);
        let answers = answers.map(|answer| (answer.at, answer.offset));
        let readers =
            partition.sessions.values().filter(|reader| !self.told.relaxed(&self.place.topic, reader));
        let readers = readers.filter_map(|reader| Some((reader.until, reader.read.last()?.0)));
        let durable: Vec<_> = answers.chain(readers).collect();
        let is_firm = |answer: &&Answer| {
            let sent = self.told.sent.get(&answer.id).map_or(0, |(_, at)| *at);
            let cut = self.told.power_cuts.iter().find(|at| **at > sent);
            let is_durable =
                |cut: usize| durable.iter().any(|(at, end)| *at < cut && *end >= answer.offset && *at > sent);
            answer.ack == Ack::Durable
                || partition.failed_syncs.iter().all(|at| *at < sent)
                    && cut.is_none_or(|cut| is_durable(*cut))
        };
        partition.answers.iter().filter(is_firm).collect()
    }

    /// Offsets rise, nothing is left out, and what was read is there.
    fn readers(&mut self) {
        let there = self.there();
        for reader in self.partition.sessions.values() {
            let is_firm = reader.is_firm(self.place, self.partition, self.told);
            let mut next = reader.from;
            for (offset, id) in &reader.read {
                self.belongs(*offset, *id);
                if *offset < next {
                    self.say(Kind::NotMonotone, format!("a reader due at offset {next} was given {offset}"));
                } else if is_firm && let Some((left_out, id)) = there.range(next..*offset).next() {
                    let what = format!("a reader due at offset {next} was given {offset}, not record {id}");
                    self.say(Kind::Skipped, format!("{what} at offset {left_out}"));
                }
                next = Offset(offset.get() + 1);
                if let Some(id) = id.filter(|_| is_firm) {
                    self.compare_read(&there, *offset, id);
                }
            }
        }
    }

    fn compare_read(&mut self, there: &BTreeMap<Offset, Id>, offset: Offset, id: Id) {
        if !self.covers(offset) {
            return self.compare(offset, id, Kind::Changed);
        }
        match there.get(&offset) {
            Some(other) if *other == id => {}
            Some(other) => {
                self.say(Kind::Changed, format!("offset {offset} was read as record {id}, and is {other}"));
            }
            None if self.is_superseded(offset, id) => {}
            None => self.say(Kind::Vanished, format!("record {id}, read at offset {offset}, is not there")),
        }
    }

    /// Each record is there once, in the order sent. What was removed does not count: a log may forget a
    /// producer with its records, and then takes one that is sent again.
    fn order(&mut self) {
        let all =
            if self.partition.contents.is_some() { self.there() } else { std::mem::take(&mut self.gone) };
        let mut last: HashMap<u32, u64> = HashMap::new();
        let mut places: HashMap<Id, Offset> = HashMap::new();
        for (offset, id) in all {
            if self.sending.get(id.producer as usize) != Some(&Sending::Once) {
                continue;
            }
            let before = last.insert(id.producer, id.number);
            if let Some(other) = places.insert(id, offset) {
                self.say(Kind::Doubled, format!("record {id} is at offsets {other} and {offset}"));
            } else if let Some(before) = before.filter(|before| *before > id.number) {
                let what = format!("record {id} at offset {offset} lies behind record {}", id.producer);
                self.say(Kind::Reordered, format!("{what} {before}"));
            }
        }
    }

    /// Whether the contents say what is at this offset: they do unless it may have been removed.
    fn covers(&self, offset: Offset) -> bool {
        let removed = |start: Offset| offset < start && offset < self.partition.may_remove;
        self.partition.contents.is_some_and(|(start, _)| !removed(start))
    }

    /// Compares with what else was said of an offset that the contents do not speak for.
    fn compare(&mut self, offset: Offset, id: Id, kind: Kind) {
        if let Some(other) = self.gone.insert(offset, id).filter(|other| *other != id) {
            self.say(kind, format!("offset {offset} is said to be record {other}, and record {id}"));
        }
    }

    /// Records of the test's, by the offsets at which they are.
    fn there(&self) -> BTreeMap<Offset, Id> {
        let records = self.partition.contents.map_or(&[][..], |(_, records)| records);
        records.iter().filter_map(|(offset, id)| Some((*offset, (*id)?))).collect()
    }

    fn belongs(&mut self, offset: Offset, id: Option<Id>) {
        let Some(id) = id else {
            return self.say(Kind::Invented, format!("no record of the test's is at offset {offset}"));
        };
        match self.told.sent.get(&id) {
            Some((To::Partition(place), _)) if place == self.place => {}
            Some((To::Topic(topic), _)) if *topic == self.place.topic => {}
            Some((to, _)) => {
                self.say(Kind::Invented, format!("record {id} at offset {offset} was sent to {to}"));
            }
            None => self.say(Kind::Invented, format!("record {id} at offset {offset} was never sent")),
        }
        if self.told.refused.contains(&id) {
            self.say(Kind::RefusedStored, format!("record {id}, refused, is at offset {offset}"));
        }
    }

    fn say(&mut self, kind: Kind, what: String) {
        self.found.insert((kind, what));
    }
}
