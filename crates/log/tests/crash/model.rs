//! What is known of one log, and what must therefore be found in it.

use std::collections::{BTreeMap, BTreeSet};

use logmill_log::{Error, Log, LogState, Step};
use logmill_record::{Batch, Offset, TimestampMs};

use crate::known::Known;
use crate::produce::PRODUCERS;
use crate::reading::read;

/// What makes a difference to what may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Everything stays.
    Plain,
    /// The set removes the oldest by itself.
    Retained,
    /// Of records with one key the last stays.
    Compacted,
    /// A crash may take back what readers saw.
    Relaxed,
    /// Everything stays; its writers are idempotent producers, in transactions now and then.
    Transactional,
}

/// A record as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) key: u8,
    pub(crate) epoch: i32,
    /// It ends its batch.
    pub(crate) is_last: bool,
    pub(crate) by: Option<By>,
}

/// The idempotent producer that wrote a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct By {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Plain,
    InTransaction,
    /// Markers, which end a transaction.
    Commit,
    Abort,
}

/// What one append writes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) batches: Vec<Batch>,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) kind: Kind,
    /// Somebody began to create it, and was answered.
    pub(crate) is_begun: bool,
    pub(crate) is_created: bool,
    /// What was written at each offset, or found there by the last recovery.
    pub(crate) written: Vec<Entry>,
    /// The batches of producers, by their first offsets.
    pub(crate) sent: BTreeMap<u64, Batch>,
    /// A group whose append failed while the machine went off: it may be there, in whole batches.
    pub(crate) maybe: Group,
    pub(crate) acknowledged: u64,
    pub(crate) seen: u64,
    /// Where the log starts, and how far its start may have got.
    pub(crate) start: u64,
    pub(crate) most_start: u64,
    /// Something has failed: what was written and not acknowledged may be gone even after a kill.
    pub(crate) failed: bool,
    /// Whether it was open when its set was closed.
    pub(crate) is_spoken_for: bool,
    /// How it ended, if it was not opened again yet.
    pub(crate) ended: Option<End>,
    /// Offsets that a repair has named as gone.
    pub(crate) gone: BTreeSet<u64>,
    /// When the last append was, since it was opened.
    pub(crate) appended_at: TimestampMs,
}

/// How a log ended before it was opened again; the later ones take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// With all of its set, without an error.
    Closed,
    /// In the same process: closed, or poisoned.
    Reopen,
    Kill,
    Power,
}

impl Model {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            is_begun: false,
            is_created: false,
            written: Vec::new(),
            sent: BTreeMap::new(),
            maybe: Group::default(),
            acknowledged: 0,
            seen: 0,
            start: 0,
            most_start: 0,
            failed: false,
            is_spoken_for: true,
            ended: None,
            gone: BTreeSet::new(),
            appended_at: TimestampMs(i64::MIN),
        }
    }

    pub(crate) fn add(&mut self, group: Group) {
        let mut first = self.written.len() as u64;
        for batch in group.batches.into_iter().filter(|_| self.kind == Kind::Transactional) {
            let next = first + u64::from(batch.header().last_offset_delta) + 1;
            self.sent.insert(first, batch);
            first = next;
        }
        self.written.extend(group.entries);
    }

    /// What follows from the records below `end`.
    pub(crate) fn known(&self, end: u64) -> Known {
        Known::of(&self.written[..usize::try_from(end).unwrap()])
    }

    /// A reader of a log that works looks at everything there is.
    pub(crate) fn look(&mut self, log: &Log) -> Result<(), Error> {
        let found = read(log)?;
        let end = log.end_offset().get();
        self.check(&found, log.start_offset().get(), end, "a reader");
        if self.kind == Kind::Transactional {
            self.known(log.durable_end().get()).check_transactions(log, "a reader")?;
        }
        self.acknowledged = self.acknowledged.max(log.durable_end().get());
        self.seen = self.seen.max(end);
        Ok(())
    }

    /// The log was opened again: acknowledged ⊆ recovered ⊆ written.
    pub(crate) fn recovered(&mut self, log: &Log, name: &str, how: End) {
        let how = self.ended.take().map_or(how, |before| before.max(how));
        let state = log.stats().state;
        assert!(matches!(state, LogState::Open), "{name}: {state:?}");
        let found = read(log).unwrap();
        let (start, end) = (log.start_offset().get(), log.end_offset().get());
        assert_eq!(log.end_offset(), log.durable_end(), "{name}: all that is recovered is on disk");
        assert!(end >= self.acknowledged, "{name}: {end} of {} acknowledged", self.acknowledged);
        if self.kind != Kind::Relaxed {
            assert!(end >= self.seen, "{name}: {end} of {} that a reader saw", self.seen);
        }
        if how == End::Closed || (how == End::Kill && !self.failed) {
            let written = self.written.len() as u64;
            assert!(end >= written, "{name}: {how:?}, and {end} of {written} written are there");
        }
        let most = if self.kind == Kind::Retained { end } else { self.most_start.max(self.start) };
        assert!(
            (self.start..=most).contains(&start),
            "{name}: starts at {start}, not {}..={most}",
            self.start
        );
        let last = self.written.last().map_or(-1, |entry| entry.epoch);
        if how != End::Reopen {
            assert!(log.stats().epoch > last, "{name}: offsets may be used again, so the epoch moves on");
        }
        let maybe = std::mem::take(&mut self.maybe);
        self.add(maybe);
        self.check(&found, start, end, "recovery");
        self.written.truncate(usize::try_from(end).unwrap());
        self.sent.split_off(&end);
        assert!(self.written.last().is_none_or(|last| last.is_last), "{name}: a batch is there in part");
        (self.start, self.most_start) = (start, start);
        (self.acknowledged, self.seen) = (end, end);
        (self.failed, self.appended_at) = (false, TimestampMs(i64::MIN));
        self.check_producers(log, name);
    }

    /// What is on disk of a producer is known when it is sent again, and what is not is not.
    fn check_producers(&self, log: &Log, name: &str) {
        if self.kind != Kind::Transactional {
            return;
        }
        let known = self.known(self.written.len() as u64);
        known.check_producers(log, PRODUCERS, name);
        known.check_transactions(log, name).unwrap();
        for producer in known.producers.values() {
            for first in producer.batches.iter().rev().take(3) {
                match log.try_append(std::slice::from_ref(&self.sent[first])) {
                    Ok(Step::Done(receipt)) => {
                        assert!(receipt.is_duplicate(), "{name}: the batch at {first} is known");
                        assert_eq!(receipt.first_offset(), Offset(*first), "{name}: and where it is");
                    }
                    other => panic!("{name}: the batch at {first} is sent again: {other:?}"),
                }
            }
        }
    }

    fn check(&self, found: &BTreeMap<u64, Entry>, start: u64, end: u64, who: &str) {
        let written = self.written.len() as u64;
        assert!(end <= written, "{who} found {end} of {written} written");
        let mut last_of = BTreeMap::new();
        for offset in (start..end).rev() {
            let entry = self.written[usize::try_from(offset).unwrap()];
            let superseded = last_of.contains_key(&entry.key);
            last_of.entry(entry.key).or_insert(offset);
            match found.get(&offset) {
                Some(found) => assert_eq!(*found, entry, "{who}: the record at {offset} is what was written"),
                None => assert!(
                    (self.kind == Kind::Compacted && superseded) || self.gone.contains(&offset),
                    "{who}: the record at {offset} is missing from {start} to {end}"
                ),
            }
        }
        assert!(found.range(end..).next().is_none(), "{who}: nothing behind the end {end}");
    }
}
