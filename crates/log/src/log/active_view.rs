//! Reading the active segment: a snapshot of what readers see of it, read without the log's lock.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

use super::LogInner;
use super::state::State;
use crate::env::File;
use crate::error::Error;
use crate::format::atomic;
use crate::format::index::Row;
use crate::read::Chunk;
use crate::segment::{DATA, Damage, Gaps, Placement, find_record, path, take, walk};

/// So far may the batch that is asked for lie behind the start of its row, unless it is large.
const ROW_SPAN: u64 = 40 * 1024;
/// Searches read so much at a time.
const PIECE_LEN: u64 = 256 * 1024;

/// The part of the active segment that readers see, from some batch on.
pub(super) struct ActiveView {
    /// None if the file has to be opened first: see [`ActiveView::opened`].
    file: Option<Arc<dyn File>>,
    base: Offset,
    path: PathBuf,
    /// Where runs of batches with one time of append begin, in order. The first holds or precedes
    /// what is looked for.
    marks: Vec<Mark>,
    /// The end of what readers see, and the offset there.
    end: u64,
    end_offset: Offset,
}

/// The start of a run of batches with one time of append.
#[derive(Clone, Copy)]
struct Mark {
    position: u64,
    offset: Offset,
    appended_at: TimestampMs,
    estimated: bool,
}

impl Mark {
    fn of_row(row: &Row, base: Offset, appended_by: TimestampMs) -> Self {
        let (appended_at, estimated) = row.appended(appended_by);
        Self {
            position: row.position.into(),
            offset: base.saturating_add(row.relative_offset.into()),
            appended_at,
            estimated,
        }
    }
}

impl ActiveView {
    /// A view for reading about `max_bytes` from `from`, which is durable and in the active segment.
    pub(super) fn at_offset(log: &LogInner, state: &State, from: Offset, max_bytes: usize) -> Self {
        let active = &state.active;
        let base = active.base();
        let newest = active.recent.partition_point(|recent| recent.offset <= from);
        let mut marks: Vec<Mark> = Vec::new();
        let reach = |marks: &[Mark]| {
            marks.first().map_or(u64::MAX, |mark| {
                mark.position.saturating_add(ROW_SPAN).saturating_add(max_bytes as u64)
            })
        };
        if let Some(first) = newest.checked_sub(1) {
            for recent in active.recent.range(first..) {
                if recent.position > reach(&marks) {
                    break;
                }
                if marks.last().is_none_or(|mark| mark.appended_at != recent.appended_at) {
                    let (position, offset, appended_at) =
                        (recent.position, recent.offset, recent.appended_at);
                    marks.push(Mark { position, offset, appended_at, estimated: false });
                }
            }
        } else {
            let relative = from.get() - base.get();
            let rows = active.index.rows();
            let first =
                rows.partition_point(|row| u64::from(row.relative_offset) <= relative).saturating_sub(1);
            let last = active.index.footer().last_appended_at;
            for (index, row) in rows.iter().enumerate().skip(first) {
                if u64::from(row.position) > reach(&marks) {
                    break;
                }
                let appended_by = rows.get(index + 1).map_or(last, |next| next.appended_at);
                marks.push(Mark::of_row(row, base, appended_by));
            }
        }
        Self::new(log, state, marks)
    }

    /// A view for a search by time; `None` if the segment holds nothing as late.
    pub(super) fn at_time(log: &LogInner, state: &State, at: TimestampMs) -> Option<Self> {
        let rows = state.active.index.rows();
        let row = rows.get(rows.partition_point(|row| row.max_timestamp < at))?;
        Some(Self::new(log, state, vec![Mark::of_row(row, state.active.base(), row.appended_at)]))
    }

    fn new(log: &LogInner, state: &State, marks: Vec<Mark>) -> Self {
        Self {
            file: state.active.open.as_ref().map(|open| Arc::clone(&open.file)),
            base: state.active.base(),
            path: path(&log.dir, state.active.base(), DATA),
            marks,
            end: state.visible().position,
            end_offset: state.visible().end,
        }
    }

    /// With its file open; none if the segment is not the active one any more, so that the caller
    /// has to look again.
    pub(super) fn opened(mut self, log: &LogInner) -> Result<Option<Self>, Error> {
        if self.file.is_none() {
            self.file = log.file_to_read(self.base)?;
        }
        Ok(self.file.is_some().then_some(self))
    }

    pub(super) fn read(&self, from: Offset, max_bytes: usize) -> Result<Vec<Chunk>, Error> {
        let Some(first) = self.marks.first() else { return Ok(Vec::new()) };
        let lead = if first.offset == from { 0 } else { ROW_SPAN };
        let mut len = (max_bytes as u64).saturating_add(lead).max(ROW_SPAN);
        loop {
            let left = self.end - first.position;
            let bytes = self.read_bytes(first.position, len.min(left))?;
            let walked = walk(&bytes, first.offset, Gaps::None);
            let taken = take(&bytes, &walked.batches, from, max_bytes)
                .map_err(|damage| self.corrupt(first, damage))?;
            if !taken.range.is_empty() {
                return Ok(self.chunks(&bytes, &walked.batches, taken.range.end, from));
            }
            if let Some(damage) = walked.damage {
                return Err(self.corrupt(first, damage));
            }
            let read = walked.batches.last().map_or(0, Placement::end);
            if len >= left {
                let what = "a batch claims more bytes than are there".into();
                return Err(self.corrupt(first, Damage { at: read, from, to: None, what }));
            }
            // The batch is larger than what was read.
            len = len.saturating_add((read + walked.cut_off.unwrap_or(0)) as u64);
        }
    }

    /// Cuts what was taken at the marks, so that each chunk has its time of append.
    fn chunks(&self, bytes: &Bytes, batches: &[Placement], end: usize, from: Offset) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut marks = self.marks.iter().peekable();
        let (start, mut current) = (self.marks[0].position, self.marks[0]);
        let mut run = 0..0;
        let wanted = |batch: &&Placement| batch.header.last_offset() >= from && batch.end() <= end;
        for batch in batches.iter().filter(wanted) {
            let mut marked = false;
            while let Some(mark) = marks.next_if(|mark| mark.position <= start + batch.at as u64) {
                current = *mark;
                marked = true;
            }
            if marked || chunks.is_empty() {
                run = batch.at..batch.end();
                chunks.push(Chunk {
                    batches: bytes.slice(run.clone()),
                    appended_at: current.appended_at,
                    appended_at_estimated: current.estimated,
                    next_offset: batch.header.next_offset(),
                });
            } else if let Some(chunk) = chunks.last_mut() {
                run.end = batch.end();
                chunk.batches = bytes.slice(run.clone());
                chunk.next_offset = batch.header.next_offset();
            }
        }
        chunks
    }

    /// The first durable record at or after both `at` and `start`.
    pub(super) fn find_time(
        &self,
        at: TimestampMs,
        start: Offset,
    ) -> Result<Option<(Offset, TimestampMs)>, Error> {
        let Some(mut mark) = self.marks.first().copied() else { return Ok(None) };
        let mut len = PIECE_LEN;
        while mark.position < self.end {
            let left = self.end - mark.position;
            let bytes = self.read_bytes(mark.position, len.min(left))?;
            let walked = walk(&bytes, mark.offset, Gaps::None);
            let found = find_record(&bytes, &walked.batches, at, start);
            if let Some(found) = found.map_err(|damage| self.corrupt(&mark, damage))? {
                return Ok(Some(found));
            }
            if let Some(damage) = walked.damage {
                return Err(self.corrupt(&mark, damage));
            }
            match walked.batches.last() {
                Some(last) => {
                    mark.position += last.end() as u64;
                    mark.offset = last.header.next_offset();
                    len = PIECE_LEN;
                }
                None if len >= left => {
                    let what = "a batch claims more bytes than are there".into();
                    return Err(self.corrupt(&mark, Damage { at: 0, from: mark.offset, to: None, what }));
                }
                None => len += walked.cut_off.unwrap_or(0) as u64,
            }
        }
        Ok(None)
    }

    fn read_bytes(&self, position: u64, len: u64) -> Result<Bytes, Error> {
        let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let file = self.file.as_ref().expect("opened() comes before reading");
        atomic::read_exact(&**file, &mut buf, position)
            .map_err(|error| Error::io("read", &self.path, error))?;
        Ok(buf.into())
    }

    fn corrupt(&self, mark: &Mark, damage: Damage) -> Error {
        let offsets = damage.from..damage.to.unwrap_or(self.end_offset);
        Error::corrupt(&self.path, mark.position + damage.at as u64, offsets, damage.what)
    }
}
