//! Which transactional ids there are, and how each stands. No I/O, no clock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use logmill_record::{Offset, TimestampMs};

use super::admit::{Admitted, AllTouched, Touched};
use super::record::{Known, Status, StepRecord, TouchedName};
use super::step::{StepAppend, is_step, step_name};
use super::{AllKnown, Outcome, ProducerEpoch, TouchedId};
use crate::budget::Budget;
use crate::error::{Error, Reason};
use crate::exec::Turns;
use crate::group::Held;
use crate::offsets::{OnTheirWay, Resolved};
use crate::produce::Lane;

/// The last epoch of a producer that a transaction can have: the markers have the one after it, and the next
/// transaction has another id.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// Why a transaction was aborted that its producer may still believe in.
pub(super) const RESTARTED: &str = "the node was started again before the transaction was decided";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Table {
    by_name: BTreeMap<Arc<str>, Entry>,
    by_producer: BTreeMap<i64, Arc<str>>,
}

/// A transactional id.
#[derive(Debug)]
pub(super) struct Entry {
    /// Who writes now.
    pub(super) producer: ProducerEpoch,
    pub(super) timeout: Duration,
    pub(super) state: State,
    /// How the last transaction ended.
    pub(super) last: Option<Last>,
    /// The last step, of an id that is a unit's.
    pub(super) step: Option<StepRecord>,
    /// The epoch of the unit whose owner writes with the producer's epoch.
    unit_epoch: i32,
    /// A partition cannot be opened that has to have a marker.
    is_out_of_reach: bool,
    /// Who wrote when the node ended.
    before_start: Option<ProducerEpoch>,
    pub(super) updated_at: TimestampMs,
    /// One change of it at a time.
    pub(super) turn: Turns,
}

/// How a transaction has ended.
#[derive(Clone, Debug)]
pub(super) struct Last {
    /// Who wrote it.
    pub(super) producer: ProducerEpoch,
    pub(super) outcome: Outcome,
    /// Why, if nobody asked for it.
    pub(super) why: Option<String>,
}

#[derive(Debug)]
pub(super) enum State {
    /// Nothing was written since the last transaction.
    Empty,
    Ongoing(Ongoing),
    /// It takes nothing more. The outcome is what was asked for.
    Ending {
        outcome: Outcome,
        started_at: TimestampMs,
    },
}

/// A transaction that takes records.
#[derive(Debug)]
pub(super) struct Ongoing {
    pub(super) started_at: TimestampMs,
    /// Dropped when it ends: its time-out is not wanted any more.
    pub(super) alive: Arc<()>,
    under_way: Budget,
    touched: AllTouched,
    offsets: Vec<AddedOffsets>,
}

/// What a group has read, as a part of a transaction.
#[derive(Debug)]
pub(super) struct AddedOffsets {
    /// Where the log of offsets has them.
    pub(super) at: Offset,
    pub(super) commits: Vec<Resolved>,
    /// Their unit stays with its owner until the transaction has ended.
    pub(super) held: Held,
    pub(super) _on_their_way: OnTheirWay,
}

impl Ongoing {
    /// The partitions that it has touched.
    pub(super) fn partitions(&self) -> Vec<(String, u32)> {
        let named = |(id, at): (&TouchedId, &Arc<Touched>)| (at.topic.to_string(), id.partition);
        self.touched.iter().map(named).collect()
    }
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
pub(super) enum Asks {
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
    Repeated(Vec<StepAppend>),
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

/// What the markers of a transaction carry, and who writes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) markers: ProducerEpoch,
    /// The id that takes the place of one whose epochs are used up.
    pub(super) next_id: Option<i64>,
}

impl Next {
    /// After a transaction of `producer`; `fresh` is an id that nobody has.
    pub(super) fn after(producer: ProducerEpoch, fresh: impl FnOnce() -> i64) -> Self {
        let markers = ProducerEpoch { epoch: producer.epoch.saturating_add(1), ..producer };
        Self { markers, next_id: (producer.epoch >= LAST_EPOCH).then(fresh) }
    }

    /// Who writes the next transaction.
    pub(super) fn producer(self) -> ProducerEpoch {
        self.next_id.map_or(self.markers, |id| ProducerEpoch { id, epoch: 0 })
    }
}

impl Entry {
    fn new(producer: ProducerEpoch, timeout: Duration, updated_at: TimestampMs) -> Self {
        let turn = Turns::new(1, Arc::default());
        let (state, unit_epoch, before_start, is_out_of_reach) = (State::Empty, 0, None, false);
        let (last, step) = (None, None);
        Self {
            producer,
            timeout,
            state,
            last,
            step,
            unit_epoch,
            is_out_of_reach,
            before_start,
            updated_at,
            turn,
        }
    }

    fn restored(known: &Known) -> Self {
        let timeout = Duration::from_millis(u64::try_from(known.timeout_ms).unwrap_or(0));
        let next = Next { markers: known.producer, next_id: known.next_id };
        let mut entry = Self::new(next.producer(), timeout, known.updated_at);
        entry.step.clone_from(&known.step);
        entry.unit_epoch = known.step.as_ref().map_or(0, |step| step.unit_epoch);
        let before = known.producer.epoch.checked_sub(1).filter(|epoch| *epoch >= 0);
        if let (Status::Decided(outcome) | Status::Complete(outcome), Some(epoch), None) =
            (known.status, before, &known.step)
        {
            let producer = ProducerEpoch { epoch, ..known.producer };
            entry.last = Some(Last { producer, outcome, why: None });
        }
        entry
    }

    /// Whether the end of a transaction lets it go on: it is not in another by now, and nothing else holds it.
    fn can_go_on(&self) -> bool {
        !matches!(self.state, State::Ongoing(_)) && !self.is_out_of_reach
    }

    /// Refuses who is not, or no longer, the one who writes under the id.
    pub(super) fn check(&self, name: &str, producer: ProducerEpoch) -> Result<(), Error> {
        if producer == self.producer {
            return Ok(());
        }
        if let Some(Last { why: Some(why), .. }) = self.last.as_ref().filter(|last| last.producer == producer)
        {
            return Err(aborted(name, why));
        }
        let is_passed_over =
            |before: ProducerEpoch| before.id == producer.id && before.epoch <= producer.epoch;
        if self.before_start.is_some_and(is_passed_over) {
            return Err(aborted(name, RESTARTED));
        }
        Err(fenced(name, producer, self.producer))
    }
}

impl Table {
    /// As it was written.
    pub(super) fn restored(known: &AllKnown) -> Self {
        let mut table = Self::default();
        for (name, known) in known {
            table.insert(Arc::clone(name), Entry::restored(known));
        }
        table
    }

    /// Nobody goes on where the last run of the node ended: of what was acknowledged as written a power cut may have
    /// taken all that there was in some partition, so that nothing there says that a transaction was open. Its producer
    /// would commit the rest. Nothing is written: who is not told of a new id before the next start never is.
    pub(super) fn pass_over_all(&mut self, mut fresh: impl FnMut() -> i64) {
        for (name, entry) in self.by_name.iter_mut().filter(|(name, _)| !is_step(name)) {
            let new = ProducerEpoch { id: fresh(), epoch: 0 };
            let before = std::mem::replace(&mut entry.producer, new);
            // By its old id it is known still, to be told why.
            entry.before_start = Some(before);
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
        let entry = Entry::new(producer, Duration::ZERO, TimestampMs::NONE);
        let turn = entry.turn.clone();
        self.insert(Arc::clone(name), entry);
        turn
    }

    /// The turn of a unit to commit a step, with an id for its producer, by which nobody else can write.
    pub(super) fn step_turn(&mut self, name: &Arc<str>) -> Turns {
        let new = || Entry::new(ProducerEpoch { id: -1, epoch: -1 }, Duration::ZERO, TimestampMs::NONE);
        self.by_name.entry(Arc::clone(name)).or_insert_with(new).turn.clone()
    }

    /// Whether a step of the owner of a unit comes next, and by which producer: its epoch moves with the owner.
    pub(super) fn check_step(
        &mut self,
        name: &str,
        unit_epoch: i32,
        sequence: i64,
        fresh: impl FnOnce() -> i64,
    ) -> Result<StepCheck, Error> {
        let entry = self.get_mut(name)?;
        if matches!(entry.state, State::Ending { .. }) {
            return Err(is_ending(name));
        }
        let last = entry.step.as_ref();
        if let Some(step) = last.filter(|step| (step.sequence, step.unit_epoch) == (sequence, unit_epoch)) {
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

    /// The names under which steps of a group's units are known.
    pub(super) fn steps_of(&self, group: &str) -> Vec<Arc<str>> {
        let first = step_name(group, "");
        let names = self.by_name.range::<str, _>((Bound::Included(first.as_str()), Bound::Unbounded));
        names.map(|(name, _)| name).take_while(|name| name.starts_with(&first)).map(Arc::clone).collect()
    }

    /// Nothing is known of the id any more.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some(entry) = self.by_name.remove(name) {
            self.by_producer.remove(&entry.producer.id);
        }
    }

    /// A step was committed.
    pub(super) fn step_ended(&mut self, name: &str, step: Option<StepRecord>, now: TimestampMs) {
        if let Some(entry) = self.by_name.get_mut(name) {
            (entry.step, entry.updated_at) = (step, now);
        }
    }

    /// The number of the last step of a unit.
    pub(super) fn last_step(&self, name: &str) -> Option<i64> {
        self.by_name.get(name)?.step.as_ref().map(|step| step.sequence)
    }

    /// Takes a part of a transaction that is going on, or of one that begins with it; then its liveness too, for
    /// its time-out.
    pub(super) fn admit(
        &mut self,
        producer: ProducerEpoch,
        at: TouchedId,
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
        let State::Ongoing(ongoing) = &mut entry.state else { return Err(is_ending(&name)) };
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
            State::Empty | State::Ending { .. } => Err(is_ending(name)),
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
    /// written nowhere: no epoch is valid after a start. `fresh` is an id that nobody has.
    pub(super) fn begin_end(
        &mut self,
        name: &str,
        asks: &Asks,
        outcome: Outcome,
        fresh: impl FnOnce() -> i64,
    ) -> Result<ToEnd, Error> {
        let entry = self.get_mut(name)?;
        let why = match asks {
            Asks::Node(why) => Some(why.clone()),
            // It has ended, and another goes on.
            Asks::TimedOut(producer, _) if *producer != entry.producer => {
                return Ok(ToEnd::Nothing(entry.producer));
            }
            Asks::TimedOut(_, timeout) => {
                Some(format!("it was not ended within its time-out of {} ms", timeout.as_millis()))
            }
            Asks::Producer(producer) => {
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
            State::Empty if matches!(asks, Asks::Producer(_)) => {
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
                Err(is_ending(name))
            }
        }
    }

    /// The transaction has ended, and `next` writes the one after it.
    pub(super) fn ended(&mut self, name: &str, last: Last, next: ProducerEpoch, now: TimestampMs) {
        // What a start found may end late, in the background.
        let entry = self.by_name.get_mut(name).filter(|entry| entry.can_go_on());
        let Some(entry) = entry else { return };
        let before = std::mem::replace(&mut entry.producer, next);
        (entry.state, entry.last, entry.updated_at) = (State::Empty, Some(last), now);
        entry.before_start = None;
        self.replace_producer(name, before, next);
    }

    fn replace_producer(&mut self, name: &str, before: ProducerEpoch, next: ProducerEpoch) {
        if before.id != next.id {
            self.by_producer.remove(&before.id);
            self.by_producer.insert(next.id, name.into());
        }
    }

    /// What a start has found: a transaction that is decided, and has partitions without a marker.
    pub(super) fn set_ending(&mut self, name: &str, outcome: Outcome, started_at: TimestampMs) {
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.state = State::Ending { outcome, started_at };
        }
    }

    /// Another is about to write under the id: until it [has begun](Table::begun) nobody else's records are taken, which
    /// would else be a part of its first transaction. `None` if one has begun since the last was ended.
    pub(super) fn shut(&mut self, name: &str, now: TimestampMs) -> Result<Option<ProducerEpoch>, Error> {
        let entry = self.get_mut(name)?;
        match entry.state {
            State::Empty => {
                entry.state = State::Ending { outcome: Outcome::Abort, started_at: now };
                Ok(Some(entry.producer))
            }
            State::Ongoing(_) => Ok(None),
            State::Ending { .. } => Err(is_ending(name)),
        }
    }

    /// It takes something again, and nobody else has come to write under the id.
    pub(super) fn set_empty(&mut self, name: &str) {
        if let Some(entry) = self.by_name.get_mut(name).filter(|entry| entry.can_go_on()) {
            entry.state = State::Empty;
        }
    }

    /// A partition of what was decided under the id cannot be opened: until a start can, the decision stays, and nothing
    /// more is taken.
    pub(super) fn set_out_of_reach(&mut self, name: &str, outcome: Outcome, started_at: TimestampMs) {
        self.set_ending(name, outcome, started_at);
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.is_out_of_reach = true;
        }
    }

    /// Another producer writes under the id, with this time-out.
    pub(super) fn begun(&mut self, name: &str, producer: ProducerEpoch, timeout: Duration, now: TimestampMs) {
        let Some(entry) = self.by_name.get_mut(name) else { return };
        let before = std::mem::replace(&mut entry.producer, producer);
        (entry.state, entry.timeout, entry.updated_at) = (State::Empty, timeout, now);
        // Whoever wrote the last one is not told who writes now.
        (entry.last, entry.before_start) = (None, None);
        self.replace_producer(name, before, producer);
    }

    /// The id was never given out: its first record could not be written.
    pub(super) fn forget_unborn(&mut self, name: &str) {
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
    let name = |(id, at): (&TouchedId, &Arc<Touched>)| TouchedName {
        topic: at.topic.to_string(),
        id: *id,
        last: at.last(),
    };
    touched.iter().map(name).collect()
}

fn not_found(name: &str) -> Error {
    let shown = crate::error::shorten(name);
    let message = format!("there is no transactional id {shown:?}: begin with InitTransactions");
    Error::new(Reason::TransactionNotFound, message).with("transactional_id", shown)
}

fn unknown_producer(producer: ProducerEpoch) -> Error {
    let message = format!(
        "no transactional id has the producer {}: begin with InitTransactions, and use the producer that it answers",
        producer.id
    );
    Error::new(Reason::TransactionNotFound, message).with("producer_id", producer.id)
}

fn fenced(name: &str, producer: ProducerEpoch, now: ProducerEpoch) -> Error {
    let message = format!(
        "the producer {} with epoch {} is not the one that writes under the transactional id {name:?} now: another \
         instance has taken over, or its transaction has ended; stop this one, or begin again with InitTransactions",
        producer.id, producer.epoch
    );
    let error = Error::new(Reason::ProducerFenced, message).with("transactional_id", name);
    error.with("producer_epoch", producer.epoch).with("current_epoch", now.epoch)
}

pub(super) fn aborted(name: &str, why: &str) -> Error {
    let message = format!(
        "the node has aborted the transaction of {name:?}, and nobody sees its records: {why}; begin again with \
         InitTransactions, and send them again"
    );
    Error::new(Reason::TransactionAborted, message).with("transactional_id", name)
}

fn step_out_of_sequence(sequence: i64, expected: i64) -> Error {
    let message = format!(
        "the step has the sequence {sequence}, and {expected} follows on the last one that was committed: what was \
         committed is not done again, and nothing is left out; go on from the last sequence and the offsets that the \
         assignment says"
    );
    let error = Error::new(Reason::StepOutOfSequence, message);
    error.with("sequence", sequence).with("expected_sequence", expected)
}

fn is_ending(name: &str) -> Error {
    let message = format!(
        "the transaction of {name:?} is being ended and takes nothing more: wait for the answer, and go on with the \
         epoch that it has"
    );
    Error::new(Reason::TransactionEnding, message).with("transactional_id", name)
}
