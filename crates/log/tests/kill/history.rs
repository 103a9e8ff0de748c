//! What the processes said, and what was found after each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use logmill_log::{Log, LogState};
use logmill_record::Offset;

use crate::common::read_all;
use crate::op::{Op, PER_BATCH, WINDOW};

/// One log, as far as it is known from outside.
#[derive(Default)]
struct Known {
    /// What was found at each offset after the last round: it stays.
    found: BTreeMap<u64, (Op, u64)>,
    /// Acknowledged in this round.
    acknowledged: BTreeMap<u64, (Op, u64)>,
    /// Where the log starts for good, and where it was to start.
    start: u64,
    start_asked: u64,
    /// How far a reader saw.
    seen: u64,
}

#[derive(Default)]
pub(crate) struct History {
    logs: BTreeMap<u64, Known>,
    /// The last acknowledged append of each thread in this round.
    last: BTreeMap<(u64, u64), u64>,
    /// Everything that was ever found.
    ever: BTreeMap<(Op, u64), (u64, u64)>,
    acknowledged: u64,
    lost: u64,
    doubled: u64,
    sent_again: u64,
    /// The first of what is wrong, in words.
    wrong: Vec<String>,
}

impl History {
    /// Takes in a line that a process said.
    pub(crate) fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["ack", op, first] => self.acknowledge(op.parse().unwrap(), first.parse().unwrap()),
            ["seen", log, end] => self.log(log).seen = end.parse().unwrap(),
            ["start?", log, start] => self.log(log).start_asked = start.parse().unwrap(),
            ["start!", log, start] => self.log(log).start = start.parse().unwrap(),
            _ => {} // the test program's own lines
        }
    }

    fn log(&mut self, log: &str) -> &mut Known {
        self.logs.entry(log.parse().unwrap()).or_default()
    }

    fn acknowledge(&mut self, op: Op, first: u64) {
        let known = self.logs.entry(op.log()).or_default();
        known.acknowledged.extend((0..op.records()).map(|record| (first + record, (op, record))));
        self.acknowledged += op.records();
        self.last.insert((op.round, op.thread), op.number);
    }

    /// Holds what a log has after a round against all that is known.
    pub(crate) fn check(&mut self, round: u64, which: u64, log: &Log) {
        let stats = log.stats();
        assert!(matches!(stats.state, LogState::Open), "round {round}, log {which}: {:?}", stats.state);
        let known = self.logs.remove(&which).unwrap_or_default();
        let start = log.start_offset().get();
        assert!(start >= known.start, "round {round}, log {which}: starts at {start}, not {}", known.start);
        assert!(start <= known.start_asked, "round {round}, log {which}: starts at {start} unasked");
        let end = log.end_offset().get();
        assert!(end >= known.seen, "round {round}, log {which}: ends at {end}, a reader saw {}", known.seen);

        let mut found = BTreeMap::new();
        for (expected, (offset, value)) in (start..).zip(read_all(log, Offset(start)).unwrap()) {
            assert_eq!(offset.get(), expected, "round {round}, log {which}: contiguous");
            match Op::of(&value) {
                Some(record) if record.0.log() == which => {
                    found.insert(expected, record);
                }
                _ => self.wrong(format!("log {which}, offset {offset}: nobody wrote {value:?}")),
            }
        }
        for (offset, record) in known.found.iter().chain(&known.acknowledged) {
            if *offset >= start && found.get(offset) != Some(record) {
                self.lost += 1;
                let now = found.get(offset);
                self.wrong(format!("round {round}, log {which}, offset {offset}: {record:?} is now {now:?}"));
            }
        }
        self.check_new(round, which, &found, &known);
        self.send_again(round, which, log, &found);
        self.logs.insert(which, Known { found, acknowledged: BTreeMap::new(), seen: 0, start, ..known });
    }

    /// What is there for the first time is from this round, once, in the order of each thread, and
    /// no further ahead of its acknowledgements than a thread goes.
    fn check_new(&mut self, round: u64, which: u64, found: &BTreeMap<u64, (Op, u64)>, known: &Known) {
        let mut last: BTreeMap<u64, (Op, u64)> = BTreeMap::new();
        let mut whole: BTreeMap<Op, BTreeSet<u64>> = BTreeMap::new();
        for (offset, (op, record)) in found {
            if let Some(other) = self.ever.insert((*op, *record), (which, *offset))
                && other != (which, *offset)
            {
                self.doubled += 1;
                self.wrong(format!("log {which}, offset {offset}: {op} {record} is at {other:?} too"));
            }
            if known.found.contains_key(offset) {
                continue;
            }
            whole.entry(*op).or_default().insert(*record);
            let ahead = self.last.get(&(round, op.thread)).map_or(0, |last| last + 1) + WINDOW;
            if op.round != round || op.number >= ahead {
                self.wrong(format!("round {round}, log {which}: {op} was never appended"));
            }
            if last.insert(op.thread, (*op, *record)).is_some_and(|before| before >= (*op, *record)) {
                self.wrong(format!("round {round}, log {which}, offset {offset}: {op} out of order"));
            }
        }
        self.check_whole(round, &whole, found.keys().next_back().copied());
    }

    /// What an idempotent producer had on its way when it was killed it sends again: the log knows
    /// by itself which of it is there.
    fn send_again(&mut self, round: u64, which: u64, log: &Log, found: &BTreeMap<u64, (Op, u64)>) {
        let mut newest: BTreeMap<u64, (Op, u64)> = BTreeMap::new();
        for (offset, (op, record)) in found {
            if op.round == round && op.is_idempotent() && *record == 0 {
                newest.insert(op.thread, (*op, *offset));
            }
        }
        for (op, offset) in newest.into_values() {
            let whole = found.get(&(offset + op.records() - 1)) == Some(&(op, op.records() - 1));
            if !whole {
                continue;
            }
            let receipt = log.append(&op.batches()).unwrap();
            if !receipt.is_duplicate() || receipt.first_offset() != Offset(offset) {
                self.doubled += 1;
                self.wrong(format!("round {round}, log {which}: {op} is at {offset} and was taken again"));
            }
            receipt.wait().unwrap();
            self.sent_again += 1;
        }
    }

    /// An append is there in whole batches, its first ones before the others.
    fn check_whole(&mut self, round: u64, whole: &BTreeMap<Op, BTreeSet<u64>>, last: Option<u64>) {
        for (op, records) in whole {
            let contiguous = records.iter().zip(records.iter().skip(1)).all(|(one, next)| one + 1 == *next);
            let to = records.last().copied().unwrap_or_default() + 1;
            if !contiguous || (to != op.records() && !to.is_multiple_of(PER_BATCH as u64)) {
                self.wrong(format!("round {round}: {op} is there in part: {records:?}, up to {last:?}"));
            }
        }
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < 20 {
            self.wrong.push(what);
        }
    }

    pub(crate) fn assert_nothing_lost(&self) {
        assert!(self.acknowledged > 0, "nothing was acknowledged: {self}");
        assert!(self.wrong.is_empty() && self.lost == 0 && self.doubled == 0, "{self}: {:#?}", self.wrong);
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, lost, doubled, sent_again, .. } = self;
        write!(f, "acks {acknowledged}, lost {lost}, doubled {doubled}, sent again {sent_again}")
    }
}
