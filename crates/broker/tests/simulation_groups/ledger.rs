//! What everyone was told, and what must hold.
//!
//! * A transaction is visible whole, or not at all; what was answered as committed is visible, and what nobody asked
//!   to commit, or what was refused, never is. What a reader of committed records has seen stays, at its offset.
//! * Whoever was replaced, a producer or a unit's owner, is answered with nothing but errors.
//! * What must hold of who owns what is said in [`owners`](crate::owners), of how far groups have come in
//!   [`standing`](crate::standing), and of what loops make of what they read in [`passes`](crate::passes).

use std::collections::BTreeMap;

use logmill_broker::{Assignment, ProducerEpoch, Uuid};
use logmill_record::Offset;

use crate::owners::Owners;
use crate::standing::{Spot, Standings};
use crate::world::{Place, SIDE};

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

/// A producer that has taken over a transactional id, and when it asked and was answered.
#[derive(Debug)]
struct Takeover {
    producer: ProducerEpoch,
    asked: u64,
    answered: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    txns: Vec<Txn>,
    /// What is written beside transactions; the place, if it was said.
    plain: BTreeMap<String, (Option<Place>, bool)>,
    seen: BTreeMap<(Spot, Offset), String>,
    /// Who has written under each transactional id.
    takeovers: BTreeMap<String, Vec<Takeover>>,
    /// How many takeovers were asked for or answered.
    asks: u64,
    pub(crate) owners: Owners,
    pub(crate) standings: Standings,
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

    pub(crate) fn plain(&mut self, place: Option<Place>) -> String {
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

    /// A producer asks for a transactional id. Gives when that is.
    pub(crate) fn asks_to_take_over(&mut self) -> u64 {
        self.asks += 1;
        self.asks
    }

    /// A producer that asked then has taken over a transactional id.
    pub(crate) fn took_over(&mut self, id: &str, producer: ProducerEpoch, asked: u64) {
        let answered = self.asks_to_take_over();
        self.takeovers.entry(id.to_owned()).or_default().push(Takeover { producer, asked, answered });
    }

    /// Whether another has taken over since: of two that have asked at the same time it is not known who was the last.
    pub(crate) fn is_fenced(&self, id: &str, producer: ProducerEpoch) -> bool {
        let Some(all) = self.takeovers.get(id) else { return false };
        let is_its = |it: &&Takeover| it.producer.id == producer.id && it.producer.epoch <= producer.epoch;
        let own = all.iter().filter(is_its).max_by_key(|it| it.producer.epoch);
        own.is_some_and(|own| all.iter().any(|other| other.asked > own.answered))
    }

    pub(crate) fn started(&mut self) {
        self.owners.started();
        self.standings.started();
    }

    /// A member hears that a unit is its own, and where to go on. Gives the pass of each of its partitions.
    pub(crate) fn assigned(&mut self, group: &str, member: &str, of: &Assignment) -> Vec<usize> {
        let is_its_own = self.owners.assigned(group, member, of);
        let mut passes = Vec::new();
        for at in &of.partitions {
            let committed = at.committed.as_ref().map(|it| (it.offset, &*it.metadata));
            let pass = match is_its_own {
                true => self.standings.observed(group, (at.topic_id, at.partition), committed),
                // Nothing that it does counts.
                false => 0,
            };
            passes.push(pass);
        }
        passes
    }

    /// Nothing fails any more, all has ended, and this is what is there.
    pub(crate) fn check(&self, contents: &Contents) {
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
    }
}
