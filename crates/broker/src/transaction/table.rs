//! Which transactional ids there are, and what becomes of each. No I/O, no clock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use logmill_record::TimestampMs;

use super::admit::{Admitted, AllTouched, Touched};
use super::entry::{AddedOffsets, Entry, Last, Next, Ongoing, State};
use super::errors::{already_ending, not_found, step_differs, step_out_of_sequence, unknown_producer};
use super::record::{StepRecord, TouchedName};
use super::step::{StepAppended, StepHeader, is_step, step_name};
use super::{Outcome, ProducerEpoch, TransactionRecords};
use crate::budget::Budget;
use crate::error::Error;
use crate::exec::{Turn, Turns};
use crate::produce::Lane;
use crate::topic::TopicPartition;

#[cfg(test)]
mod tests;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_name: BTreeMap<Arc<str>, Entry>,
    by_producer: BTreeMap<i64, Arc<str>>,
}

/// A transaction that is to be ended.
#[derive(Debug)]
pub(super) struct Ending {
    /// Who wrote it.
    pub(super) producer: ProducerEpoch,
    pub(super) why: Option<String>,
    pub(super) started_at: TimestampMs,
    pub(super) timeout: Duration,
    pub(super) under_way: Budget,
    pub(super) touched: AllTouched,
    pub(super) offsets: Vec<AddedOffsets>,
}

/// Who asks for a transaction to be ended.
#[derive(Clone, Debug)]
pub(super) enum EndRequest {
    /// Its producer.
    Producer(ProducerEpoch),
    /// The node, or an operator: whoever writes it, for this reason.
    Node(String),
    /// Its time, which is this long, is over.
    TimedOut(ProducerEpoch, Duration),
}

/// What is to be done about a step.
#[derive(Debug)]
pub(super) enum StepCheck {
    /// It was committed before, and this is its answer.
    Repeated(Vec<StepAppended>),
    /// It is the next, by this producer.
    Fresh(ProducerEpoch),
}

/// What is to be done to end a transaction.
#[derive(Debug)]
pub(super) enum ToEnd {
    /// Nothing: there is none, or it has ended so already.
    Nothing(ProducerEpoch),
    Ends(Ending),
}

impl Table {
    /// As it was written.
    pub(super) fn restored(records: &TransactionRecords) -> Self {
        let mut table = Self::default();
        for (name, known) in records {
            table.insert(Arc::clone(name), Entry::restored(known));
        }
        table
    }

    /// Nobody goes on where the last run of the node ended: of what was acknowledged as written a power cut may have
    /// taken all that there was in some partition, so that nothing there says that a transaction was open. Its producer
    /// would commit the rest. Nothing is written: who is not told of a new id before the next start never is.
    pub(super) fn fence_all(&mut self, mut fresh: impl FnMut() -> i64) {
        for (name, entry) in self.by_name.iter_mut().filter(|(name, _)| !is_step(name)) {
            let new = ProducerEpoch { id: fresh(), epoch: 0 };
            let before = std::mem::replace(&mut entry.producer, new);
            // By its old id it is known still, to be told why.
            entry.producer_before_restart = Some(before);
            self.by_producer.insert(new.id, Arc::clone(name));
        }
    }

    fn insert(&mut self, name: Arc<str>, entry: Entry) {
        // Nobody but the node writes steps.
        if !is_step(&name) {
            self.by_producer.insert(entry.producer.id, Arc::clone(&name));
        }
        self.by_name.insert(name, entry);
    }

    /// How many transactional ids there are; those of steps do not count.
    pub(super) fn len(&self) -> usize {
        self.by_name.keys().filter(|name| !is_step(name)).count()
    }

    pub(super) fn get(&self, name: &str) -> Result<&Entry, Error> {
        self.by_name.get(name).ok_or_else(|| not_found(name))
    }

    fn get_mut(&mut self, name: &str) -> Result<&mut Entry, Error> {
        self.by_name.get_mut(name).ok_or_else(|| not_found(name))
    }

    /// Those whose names come after `after`, in order.
    pub(super) fn after(&self, after: Option<&str>) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_name.range::<str, _>((from, Bound::Unbounded))
    }

    /// The turn to change the id, which is made if there is none.
    pub(super) fn turn(&mut self, name: &Arc<str>, fresh: impl FnOnce() -> i64) -> Turns {
        if let Some(entry) = self.by_name.get(name) {
            return entry.turn.clone();
        }
        let producer = ProducerEpoch { id: fresh(), epoch: -1 };
        let entry = Entry::new(producer, Duration::ZERO);
        let turn = entry.turn.clone();
        self.insert(Arc::clone(name), entry);
        turn
    }

    /// The turn of a unit to commit a step, with an id for its producer, by which nobody else can write.
    pub(super) fn step_turn(&mut self, name: &Arc<str>) -> Turns {
        let new = || Entry::new(ProducerEpoch { id: -1, epoch: -1 }, Duration::ZERO);
        self.by_name.entry(Arc::clone(name)).or_insert_with(new).turn.clone()
    }

    /// Whether a step of the unit is being committed.
    pub(super) fn is_step_running(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|entry| entry.turn.try_take().is_none())
    }

    /// Whether a step of the owner of a unit comes next, and by which producer: its epoch moves with the owner.
    pub(super) fn check_step(
        &mut self,
        name: &str,
        header: &StepHeader,
        fresh: impl FnOnce() -> i64,
    ) -> Result<StepCheck, Error> {
        let StepHeader { unit_epoch, sequence, .. } = *header;
        let entry = self.get_mut(name)?;
        if matches!(entry.state, State::Ending { .. }) {
            return Err(already_ending(name));
        }
        let last = entry.step.as_ref();
        if let Some(step) = last.filter(|step| (step.sequence, step.unit_epoch) == (sequence, unit_epoch)) {
            if step.input_checksum != header.input_checksum() {
                return Err(step_differs(sequence));
            }
            return Ok(StepCheck::Repeated(step.appended.clone()));
        }
        let expected = last.map_or(0, |step| step.sequence.saturating_add(1));
        if sequence != expected {
            return Err(step_out_of_sequence(sequence, expected));
        }
        if entry.producer.id < 0 {
            entry.producer = ProducerEpoch { id: fresh(), epoch: 0 };
        } else if unit_epoch != entry.unit_epoch {
            entry.producer = Next::after(entry.producer, fresh).producer();
        }
        entry.unit_epoch = unit_epoch;
        Ok(StepCheck::Fresh(entry.producer))
    }

    /// The id that was used the longest ago of those that nobody has used since `before`, and nothing goes on under, with
    /// the turn to change it. It takes nothing from here on.
    pub(super) fn take_idle(&mut self, before: TimestampMs) -> Option<(Arc<str>, Turn)> {
        let is_idle = |entry: &Entry| {
            matches!(entry.state, State::Empty) && entry.can_go_on() && entry.last_used < before
        };
        let idle = self.by_name.iter().filter(|(name, entry)| !is_step(name) && is_idle(entry));
        let idle = idle.filter_map(|(name, entry)| Some((entry.last_used, name, entry.turn.try_take()?)));
        let (_, name, turn) = idle.min_by_key(|(last_used, ..)| *last_used)?;
        let name = Arc::clone(name);
        let entry = self.by_name.get_mut(&name)?;
        entry.state = State::Ending { outcome: Outcome::Abort, started_at: entry.last_used };
        Some((name, turn))
    }

    /// Its producer has asked for something.
    pub(super) fn touch(&mut self, name: &str, now: TimestampMs) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.last_used = now;
        }
    }

    /// Whether these are the turns to change the id: it may have been forgotten since they were asked for.
    pub(super) fn has_turns(&self, name: &str, turns: &Turns) -> bool {
        self.by_name.get(name).is_some_and(|entry| entry.turn.is_same(turns))
    }

    /// The names under which steps of a group's units are known.
    pub(super) fn steps_of(&self, group: &str) -> Vec<Arc<str>> {
        let first = step_name(group, "");
        let names = self.by_name.range::<str, _>((Bound::Included(first.as_str()), Bound::Unbounded));
        names.map(|(name, _)| name).take_while(|name| name.starts_with(&first)).map(Arc::clone).collect()
    }

    /// Refuses what is decided and has not ended everywhere.
    pub(super) fn check_ended(&self, name: &str) -> Result<(), Error> {
        match self.get(name)?.state {
            State::Ending { .. } => Err(already_ending(name)),
            _ => Ok(()),
        }
    }

    /// Nothing is known of the id any more.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some(entry) = self.by_name.remove(name) {
            let before = entry.producer_before_restart.map(|before| before.id);
            for id in before.into_iter().chain([entry.producer.id]) {
                self.by_producer.remove(&id);
            }
        }
    }

    /// A step was committed.
    pub(super) fn step_ended(&mut self, name: &str, step: Option<StepRecord>) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.step = step;
        }
    }

    /// The number of the last step of a unit.
    pub(super) fn last_step(&self, name: &str) -> Option<i64> {
        self.by_name.get(name)?.step.as_ref().map(|step| step.sequence)
    }

    /// Takes a part of a transaction that is going on, or of one that begins with it; then its liveness too, for
    /// its timeout.
    pub(super) fn admit(
        &mut self,
        producer: ProducerEpoch,
        at: TopicPartition,
        lane: &Lane,
        now: TimestampMs,
    ) -> Result<(Admitted, Option<Begun>), Error> {
        let name = self.by_producer.get(&producer.id).ok_or_else(|| unknown_producer(producer))?;
        let name = Arc::clone(name);
        let entry = self.get_mut(&name)?;
        entry.check(&name, producer)?;
        let mut begun = None;
        if matches!(entry.state, State::Empty) {
            let ongoing = Ongoing {
                started_at: now,
                alive: Arc::default(),
                under_way: Budget::unbounded(),
                touched: AllTouched::new(),
                offsets: Vec::new(),
            };
            let (alive, timeout) = (Arc::clone(&ongoing.alive), entry.timeout);
            begun = Some(Begun { name: Arc::clone(&name), producer, alive, timeout });
            entry.state = State::Ongoing(ongoing);
        }
        let State::Ongoing(ongoing) = &mut entry.state else { return Err(already_ending(&name)) };
        let new = || Touched::new(Arc::clone(&lane.name().topic), lane.clone());
        let touched = Arc::clone(ongoing.touched.entry(at).or_insert_with(new));
        let under_way = ongoing.under_way.take(1).ok_or_else(|| Error::fault("a transaction"))?;
        Ok((Admitted { touched, _under_way: under_way }, begun))
    }

    /// The transaction has what a group has read.
    pub(super) fn add_offsets(&mut self, name: &str, added: AddedOffsets) -> Result<(), Error> {
        match &mut self.get_mut(name)?.state {
            State::Ongoing(ongoing) => {
                ongoing.offsets.push(added);
                Ok(())
            }
            State::Empty | State::Ending { .. } => Err(already_ending(name)),
        }
    }

    /// How many offsets the transaction that is going on has.
    pub(super) fn added_offsets(&self, name: &str) -> usize {
        match self.get(name).map(|entry| &entry.state) {
            Ok(State::Ongoing(ongoing)) => ongoing.offsets.iter().map(|it| it.commits.len()).sum(),
            _ => 0,
        }
    }

    /// The transactions that hold a unit with its owner.
    pub(super) fn holding(&self, group: &str, unit: &str) -> Vec<Arc<str>> {
        let holds = |entry: &Entry| match &entry.state {
            State::Ongoing(ongoing) => {
                ongoing.offsets.iter().any(|it| (it.held.group(), it.held.unit()) == (group, unit))
            }
            State::Empty | State::Ending { .. } => false,
        };
        self.by_name.iter().filter(|(_, entry)| holds(entry)).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Begins to end the transaction of an id: from here on it takes nothing. Where there is none, whoever asks is told
    /// another epoch all the same, so that the same request cannot end the next one if it comes again, late. That is
    /// written nowhere: no epoch is valid after a restart. `fresh` is an id that nobody has.
    pub(super) fn begin_end(
        &mut self,
        name: &str,
        request: &EndRequest,
        outcome: Outcome,
        fresh: impl FnOnce() -> i64,
    ) -> Result<ToEnd, Error> {
        let entry = self.get_mut(name)?;
        let why = match request {
            EndRequest::Node(why) => Some(why.clone()),
            // It has ended, and another goes on.
            EndRequest::TimedOut(producer, _) if *producer != entry.producer => {
                return Ok(ToEnd::Nothing(entry.producer));
            }
            EndRequest::TimedOut(_, timeout) => {
                Some(format!("it was not ended within its timeout of {} ms", timeout.as_millis()))
            }
            EndRequest::Producer(producer) => {
                // The answer was lost on its way, so the same is asked again.
                let again = |last: &&Last| {
                    last.producer == *producer && last.outcome == outcome && last.why.is_none()
                };
                if entry.last.as_ref().is_some_and(|last| again(&last)) && *producer != entry.producer {
                    return Ok(ToEnd::Nothing(entry.producer));
                }
                entry.check(name, *producer)?;
                None
            }
        };
        match std::mem::replace(&mut entry.state, State::Empty) {
            State::Empty if matches!(request, EndRequest::Producer(_)) => {
                let next = Next::after(entry.producer, fresh).producer();
                let before = std::mem::replace(&mut entry.producer, next);
                entry.last = Some(Last { producer: before, outcome, why: None });
                self.replace_producer(name, before, next);
                Ok(ToEnd::Nothing(next))
            }
            State::Empty => Ok(ToEnd::Nothing(entry.producer)),
            State::Ongoing(Ongoing { started_at, under_way, touched, offsets, .. }) => {
                entry.state = State::Ending { outcome, started_at };
                let (producer, timeout) = (entry.producer, entry.timeout);
                let ending = Ending { producer, why, started_at, timeout, under_way, touched, offsets };
                Ok(ToEnd::Ends(ending))
            }
            ending @ State::Ending { .. } => {
                entry.state = ending;
                Err(already_ending(name))
            }
        }
    }

    /// The transaction has ended, and `next` writes the one after it.
    pub(super) fn ended(&mut self, name: &str, last: Last, next: ProducerEpoch, now: TimestampMs) {
        // What a restart found may end late, in the background.
        let entry = self.by_name.get_mut(name).filter(|entry| entry.can_go_on());
        let Some(entry) = entry else { return };
        let before = std::mem::replace(&mut entry.producer, next);
        (entry.state, entry.last, entry.last_used) = (State::Empty, Some(last), now);
        entry.producer_before_restart = None;
        self.replace_producer(name, before, next);
    }

    fn replace_producer(&mut self, name: &str, before: ProducerEpoch, next: ProducerEpoch) {
        if before.id != next.id {
            self.by_producer.remove(&before.id);
            self.by_producer.insert(next.id, name.into());
        }
    }

    /// What a restart has found: a transaction that is decided, and has partitions without a marker.
    pub(super) fn set_ending(&mut self, name: &str, outcome: Outcome, started_at: TimestampMs) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.state = State::Ending { outcome, started_at };
        }
    }

    /// Another is about to write under the id: until it [has begun](Table::begun) nobody else's records are taken, which
    /// would else be a part of its first transaction. `None` if one has begun since the last was ended.
    pub(super) fn block_writers(
        &mut self,
        name: &str,
        now: TimestampMs,
    ) -> Result<Option<ProducerEpoch>, Error> {
        let entry = self.get_mut(name)?;
        match entry.state {
            State::Empty => {
                entry.state = State::Ending { outcome: Outcome::Abort, started_at: now };
                Ok(Some(entry.producer))
            }
            State::Ongoing(_) => Ok(None),
            State::Ending { .. } => Err(already_ending(name)),
        }
    }

    /// It takes something again, and nobody else has come to write under the id.
    pub(super) fn set_empty(&mut self, name: &str) {
        if let Some(entry) = self.by_name.get_mut(name).filter(|entry| entry.can_go_on()) {
            entry.state = State::Empty;
        }
    }

    /// A partition of what was decided under the id cannot be opened: until a restart can, the decision stays, and
    /// nothing more is taken.
    pub(super) fn set_unavailable_partition(
        &mut self,
        name: &str,
        outcome: Outcome,
        started_at: TimestampMs,
    ) {
        self.set_ending(name, outcome, started_at);
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.has_unavailable_partition = true;
        }
    }

    /// Another producer writes under the id, with this timeout.
    pub(super) fn begun(&mut self, name: &str, producer: ProducerEpoch, timeout: Duration, now: TimestampMs) {
        let Some(entry) = self.by_name.get_mut(name) else { return };
        let before = std::mem::replace(&mut entry.producer, producer);
        (entry.state, entry.timeout, entry.last_used) = (State::Empty, timeout, now);
        // Whoever wrote the last one is not told who writes now.
        (entry.last, entry.producer_before_restart) = (None, None);
        self.replace_producer(name, before, producer);
    }

    /// The id was never given out: its first record could not be written.
    pub(super) fn remove_if_never_initialized(&mut self, name: &str) {
        if self.by_name.get(name).is_some_and(|entry| entry.producer.epoch < 0)
            && let Some(entry) = self.by_name.remove(name)
        {
            self.by_producer.remove(&entry.producer.id);
        }
    }
}

impl Ending {
    /// Of a step, which nobody but the node writes.
    pub(super) fn of_step(under_way: Budget) -> Self {
        Self {
            producer: ProducerEpoch { id: -1, epoch: -1 },
            why: None,
            started_at: TimestampMs::NONE,
            timeout: Duration::ZERO,
            under_way,
            touched: AllTouched::new(),
            offsets: Vec::new(),
        }
    }
}

/// A transaction has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) name: Arc<str>,
    pub(super) producer: ProducerEpoch,
    pub(super) alive: Arc<()>,
    pub(super) timeout: Duration,
}

/// The partitions as the decision names them.
pub(super) fn names(touched: &AllTouched) -> Vec<TouchedName> {
    let name = |(id, at): (&TopicPartition, &Arc<Touched>)| TouchedName {
        topic: at.topic.to_string(),
        id: *id,
        last: at.last(),
    };
    touched.iter().map(name).collect()
}
