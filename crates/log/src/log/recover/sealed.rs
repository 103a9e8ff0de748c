//! Sealed segments at open: their indexes are trusted where they match the data, else made anew.

use std::path::Path;
use std::sync::Arc;

use logmill_record::Offset;

use super::{Expected, Recovery};
use crate::env::{File, FileStatus, OpenMode};
use crate::error::Error;
use crate::format::atomic;
use crate::format::index::{Footer, Rows};
use crate::log::Rolls;
use crate::segment::{
    DATA, Gaps, Hole, INDEX, IndexBuilder, Salvaged, Sealed, Wreck, path, rebuild, salvage,
};

/// The segments of a log.
pub(super) struct Segments {
    /// All but the last.
    pub(super) sealed: Vec<Arc<Sealed>>,
    /// Which is the last; it may be gone.
    pub(super) last: Option<Offset>,
    /// Why nothing may be appended behind them.
    pub(super) trouble: Option<Error>,
}

impl Recovery<'_> {
    /// All segments but the last, and which is the last.
    pub(super) fn sealed(&self, mut bases: Vec<Offset>) -> Result<Segments, Error> {
        let newest = self.expected.durable.map(|durable| durable.active_base);
        if let (Some(newest), Some(last)) = (newest, bases.last())
            && newest > *last
        {
            // What was the newest is gone, so all that are there were sealed.
            bases.push(newest);
        }
        let mut segments = Segments { sealed: Vec::with_capacity(bases.len()), last: None, trouble: None };
        let mut bases = bases.into_iter();
        let Some(mut base) = bases.next() else { return Ok(segments) };
        for next in bases {
            match self.sealed_segment(base, next, &mut segments)? {
                Some(segment) => {
                    segments.sealed.push(Arc::new(segment));
                    base = next;
                }
                None => self.remove_stray(next)?,
            }
        }
        segments.last = Some(base);
        Ok(segments)
    }

    /// Removes the empty file that a roll left which failed after it had made it: the log went on
    /// in the segment before.
    pub(super) fn remove_stray(&self, base: Offset) -> Result<(), Error> {
        let data = path(self.dir, base, DATA);
        tracing::warn!(file = %data.display(), "removing the empty file of a segment that was never begun");
        self.fs
            .remove_file(&data)
            .and_then(|()| self.fs.sync_dir(self.dir))
            .map_err(|error| Error::io("remove", &data, error))
    }

    /// Whether the segment at `next`, behind the one at `base`, is what a roll left that failed.
    pub(super) fn was_never_begun(&self, base: Offset, next: Offset) -> Result<bool, Error> {
        let Expected { durable, clean, .. } = self.expected;
        Rolls { fs: &*self.fs, dir: self.dir, durable, clean, gaps_below: self.meta.gaps_below }
            .was_never_begun(base, next)
    }

    /// Trusts a footer that matches the file's length, or rebuilds the index by a walk of headers.
    /// None if the segment at `end` was never begun, so that this one may go on past it.
    fn sealed_segment(
        &self,
        base: Offset,
        end: Offset,
        before: &mut Segments,
    ) -> Result<Option<Sealed>, Error> {
        let data_path = path(self.dir, base, DATA);
        let file = self.open_file(&data_path, OpenMode::Read)?;
        let mut status = file.status().map_err(|error| Error::io("look at", &data_path, error))?;
        let gaps = if base < self.meta.gaps_below { Gaps::Below(end) } else { Gaps::None };
        if let Some(footer) = self.footer(base)?
            && footer.data_len == status.len
            && footer.next_offset == end
        {
            return Ok(Some(self.segment(footer, end, gaps, None)));
        }
        if self.was_never_begun(base, end)? {
            return Ok(None);
        }
        if let Some(last) = before.sealed.last() {
            status.modified = status.modified.max(last.last_appended_at());
        }
        let (index, found) =
            rebuild(&*file, base, status, gaps).map_err(|error| Error::io("read", &data_path, error))?;
        self.note_rebuilt();
        if found.damage.is_none() && found.next_offset <= end {
            tracing::warn!(file = %data_path.display(), "rebuilt the index of a sealed segment");
            let (bytes, footer) = index.encode();
            let written = atomic::replace(&*self.fs, &path(self.dir, base, INDEX), &bytes).is_ok();
            let unwritten = (!written).then(|| Rows::from_rows(index.rows()));
            return Ok(Some(self.segment(footer, end, gaps, unwritten)));
        }
        let (index, error) = self.salvaged_sealed(&data_path, &*file, status, (base, end))?;
        tracing::error!(%error, "a sealed segment is damaged");
        if found.next_offset > end {
            // It, or the next one, is not what it was: it is not known what was given out.
            before.trouble.get_or_insert(error);
        }
        Ok(Some(self.segment(index.encode().1, end, gaps, Some(Rows::from_rows(index.rows())))))
    }

    /// A segment that ends at `end`, with the rows of its index if they are not in a file.
    pub(super) fn segment(&self, footer: Footer, end: Offset, gaps: Gaps, unwritten: Option<Rows>) -> Sealed {
        let (fs, maps) = (Arc::clone(&self.fs), Arc::clone(&self.maps));
        Sealed::new(fs, maps, self.dir, footer, end, gaps, unwritten)
    }

    /// The rows of a damaged sealed segment without an index, and what is wrong with it.
    fn salvaged_sealed(
        &self,
        data_path: &Path,
        file: &dyn File,
        status: FileStatus,
        (base, end): (Offset, Offset),
    ) -> Result<(IndexBuilder, Error), Error> {
        let gaps = base < self.meta.gaps_below;
        let torn_from = u64::MAX;
        let wreck = Wreck { file, base, status, end, is_newest: false, gaps, epochs: None, torn_from };
        let Salvaged { index, damage, .. } =
            salvage(&wreck, |_, _| ()).map_err(|error| Error::io("read", data_path, error))?;
        let hole = damage.unwrap_or_else(|| Hole::at_end(index.footer(), end, "it ends too early"));
        let error = Error::corrupt(data_path, hole.position, hole.offsets, hole.what);
        Ok((index, error))
    }

    /// The footer of a segment's index, if there is one that makes sense.
    pub(super) fn footer(&self, base: Offset) -> Result<Option<Footer>, Error> {
        let footer = Footer::read(&*self.fs, &path(self.dir, base, INDEX))?;
        Ok(footer.filter(|footer| footer.base == base))
    }
}
