//! Leader epochs: whether what a reader has is still what the log holds.
//!
//! A log that is opened again may have lost records that readers have seen, and give their offsets to others:
//! a relaxed log after a power cut, or after a sync that failed. Each opening that can do so has an epoch of
//! its own, so that a reader who knows the epoch of the last batch it has can tell: if the batch before its
//! place is of a later one, its own is gone, and what took its place begins where its epoch ends.
//!
//! Only what readers see counts. Where a segment has one epoch, as most have, nothing is read; and at the end of
//! the log, where most readers are, nothing is waited for either.

use logmill_record::{BatchHeader, Offset};

use super::active_view::ActiveView;
use super::state::{Phase, closed};
use super::view::View;
use super::{Log, LogInner};
use crate::error::Error;
use crate::segment::{RowRange, epoch_before, first_above};

/// The epoch of a data directory that is opened for the first time: no reader has seen a lower one.
const LOWEST: i32 = 1;

impl Log {
    /// The leader epoch of the last batch that begins below `offset`; `None` if none that is kept does.
    /// Damaged batches are passed over.
    ///
    /// # Errors
    ///
    /// `Closed`; `Io` where batches had to be looked at and could not be read.
    ///
    /// ```
    /// use logmill_log::{Log, LogOptions, SetOptions};
    /// use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let mut batch = BatchBuilder::new();
    /// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
    /// # let batch: Batch = batch.build()?;
    /// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
    /// log.append(&[batch.clone()])?.wait()?;
    /// log.close()?;
    /// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
    /// log.append(&[batch])?.wait()?;
    ///
    /// assert_eq!(log.epoch_before(Offset(0))?, None);
    /// assert_eq!(log.epoch_before(Offset(1))?, Some(1));
    /// assert_eq!(log.epoch_before(Offset(2))?, Some(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn epoch_before(&self, offset: Offset) -> Result<Option<i32>, Error> {
        self.inner().epoch_before(offset)
    }

    /// Where the first batch with a leader epoch above `epoch` begins; what readers see ends there, if there
    /// is none. A reader whose last batch has `epoch`, and has lost what it had, goes on there, or where it
    /// was if that is less. Damage that may hide it counts as it.
    ///
    /// # Errors
    ///
    /// As [`Log::epoch_before`].
    ///
    /// ```
    /// use logmill_log::{Log, LogOptions, SetOptions};
    /// use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let mut batch = BatchBuilder::new();
    /// # batch.push(&NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"hello"), headers: &[] })?;
    /// # let batch: Batch = batch.build()?;
    /// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
    /// log.append(&[batch.clone()])?.wait()?;
    /// log.close()?;
    /// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
    /// log.append(&[batch])?.wait()?;
    ///
    /// assert_eq!(log.end_of_epoch(1)?, Offset(1));
    /// assert_eq!(log.end_of_epoch(2)?, log.end_offset());
    /// # Ok(())
    /// # }
    /// ```
    pub fn end_of_epoch(&self, epoch: i32) -> Result<Offset, Error> {
        self.inner().end_of_epoch(epoch)
    }
}

impl LogInner {
    fn epoch_before(&self, offset: Offset) -> Result<Option<i32>, Error> {
        loop {
            let view = self.open_view()?;
            let offset = offset.min(view.visible.end);
            if offset <= view.start_offset {
                return Ok(None);
            }
            let found = match self.epoch_in_active(&view, offset)? {
                Look::Found(None) => self.epoch_in_sealed(&view, offset)?,
                found => found,
            };
            if let Look::Found(epoch) = found {
                return Ok(epoch);
            }
        }
    }

    fn epoch_in_active(&self, view: &View, offset: Offset) -> Result<Look<i32>, Error> {
        let (active, (own_from, before_own)) = (&view.active, view.own_from);
        let known = match offset {
            _ if offset <= active.base => return Ok(Look::Found(None)),
            _ if active.first_epoch == active.last_epoch => Some(active.last_epoch),
            _ if offset > own_from => Some(view.epoch),
            _ if offset == own_from => Some(before_own),
            _ => None,
        };
        if known.is_some() {
            return Ok(Look::Found(known));
        }
        let Some((active, rows)) = self.active_rows(view)? else { return Ok(Look::Again) };
        let below = rows.partition_point(|row| row.begins_below(offset));
        let Some(last) = below.checked_sub(1) else { return Ok(Look::Found(None)) };
        epoch_before(offset, last, |row| active.epochs_of(&rows[row])).map(Look::Found)
    }

    fn epoch_in_sealed(&self, view: &View, offset: Offset) -> Result<Look<i32>, Error> {
        let below = view.sealed.partition_point(|segment| segment.base() < offset);
        let kept = view.sealed[..below].iter().rev().take_while(|segment| segment.end() > view.start_offset);
        for segment in kept {
            match segment.epoch_before(offset) {
                Ok(None) => {}
                // Removed or replaced meanwhile, before its files were open.
                Err(_) if !self.holds(segment) => return Ok(Look::Again),
                found => return found.map(Look::Found),
            }
        }
        Ok(Look::Found(None))
    }

    fn end_of_epoch(&self, epoch: i32) -> Result<Offset, Error> {
        loop {
            let view = self.open_view()?;
            let found = match self.rise_in_sealed(&view, epoch)? {
                Look::Found(None) => self.rise_in_active(&view, epoch)?,
                found => found,
            };
            if let Look::Found(rise) = found {
                let end = view.visible.end;
                return Ok(rise.map_or(end, |rise| rise.min(end)).max(view.start_offset));
            }
        }
    }

    fn rise_in_sealed(&self, view: &View, epoch: i32) -> Result<Look<Offset>, Error> {
        let kept = view.sealed.iter().skip_while(|segment| segment.end() <= view.start_offset);
        for segment in kept {
            match segment.end_of_epoch(epoch) {
                Ok(None) => {}
                // Removed or replaced meanwhile, before its files were open.
                Err(_) if !self.holds(segment) => return Ok(Look::Again),
                found => return found.map(Look::Found),
            }
        }
        Ok(Look::Found(None))
    }

    fn rise_in_active(&self, view: &View, epoch: i32) -> Result<Look<Offset>, Error> {
        let active = &view.active;
        if active.batches == 0 || active.last_epoch <= epoch {
            return Ok(Look::Found(None));
        }
        if active.first_epoch > epoch {
            return Ok(Look::Found(Some(active.base)));
        }
        let (own_from, before_own) = view.own_from;
        if before_own <= epoch {
            return Ok(Look::Found(Some(own_from)));
        }
        let Some((active, rows)) = self.active_rows(view)? else { return Ok(Look::Again) };
        first_above(epoch, rows.len(), |row| active.epochs_of(&rows[row])).map(Look::Found)
    }

    /// The epoch of the batch before the segment at `base`, for going on from there.
    pub(super) fn epochs_from(&self, base: Offset) -> Rise {
        let before = self.state.seen(|view| {
            let below = view.sealed.partition_point(|segment| segment.base() < base);
            below.checked_sub(1).map(|last| view.sealed[last].footer().last_epoch)
        });
        Rise { last: before.unwrap_or(LOWEST) }
    }

    fn open_view(&self) -> Result<View, Error> {
        let view = self.state.view();
        if matches!(view.phase, Phase::Closed) { Err(closed()) } else { Ok(view) }
    }

    /// The rows of the active segment that were there when the log was opened; none if another look is due.
    fn active_rows(&self, view: &View) -> Result<Option<(ActiveView, Vec<RowRange>)>, Error> {
        self.unpark()?;
        let (active, rows) = {
            let state = self.state.lock();
            if state.active.base() != view.active.base || state.active.is_parked {
                return Ok(None);
            }
            ActiveView::by_rows(self, &state)
        };
        Ok(active.opened(self)?.map(|active| (active, rows)))
    }
}

/// Where epochs rise from batch to batch. Compaction keeps the batch there, if need be without records: it tells
/// a reader who has others at these offsets that they are gone, however little is left of what replaced them. Not
/// told is one whose place lies before the first batch that retention has left of what compaction kept.
pub(super) struct Rise {
    last: i32,
}

impl Rise {
    /// Whether the epoch of this batch is not that of the one before. Each is to be asked about, in order.
    pub(super) fn rises_at(&mut self, header: &BatchHeader) -> bool {
        let before = std::mem::replace(&mut self.last, header.leader_epoch);
        before != header.leader_epoch
    }
}

/// What came of looking.
enum Look<T> {
    Found(Option<T>),
    /// What was looked at has gone, or something else stands there.
    Again,
}
