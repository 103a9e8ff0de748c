//! One partition of a source: what was fetched and not yet taken, and how far it has come.

use std::collections::VecDeque;
use std::ops::Range;

use logmill_record::{Batch, BatchError, Offset, TimestampMs};

use super::refused::Refused;
use crate::backend::{Fetched, PartitionState};
use crate::operator::{Belief, Decoder, Entry, Taken};
use crate::sqlite::Resume;

/// A time this far past the moment the node stored the record is not believed: one such record would close the
/// windows of all others. Measured against the time of storing, not of reading: a run that is far behind judges as one
/// that keeps up.
const AHEAD_MS: i64 = 60 * 60 * 1_000;

/// A batch that records were decoded from; kept until the step that took the last of them is committed.
#[derive(Debug)]
struct Held {
    batch: Batch,
    appended_at: TimestampMs,
    appended_at_estimated: bool,
    last_offset: Offset,
}

#[derive(Debug)]
pub(super) struct Partition {
    pub(super) number: u32,
    /// Where to fetch next.
    next_fetch: Offset,
    stable_end: Offset,
    /// Where a bounded run ends.
    until: Option<Offset>,
    /// Where this run went on from.
    pub(super) resume: Resume,
    /// What was refused for its time, of all that has been taken and could be replayed.
    refused: Refused,
    entries: VecDeque<Entry>,
    buffered_bytes: usize,
    held: VecDeque<Held>,
}

impl Partition {
    /// Goes on at `resume`; a bounded run ends at what is the stable end now.
    pub(super) fn new(state: &PartitionState, resume: Resume, bounded: bool) -> Self {
        Self {
            number: state.partition,
            next_fetch: resume.replay,
            stable_end: state.stable_end,
            until: bounded.then_some(state.stable_end),
            refused: resume.refused.clone(),
            resume,
            entries: VecDeque::new(),
            buffered_bytes: 0,
            held: VecDeque::new(),
        }
    }

    /// Every offset before it has been taken.
    pub(super) fn position(&self) -> Offset {
        self.entries.front().map_or(self.next_fetch, |entry| entry.offset)
    }

    /// Whether it is still behind what an earlier run has handled.
    pub(super) fn is_replaying(&self) -> bool {
        self.position() < self.resume.read
    }

    /// Whether everything that this run can read for now has been taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.entries.is_empty() && self.next_fetch >= self.until.unwrap_or(self.stable_end)
    }

    /// Whether everything that there is has been taken: a bounded run may end before that.
    pub(super) fn is_at_stable_end(&self) -> bool {
        self.entries.is_empty() && self.next_fetch >= self.stable_end
    }

    /// Whether a bounded run has taken everything that it ever will.
    pub(super) fn is_done(&self) -> bool {
        self.until.is_some() && self.is_at_end()
    }

    /// Where to fetch, if records are needed, or the news that there are none: a bounded run that is done asks on, as
    /// silence counts for it too.
    pub(super) fn wants(&self) -> Option<Offset> {
        let goes_past_the_run = self.is_done() && !self.is_at_stable_end();
        (self.entries.is_empty() && !goes_past_the_run).then_some(self.next_fetch)
    }

    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// The event time of the next record.
    pub(super) fn head(&self) -> Option<i64> {
        self.entries.front().map(|entry| entry.time)
    }

    /// Decodes what was fetched. Gives whether there were records in it.
    pub(super) fn fill(
        &mut self,
        at: usize,
        fetched: Fetched,
        decoder: &mut dyn Decoder,
    ) -> Result<bool, BatchError> {
        self.stable_end = self.stable_end.max(fetched.stable_end);
        let from = self.next_fetch;
        let until = self.until.unwrap_or(Offset::MAX);
        for chunk in fetched.chunks {
            let mut run = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut run)? {
                let last_offset = batch.header().last_offset();
                if batch.header().attributes.is_control() || last_offset < from {
                    continue;
                }
                let belief = belief(&self.resume, &self.refused, chunk.appended_at);
                let before = self.entries.len();
                decoder.decode(at, &batch, from..until, belief, &mut self.entries)?;
                self.buffered_bytes +=
                    self.entries.range(before..).map(|entry| entry.size_bytes).sum::<usize>();
                if self.entries.len() > before {
                    self.held.push_back(Held {
                        batch,
                        appended_at: chunk.appended_at,
                        appended_at_estimated: chunk.appended_at_estimated,
                        last_offset,
                    });
                }
            }
        }
        self.next_fetch = self.next_fetch.max(fetched.next_offset).min(until);
        Ok(!self.entries.is_empty())
    }

    /// Takes the next record out.
    pub(super) fn take(&mut self, at: usize, watermark: i64) -> Option<(Taken, Entry)> {
        let entry = self.entries.pop_front()?;
        self.buffered_bytes = self.buffered_bytes.saturating_sub(entry.size_bytes);
        if entry.bad.as_ref().is_some_and(|bad| bad.is_ahead) {
            self.refused.insert(entry.offset);
        }
        let taken = Taken {
            partition: at,
            offset: entry.offset,
            time: entry.time,
            watermark,
            replayed: entry.offset < self.resume.read,
            bad: entry.bad.is_some(),
        };
        Some((taken, entry))
    }

    /// Decodes the records of `offsets` once more, for a step that has to run again.
    pub(super) fn decode_again(
        &self,
        at: usize,
        offsets: &Range<Offset>,
        decoder: &mut dyn Decoder,
    ) -> Result<(), BatchError> {
        let mut known = VecDeque::new();
        for held in &self.held {
            let belief = belief(&self.resume, &self.refused, held.appended_at);
            decoder.decode(at, &held.batch, offsets.clone(), belief, &mut known)?;
        }
        Ok(())
    }

    /// Every batch that a record taken in this step may be in, in order.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.held.iter().map(|held| &held.batch)
    }

    /// When the node stored the record of this offset, if it is known exactly.
    pub(super) fn appended_at(&self, offset: Offset) -> Option<TimestampMs> {
        let index = self.held.partition_point(|held| held.last_offset < offset);
        let held = self.held.get(index)?;
        (!held.appended_at_estimated).then_some(held.appended_at)
    }

    /// Where a later run is to go on: `needs` is the smallest offset that an open window holds.
    pub(super) fn seal(&mut self, needs: Option<Offset>, largest: Option<i64>, closed: i64) -> Resume {
        if self.is_replaying() {
            return self.resume.clone();
        }
        let read = self.position();
        let replay = needs.unwrap_or(read);
        self.refused.remove_before(replay);
        Resume { read, replay, largest, closed, refused: self.refused.clone() }
    }

    /// Lets go of the batches that no record waits in.
    pub(super) fn release(&mut self) {
        let position = self.position();
        while self.held.front().is_some_and(|held| held.last_offset < position) {
            self.held.pop_front();
        }
    }
}

/// What is believed of a batch that was stored at this time.
fn belief<'a>(resume: &Resume, refused: &'a Refused, appended_at: TimestampMs) -> Belief<'a> {
    Belief { judged: resume.read, refused, limit: appended_at.0.saturating_add(AHEAD_MS) }
}
