//! Making an index of a damaged data file: all whole batches can be found by it, and damage has rows
//! of its own, which no read gets past.

use std::io;
use std::ops::Range;

use logmill_record::{BatchHeader, Offset};

use super::Epochs;
use super::builder::{IndexBuilder, Placed};
use super::survey::{Piece, Survey, Whole};
use crate::env::{File, FileStatus};
use crate::format::index::Footer;

/// A damaged data file, and what is known of it.
pub(crate) struct Wreck<'a> {
    pub(crate) file: &'a dyn File,
    /// The segment's first offset.
    pub(crate) base: Offset,
    pub(crate) status: FileStatus,
    /// Where the next segment begins; of the newest, up to where it was promised.
    pub(crate) end: Offset,
    /// Whether it is the newest.
    pub(crate) is_newest: bool,
    /// Whether offsets may be missing between batches.
    pub(crate) gaps: bool,
    /// Before its first batch; none if they are not to be checked.
    pub(crate) epochs: Option<Epochs>,
    /// Damage that begins here or behind ends the file: a write that tore.
    pub(crate) torn_from: u64,
}

/// What could be made of it.
pub(crate) struct Salvaged {
    /// Up to the last whole batch, or the last damage that is not torn.
    pub(crate) index: IndexBuilder,
    /// The first damage.
    pub(crate) damage: Option<Hole>,
    /// The offset after the last whole batch.
    pub(crate) whole_end: Offset,
}

/// Damage in a data file.
#[derive(Debug)]
pub(crate) struct Hole {
    pub(crate) position: u64,
    pub(crate) offsets: Range<Offset>,
    pub(crate) what: String,
}

impl Hole {
    /// What is missing of a file whose index has this footer, and which is to go on up to `end`.
    pub(crate) fn at_end(footer: &Footer, end: Offset, what: &str) -> Self {
        Self { position: footer.data_len, offsets: footer.next_offset..end, what: what.into() }
    }
}

/// Reads the whole file, every batch against its CRC; calls `visit` with the position and header of
/// each that is whole.
pub(crate) fn salvage(wreck: &Wreck<'_>, mut visit: impl FnMut(u64, &BatchHeader)) -> io::Result<Salvaged> {
    // What an index can speak of.
    let len = wreck.status.len.min(u32::MAX.into());
    let most = if wreck.is_newest { Offset::MAX } else { wreck.end };
    let mut survey = Survey::new(wreck.file, len, wreck.base, most, wreck.gaps).checking(wreck.epochs);
    let (mut index, mut damage, mut whole_end) = (IndexBuilder::new(wreck.base), None, wreck.base);
    while let Some(piece) = survey.next()? {
        match piece {
            Piece::Batch(Whole { position, header, head }) => {
                visit(position, &header);
                index.push(&head, &header, Placed::found(&header, wreck.status));
                whole_end = header.next_offset();
            }
            Piece::Damage(gap) if gap.position >= wreck.torn_from && !gap.is_epoch => break,
            Piece::Damage(gap) => {
                let offsets = gap.from..gap.to.unwrap_or(wreck.end).max(gap.from);
                index.push_damage(gap.len, &offsets, wreck.status.modified);
                damage.get_or_insert(Hole { position: gap.position, offsets, what: gap.what });
            }
        }
    }
    if index.footer().batches == 0 {
        index.set_last_appended_at(wreck.status.modified);
    }
    Ok(Salvaged { index, damage, whole_end })
}
