//! What the process writes: everything follows from round, thread and number, so that the other
//! side can tell what was written from what was not.

use std::fmt;
use std::str::FromStr;

use logmill_log::{Log, LogOptions, LogSet};
use logmill_record::Batch;

use crate::common::{batch, produced};

pub(crate) const LOGS: u64 = 3;
pub(crate) const THREADS: u64 = 4;
/// Appends that one thread has on their way at a time.
pub(crate) const WINDOW: u64 = 4;
pub(crate) const PER_BATCH: usize = 2;

/// One append of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Op {
    pub(crate) round: u64,
    pub(crate) thread: u64,
    pub(crate) number: u64,
}

impl Op {
    /// The log that it goes to.
    pub(crate) fn log(self) -> u64 {
        self.mix(1) % LOGS
    }

    /// Its records: several batches of several records each, now and then.
    pub(crate) fn records(self) -> u64 {
        if self.mix(2).is_multiple_of(4) { 1 + self.mix(3) % 6 } else { 1 }
    }

    pub(crate) fn value(self, record: u64) -> Vec<u8> {
        let len = usize::try_from(self.mix(10 + record) % 700).unwrap();
        let fill = char::from(b'a' + u8::try_from(self.mix(20 + record) % 26).unwrap());
        format!("{self} {record} {}", fill.to_string().repeat(len)).into_bytes()
    }

    /// Every other thread is an idempotent producer, its epoch the round; not all, so that batches
    /// of both kinds lie side by side.
    pub(crate) fn is_idempotent(self) -> bool {
        self.thread.is_multiple_of(2)
    }

    pub(crate) fn batches(self) -> Vec<Batch> {
        let values: Vec<_> = (0..self.records()).map(|record| self.value(record)).collect();
        let batches =
            values.chunks(PER_BATCH).map(|values| values.iter().map(Vec::as_slice).collect::<Vec<_>>());
        if !self.is_idempotent() {
            return batches.map(|values| batch(&values)).collect();
        }
        let (id, epoch) = (self.thread.cast_signed(), i16::try_from(self.round).unwrap());
        let mut sequence = self.sequence();
        let numbered = batches.map(|values| {
            let batch = produced(id, epoch, sequence, false, &values);
            sequence += i32::try_from(values.len()).unwrap();
            batch
        });
        numbered.collect()
    }

    /// How many records the thread has appended to that log before, in this round.
    fn sequence(self) -> i32 {
        let before = (0..self.number).map(|number| Self { number, ..self });
        let records: u64 = before.filter(|op| op.log() == self.log()).map(Self::records).sum();
        i32::try_from(records).unwrap()
    }

    /// The append that wrote a value, and which of its records it is; `None` if none did.
    pub(crate) fn of(value: &[u8]) -> Option<(Self, u64)> {
        let text = str::from_utf8(value).ok()?;
        let mut words = text.split(' ');
        let op: Self = words.next()?.parse().ok()?;
        let record = words.next()?.parse().ok()?;
        (record < op.records() && op.value(record) == value).then_some((op, record))
    }

    /// splitmix64 over all that names it.
    fn mix(self, salt: u64) -> u64 {
        [self.round, self.thread, self.number, salt].into_iter().fold(0, |seed: u64, part| {
            let mut mixed = (seed ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.round, self.thread, self.number)
    }
}

impl FromStr for Op {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<u64> = text.split('.').map_while(|part| part.parse().ok()).collect();
        match parts[..] {
            [round, thread, number] => Ok(Self { round, thread, number }),
            _ => Err("an append is round.thread.number"),
        }
    }
}

/// Opens a log of the set, or makes it: with segments so small that many are sealed in a round.
pub(crate) fn open(set: &LogSet, log: u64) -> Log {
    let options = LogOptions::default().segment_bytes(8_000).max_unsynced_bytes(20_000);
    let name = format!("log-{log}");
    if set.holds_log(&name).unwrap() {
        set.open_log(&name, options).unwrap()
    } else {
        set.create(&name, b"", options).unwrap()
    }
}
