//! Reads of a sealed segment: its index says which bytes, and its [rows](super::rows) check them.
//!
//! A read is brought into memory at once, since that is a system call.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

use super::rows::{RowCheck, RowRange};
use super::sealed::{Loaded, Sealed};
use crate::error::Error;
use crate::read::Chunk;

impl Sealed {
    /// Reads from the start of `offsets`, which lies in this segment, about `max_bytes` but at least one batch, and
    /// none that begins at their end or behind it.
    pub(crate) fn read(
        self: &Arc<Self>,
        offsets: &Range<Offset>,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, Error> {
        let from = offsets.start;
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
            let rows = span.rows.map(|index| self.row(&loaded, index));
            let chunks = self.check().read(rows, (span.start, span.bytes), offsets, max_bytes)?;
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
            let bytes = self.bytes(&loaded, row.bytes.clone())?;
            if let Some(found) = self.check().find_record(&row, &bytes, at, start)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    pub(super) fn check(&self) -> RowCheck<'_> {
        RowCheck { dir: &self.dir, base: self.footer.base, gaps: self.gaps }
    }

    /// The number of the row that holds `from`.
    pub(super) fn row_of(&self, loaded: &Loaded, from: Offset) -> usize {
        let relative = from.get() - self.footer.base.get();
        loaded.rows.partition_point(|row| u64::from(row.relative_offset) <= relative).saturating_sub(1)
    }

    pub(super) fn row(&self, loaded: &Loaded, index: usize) -> Result<RowRange, Error> {
        let base = self.footer.base;
        let row = loaded.rows.get(index).expect("the caller stays below the number of rows");
        let next = loaded.rows.get(index + 1);
        let end = next.map_or(self.footer.data_len, |next| u64::from(next.position));
        let next_offset =
            next.map_or(self.footer.next_offset, |next| base.saturating_add(next.relative_offset.into()));
        let appended_by = next.map_or(self.footer.last_appended_at, |next| next.appended_at);
        let range = RowRange::new(row, base, (end, next_offset), appended_by);
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
