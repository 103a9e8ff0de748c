//! The batches of index rows, checked before they are handed out.
//!
//! Each row is walked once: its headers against the row's checksum, the batches that are wanted
//! against their CRC.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

use super::epoch_search::RowEpochs;
use super::walk::{Damage, Placement, RowTaken, Taken, Walk, find_record, take_row, walk};
use super::{DATA, Gaps, path};
use crate::error::Error;
use crate::format::index::Row;
use crate::read::Chunk;

/// A row with the bytes and offsets that it stands for.
#[derive(Clone, Debug)]
pub(crate) struct RowRange {
    row: Row,
    pub(crate) bytes: Range<usize>,
    pub(crate) offsets: Range<Offset>,
    /// No batch of it was appended later.
    appended_by: TimestampMs,
}

impl RowRange {
    /// Whether it begins below `offset`.
    pub(crate) fn begins_below(&self, offset: Offset) -> bool {
        self.offsets.start < offset
    }

    /// A row of the segment that begins at `base`, given where the next row begins.
    pub(crate) fn new(row: Row, base: Offset, next: (u64, Offset), appended_by: TimestampMs) -> Self {
        Self {
            bytes: row.position as usize..usize::try_from(next.0).unwrap_or(usize::MAX),
            offsets: base.saturating_add(row.relative_offset.into())..next.1,
            appended_by,
            row,
        }
    }
}

/// Checks the rows of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowCheck<'a> {
    pub(crate) dir: &'a Path,
    /// The segment's first offset.
    pub(crate) base: Offset,
    /// Whether compaction may have taken offsets out.
    pub(crate) gaps: Gaps,
}

impl RowCheck<'_> {
    /// The batches of consecutive rows from the one that holds the start of `offsets`, about `max_bytes` but
    /// at least one, and none that begins at their end or behind it. The bytes of the rows are in memory, from
    /// `start` of the file on.
    pub(crate) fn read(
        &self,
        rows: impl Iterator<Item = Result<RowRange, Error>>,
        (start, bytes): (usize, Bytes),
        offsets: &Range<Offset>,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, Error> {
        let mut left = max_bytes;
        let mut runs = Runs { bytes, chunks: Vec::new(), last: None };
        for row in rows {
            let read = row.and_then(|row| {
                let at = row.bytes.start - start;
                let bytes = runs.bytes.get(at..row.bytes.end - start).unwrap_or_default();
                let taken = self.take_row(&row, bytes, offsets, left, runs.last.is_none())?;
                Ok((row, at, taken))
            });
            match read {
                Ok((_, _, RowTaken { taken, .. })) if taken.range.is_empty() && runs.last.is_some() => break,
                Ok((row, at, RowTaken { taken, .. })) if !taken.range.is_empty() => {
                    left = left.saturating_sub(taken.range.len());
                    let whole = taken.range.end == row.bytes.len();
                    runs.add(at + taken.range.start..at + taken.range.end, &row, &taken);
                    if !whole || left == 0 {
                        break;
                    }
                }
                Ok(_) => {}
                // What lies before damage is handed out; who asks for the damage gets the error.
                Err(_) if runs.last.is_some() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(runs.into_chunks())
    }

    /// One row's batches in `offsets`, checked; an empty take if compaction took them all out.
    fn take_row(
        &self,
        row: &RowRange,
        bytes: &[u8],
        offsets: &Range<Offset>,
        max_bytes: usize,
        whatever_size: bool,
    ) -> Result<RowTaken, Error> {
        let place = (row.offsets.start, self.gaps_in(row));
        let mut read = take_row(bytes, place, offsets, max_bytes, whatever_size);
        let nothing = read.taken.range.is_empty();
        if let Some(damage) = read.bad.take_if(|_| nothing) {
            return Err(self.corrupt(row, damage));
        }
        if read.damage.is_none() && read.check != row.row.check {
            return Err(self.not_as_written(row));
        }
        if let Some(damage) = read.damage.take_if(|_| nothing) {
            return Err(self.corrupt(row, damage));
        }
        Ok(read)
    }

    /// The first record of a row at or after both `at` and `start`.
    pub(crate) fn find_record(
        &self,
        row: &RowRange,
        bytes: &Bytes,
        at: TimestampMs,
        start: Offset,
    ) -> Result<Option<(Offset, TimestampMs)>, Error> {
        let walked = self.walk_row(row, bytes)?;
        find_record(bytes, &walked.batches, at, start).map_err(|damage| self.corrupt(row, damage))
    }

    /// The leader epochs of a row's batches.
    pub(crate) fn epochs(&self, row: &RowRange, bytes: &[u8]) -> RowEpochs {
        let walked = self.walk_row(row, bytes).ok().filter(|walked| walked.damage.is_none());
        let of = |batch: &Placement| (batch.header.base_offset, batch.header.leader_epoch);
        let batches = walked.map(|walked| walked.batches.iter().map(of).collect());
        RowEpochs { begins: row.offsets.start, batches }
    }

    /// The batches of a row, checked against the index. Where a header is
    /// damaged, the batches before it are good all the same: they stand on their own CRC.
    fn walk_row(&self, row: &RowRange, bytes: &[u8]) -> Result<Walk, Error> {
        let mut walked = walk(bytes, row.offsets.start, self.gaps_in(row));
        if let Some(len) = walked.cut_off {
            let next = walked.batches.last().map_or(row.offsets.start, |batch| batch.header.next_offset());
            let at = walked.batches.last().map_or(0, Placement::end);
            let what = format!("a batch claims {len} bytes, past the end of its row");
            walked.damage = Some(Damage { at, from: next, to: None, what });
        }
        if walked.damage.is_none() && walked.check != row.row.check {
            return Err(self.not_as_written(row));
        }
        Ok(walked)
    }

    fn gaps_in(&self, row: &RowRange) -> Gaps {
        match self.gaps {
            Gaps::None => Gaps::None,
            Gaps::Below(_) => Gaps::Below(row.offsets.end),
        }
    }

    fn not_as_written(&self, row: &RowRange) -> Error {
        let what = "the headers of its batches are not those that were written";
        Error::corrupt(&self.data_path(), row.bytes.start as u64, row.offsets.clone(), what)
    }

    fn corrupt(&self, row: &RowRange, damage: Damage) -> Error {
        // What a damaged header claims reaches no further than its row.
        let end = row.offsets.end;
        let offsets = damage.from.min(end)..damage.to.unwrap_or(end).min(end);
        Error::corrupt(&self.data_path(), (row.bytes.start + damage.at) as u64, offsets, damage.what)
    }

    fn data_path(&self) -> PathBuf {
        path(self.dir, self.base, DATA)
    }
}

/// What was taken, made into one chunk for as long as the time of append stays the same.
struct Runs {
    bytes: Bytes,
    chunks: Vec<Chunk>,
    last: Option<Run>,
}

struct Run {
    range: Range<usize>,
    appended: (TimestampMs, bool),
    next_offset: Offset,
    last_epoch: i32,
    transactional: bool,
}

impl Runs {
    fn add(&mut self, range: Range<usize>, row: &RowRange, taken: &Taken) {
        let &Taken { next_offset, last_epoch, transactional, .. } = taken;
        let appended = row.row.appended(row.appended_by);
        match &mut self.last {
            Some(last) if last.appended == appended && last.range.end == range.start => {
                last.range.end = range.end;
                last.next_offset = next_offset;
                last.last_epoch = last_epoch;
                last.transactional |= transactional;
            }
            _ => {
                self.finish();
                self.last = Some(Run { range, appended, next_offset, last_epoch, transactional });
            }
        }
    }

    fn finish(&mut self) {
        if let Some(run) = self.last.take() {
            let (appended_at, appended_at_estimated) = run.appended;
            self.chunks.push(Chunk {
                batches: self.bytes.slice(run.range),
                appended_at,
                appended_at_estimated,
                next_offset: run.next_offset,
                last_epoch: run.last_epoch,
                transactional: run.transactional,
            });
        }
    }

    fn into_chunks(mut self) -> Vec<Chunk> {
        self.finish();
        self.chunks
    }
}
