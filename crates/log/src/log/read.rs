//! The read path: which segment, which batches, each checked before it is handed out.

use std::sync::Arc;

use logmill_record::{Offset, TimestampMs};

use super::LogInner;
use super::active_view::{ActiveView, Search};
use super::state::{Phase, State, closed};
use crate::error::{Error, ErrorKind};
use crate::read::ReadOut;
use crate::segment::{DATA, Sealed, path};

impl LogInner {
    pub(super) fn read(&self, from: Offset, max_bytes: usize) -> Result<ReadOut, Error> {
        let (chunks, start_offset, end_offset) = loop {
            let (source, start_offset, end_offset) = {
                let state = self.state.lock();
                (self.source(&state, from, max_bytes)?, state.start_offset, state.visible().end)
            };
            let chunks = match source {
                Source::End => Vec::new(),
                Source::Parked => {
                    self.unpark()?;
                    continue;
                }
                Source::Sealed(segment) => match segment.read(from, max_bytes) {
                    // Removed or replaced meanwhile, before its files were open.
                    Err(_) if !self.holds(&segment) => continue,
                    read => read?,
                },
                Source::Active(view) => match view.opened(self)? {
                    Some(view) => view.read(self, from, max_bytes)?,
                    None => continue,
                },
            };
            break (chunks, start_offset, end_offset);
        };
        let next_offset = chunks.last().map_or(from, |chunk| chunk.next_offset);
        Ok(ReadOut { start_offset, end_offset, next_offset, chunks })
    }

    /// Whether a segment is still one of the log's.
    fn holds(&self, segment: &Arc<Sealed>) -> bool {
        self.state.lock().sealed.iter().any(|held| Arc::ptr_eq(held, segment))
    }

    /// Where `from` is, and all that is needed to read there without the lock.
    fn source(&self, state: &State, from: Offset, max_bytes: usize) -> Result<Source, Error> {
        if matches!(state.phase, Phase::Closed) {
            return Err(closed());
        }
        // A damaged log can end before its start.
        let (start, end) = (state.start_offset, state.visible().end.max(state.start_offset));
        if from < start || from > end {
            let message = format!(
                "offset {from} is out of range: {} has offsets {start} to {end}; start at one of these",
                self.dir.display(),
            );
            return Err(Error::new(ErrorKind::OutOfRange, message).at_path(&self.dir));
        }
        // There was more, and it is damaged: a reader must not wait for it.
        let more_was_there = matches!(state.phase, Phase::ReadOnly(_)) && from < state.active.base();
        if from == end && !more_was_there {
            return match &state.phase {
                Phase::ReadOnly(error) if error.offsets().is_some_and(|gone| gone.end > end) => {
                    Err(error.clone())
                }
                _ => Ok(Source::End),
            };
        }
        if from >= state.active.base() {
            if state.active.is_parked {
                return Ok(Source::Parked);
            }
            return Ok(Source::Active(ActiveView::at_offset(self, state, from, max_bytes)));
        }
        let index = state.sealed.partition_point(|segment| segment.end() <= from);
        match state.sealed.get(index) {
            Some(segment) if segment.base() <= from => Ok(Source::Sealed(Arc::clone(segment))),
            other => {
                let next = other.map_or(state.active.base(), |segment| segment.base());
                let missing = path(&self.dir, from, DATA);
                Err(Error::corrupt(&missing, 0, from..next, "no segment file holds these offsets"))
            }
        }
    }

    /// The first record at or after `at`, as its offset and timestamp.
    pub(super) fn find_time(&self, at: TimestampMs) -> Result<Option<(Offset, TimestampMs)>, Error> {
        'search: loop {
            self.unpark()?;
            let (sealed, active_base, start) = {
                let state = self.state.lock();
                if matches!(state.phase, Phase::Closed) {
                    return Err(closed());
                }
                (Arc::clone(&state.sealed), state.active.base(), state.start_offset)
            };
            for segment in
                sealed.iter().filter(|segment| segment.end() > start && segment.max_timestamp() >= at)
            {
                match segment.find_time(at, start) {
                    Ok(None) => {}
                    // Removed or replaced meanwhile, before its files were open.
                    Err(_) if !self.holds(segment) => continue 'search,
                    found => return found,
                }
            }
            let mut from = start;
            loop {
                let view = {
                    let state = self.state.lock();
                    if state.active.base() != active_base || state.active.is_parked {
                        continue 'search;
                    }
                    ActiveView::at_time(self, &state, at, from)
                };
                let Some(view) = view else { return Ok(None) };
                let Some(view) = view.opened(self)? else { continue 'search };
                match view.find_time(self, at, start)? {
                    Search::Found(offset, timestamp) => return Ok(Some((offset, timestamp))),
                    Search::NotBefore(next) => from = next,
                    Search::Nothing => return Ok(None),
                }
            }
        }
    }
}

enum Source {
    End,
    /// The index of the active segment has to be loaded first.
    Parked,
    Sealed(Arc<Sealed>),
    Active(ActiveView),
}
