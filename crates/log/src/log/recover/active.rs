//! The active segment at open: trusted as it was closed, or read from where it is not known to be
//! on disk.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use logmill_record::{BatchHeader, Offset, TimestampMs};

use super::Recovery;
use super::tail::take_back;
use crate::env::{File, FileStatus, OpenMode};
use crate::error::Error;
use crate::format::atomic;
use crate::format::checkpoint::Durable;
use crate::format::index::{Footer, Rows};
use crate::log::producers::Producers;
use crate::log::sidecar::{Replay, load_state, producers_after, replay};
use crate::log::state::{Active, Phase};
use crate::segment::{DATA, Gaps, INDEX, IndexBuilder, Placed, STATE, Scan, Sealed, path, scan};

/// The active segment as it was found.
pub(super) struct Opened {
    /// What is readable of it where it is damaged: then the active one is behind it and empty.
    pub(super) damaged: Option<Arc<Sealed>>,
    pub(super) active: Active,
    pub(super) producers: Producers,
    pub(super) durable: Durable,
    /// What was promised beyond that.
    pub(super) promised: Option<Durable>,
    pub(super) phase: Phase,
}

impl Opened {
    /// A segment that holds all that was promised.
    fn whole(active: Active, producers: Producers, durable: Durable, phase: Phase) -> Self {
        Self { damaged: None, active, producers, durable, promised: None, phase }
    }
}

/// Where what is known of producers comes from.
pub(super) struct Before<'a> {
    pub(super) sealed: &'a [Arc<Sealed>],
    /// The segments that have a `.state`, good or bad.
    pub(super) states: &'a BTreeSet<Offset>,
}

impl Before<'_> {
    /// When the batch before the active segment was appended, or later.
    fn appended_by(&self) -> TimestampMs {
        self.sealed.last().map_or(TimestampMs(i64::MIN), |last| last.last_appended_at())
    }
}

impl Recovery<'_> {
    /// The active segment: nothing is read if it was closed cleanly.
    pub(super) fn active(&self, base: Offset, before: &Before<'_>) -> Result<Opened, Error> {
        let data_path = path(self.dir, base, DATA);
        if let Some(durable) = self.promised_in(base)
            && !self.exists(&data_path)?
        {
            return self.gone(durable, before);
        }
        let file = self.open_file(&data_path, OpenMode::ReadWrite)?;
        let mut status = file.status().map_err(|error| Error::io("look at", &data_path, error))?;
        let floor = self.floor(base);
        if self.expected.cut && status.len > floor.position {
            take_back(&*file, floor.position).map_err(|error| Error::io("cut", &data_path, error))?;
            status.len = floor.position;
        }
        if let Some(index) = self.trusted_index(base, status.len, floor)? {
            if !self.expected.clean {
                // A kill can fall between the cut of a failed append and its sync.
                file.sync_data().map_err(|error| Error::io("sync", &data_path, error))?;
            }
            let producers = self.producers_of(&*file, index.footer(), status, before)?;
            let mut active = Active::new(index);
            // Whether a `.state` that is needed was there is not known here: it is written again.
            let needs_state = active.index.footer().producers || !producers.is_empty();
            active.pair_is_written = active.len() > 0 && !needs_state;
            return Ok(Opened::whole(active, producers, floor, Phase::Open));
        }
        status.modified = status.modified.max(before.appended_by());
        self.scanned(&data_path, &*file, status, floor, before)
    }

    /// The active segment after headers were read up to the floor and whole batches behind it.
    fn scanned(
        &self,
        data_path: &Path,
        file: &dyn File,
        status: FileStatus,
        floor: Durable,
        before: &Before<'_>,
    ) -> Result<Opened, Error> {
        let base = floor.active_base;
        let mut index = IndexBuilder::new(base);
        let mut replay = Replay::new(file, status.modified, self.producers_before(before)?);
        let (mut epochs, mut epochs_fit) = (self.epochs(before), true);
        let mut push = |head: &[u8; _], header: &BatchHeader| {
            replay.visit(header);
            epochs_fit &= epochs.admit(header.leader_epoch);
            index.push(head, header, Placed::found(header, status));
        };
        let read_failed = |error| Error::io("read", data_path, error);
        let part = |from, offset, to, crc| Scan { file, base, from, offset, to, gaps: Gaps::None, crc };
        let promised = scan(&part(0, base, floor.position.min(status.len), false), &mut push);
        let promised = promised.map_err(read_failed)?;
        if promised.end != floor.position || promised.next_offset != floor.end {
            return self.salvaged(data_path, file, status, floor, before);
        }
        let tail =
            scan(&part(floor.position, floor.end, status.len, true), &mut push).map_err(read_failed)?;
        // A write that tears leaves no whole batch with a wrong epoch, and a clean close nothing torn.
        if !epochs_fit || (tail.damage.is_some() && self.expected.clean) {
            return self.salvaged(data_path, file, status, floor, before);
        }
        let mut producers = replay.finish().map_err(read_failed)?;
        producers.note_durable(tail.next_offset);
        // Before anything else, since it needs no space: readers are about to see these bytes.
        self.settle_tail(data_path, file, floor.position, tail.end)?;
        let durable = Durable { active_base: base, end: tail.next_offset, position: tail.end };
        let mut phase = Phase::Open;
        if let Some(what) = &tail.damage {
            match self.cut_tail(data_path, file, tail.end, status.len, what) {
                Ok(()) => self.settle_tail(data_path, file, tail.end, tail.end)?,
                Err(error) => phase = Phase::ReadOnly(error),
            }
        }
        Ok(Opened::whole(Active::new(index), producers, durable, phase))
    }

    /// The producers at the end of an active segment whose index is trusted.
    fn producers_of(
        &self,
        file: &dyn File,
        footer: &Footer,
        status: FileStatus,
        before: &Before<'_>,
    ) -> Result<Producers, Error> {
        if before.states.contains(&footer.base)
            && let Some(state) = load_state(&*self.fs, self.dir, footer)?
        {
            return Ok(Producers::at_end(state));
        }
        let mut producers = self.producers_before(before)?;
        if footer.producers {
            replay(file, footer, Gaps::None, status.modified, &mut producers)
                .map_err(|error| Error::io("read", &path(self.dir, footer.base, DATA), error))?;
            producers.note_durable(footer.next_offset);
        }
        Ok(producers)
    }

    /// The producers at the end of the last sealed segment, whose `.state` is written again if it
    /// was of no use.
    pub(super) fn producers_before(&self, before: &Before<'_>) -> Result<Producers, Error> {
        let exists = |base: Offset| before.states.contains(&base);
        let data = |segment: &Sealed| segment.open_data().map(|file| self.scanned.count(file));
        let (mut producers, was_good) = producers_after(&*self.fs, self.dir, before.sealed, exists, data)?;
        if let Some(last) = before.sealed.last()
            && !was_good
            && !producers.is_empty()
        {
            self.note_rebuilt();
            let state = path(self.dir, last.base(), STATE);
            if let Err(error) = atomic::replace(&*self.fs, &state, &producers.to_file().encode(last.footer()))
            {
                tracing::warn!(%error, "cannot write what is known of producers");
            }
        }
        producers.take_aborted();
        Ok(producers)
    }

    /// Up to where the active segment was promised.
    fn floor(&self, base: Offset) -> Durable {
        // Without a row of this segment, the log was rolled after the checkpoint was written.
        self.promised_in(base).unwrap_or(Durable { active_base: base, end: base, position: 0 })
    }

    /// What the checkpoint says of this very segment.
    fn promised_in(&self, base: Offset) -> Option<Durable> {
        self.expected.durable.filter(|durable| durable.active_base == base)
    }

    fn exists(&self, path: &Path) -> Result<bool, Error> {
        match self.fs.open(path, OpenMode::Read) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("open", path, error)),
        }
    }

    /// The index of a segment that was closed cleanly.
    fn trusted_index(&self, base: Offset, len: u64, floor: Durable) -> Result<Option<IndexBuilder>, Error> {
        if len == 0 && floor.position == 0 {
            return Ok(Some(IndexBuilder::new(base)));
        }
        let Some(footer) = self.footer(base)? else { return Ok(None) };
        if footer.data_len != len || floor.position != len || footer.next_offset != floor.end {
            return Ok(None);
        }
        let index_path = path(self.dir, base, INDEX);
        let Ok(Some(bytes)) = atomic::read(&*self.fs, &index_path) else { return Ok(None) };
        let rows = Rows::new(&index_path, &bytes.into(), &footer).ok();
        Ok(rows.map(|rows| IndexBuilder::resume(&rows, footer)))
    }
}
