//! A loop of steps: reads, makes something of it, and commits both at once.

use std::collections::{BTreeMap, BTreeSet};

use logmill_broker::{CommittedStep, Error, Payload, ProduceRecord, Reason, Step, StepAppended, StepHeader};
use logmill_record::Offset;

use crate::member::{Input, Member, News, Owned, ask_input, take_input, to_commit};
use crate::passes::made_of;
use crate::world::{Call, OUT, Place, World, answer};

pub(crate) const GROUP: &str = "steps";

pub(crate) struct Stepper {
    pub(crate) member: Member,
    loops: BTreeMap<String, Loop>,
    /// Steps whose answers it has not waited for: by unit, epoch and number. Others of these may be under way.
    forgotten: BTreeSet<(String, i32, i64)>,
}

/// Where it is with a unit.
struct Loop {
    owned: Owned,
    at: Offset,
    sequence: i64,
    input: Option<Input>,
    /// It may have sent another step of its next number.
    forgotten: bool,
    next: Option<Sent>,
    /// The last one that was answered.
    done: Option<(Whole, Vec<StepAppended>)>,
}

/// All that a step says.
#[derive(Clone)]
struct Whole {
    txn: usize,
    header: StepHeader,
    records: Vec<(Place, String)>,
    said: String,
}

struct Sent {
    whole: Whole,
    /// It may have been committed before.
    again: bool,
    /// It must have no effect, since another owns the unit.
    in_vain: bool,
    call: Option<Call<Result<CommittedStep, Error>>>,
}

impl Stepper {
    pub(crate) fn new(has_units: bool, instance: Option<&'static str>) -> Self {
        let member = Member::new(GROUP, has_units, instance);
        Self { member, loops: BTreeMap::new(), forgotten: BTreeSet::new() }
    }

    pub(crate) fn go_on(&mut self, world: &mut World, calm: bool) {
        if world.is_stopped(GROUP) {
            return self.member.stop(world);
        }
        if !self.member.is_in() {
            if calm || self.member.instance.is_none() || world.one_in(6) {
                self.member.join(world);
            }
            return;
        }
        if !calm {
            match world.below(80) {
                0 => self.leave(world),
                1 => self.member.lost(),
                2 => self.reborn(),
                _ => {}
            }
        }
        let units: Vec<String> = self.loops.keys().cloned().collect();
        if units.is_empty() {
            return;
        }
        let unit = &units[world.index(units.len())];
        let revoked = self.member.units.get(unit).is_some_and(|owned| owned.revoked);
        let it = self.loops.get_mut(unit).expect("it is one of them");
        if revoked && it.next.is_none() && (calm || world.one_in(4)) {
            self.loops.remove(unit);
            return self.member.confirm(world, unit);
        }
        if !self.member.units.contains_key(unit) && self.member.is_in() && !calm && world.one_in(8) {
            // It has lost the unit, and gives in at last.
            let forgotten = it.next.as_ref().map(|_| (unit.clone(), it.owned.epoch, it.sequence));
            self.forgotten.extend(forgotten);
            self.loops.remove(unit);
            return;
        }
        it.go_on(world, unit, calm);
    }

    fn leave(&mut self, world: &mut World) {
        self.member.leave(world);
        self.loops.clear();
    }

    fn reborn(&mut self) {
        self.member.reborn();
        self.loops.clear();
    }

    pub(crate) fn collect(&mut self, world: &mut World) {
        for news in self.member.listen(world) {
            if let News::Assigned(unit) = news
                && let Some(owned) = self.member.units.get(&unit).cloned()
            {
                let before = self.loops.remove(&unit);
                let mut it = Loop::begin(world, owned, before);
                it.forgotten = self.forgotten.contains(&(unit.clone(), it.owned.epoch, it.sequence));
                self.loops.insert(unit, it);
            }
        }
        if self.member.id.is_none() {
            self.loops.clear();
        }
        let mut behind = false;
        for (unit, it) in &mut self.loops {
            behind |= it.collect(world, unit);
        }
        if behind {
            self.reborn();
        }
    }

    /// Answers are lost on their way.
    pub(crate) fn cut_off(&mut self) {
        for it in self.loops.values_mut() {
            it.input = None;
            if let Some(sent) = &mut it.next {
                sent.call = None;
            }
        }
    }

    /// What it was doing it remembers, unless it ends too.
    pub(crate) fn node_ended(&mut self, world: &World) {
        self.cut_off();
        self.member.node_ended();
        // Nothing of them is under way any more.
        self.forgotten.clear();
        self.loops.values_mut().for_each(|it| it.forgotten = false);
        if world.one_in(2) {
            self.loops.clear();
        }
    }
}

impl Loop {
    fn begin(world: &mut World, owned: Owned, before: Option<Self>) -> Self {
        let (at, sequence) = (owned.committed, owned.last_step.map_or(0, |last| last + 1));
        let mut new = Self { at, sequence, owned, input: None, forgotten: false, next: None, done: None };
        let Some(before) = before.filter(|before| before.is_as(&new.owned)) else { return new };
        new.done = before.done;
        if let Some(mut sent) = before.next {
            if sent.whole.header.sequence == new.sequence {
                sent.call = None;
                new.next = Some(sent);
            } else if sent.whole.header.sequence + 1 == new.sequence && !sent.in_vain && !before.forgotten {
                world.ledger.step_committed(sent.whole.txn);
            }
        }
        new
    }

    /// Whether it goes on with what it has, or finds the unit elsewhere.
    fn is_as(&self, owned: &Owned) -> bool {
        (self.owned.epoch, self.owned.pass) == (owned.epoch, owned.pass)
    }

    fn go_on(&mut self, world: &mut World, unit: &str, calm: bool) {
        if let Some(sent) = &mut self.next {
            if sent.call.is_none() {
                sent.again = true;
                sent.send(world);
            }
            return;
        }
        if !calm && world.one_in(12) && self.repeat(world) {
            return;
        }
        if let Some(come) = self.input.as_mut().and_then(answer) {
            self.input = None;
            let most = 1 + world.index(4);
            if let Some((taken, next)) = take_input(world, come, most)
                && next > self.at
            {
                self.send(world, unit, &taken, next);
            }
        } else if self.input.is_none() {
            self.input = Some(ask_input(world, self.owned.partition, self.at));
        }
    }

    fn send(&mut self, world: &mut World, unit: &str, taken: &[Offset], next: Offset) {
        let txn = world.ledger.begin();
        let mut records = Vec::new();
        for offset in taken {
            let place = world.out_place();
            let what = made_of(GROUP, self.owned.pass, self.owned.partition, *offset);
            records.push((place, world.ledger.record(txn, place, &what)));
        }
        let who = format!("step {} of {unit} {}", self.sequence, self.owned.epoch);
        let said = world.ledger.standings.commit(&who, self.owned.pass, next);
        let header = StepHeader {
            group: GROUP.to_owned(),
            unit: unit.to_owned(),
            unit_epoch: self.owned.epoch,
            sequence: self.sequence,
            offsets: vec![to_commit(&said, self.owned.partition, next)],
            topics: if records.is_empty() { vec![] } else { vec![OUT.to_owned()] },
            total_bytes: records.iter().map(|(_, value)| value.len() as u64).sum(),
        };
        let in_vain = world.ledger.owners.is_over(GROUP, unit, self.owned.epoch);
        let whole = Whole { txn, header, records, said };
        let mut sent = Sent { whole, again: false, in_vain, call: None };
        sent.send(world);
        self.next = Some(sent);
    }

    /// A step that was answered comes once more.
    fn repeat(&mut self, world: &mut World) -> bool {
        let Some((whole, appended)) = &self.done else { return false };
        world.count("steps sent again after their answer");
        let call = whole.call(world);
        let come = world.wait(call);
        match come {
            Ok(again) => {
                let first = CommittedStep { appended: appended.clone(), duplicate: true };
                assert_eq!(again, first, "step {} again", whole.header.sequence);
            }
            Err(error) => {
                world.count(format!("step again: {}", error.reason()));
            }
        }
        true
    }

    /// Takes the answer, if it has come; whether what it believes of its unit is wrong.
    fn collect(&mut self, world: &mut World, unit: &str) -> bool {
        let Some(sent) = &mut self.next else { return false };
        let Some(come) = sent.call.as_mut().and_then(answer) else { return false };
        sent.call = None;
        let Whole { txn, header, said, .. } = &sent.whole;
        let (txn, sequence) = (*txn, header.sequence);
        let told = come.as_ref().map(|it| format!("{txn}: {sequence} of {unit}, again: {}", it.duplicate));
        world.told(GROUP, "step", told.map_err(Error::reason));
        match come {
            Ok(committed) => {
                assert!(!sent.in_vain, "{unit}: step {sequence} was taken, and another owns the unit");
                if committed.duplicate && (self.forgotten || !sent.again) {
                    // It has forgotten that it sent one of that number, which was committed since it joined.
                    world.count("steps of a forgotten number");
                    if !sent.again {
                        world.ledger.refused(txn);
                        world.ledger.standings.refused(said);
                    }
                    self.next = None;
                    return true;
                }
                self.forgotten = false;
                world.ledger.step_committed(txn);
                let spot = (self.owned.topic_id, self.owned.partition);
                world.ledger.standings.acknowledged(GROUP, spot, said);
                (self.at, self.sequence) = (header.offsets[0].offset, sequence + 1);
                let whole = sent.whole.clone();
                self.done = Some((whole, committed.appended));
                self.next = None;
                false
            }
            Err(error) => {
                let reason = error.reason();
                let is_unknown = matches!(reason, Reason::OutcomeUnknown | Reason::NodeClosing);
                if !sent.again && !is_unknown {
                    // It has no effect, so that something else may come with that number.
                    if reason == Reason::StepOutOfSequence {
                        let next = ("expected_sequence", (sequence + 1).to_string());
                        assert!(error.metadata().contains(&next), "{unit}: {error}");
                        world.count("steps of a forgotten number that have read something else");
                    }
                    world.ledger.refused(txn);
                    world.ledger.standings.refused(said);
                    self.next = None;
                }
                matches!(reason, Reason::StaleAssignment | Reason::StepOutOfSequence | Reason::GroupNotFound)
            }
        }
    }
}

impl Sent {
    fn send(&mut self, world: &mut World) {
        let header = &self.whole.header;
        if !self.again {
            self.in_vain = world.ledger.owners.is_over(GROUP, &header.unit, header.unit_epoch);
        }
        if !self.in_vain {
            world.ledger.asked(self.whole.txn);
        }
        let (unit, epoch, sequence) = (&header.unit, header.unit_epoch, header.sequence);
        world.line(format!("{GROUP}: step {sequence} of {unit} {epoch}: {:?}", self.whole.records));
        self.call = Some(self.whole.call(world));
    }
}

impl Whole {
    fn call(&self, world: &World) -> Call<Result<CommittedStep, Error>> {
        let begun = world.broker.begin_step(&world.context, self.header.clone());
        let whole = begun.and_then(|mut step: Step| {
            for ((topic, partition), value) in &self.records {
                let record = ProduceRecord { value: Some(value.clone().into()), ..ProduceRecord::default() };
                step.append(topic, Some(*partition), Payload::Records(vec![record]))?;
            }
            Ok(step)
        });
        match whole {
            Ok(step) => Box::pin(step.commit()),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}
