//! The empty file of a segment that was never begun: a roll that fails after it had made one leaves it,
//! and the log goes on in the segment before.

use std::io;
use std::path::Path;

use logmill_record::Offset;

use crate::env::{Fs, OpenMode};
use crate::error::Error;
use crate::format::checkpoint::Durable;
use crate::format::index::Footer;
use crate::segment::{DATA, Gaps, INDEX, Scan, path, scan};

/// What is known of a log whose segments are told apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rolls<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) dir: &'a Path,
    /// How far the log was on disk, by the checkpoint.
    pub(crate) durable: Option<Durable>,
    /// Whether it was closed cleanly there.
    pub(crate) clean: bool,
    /// Segments below this offset may have gaps between their batches.
    pub(crate) gaps_below: Offset,
}

impl Rolls<'_> {
    /// Whether the file of the segment at `next`, which follows the one at `base`, is one that was never begun.
    ///
    /// It is empty, and the checkpoint does not say that it is the log's newest. The segment before it goes on
    /// past it, in whole batches: a header alone is not believed, or one flipped bit would let offsets be given
    /// out again. Or it ends before it, where the log was when it was last known: a roll begins where the data
    /// ends.
    pub(crate) fn was_never_begun(&self, base: Offset, next: Offset) -> Result<bool, Error> {
        let is_promised = self.durable.is_some_and(|durable| durable.active_base == next);
        if is_promised || !self.is_empty(next)? {
            return Ok(false);
        }
        let data = path(self.dir, base, DATA);
        let failed = |error| Error::io("read", &data, error);
        let file = self.fs.open(&data, OpenMode::Read).map_err(failed)?;
        let len = file.status().map_err(failed)?.len;
        let footer = Footer::read(self.fs, &path(self.dir, base, INDEX))?;
        if let Some(footer) = footer.filter(|footer| footer.base == base && footer.data_len == len)
            && footer.next_offset >= next
        {
            return Ok(footer.next_offset > next);
        }
        // It was sealed, and its index is lost: how far it went is not known.
        let gaps = if base < self.gaps_below { Gaps::Below(Offset::MAX) } else { Gaps::None };
        let (file, from, offset) = (&*file, 0, base);
        let whole = Scan { file, base, from, offset, to: len, gaps, crc: true };
        let found = scan(&whole, |_, _| ()).map_err(failed)?;
        if found.next_offset >= next {
            return Ok(found.next_offset > next);
        }
        // A roll writes the index first. Where a kill may have come behind the checkpoint, damage could
        // be what hides that the data went on to there.
        let was_newest = self.durable.is_some_and(|known| known.active_base == base && known.end < next);
        let is_rolled = footer.is_some_and(|footer| footer.base == base && footer.next_offset == next);
        Ok(was_newest && !is_rolled && (self.clean || found.damage.is_none()))
    }

    fn is_empty(&self, base: Offset) -> Result<bool, Error> {
        let data = path(self.dir, base, DATA);
        match self.fs.open(&data, OpenMode::Read).and_then(|file| file.status()) {
            Ok(status) => Ok(status.len == 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look at", &data, error)),
        }
    }
}
