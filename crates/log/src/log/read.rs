//! The read path: which segment, which batches, each checked before it is handed out.

use std::sync::Arc;

use logmill_record::{Offset, TimestampMs};

use super::LogInner;
use super::active_view::{ActiveView, Search};
use super::state::{Phase, closed};
use super::view::View;
use crate::error::{Error, ErrorKind};
use crate::read::ReadOut;
use crate::segment::{DATA, Sealed, path};

impl LogInner {
    /// Waits for a write that is going on only where it reads what is being written, the active segment.
    pub(super) fn read(&self, from: Offset, max_bytes: usize, what: What) -> Result<ReadOut, Error> {
        let (chunks, view) = loop {
            let view = self.state.view();
            let source = self.source(&view, from)?;
            let until = what.until(&view);
            if from >= until {
                break (Vec::new(), view);
            }
            let offsets = from..until;
            let chunks = match source {
                Source::End => Vec::new(),
                Source::Sealed(segment) => match segment.read(&offsets, max_bytes) {
                    // Removed or replaced meanwhile, before its files were open.
                    Err(_) if !self.holds(&segment) => continue,
                    read => read?,
                },
                Source::Active => match self.active_from(view.active.base, from, max_bytes)? {
                    Some(active) => active.read(self, &offsets, max_bytes)?,
                    None => continue,
                },
            };
            break (chunks, view);
        };
        let next_offset = chunks.last().map_or(from, |chunk| chunk.next_offset);
        // More may have become visible since the look at the view.
        let end_offset = view.visible.end.max(next_offset);
        let (start_offset, last_stable_offset) = (view.start_offset, view.last_stable);
        Ok(ReadOut { start_offset, end_offset, last_stable_offset, next_offset, chunks })
    }

    /// What is needed to read from `from` in the active segment, which begins at `base`; none if another
    /// look is due, because it is not the active one any more, or was only now loaded.
    fn active_from(&self, base: Offset, from: Offset, max_bytes: usize) -> Result<Option<ActiveView>, Error> {
        let active = {
            let state = self.state.lock();
            if matches!(state.phase, Phase::Closed) {
                return Err(closed());
            }
            let is_the_one = state.active.base() == base;
            let ready = is_the_one && !state.active.is_parked;
            ready.then(|| ActiveView::at_offset(self, &state, from, max_bytes))
        };
        match active {
            Some(active) => active.opened(self),
            None => self.unpark().map(|()| None),
        }
    }

    /// Whether a segment is still one of the log's.
    pub(super) fn holds(&self, segment: &Arc<Sealed>) -> bool {
        self.state.seen(|view| view.sealed.iter().any(|held| Arc::ptr_eq(held, segment)))
    }

    /// Where `from` is.
    fn source(&self, view: &View, from: Offset) -> Result<Source, Error> {
        if matches!(view.phase, Phase::Closed) {
            return Err(closed());
        }
        // A damaged log can end before its start.
        let (start, end) = (view.start_offset, view.visible.end.max(view.start_offset));
        if from < start || from > end {
            let message = format!(
                "offset {from} is out of range: {} has offsets {start} to {end}; start at one of these",
                self.dir.display(),
            );
            return Err(Error::new(ErrorKind::OutOfRange, message).at_path(&self.dir));
        }
        // There was more, and it is damaged: a reader must not wait for it.
        let more_was_there = matches!(view.phase, Phase::ReadOnly(_)) && from < view.active.base;
        if from == end && !more_was_there {
            return match &view.phase {
                Phase::ReadOnly(error) if error.offsets().is_some_and(|gone| gone.end > end) => {
                    Err(error.clone())
                }
                _ => Ok(Source::End),
            };
        }
        if from >= view.active.base {
            return Ok(Source::Active);
        }
        let index = view.sealed.partition_point(|segment| segment.end() <= from);
        match view.sealed.get(index) {
            Some(segment) if segment.base() <= from => Ok(Source::Sealed(Arc::clone(segment))),
            other => {
                let next = other.map_or(view.active.base, |segment| segment.base());
                let missing = path(&self.dir, from, DATA);
                Err(Error::corrupt(&missing, 0, from..next, "no segment file holds these offsets"))
            }
        }
    }

    /// The first record at or after `at`, as its offset and timestamp.
    pub(super) fn find_time(&self, at: TimestampMs) -> Result<Option<(Offset, TimestampMs)>, Error> {
        'search: loop {
            let View { phase, sealed, active, start_offset: start, .. } = self.state.view();
            if matches!(phase, Phase::Closed) {
                return Err(closed());
            }
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
                self.unpark()?;
                let view = {
                    let state = self.state.lock();
                    if state.active.base() != active.base || state.active.is_parked {
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

/// What a reader wants of the records that there are.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    All,
    /// Those below the last stable offset.
    Stable,
}

impl What {
    /// Where the batches end that a reader may have: none of them begins there or behind it.
    fn until(self, view: &View) -> Offset {
        let is_held_back = match view.phase {
            // Nothing is appended any more: whoever comes to the end is told what was there.
            Phase::ReadOnly(_) => view.last_stable < view.visible.end,
            // More may be visible in a moment, and undecided.
            _ => true,
        };
        match self {
            Self::Stable if is_held_back => view.last_stable,
            Self::Stable | Self::All => Offset::MAX,
        }
    }
}

enum Source {
    End,
    Sealed(Arc<Sealed>),
    Active,
}
