//! Sealed segments at open: their indexes are trusted where they match the data, else made anew.

use std::sync::Arc;

use logmill_record::Offset;

use super::Recovery;
use crate::env::OpenMode;
use crate::error::Error;
use crate::format::atomic;
use crate::format::index::{Footer, Rows};
use crate::segment::{DATA, Gaps, INDEX, Sealed, path, rebuild};

impl Recovery<'_> {
    /// All segments but the last, and which is the last.
    pub(super) fn sealed(&self, bases: Vec<Offset>) -> Result<(Vec<Arc<Sealed>>, Option<Offset>), Error> {
        let mut sealed = Vec::with_capacity(bases.len());
        let mut bases = bases.into_iter();
        let Some(mut base) = bases.next() else { return Ok((sealed, None)) };
        for next in bases {
            match self.sealed_segment(base, next)? {
                Some(segment) => {
                    sealed.push(Arc::new(segment));
                    base = next;
                }
                None => self.remove_stray(next)?,
            }
        }
        Ok((sealed, Some(base)))
    }

    /// Removes the empty file that a roll left which failed after it had made it: the log went on
    /// in the segment before, past the offset in the name.
    fn remove_stray(&self, base: Offset) -> Result<(), Error> {
        let data = path(self.dir, base, DATA);
        tracing::warn!(file = %data.display(), "removing the empty file of a segment that was never begun");
        self.fs
            .remove_file(&data)
            .and_then(|()| self.fs.sync_dir(self.dir))
            .map_err(|error| Error::io("remove", &data, error))
    }

    fn is_empty(&self, base: Offset) -> Result<bool, Error> {
        let data = path(self.dir, base, DATA);
        let status = self.open_file(&data, OpenMode::Read)?.status();
        Ok(status.map_err(|error| Error::io("look at", &data, error))?.len == 0)
    }

    /// Trusts a footer that matches the file's length, or rebuilds the index by a walk of headers.
    /// None if the segment goes on past `end`, where nothing but an empty file is.
    fn sealed_segment(&self, base: Offset, end: Offset) -> Result<Option<Sealed>, Error> {
        let data_path = path(self.dir, base, DATA);
        let file = self.open_file(&data_path, OpenMode::Read)?;
        let status = file.status().map_err(|error| Error::io("look at", &data_path, error))?;
        let gaps = if base < self.meta.gaps_below { Gaps::Below(end) } else { Gaps::None };
        let sealed = |footer, unwritten| {
            let (fs, maps) = (Arc::clone(&self.fs), Arc::clone(&self.maps));
            Sealed::new(fs, maps, self.dir, footer, end, gaps, unwritten)
        };
        if let Some(footer) = self.footer(base)
            && footer.data_len == status.len
            && footer.next_offset == end
        {
            return Ok(Some(sealed(footer, None)));
        }
        let (index, found) =
            rebuild(&*file, base, status, gaps).map_err(|error| Error::io("read", &data_path, error))?;
        if found.next_offset > end && self.is_empty(end)? {
            return Ok(None);
        }
        if let Some(what) = &found.damage {
            tracing::error!(file = %data_path.display(), position = found.end, what, "a sealed segment is damaged");
        } else {
            tracing::warn!(file = %data_path.display(), "rebuilt the index of a sealed segment");
        }
        if found.next_offset > end {
            let what = "it holds offsets that the next segment holds too";
            return Err(Error::corrupt(&data_path, found.end, end..found.next_offset, what));
        }
        self.note_rebuilt();
        let written = found.damage.is_none()
            && atomic::replace(&*self.fs, &path(self.dir, base, INDEX), &index.encode().0).is_ok();
        let unwritten = (!written).then(|| Rows::from_rows(index.rows()));
        Ok(Some(sealed(index.encode().1, unwritten)))
    }

    /// The footer of a segment's index, if there is one that makes sense.
    pub(super) fn footer(&self, base: Offset) -> Option<Footer> {
        Footer::read(&*self.fs, &path(self.dir, base, INDEX)).filter(|footer| footer.base == base)
    }
}
