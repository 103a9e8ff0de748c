//! What is known of one log, and what must therefore be found in it.

use std::collections::BTreeMap;

use logmill_log::{Error, Log, LogState};
use logmill_record::{Batch, Offset};

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
}

/// A record as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: u64,
    pub(crate) key: u8,
    pub(crate) epoch: i32,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) kind: Kind,
    /// What was written at each offset, or found there by the last recovery.
    pub(crate) written: Vec<Entry>,
    /// A group whose append failed while the machine went off: it may be there, in whole batches.
    pub(crate) maybe: Vec<Entry>,
    pub(crate) acknowledged: u64,
    pub(crate) seen: u64,
    /// Where the log starts, and how far its start may have got.
    pub(crate) start: u64,
    pub(crate) most_start: u64,
    /// A sync has failed: what was written and not acknowledged may be gone even after a kill.
    pub(crate) failed: bool,
}

/// How a log ended before it was opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Power,
    Kill,
    /// In the same process: closed, or poisoned.
    Reopen,
}

impl Model {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            written: Vec::new(),
            maybe: Vec::new(),
            acknowledged: 0,
            seen: 0,
            start: 0,
            most_start: 0,
            failed: false,
        }
    }

    /// A reader of a log that works looks at everything there is.
    pub(crate) fn look(&mut self, log: &Log) -> Result<(), Error> {
        let found = read(log)?;
        let end = log.end_offset().get();
        self.check(&found, log.start_offset().get(), end, "a reader");
        self.acknowledged = self.acknowledged.max(log.durable_end().get());
        self.seen = self.seen.max(end);
        Ok(())
    }

    /// The log was opened again: acknowledged ⊆ recovered ⊆ written.
    pub(crate) fn recovered(&mut self, log: &Log, name: &str, how: End) {
        let state = log.stats().state;
        assert!(matches!(state, LogState::Open), "{name}: {state:?}");
        let found = read(log).unwrap();
        let (start, end) = (log.start_offset().get(), log.end_offset().get());
        assert_eq!(log.end_offset(), log.durable_end(), "{name}: all that is recovered is on disk");
        assert!(end >= self.acknowledged, "{name}: {end} of {} acknowledged", self.acknowledged);
        if self.kind != Kind::Relaxed {
            assert!(end >= self.seen, "{name}: {end} of {} that a reader saw", self.seen);
        }
        if how == End::Kill && !self.failed {
            let written = self.written.len() as u64;
            assert!(end >= written, "{name}: a kill took {end} of {written} written");
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
        self.written.extend(maybe);
        self.check(&found, start, end, "recovery");
        self.written.truncate(usize::try_from(end).unwrap());
        (self.start, self.most_start) = (start, start);
        (self.acknowledged, self.seen) = (end, end);
        self.failed = false;
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
                    self.kind == Kind::Compacted && superseded,
                    "{who}: the record at {offset} is missing from {start} to {end}"
                ),
            }
        }
        assert!(found.range(end..).next().is_none(), "{who}: nothing behind the end {end}");
    }
}

/// Every record from the start to the end that readers can see.
fn read(log: &Log) -> Result<BTreeMap<u64, Entry>, Error> {
    let mut found = BTreeMap::new();
    let mut next = log.start_offset();
    loop {
        let out = log.read(next, 3_000)?;
        if out.chunks.is_empty() {
            assert_eq!(next, out.end_offset, "an empty read is the end");
            return Ok(found);
        }
        for chunk in out.chunks {
            let mut rest = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut rest).unwrap() {
                let epoch = batch.header().leader_epoch;
                for record in batch.records().unwrap() {
                    let record = record.unwrap();
                    if record.offset >= next {
                        let id = u64::from_be_bytes(*record.value.unwrap().first_chunk().unwrap());
                        let entry = Entry { id, key: record.key.unwrap()[0], epoch };
                        let before: Option<Entry> = found.insert(record.offset.get(), entry);
                        assert!(before.is_none(), "one record at {}", record.offset);
                    }
                }
            }
        }
        assert!(out.next_offset > next, "a read that is not empty goes on");
        next = Offset(out.next_offset.get());
    }
}
