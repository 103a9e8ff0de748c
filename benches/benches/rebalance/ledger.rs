//! Who owns which unit, what it has read of it and when: what members report, checked as it comes.
//!
//! Members report an event before they ask for the next one, so a unit that is given up is given up here before the node
//! can know of it, and before another member is told that it has it.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_client::{Assignment, UnitEpoch, UnitRecords};
use logmill_record::Offset;

/// A member's number: none comes twice.
pub(crate) type MemberNumber = usize;

/// Why a unit moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    /// Its owner was told to give it up, for a member that has less.
    Revoked,
    /// Its owner has left.
    Left,
    /// Its owner's stream broke, and its session has run out.
    Dropped,
    /// Its owner's stream broke, and another member has come with the same instance id.
    Succeeded,
}

#[derive(Clone, Copy, Debug)]
struct Owner {
    member: MemberNumber,
    /// Its session is so short that the node may end it while the member only waits for a processor.
    is_short_lived: bool,
}

/// A unit, which is a partition.
#[derive(Debug, Default)]
struct Unit {
    epoch: i32,
    owner: Option<Owner>,
    /// Up to here all was read.
    read: u64,
    /// Where the owner is: behind `read` where something comes again.
    at: u64,
    /// When the owner was given records last.
    last: Option<Duration>,
    /// When and why the former owner ended.
    moving: Option<(Duration, Why)>,
    /// The longest time between two deliveries to one owner.
    longest_gap: Duration,
}

/// What was measured in a phase.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// How often a unit was assigned.
    pub(crate) assigned: usize,
    /// For each move, from the end of the one owner to the first records at the next.
    pub(crate) moves: Vec<(Why, Duration)>,
    /// For each unit, the longest time between two deliveries to the same owner.
    pub(crate) longest_gaps: Vec<Duration>,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    units: Vec<Unit>,
    /// By member that is there, how many units it has.
    members: BTreeMap<MemberNumber, usize>,
    phase_began: Duration,
    figures: Figures,
}

impl Ledger {
    pub(crate) fn new(units: usize) -> Self {
        Self {
            units: (0..units).map(|_| Unit::default()).collect(),
            members: BTreeMap::new(),
            phase_began: Duration::ZERO,
            figures: Figures::default(),
        }
    }

    pub(crate) fn joined(&mut self, member: MemberNumber) {
        self.members.insert(member, 0);
    }

    pub(crate) fn assigned(&mut self, member: MemberNumber, is_short_lived: bool, assignment: &Assignment) {
        self.figures.assigned += 1;
        let [partition] = &*assignment.partitions else { panic!("{assignment:?} is one partition") };
        let unit = &mut self.units[partition.partition as usize];
        let epoch = assignment.unit.epoch;
        if is_short_lived && epoch < unit.epoch {
            // It is another's already.
            return;
        }
        assert!(
            epoch > unit.epoch,
            "{} again, after {} of member {:?}",
            assignment.unit,
            unit.epoch,
            unit.owner
        );
        if let Some(former) = unit.owner {
            assert!(
                former.is_short_lived,
                "{} is assigned to {member}, and was not taken from {former:?}, epoch {}",
                assignment.unit, unit.epoch
            );
            unit.moving = None;
            *self.members.entry(former.member).or_default() -= 1;
        }
        let committed = partition.committed_offset.map_or(0, Offset::get);
        assert!(committed <= unit.at, "{}: {committed} is committed, {} is read", assignment.unit, unit.at);
        // Who gives a unit up commits what it has read before.
        if let Some((_, Why::Revoked | Why::Left)) = unit.moving {
            assert_eq!(
                committed, unit.at,
                "{}: nothing comes twice after {:?}",
                assignment.unit, unit.moving
            );
        }
        unit.at = committed;
        unit.epoch = epoch;
        unit.owner = Some(Owner { member, is_short_lived });
        unit.last = None;
        *self.members.entry(member).or_default() += 1;
    }

    pub(crate) fn records(&mut self, now: Duration, member: MemberNumber, records: &UnitRecords) {
        let partition = records.data.partition;
        let unit = &mut self.units[partition as usize];
        if !unit.is_of(member, &records.unit) {
            // What was under way to a member that was not heard of in time.
            return;
        }
        for record in records.data.records() {
            let record = record.expect("the record is good");
            assert_eq!(record.offset.get(), unit.at, "{}: in order, and none left out", records.unit);
            let value = record.value.expect("it has a value");
            assert_eq!(&value[..], super::feed::value(partition, unit.at).as_bytes());
            unit.at += 1;
        }
        unit.read = unit.read.max(unit.at);
        unit.note_gap(now, self.phase_began);
        if let Some((since, why)) = unit.moving.take()
            && since >= self.phase_began
        {
            self.figures.moves.push((why, now.saturating_sub(since)));
        }
        unit.last = Some(now);
    }

    /// The member has nothing to do with the unit from now on.
    pub(crate) fn ended(&mut self, now: Duration, member: MemberNumber, of: &UnitEpoch, why: Why) {
        let partition = of.unit.rsplit('/').next().and_then(|number| number.parse::<usize>().ok());
        let partition = partition.unwrap_or_else(|| panic!("{of} is named after its partition"));
        let unit = &self.units[partition];
        if unit.epoch == of.epoch && unit.owner.is_some_and(|owner| owner.member == member) {
            self.end(now, partition, why);
        }
    }

    /// The member is gone, and all that it had.
    pub(crate) fn gone(&mut self, now: Duration, member: MemberNumber, why: Why) {
        for partition in 0..self.units.len() {
            if self.units[partition].owner.is_some_and(|owner| owner.member == member) {
                self.end(now, partition, why);
            }
        }
        assert_eq!(self.members.remove(&member), Some(0));
    }

    fn end(&mut self, now: Duration, partition: usize, why: Why) {
        let unit = &mut self.units[partition];
        let Some(owner) = unit.owner.take() else { return };
        // It moves on where nobody has read anything of it yet.
        unit.moving.get_or_insert((now, why));
        *self.members.entry(owner.member).or_default() -= 1;
    }

    /// Whether each unit has an owner, and no member has more than one unit more than another.
    pub(crate) fn is_settled(&self) -> bool {
        let (least, most) = (self.members.values().min(), self.members.values().max());
        let is_even = least.zip(most).is_some_and(|(least, most)| most - least <= 1);
        is_even && self.units.iter().all(|unit| unit.owner.is_some())
    }

    /// Up to where each unit was read.
    pub(crate) fn read(&self) -> impl Iterator<Item = u64> {
        self.units.iter().map(|unit| unit.read)
    }

    pub(crate) fn begin_phase(&mut self, now: Duration) {
        self.phase_began = now;
        self.figures = Figures::default();
        for unit in &mut self.units {
            unit.longest_gap = Duration::ZERO;
        }
    }

    pub(crate) fn end_phase(&mut self, now: Duration) -> Figures {
        let mut figures = std::mem::take(&mut self.figures);
        // What has stopped and not gone on counts as well.
        self.units.iter_mut().for_each(|unit| unit.note_gap(now, self.phase_began));
        figures.longest_gaps = self.units.iter().map(|unit| unit.longest_gap).collect();
        figures
    }
}

impl Unit {
    /// It is `now` that its owner gets something, or that the phase ends.
    fn note_gap(&mut self, now: Duration, phase_began: Duration) {
        if let Some(last) = self.last.filter(|_| self.owner.is_some()) {
            self.longest_gap = self.longest_gap.max(now.saturating_sub(last.max(phase_began)));
        }
    }

    /// Whether what the member hears of the unit is of the assignment that is in force.
    fn is_of(&self, member: MemberNumber, of: &UnitEpoch) -> bool {
        match self.owner {
            Some(owner) if owner.member == member => {
                assert_eq!(of.epoch, self.epoch, "{of}");
                true
            }
            // Another one owns it by now.
            _ => {
                assert!(of.epoch < self.epoch, "{of} comes to member {member}, and is of {:?}", self.owner);
                false
            }
        }
    }
}
