//! Reading the active segment: a snapshot of what readers see of it, read without the log's lock.

mod place;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

use super::LogInner;
use crate::env::File;
use crate::error::Error;
use crate::format::atomic;
use crate::read::Chunk;
use crate::segment::{
    DATA, Damage, Gaps, Placement, RowCheck, RowEpochs, RowRange, Walk, find_record, path, take, walk,
};

/// So far may the batch that is asked for lie behind the start of its row, unless it is large.
const ROW_SPAN: u64 = 40 * 1024;
/// Searches read so much at a time.
const PIECE_LEN: u64 = 256 * 1024;
/// And look into so many rows before they let others have the log.
const MOST_ROWS: usize = 16;

/// The part of the active segment that readers see, from some batch on.
pub(super) struct ActiveView {
    /// None if the file has to be opened first: see [`ActiveView::opened`].
    file: Option<Arc<dyn File>>,
    base: Offset,
    dir: PathBuf,
    part: Part,
    /// Of what was appended since the log was opened.
    epoch: i32,
    /// The end of what readers see, and the offset there.
    end: u64,
    end_offset: Offset,
}

/// Where what is looked for lies.
enum Part {
    /// In what was there when the log was opened, or last loaded: the rows from the one that holds
    /// or precedes it. They check one another's batches, epochs among them.
    Rows(Vec<RowRange>),
    /// In what was appended since: where runs of batches with one time of append begin, in order,
    /// from the one that holds or precedes it. Their epoch is that of the log.
    Marks(Vec<Mark>),
}

/// The start of a run of batches with one time of append.
#[derive(Clone, Copy)]
struct Mark {
    position: u64,
    offset: Offset,
    appended_at: TimestampMs,
    estimated: bool,
}

/// How a search for a time ended.
pub(super) enum Search {
    Found(Offset, TimestampMs),
    /// Nothing before this offset: the search goes on there.
    NotBefore(Offset),
    /// Nothing.
    Nothing,
}

impl ActiveView {
    /// With its file open; none if the segment is not the active one any more, so that the caller
    /// has to look again.
    pub(super) fn opened(mut self, log: &LogInner) -> Result<Option<Self>, Error> {
        if self.file.is_none() {
            self.file = log.file_to_read(self.base)?;
        }
        Ok(self.file.is_some().then_some(self))
    }

    /// See [`Sealed::read`](crate::segment::Sealed::read).
    pub(super) fn read(
        &self,
        log: &LogInner,
        offsets: &Range<Offset>,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, Error> {
        match &self.part {
            Part::Rows(rows) => {
                let (start, bytes) = self.bytes_of(rows)?;
                self.check().read(rows.iter().cloned().map(Ok), (start, bytes), offsets, max_bytes)
            }
            Part::Marks(marks) => self.read_marked(log, marks, offsets, max_bytes),
        }
    }

    /// The leader epochs of the batches in a row.
    pub(super) fn epochs_of(&self, row: &RowRange) -> Result<RowEpochs, Error> {
        let (_, bytes) = self.bytes_of(std::slice::from_ref(row))?;
        Ok(self.check().epochs(row, &bytes))
    }

    fn check(&self) -> RowCheck<'_> {
        RowCheck { dir: &self.dir, base: self.base, gaps: Gaps::None }
    }

    /// The bytes of consecutive rows, and where they begin.
    fn bytes_of(&self, rows: &[RowRange]) -> Result<(usize, Bytes), Error> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok((0, Bytes::new())) };
        let (start, end) = (first.bytes.start, last.bytes.end);
        Ok((start, self.read_bytes(start as u64, (end - start) as u64)?))
    }

    fn read_marked(
        &self,
        log: &LogInner,
        marks: &[Mark],
        offsets: &Range<Offset>,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, Error> {
        let from = offsets.start;
        let Some(first) = marks.first() else { return Ok(Vec::new()) };
        let lead = if first.offset == from { 0 } else { ROW_SPAN };
        let mut len = (max_bytes as u64).saturating_add(lead).max(ROW_SPAN);
        let corrupt = |damage| self.corrupt(log, first, damage);
        loop {
            let left = self.end - first.position;
            let bytes = self.read_bytes(first.position, len.min(left))?;
            let walked = self.walk(&bytes, first.offset);
            let taken = take(&bytes, &walked.batches, offsets, max_bytes).map_err(corrupt)?;
            if !taken.range.is_empty() {
                return Ok(chunks(marks, &bytes, &walked.batches, taken.range.end, from));
            }
            if let Some(damage) = walked.damage {
                return Err(corrupt(damage));
            }
            let read = walked.batches.last().map_or(0, Placement::end);
            if len >= left {
                let what = "a batch claims more bytes than are there".into();
                return Err(corrupt(Damage { at: read, from, to: None, what }));
            }
            // The batch is larger than what was read.
            len = len.saturating_add((read + walked.cut_off.unwrap_or(0)) as u64);
        }
    }

    /// The batches of what was appended since the log was opened.
    fn walk(&self, bytes: &[u8], first: Offset) -> Walk {
        let mut walked = walk(bytes, first, Gaps::None);
        let other = |batch: &Placement| batch.header.leader_epoch != self.epoch;
        if let Some(number) = walked.batches.iter().position(other) {
            let batch = &walked.batches[number];
            let what = format!(
                "a batch claims leader epoch {}, and {} was written",
                batch.header.leader_epoch, self.epoch
            );
            let (from, to) = (batch.header.base_offset, Some(batch.header.next_offset()));
            walked.damage = Some(Damage { at: batch.at, from, to, what });
            walked.cut_off = None;
            walked.batches.truncate(number);
        }
        walked
    }

    /// The first durable record at or after both `at` and `start`, in this part of the segment.
    pub(super) fn find_time(&self, log: &LogInner, at: TimestampMs, start: Offset) -> Result<Search, Error> {
        let rows = match &self.part {
            Part::Rows(rows) => rows,
            Part::Marks(marks) => return self.find_in_marked(log, marks, at, start),
        };
        let (begin, bytes) = self.bytes_of(rows)?;
        for row in rows {
            let bytes = bytes.slice(row.bytes.start - begin..row.bytes.end - begin);
            if let Some((offset, timestamp)) = self.check().find_record(row, &bytes, at, start)? {
                return Ok(Search::Found(offset, timestamp));
            }
        }
        let next = rows.last().map_or(self.end_offset, |last| last.offsets.end);
        Ok(if next < self.end_offset { Search::NotBefore(next) } else { Search::Nothing })
    }

    fn find_in_marked(
        &self,
        log: &LogInner,
        marks: &[Mark],
        at: TimestampMs,
        start: Offset,
    ) -> Result<Search, Error> {
        let Some(mut mark) = marks.first().copied() else { return Ok(Search::Nothing) };
        let mut len = PIECE_LEN;
        while mark.position < self.end {
            let left = self.end - mark.position;
            let bytes = self.read_bytes(mark.position, len.min(left))?;
            let walked = self.walk(&bytes, mark.offset);
            let found = find_record(&bytes, &walked.batches, at, start);
            if let Some(found) = found.map_err(|damage| self.corrupt(log, &mark, damage))? {
                return Ok(Search::Found(found.0, found.1));
            }
            if let Some(damage) = walked.damage {
                return Err(self.corrupt(log, &mark, damage));
            }
            match walked.batches.last() {
                Some(last) => {
                    mark.position += last.end() as u64;
                    mark.offset = last.header.next_offset();
                    len = PIECE_LEN;
                }
                None if len >= left => {
                    let what = "a batch claims more bytes than are there".into();
                    let damage = Damage { at: 0, from: mark.offset, to: None, what };
                    return Err(self.corrupt(log, &mark, damage));
                }
                None => len += walked.cut_off.unwrap_or(0) as u64,
            }
        }
        Ok(Search::Nothing)
    }

    fn data_path(&self) -> PathBuf {
        path(&self.dir, self.base, DATA)
    }

    fn read_bytes(&self, position: u64, len: u64) -> Result<Bytes, Error> {
        let mut buf = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        let file = self.file.as_ref().expect("opened() comes before reading");
        atomic::read_exact(&**file, &mut buf, position)
            .map_err(|error| Error::io("read", &self.data_path(), error))?;
        Ok(buf.into())
    }

    /// What a damaged header claims reaches no further than the next batch whose place is known: who
    /// reads on there finds it.
    fn corrupt(&self, log: &LogInner, mark: &Mark, damage: Damage) -> Error {
        let known = log.state.lock().known_behind(self.base, damage.from);
        let end = known.unwrap_or(self.end_offset);
        let offsets = damage.from..damage.to.unwrap_or(end).min(end).max(damage.from);
        Error::corrupt(&self.data_path(), mark.position + damage.at as u64, offsets, damage.what)
    }
}

/// Cuts what was taken at the marks, so that each chunk has its time of append.
fn chunks(marks: &[Mark], bytes: &Bytes, batches: &[Placement], end: usize, from: Offset) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let Some(mut current) = marks.first().copied() else { return chunks };
    let start = current.position;
    let mut marks = marks.iter().peekable();
    let mut run = 0..0;
    let wanted = |batch: &&Placement| batch.header.last_offset() >= from && batch.end() <= end;
    for batch in batches.iter().filter(wanted) {
        let mut marked = false;
        while let Some(mark) = marks.next_if(|mark| mark.position <= start + batch.at as u64) {
            current = *mark;
            marked = true;
        }
        if marked || chunks.is_empty() {
            run.start = batch.at;
            chunks.push(Chunk {
                batches: Bytes::new(),
                appended_at: current.appended_at,
                appended_at_estimated: current.estimated,
                next_offset: from,
                last_epoch: batch.header.leader_epoch,
                transactional: false,
            });
        }
        if let Some(chunk) = chunks.last_mut() {
            run.end = batch.end();
            chunk.batches = bytes.slice(run.clone());
            chunk.next_offset = batch.header.next_offset();
            chunk.last_epoch = batch.header.leader_epoch;
            chunk.transactional |= batch.header.attributes.is_transactional();
        }
    }
    chunks
}
