//! A newest segment with damage in what was promised: the log opens for reading only, and all whole
//! batches can be read.
//!
//! The segment is presented as a sealed one, since nothing will be appended to it, and the log goes
//! on behind every offset that was given out, in a segment that has no file.

use std::path::Path;
use std::sync::Arc;

use logmill_record::Offset;

use super::Recovery;
use super::active::{Before, Opened};
use crate::env::{File, FileStatus};
use crate::error::Error;
use crate::format::checkpoint::Durable;
use crate::format::index::Rows;
use crate::log::producers::Producers;
use crate::log::sidecar::Replay;
use crate::log::state::{Active, Phase};
use crate::segment::{DATA, Epochs, Gaps, Hole, IndexBuilder, Salvaged, Wreck, path, salvage};

impl Opened {
    /// A log that holds records up to `readable`, and goes on at `end`, behind all that were promised.
    fn read_only(
        (readable, end): (Offset, Offset),
        producers: Producers,
        promised: Durable,
        error: Error,
    ) -> Self {
        Self {
            damaged: None,
            active: Active::new(IndexBuilder::new(end)),
            producers,
            durable: Durable { active_base: end, end: readable, position: 0 },
            // As it is, so that the file can be put back.
            promised: Some(promised),
            phase: Phase::ReadOnly(error),
        }
    }
}

impl Recovery<'_> {
    /// The active segment with damage in it.
    pub(super) fn salvaged(
        &self,
        data_path: &Path,
        file: &dyn File,
        status: FileStatus,
        floor: Durable,
        before: &Before<'_>,
    ) -> Result<Opened, Error> {
        let read_failed = |error| Error::io("read", data_path, error);
        let base = floor.active_base;
        let wreck = Wreck {
            file,
            base,
            status,
            end: floor.end,
            is_newest: true,
            gaps: false,
            epochs: Some(self.epochs(before)),
            torn_from: if self.expected.clean { u64::MAX } else { floor.position },
        };
        let mut replay = Replay::new(file, status.modified, self.producers_before(before)?);
        let Salvaged { index, damage, whole_end } =
            salvage(&wreck, |position, header| replay.visit_at(position, header)).map_err(read_failed)?;
        let mut producers = replay.finish().map_err(read_failed)?;
        producers.lose_sequences();
        let footer = index.footer();
        let end = footer.next_offset.max(floor.end);
        producers.note_durable(end);
        if !self.expected.clean {
            self.settle_tail(data_path, file, floor.position.min(footer.data_len), footer.data_len)?;
        }
        let damaged = (end > base).then(|| {
            let rows = Some(Rows::from_rows(index.rows()));
            let sealed = self.segment(index.encode().1, end, Gaps::None, rows);
            sealed.set_txns(producers.take_aborted());
            Arc::new(sealed)
        });
        let what = "it ends before what was acknowledged, or holds other batches";
        let hole = damage.unwrap_or_else(|| Hole::at_end(footer, end, what));
        let offsets = hole.offsets.start..hole.offsets.end.max(hole.offsets.start.next());
        let error = Error::corrupt(data_path, hole.position, offsets, hole.what);
        Ok(Opened { damaged, ..Opened::read_only((whole_end, end), producers, floor, error) })
    }

    /// The newest segment is not there.
    pub(super) fn gone(&self, durable: Durable, before: &Before<'_>) -> Result<Opened, Error> {
        let base = durable.active_base;
        let first = if before.sealed.is_empty() { self.meta.start_offset } else { base };
        let whole_end = before.sealed.last().map_or(first, |last| last.footer().next_offset);
        let offsets = first..durable.end.max(base.next());
        let error = Error::corrupt(&path(self.dir, base, DATA), 0, offsets, "the file is gone");
        let mut producers = self.producers_before(before)?;
        producers.lose_sequences();
        let end = durable.end.max(base);
        Ok(Opened::read_only((whole_end, end), producers, durable, error))
    }

    /// The epochs that may follow what is sealed.
    pub(super) fn epochs(&self, before: &Before<'_>) -> Epochs {
        let last = before.sealed.last().map_or(0, |last| last.footer().last_epoch);
        Epochs::after(last, self.expected.epoch)
    }
}
