//! What everyone was told, and what must hold.
//!
//! * A transaction is visible whole, or not at all; what was answered as committed is visible, and what nobody asked
//!   to commit, or what was refused, never is. What a reader of committed records has seen stays, at its offset.
//! * An epoch of a unit has one owner. No epoch comes again, also not after a start.
//! * Whoever owns a unit next goes on at, or behind, every commit that was acknowledged; and a commit that was refused
//!   is nowhere.
//! * Whoever was replaced, a producer or a unit's owner, is answered with nothing but errors.
//! * What a loop makes of a record that it read is there once.

use std::collections::BTreeMap;

use logmill_broker::{Assignment, ProducerEpoch, Uuid};
use logmill_record::Offset;

use crate::world::{IN, Place, SIDE};

/// What is known of how a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nobody has asked for it to be committed, or all who did were refused: nobody ever sees it.
    Never,
    /// To commit it was asked for.
    Asked,
    Committed,
}

#[derive(Debug)]
struct Txn {
    fate: Fate,
    /// What it wrote, and whether that was acknowledged.
    records: BTreeMap<String, (Place, bool)>,
}

/// A partition of one topic, also when another comes to have its name.
type Spot = (Uuid, u32);

/// A commit that somebody tried.
#[derive(Debug)]
struct Commit {
    offset: Offset,
    refused: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    txns: Vec<Txn>,
    plain: BTreeMap<String, (Place, bool)>,
    seen: BTreeMap<(Spot, Offset), String>,
    /// Who wrote last under each transactional id.
    producers: BTreeMap<String, ProducerEpoch>,
    owners: BTreeMap<(String, String), BTreeMap<i32, String>>,
    /// Epochs that were there before the last start, by unit.
    before_start: BTreeMap<(String, String), i32>,
    /// By what was said with it.
    commits: BTreeMap<String, Commit>,
    acknowledged: BTreeMap<(String, Spot), Offset>,
}

/// All that is in a partition, for readers of committed records.
pub(crate) type Contents = BTreeMap<Place, (Uuid, BTreeMap<Offset, String>)>;

impl Ledger {
    pub(crate) fn begin(&mut self) -> usize {
        self.txns.push(Txn { fate: Fate::Never, records: BTreeMap::new() });
        self.txns.len() - 1
    }

    /// A record of a transaction that is about to be sent; `what` it is made of, if somebody asks.
    pub(crate) fn record(&mut self, txn: usize, place: Place, what: &str) -> String {
        let records = &mut self.txns[txn].records;
        let value = format!("{txn}.{}|{what}", records.len());
        records.insert(value.clone(), (place, false));
        value
    }

    pub(crate) fn plain(&mut self, place: Place) -> String {
        let value = format!("plain.{}|", self.plain.len());
        self.plain.insert(value.clone(), (place, false));
        value
    }

    pub(crate) fn written(&mut self, value: &str) {
        if let Some(record) = self.plain.get_mut(value) {
            record.1 = true;
        } else if let Some(record) = self.txn_of(value).and_then(|txn| txn.records.get_mut(value)) {
            record.1 = true;
        }
    }

    fn txn_of(&mut self, value: &str) -> Option<&mut Txn> {
        let number: usize = value.split_once('.')?.0.parse().ok()?;
        self.txns.get_mut(number)
    }

    pub(crate) fn asked(&mut self, txn: usize) {
        if self.txns[txn].fate == Fate::Never {
            self.txns[txn].fate = Fate::Asked;
        }
    }

    pub(crate) fn committed(&mut self, txn: usize) {
        assert_ne!(self.txns[txn].fate, Fate::Never, "{txn} was committed, which nobody asked for");
        self.txns[txn].fate = Fate::Committed;
    }

    /// The answer of a step is about all that it wrote.
    pub(crate) fn step_committed(&mut self, txn: usize) {
        self.committed(txn);
        self.txns[txn].records.values_mut().for_each(|record| record.1 = true);
    }

    /// It was not committed, and never will be.
    pub(crate) fn refused(&mut self, txn: usize) {
        let fate = self.txns[txn].fate;
        assert_ne!(fate, Fate::Committed, "{txn} was committed, and is told to be aborted");
        self.txns[txn].fate = Fate::Never;
    }

    /// Somebody reads what is committed.
    pub(crate) fn read(&mut self, topic: Uuid, partition: u32, offset: Offset, value: &str) {
        if let Some(txn) = self.txn_of(value) {
            assert_ne!(txn.fate, Fate::Never, "a reader has seen {value}, which is not committed");
        }
        let before = self.seen.entry(((topic, partition), offset)).or_insert_with(|| value.to_owned());
        assert_eq!(*before, value, "at {offset} of {topic}/{partition} was something else before");
    }

    /// A producer has taken over a transactional id.
    pub(crate) fn took_over(&mut self, id: &str, producer: ProducerEpoch) {
        let latest = self.producers.entry(id.to_owned()).or_insert(producer);
        if (latest.id, latest.epoch) < (producer.id, producer.epoch) {
            *latest = producer;
        }
    }

    /// Whether another has taken over since.
    pub(crate) fn is_fenced(&self, id: &str, producer: ProducerEpoch) -> bool {
        self.producers.get(id).is_some_and(|latest| latest.id == producer.id && latest.epoch > producer.epoch)
    }

    /// Whether another is known to own the unit since.
    pub(crate) fn is_over(&self, group: &str, unit: &str, epoch: i32) -> bool {
        self.newest(group, unit).is_some_and(|newest| newest > epoch)
    }

    fn newest(&self, group: &str, unit: &str) -> Option<i32> {
        let of = self.owners.get(&(group.to_owned(), unit.to_owned()))?;
        of.last_key_value().map(|(epoch, _)| *epoch)
    }

    pub(crate) fn started(&mut self) {
        self.before_start.clear();
        for (unit, epochs) in &self.owners {
            if let Some((epoch, _)) = epochs.last_key_value() {
                self.before_start.insert(unit.clone(), *epoch);
            }
        }
    }

    pub(crate) fn assigned(&mut self, group: &str, member: &str, of: &Assignment) {
        let unit = (group.to_owned(), of.unit.clone());
        let before = self.before_start.get(&unit).copied().unwrap_or(0);
        assert!(of.epoch >= before, "{unit:?}: epoch {} comes after {before}", of.epoch);
        let epochs = self.owners.entry(unit.clone()).or_default();
        let owner = epochs.entry(of.epoch).or_insert_with(|| member.to_owned());
        assert_eq!(owner, member, "{unit:?}: two own it in epoch {}", of.epoch);
        if self.is_over(group, &of.unit, of.epoch) {
            return; // It hears of it late.
        }
        for at in &of.partitions {
            let key = (group.to_owned(), (at.topic_id, at.partition));
            let acknowledged = self.acknowledged.get(&key).copied();
            let from = at.committed.as_ref().map(|committed| committed.offset);
            assert!(
                from >= acknowledged,
                "{unit:?}: epoch {} begins at {from:?}, and {acknowledged:?} was acknowledged",
                of.epoch
            );
            if let Some(committed) = &at.committed {
                let tried = self.commits.get(&committed.metadata).expect("somebody has committed it");
                assert!(!tried.refused, "{unit:?}: {committed:?} was refused, and counts");
                assert_eq!(tried.offset, committed.offset, "{unit:?}");
            }
        }
    }

    /// Somebody commits; what is returned is said with it.
    pub(crate) fn commit(&mut self, who: &str, offset: Offset) -> String {
        let said = format!("{who}#{}", self.commits.len());
        self.commits.insert(said.clone(), Commit { offset, refused: false });
        said
    }

    pub(crate) fn commit_refused(&mut self, said: &str) {
        self.commits.get_mut(said).expect("it was tried").refused = true;
    }

    pub(crate) fn commit_acknowledged(&mut self, group: &str, spot: Spot, said: &str) {
        let offset = self.commits[said].offset;
        let acknowledged = self.acknowledged.entry((group.to_owned(), spot)).or_insert(offset);
        *acknowledged = offset.max(*acknowledged);
    }

    /// How far the group has come, as far as anybody was told.
    pub(crate) fn acknowledged(&self, group: &str, spot: Spot) -> Option<Offset> {
        self.acknowledged.get(&(group.to_owned(), spot)).copied()
    }

    /// Nothing fails any more, all has ended, and this is what is there.
    pub(crate) fn check(&mut self, contents: &Contents, loops: &[&str]) {
        let mut visible: BTreeMap<&str, Place> = BTreeMap::new();
        for (place, (topic, records)) in contents {
            for (offset, value) in records {
                let double = visible.insert(value, *place);
                assert_eq!(double, None, "{value} is there twice, also at {offset} of {place:?}");
            }
            let spot = (*topic, place.1);
            for ((_, offset), value) in self.seen.range((spot, Offset(0))..=(spot, Offset(u64::MAX))) {
                assert_eq!(records.get(offset), Some(value), "at {offset} of {place:?} a reader has seen it");
            }
        }
        for (value, (place, acknowledged)) in &self.plain {
            assert!(!acknowledged || visible.contains_key(&**value), "{value} of {place:?} is lost");
        }
        for (number, txn) in self.txns.iter().enumerate() {
            let is_there = |value: &String| visible.contains_key(&**value);
            let stays =
                |(_, (place, acknowledged)): &(&String, &(Place, bool))| *acknowledged && place.0 != SIDE;
            let some = txn.records.keys().find(|value| is_there(value));
            let missing = txn.records.iter().filter(stays).find(|(value, _)| !is_there(value));
            match txn.fate {
                Fate::Never => assert_eq!(some, None, "transaction {number} is not committed"),
                Fate::Committed => assert_eq!(missing, None, "transaction {number} is committed"),
                Fate::Asked => {
                    assert!(
                        some.is_none() || missing.is_none(),
                        "of {number}: {some:?}, without {missing:?}"
                    );
                }
            }
        }
        for group in loops {
            Self::check_loop(contents, group);
        }
    }

    /// Every record that a loop has read has been made something of once.
    fn check_loop(contents: &Contents, group: &str) {
        let mut made: BTreeMap<&str, u32> = BTreeMap::new();
        let values = contents.values().flat_map(|(_, records)| records.values());
        for what in values.filter_map(|value| Some(value.split_once('|')?.1)) {
            if what.strip_prefix(group).is_some_and(|rest| rest.starts_with(':')) {
                *made.entry(what).or_default() += 1;
            }
        }
        for ((topic, partition), (_, records)) in contents.iter().filter(|((topic, _), _)| *topic == IN) {
            for offset in records.keys() {
                let what = made_of(group, *partition, *offset);
                let times = made.remove(&*what).unwrap_or(0);
                assert_eq!(times, 1, "{group} has made that much of {offset} of {topic}/{partition}");
            }
        }
        assert!(made.is_empty(), "{group} has made {made:?} of what is not there");
    }
}

/// What a loop makes of a record.
pub(crate) fn made_of(group: &str, partition: u32, offset: Offset) -> String {
    format!("{group}:{partition}:{offset}")
}
