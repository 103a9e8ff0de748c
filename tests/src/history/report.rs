//! What a check found, and the sum of many.

use std::collections::BTreeMap;
use std::fmt;

use super::Place;

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An acknowledged record is not there.
    Lost,
    /// A record is there twice, of a producer that promises it once.
    Doubled,
    /// Records of such a producer are not in the order sent.
    Reordered,
    /// An answer named the offset of another record.
    WrongOffset,
    /// A record that the broker said is not stored is there.
    RefusedStored,
    /// A record is there that was never sent, not to this partition, or is no record of the test's.
    Invented,
    /// A reader was given an offset that does not lie behind the one before.
    NotMonotone,
    /// A reader was not given a record that is there.
    Skipped,
    /// A reader was given a record that is not there in the end.
    Vanished,
    /// One offset held two records.
    Changed,
}

/// One of them, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is.
    pub kind: Kind,
    /// In which partition.
    pub place: Place,
    /// Which records and offsets.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Report {
    /// How many operations of each kind the history has.
    pub operations: BTreeMap<&'static str, u64>,
    /// How many faults of each kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// What must not be.
    pub anomalies: Vec<Anomaly>,
}

/// Many reports, added up. It prints histories, operations, faults by kind and anomalies by kind.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many histories.
    pub histories: u64,
    /// Their operations by kind.
    pub operations: BTreeMap<&'static str, u64>,
    /// Their faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Their anomalies by kind.
    pub anomalies: BTreeMap<Kind, u64>,
}

impl Kind {
    /// Each.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::Doubled,
        Self::Reordered,
        Self::WrongOffset,
        Self::RefusedStored,
        Self::Invented,
        Self::NotMonotone,
        Self::Skipped,
        Self::Vanished,
        Self::Changed,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lost => "lost",
            Self::Doubled => "doubled",
            Self::Reordered => "reordered",
            Self::WrongOffset => "wrong offset",
            Self::RefusedStored => "refused but stored",
            Self::Invented => "invented",
            Self::NotMonotone => "not monotone",
            Self::Skipped => "skipped",
            Self::Vanished => "vanished",
            Self::Changed => "changed",
        })
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.kind, self.place, self.what)
    }
}

impl Tally {
    /// Adds one history.
    pub fn add(&mut self, report: &Report) {
        self.histories += 1;
        for (name, count) in &report.operations {
            *self.operations.entry(name).or_default() += count;
        }
        for (name, count) in &report.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for anomaly in &report.anomalies {
            *self.anomalies.entry(anomaly.kind).or_default() += 1;
        }
    }

    /// Adds what another has.
    pub fn merge(&mut self, other: &Self) {
        self.histories += other.histories;
        for (name, count) in &other.operations {
            *self.operations.entry(name).or_default() += count;
        }
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (kind, count) in &other.anomalies {
            *self.anomalies.entry(*kind).or_default() += count;
        }
    }

    /// How many anomalies, of every kind.
    #[must_use]
    pub fn anomalies(&self) -> u64 {
        self.anomalies.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<&'static str, u64>| {
            let each: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            each.join(", ")
        };
        writeln!(f, "{} histories", self.histories)?;
        let (operations, faults) = (self.operations.values().sum::<u64>(), self.faults.values().sum::<u64>());
        writeln!(f, "{operations} operations: {}", list(&self.operations))?;
        writeln!(f, "{faults} faults: {}", list(&self.faults))?;
        let count = |kind: &Kind| self.anomalies.get(kind).copied().unwrap_or_default();
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| format!("{kind} {}", count(kind))).collect();
        write!(f, "anomalies {}: {}", self.anomalies(), kinds.join(", "))
    }
}
