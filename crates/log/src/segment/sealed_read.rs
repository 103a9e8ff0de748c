//! Reads of a sealed segment: its index says which bytes, and every batch is checked before it is
//! handed out.
//!
//! A read is brought into memory at once, since that is a system call, and each row of it is walked
//! once: its headers against the row's checksum, the batches that are wanted against their CRC.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

use super::Gaps;
use super::sealed::{Loaded, Sealed};
use super::walk::{Damage, Placement, RowTaken, Walk, find_record, take_row, walk};
use crate::error::Error;
use crate::format::index::Row;
use crate::read::Chunk;

impl Sealed {
    /// Reads from `from`, which lies in this segment, about `max_bytes` but at least one batch.
    pub(crate) fn read(self: &Arc<Self>, from: Offset, max_bytes: usize) -> Result<Vec<Chunk>, Error> {
        if from >= self.footer.next_offset {
            let missing = self.footer.next_offset..self.end;
            return Err(Error::corrupt(
                &self.data_path(),
                self.footer.data_len,
                missing,
                "it ends too early",
            ));
        }
        let loaded = self.load()?;
        let mut index = self.row_of(&loaded, from);
        while index < loaded.rows.len() {
            let span = self.span(&loaded, index, from, max_bytes)?;
            index = span.rows.end;
            let chunks = self.read_span(&loaded, span, from, max_bytes)?;
            if !chunks.is_empty() {
                return Ok(chunks);
            }
            // Compaction took out all that was there: the next batch is in a later row.
        }
        // The last batch of a segment always stays.
        let what = "the offset that was asked for is not where the index says";
        Err(Error::corrupt(&self.data_path(), 0, from..self.end, what))
    }

    /// The rows from `index` on that a read of `max_bytes` from `from` may need, in memory.
    fn span(&self, loaded: &Loaded, index: usize, from: Offset, max_bytes: usize) -> Result<Span, Error> {
        let first = self.row(loaded, index)?;
        let start = first.bytes.start;
        // Where the read begins inside the row is not known yet: at its last batch, at the latest.
        let reach = if first.offsets.start >= from { start } else { first.bytes.end - 1 };
        let reach = reach.saturating_add(max_bytes.max(1)) as u64;
        let last = loaded.rows.partition_point(|row| u64::from(row.position) < reach);
        if last > index + 1
            && let Ok(row) = self.row(loaded, last - 1)
            && row.bytes.end > start
            && let Ok(bytes) = self.bytes(loaded, start..row.bytes.end)
        {
            return Ok(Span { rows: index..last, start, bytes });
        }
        // Also where a later row cannot be read: what lies before damage is handed out.
        let bytes = self.bytes(loaded, first.bytes)?;
        Ok(Span { rows: index..index + 1, start, bytes })
    }

    fn read_span(
        &self,
        loaded: &Loaded,
        span: Span,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, Error> {
        let mut left = max_bytes;
        let mut runs = Runs { bytes: span.bytes, chunks: Vec::new(), last: None };
        for index in span.rows {
            let read = self.row(loaded, index).and_then(|row| {
                let at = row.bytes.start - span.start;
                let bytes = runs.bytes.get(at..row.bytes.end - span.start).unwrap_or_default();
                let taken = self.take_row(&row, bytes, from, left, runs.last.is_none())?;
                Ok((row, at, taken))
            });
            match read {
                Ok((_, _, RowTaken { taken, .. })) if taken.range.is_empty() && runs.last.is_some() => break,
                Ok((row, at, RowTaken { taken, .. })) if !taken.range.is_empty() => {
                    left = left.saturating_sub(taken.range.len());
                    let whole = taken.range.end == row.bytes.len();
                    runs.add(at + taken.range.start..at + taken.range.end, &row, taken.next_offset);
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

    /// One row's batches from `from` on, checked; an empty take if compaction took them all out.
    fn take_row(
        &self,
        row: &RowRange,
        bytes: &[u8],
        from: Offset,
        max_bytes: usize,
        whatever_size: bool,
    ) -> Result<RowTaken, Error> {
        let place = (row.offsets.start, self.gaps_in(row));
        let mut read = take_row(bytes, place, from, max_bytes, whatever_size);
        if read.damage.is_none() && read.check != row.row.check {
            return Err(self.not_as_written(row));
        }
        if read.taken.range.is_empty()
            && let Some(damage) = read.bad.take().or(read.damage.take())
        {
            return Err(self.corrupt(row, damage));
        }
        Ok(read)
    }

    /// The first record at or after both `at` and `start`.
    pub(crate) fn find_time(
        self: &Arc<Self>,
        at: TimestampMs,
        start: Offset,
    ) -> Result<Option<(Offset, TimestampMs)>, Error> {
        let loaded = self.load()?;
        let first = loaded.rows.partition_point(|row| row.max_timestamp < at);
        for index in first..loaded.rows.len() {
            let row = self.row(&loaded, index)?;
            let (bytes, walked) = self.walk_row(&loaded, &row)?;
            let found = find_record(&bytes, &walked.batches, at, start);
            if let Some(found) = found.map_err(|damage| self.corrupt(&row, damage))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The bytes of a row and the batches in them, checked against the index. Where a header is
    /// damaged, the batches before it are good all the same: they stand on their own CRC.
    fn walk_row(&self, loaded: &Loaded, row: &RowRange) -> Result<(Bytes, Walk), Error> {
        let bytes = self.bytes(loaded, row.bytes.clone())?;
        let mut walked = walk(&bytes, row.offsets.start, self.gaps_in(row));
        if let Some(len) = walked.cut_off {
            let next = walked.batches.last().map_or(row.offsets.start, |batch| batch.header.next_offset());
            let at = walked.batches.last().map_or(0, Placement::end);
            let what = format!("a batch claims {len} bytes, past the end of its row");
            walked.damage = Some(Damage { at, from: next, to: None, what });
        }
        if walked.damage.is_none() && walked.check != row.row.check {
            return Err(self.not_as_written(row));
        }
        Ok((bytes, walked))
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
        // A header that is damaged may claim offsets of the next row, or of the next segment.
        let to = damage.to.map_or(row.offsets.end, |to| to.min(row.offsets.end));
        let offsets = damage.from..to;
        Error::corrupt(&self.data_path(), (row.bytes.start + damage.at) as u64, offsets, damage.what)
    }

    /// The number of the row that holds `from`.
    fn row_of(&self, loaded: &Loaded, from: Offset) -> usize {
        let relative = from.get() - self.footer.base.get();
        loaded.rows.partition_point(|row| u64::from(row.relative_offset) <= relative).saturating_sub(1)
    }

    fn row(&self, loaded: &Loaded, index: usize) -> Result<RowRange, Error> {
        let base = self.footer.base;
        let row = loaded.rows.get(index).expect("the caller stays below the number of rows");
        let next = loaded.rows.get(index + 1);
        let end = next.map_or(self.footer.data_len, |next| u64::from(next.position));
        let next_offset =
            next.map_or(self.footer.next_offset, |next| base.saturating_add(next.relative_offset.into()));
        let range = RowRange {
            bytes: row.position as usize..usize::try_from(end).unwrap_or(usize::MAX),
            offsets: base.saturating_add(row.relative_offset.into())..next_offset,
            appended_by: next.map_or(self.footer.last_appended_at, |next| next.appended_at),
            row,
        };
        if range.bytes.start < range.bytes.end && range.bytes.end as u64 <= self.footer.data_len {
            return Ok(range);
        }
        let what =
            "a row of its index points outside the segment; remove the index file and open the log again";
        Err(Error::corrupt(&self.data_path(), u64::from(row.position), range.offsets, what))
    }
}

/// Rows that are in memory together.
struct Span {
    rows: Range<usize>,
    /// Where in the file the bytes begin.
    start: usize,
    bytes: Bytes,
}

/// A row with the bytes and offsets that it stands for.
struct RowRange {
    row: Row,
    bytes: Range<usize>,
    offsets: Range<Offset>,
    /// No batch of it was appended later.
    appended_by: TimestampMs,
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
}

impl Runs {
    fn add(&mut self, range: Range<usize>, row: &RowRange, next_offset: Offset) {
        let appended = row.row.appended(row.appended_by);
        match &mut self.last {
            Some(last) if last.appended == appended && last.range.end == range.start => {
                last.range.end = range.end;
                last.next_offset = next_offset;
            }
            _ => {
                self.finish();
                self.last = Some(Run { range, appended, next_offset });
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
            });
        }
    }

    fn into_chunks(mut self) -> Vec<Chunk> {
        self.finish();
        self.chunks
    }
}
