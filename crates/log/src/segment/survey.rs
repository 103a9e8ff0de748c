//! Reading every byte of a data file: the whole batches in it, and the damage between them.
//!
//! A batch is whole if its header makes sense where it stands and its CRC is right. Behind one
//! that is not, the next whole batch is looked for: first where the damaged header says, then byte
//! by byte, since a damaged length lies. Nothing is allocated by what a header claims.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use logmill_record::{BatchHeader, HEADER_LEN, LEADER_EPOCH, Offset};

use super::Epochs;
use super::scan::Window;
use super::walk::{HEAD_LEN, crc32c_extend, no_batch};
use crate::env::File;

/// Bytes are read and summed up in pieces of this size.
const PIECE_LEN: u64 = 256 * 1024;
/// The search behind damage reads the file so many times at most: batches within batches could be
/// laid out to be searched for ever.
const MOST_PASSES: u64 = 16;
/// Where the magic byte of a batch is, and what it is.
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;
/// Where a batch's CRC is: what lies before it is not covered by it.
pub(crate) const CRC_AT: usize = 17;

/// What lies next in a data file.
#[derive(Debug)]
pub(crate) enum Piece {
    /// A batch that is whole and in its place.
    Batch(Whole),
    /// Bytes that are no such batch.
    Damage(Gap),
}

/// A whole batch.
#[derive(Clone, Debug)]
pub(crate) struct Whole {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
    pub(crate) head: [u8; HEAD_LEN],
}

/// Bytes that cannot be used.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    pub(crate) position: u64,
    pub(crate) len: u64,
    /// The first offset that is not known to be elsewhere.
    pub(crate) from: Offset,
    /// Where what follows begins; `None` if that is not known.
    pub(crate) to: Option<Offset>,
    pub(crate) what: String,
    /// The bytes are one batch, whole but for what lies before its CRC, and this is what belongs
    /// there: proved by the CRC and by the offsets on both sides.
    pub(crate) restored: Option<[u8; CRC_AT]>,
    /// Only the epoch is wrong, which no write that tears makes so.
    pub(crate) is_epoch: bool,
}

impl Gap {
    /// The offsets that are gone with it, given where the segment ends.
    pub(crate) fn gone(&self, end: Offset) -> Range<Offset> {
        let to = if self.restored.is_some() { self.from } else { self.to.unwrap_or(end).max(self.from) };
        self.from..to
    }
}

/// A pass over a data file, from front to back.
#[derive(Debug)]
pub(crate) struct Survey<'a> {
    window: Window<'a>,
    len: u64,
    base: Offset,
    /// No batch may reach past this offset.
    end: Offset,
    /// Offsets may be missing between batches, as compaction leaves them.
    gaps: bool,
    position: u64,
    expected: Offset,
    /// The epoch of the last whole batch.
    epoch: i32,
    /// Where epochs are checked: those that may follow.
    epochs: Option<Epochs>,
    /// Bytes that the search behind damage may still read.
    search_left: u64,
}

impl<'a> Survey<'a> {
    /// A pass over the first `len` bytes of `file`, whose first batch begins at `base`.
    pub(crate) fn new(file: &'a dyn File, len: u64, base: Offset, end: Offset, gaps: bool) -> Self {
        let window = Window::new(file, len);
        let search_left = len.saturating_mul(MOST_PASSES);
        let epochs = None;
        Self { window, len, base, end, gaps, position: 0, expected: base, epoch: 1, epochs, search_left }
    }

    /// The same, and an epoch that cannot be is damage: for data without an index to hold against it.
    pub(crate) fn checking(mut self, epochs: Option<Epochs>) -> Self {
        self.epochs = epochs;
        self.epoch = epochs.map_or(self.epoch, |epochs| epochs.last());
        self
    }

    /// Where the pass stands.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The offset that must follow there.
    pub(crate) fn expected(&self) -> Offset {
        self.expected
    }

    /// The next piece; `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        if self.position >= self.len {
            return Ok(None);
        }
        match self.whole_at(self.position, !self.gaps, false)? {
            Ok(whole) => {
                if let Some((what, behind)) = self.overtaken(&whole)? {
                    let next = self.search(behind)?;
                    return self.skip_to(next, what).map(|gap| Some(Piece::Damage(gap)));
                }
                if let Some(gap) = self.with_wrong_epoch(&whole)? {
                    return Ok(Some(Piece::Damage(gap)));
                }
                self.pass(&whole);
                self.epoch = whole.header.leader_epoch;
                Ok(Some(Piece::Batch(whole)))
            }
            Err(what) => self.skip_damage(what).map(|gap| Some(Piece::Damage(gap))),
        }
    }

    /// Bytes of the file.
    pub(crate) fn raw(&mut self, position: u64, len: u64) -> io::Result<Bytes> {
        self.window.get(position, len)
    }

    /// The bytes of a batch that was found whole.
    pub(crate) fn bytes(&mut self, whole: &Whole) -> io::Result<Bytes> {
        self.window.get(whole.position, whole.header.total_len as u64)
    }

    /// Where offsets may be missing, a batch can claim offsets that the one behind it claims too. Which
    /// of the two base offsets is wrong cannot be told, so neither is believed; returns where the one
    /// behind begins, too.
    fn overtaken(&mut self, whole: &Whole) -> io::Result<Option<(String, u64)>> {
        let next = whole.position + whole.header.total_len as u64;
        if whole.header.base_offset == self.expected || next >= self.len {
            return Ok(None);
        }
        let behind = self.whole_at(next, false, false)?.ok();
        let behind = behind.map(|behind| behind.header.base_offset);
        Ok(behind.filter(|behind| *behind < whole.header.next_offset()).map(|behind| {
            let claimed = whole.header.base_offset;
            let what = format!("a batch claims offset {claimed}, and the batch behind it begins at {behind}");
            (what, next)
        }))
    }

    fn pass(&mut self, whole: &Whole) {
        self.position += whole.header.total_len as u64;
        self.expected = whole.header.next_offset();
    }

    /// A whole batch whose epoch cannot be: the one before it is put in its place.
    fn with_wrong_epoch(&mut self, whole: &Whole) -> io::Result<Option<Gap>> {
        let Some(mut epochs) = self.epochs else { return Ok(None) };
        let (epoch, behind) = (whole.header.leader_epoch, self.epoch_behind(whole)?);
        if epochs.admit_before(epoch, behind) {
            self.epochs = Some(epochs);
            return Ok(None);
        }
        let mut head = [0; CRC_AT];
        head.copy_from_slice(&whole.head[..CRC_AT]);
        head[LEADER_EPOCH].copy_from_slice(&self.epoch.to_be_bytes());
        let gap = Gap {
            position: whole.position,
            len: whole.header.total_len as u64,
            from: self.expected,
            to: Some(whole.header.next_offset()),
            what: epochs.refusal(epoch),
            restored: Some(head),
            is_epoch: true,
        };
        self.pass(whole);
        Ok(Some(gap))
    }

    /// The epoch of the batch behind a whole one.
    fn epoch_behind(&mut self, whole: &Whole) -> io::Result<Option<i32>> {
        let next = whole.position + whole.header.total_len as u64;
        if self.len - next < HEADER_LEN as u64 {
            return Ok(None);
        }
        let header = BatchHeader::parse(&self.window.get(next, HEADER_LEN as u64)?).ok();
        let header = header.filter(|header| header.base_offset == whole.header.next_offset());
        Ok(header.map(|header| header.leader_epoch))
    }

    fn skip_damage(&mut self, what: String) -> io::Result<Gap> {
        let next = match self.where_header_says()? {
            Some(next) => Some(next),
            None => self.search(self.position)?,
        };
        self.skip_to(next, what)
    }

    /// All up to the next whole batch is damage.
    fn skip_to(&mut self, next: Option<Whole>, what: String) -> io::Result<Gap> {
        let position = self.position;
        let end = next.as_ref().map_or(self.len, |whole| whole.position);
        let to = next.map(|whole| whole.header.base_offset);
        let len = end - position;
        let restored = self.restore(position, len, to)?;
        let to = to.or(restored.map(|(_, next)| next));
        let restored = restored.map(|(head, _)| head);
        let gap = Gap { position, len, from: self.expected, to, what, restored, is_epoch: false };
        self.position = end;
        self.expected = to.unwrap_or(self.expected);
        Ok(gap)
    }

    /// What should stand before the CRC of the batch in these bytes, if that alone is damaged, and
    /// the offset after the batch.
    fn restore(
        &mut self,
        position: u64,
        len: u64,
        to: Option<Offset>,
    ) -> io::Result<Option<([u8; CRC_AT], Offset)>> {
        let Some(length) = len.checked_sub(12).and_then(|length| i32::try_from(length).ok()) else {
            return Ok(None);
        };
        if self.gaps || len < HEADER_LEN as u64 {
            return Ok(None);
        }
        let mut head = self.window.get(position, HEADER_LEN as u64)?.to_vec();
        head[..8].copy_from_slice(&self.expected.get().to_be_bytes());
        head[8..12].copy_from_slice(&length.to_be_bytes());
        let mut epoch = [0; 4];
        epoch.copy_from_slice(&head[LEADER_EPOCH]);
        let epoch = i32::from_be_bytes(epoch);
        // Epochs go up; nothing else is known of this one.
        let fits = self.epochs.is_none_or(|epochs| epochs.fit(epoch));
        let epoch = if fits { epoch.max(self.epoch) } else { self.epoch };
        head[LEADER_EPOCH].copy_from_slice(&epoch.to_be_bytes());
        head[MAGIC_AT] = MAGIC;
        let Ok(header) = BatchHeader::parse(&head) else { return Ok(None) };
        let next = header.next_offset();
        let fits = match to {
            Some(to) => next == to,
            None => self.end == Offset::MAX || next == self.end,
        };
        if !fits || self.crc(position + HEAD_LEN as u64, len - HEAD_LEN as u64)? != header.crc {
            return Ok(None);
        }
        Ok(head.first_chunk().map(|head| (*head, next)))
    }

    /// The whole batch behind the damaged one, if its header can still be believed: it must begin
    /// at the very offset where the damaged one claims to end.
    fn where_header_says(&mut self) -> io::Result<Option<Whole>> {
        let head = self.window.get(self.position, (self.len - self.position).min(HEADER_LEN as u64))?;
        let Ok(header) = BatchHeader::parse(&head) else { return Ok(None) };
        let next = self.position.saturating_add(header.total_len as u64);
        if next >= self.len || header.base_offset < self.expected {
            return Ok(None);
        }
        let whole = self.whole_at(next, false, false)?.ok();
        Ok(whole.filter(|whole| whole.header.base_offset == header.next_offset()))
    }

    /// The first whole batch behind the one at `position`, wherever it begins.
    fn search(&mut self, position: u64) -> io::Result<Option<Whole>> {
        let mut from = position + 1;
        while from + (HEADER_LEN as u64) <= self.len {
            let piece = self.window.get(from, PIECE_LEN.min(self.len - from))?;
            for at in places_of_magic(&piece) {
                match self.whole_at(from + (at - MAGIC_AT) as u64, false, true)? {
                    Ok(whole) => return Ok(Some(whole)),
                    Err(_) if self.search_left == 0 => return Ok(None),
                    Err(_) => {}
                }
            }
            from += (piece.len() - MAGIC_AT) as u64;
        }
        Ok(None)
    }

    /// The batch at `position` if it is whole, else what is wrong with it.
    fn whole_at(
        &mut self,
        position: u64,
        contiguous: bool,
        searching: bool,
    ) -> io::Result<Result<Whole, String>> {
        let rest = self.len - position;
        let head_bytes = self.window.get(position, rest.min(HEADER_LEN as u64))?;
        let header = match BatchHeader::parse(&head_bytes) {
            Ok(header) => header,
            Err(error) => return Ok(Err(no_batch(&error, &head_bytes))),
        };
        if let Err(what) = self.check_place(&header, position, contiguous) {
            return Ok(Err(what));
        }
        let head: [u8; HEAD_LEN] = *head_bytes.first_chunk().expect("a parsed header has 61 bytes");
        if searching {
            self.search_left = self.search_left.saturating_sub(header.total_len as u64);
        }
        let computed = self.crc(position + HEAD_LEN as u64, (header.total_len - HEAD_LEN) as u64)?;
        if computed != header.crc {
            let stored = header.crc;
            return Ok(Err(format!(
                "CRC-32C mismatch: the header says {stored:#010x}, the bytes give {computed:#010x}"
            )));
        }
        Ok(Ok(Whole { position, header, head }))
    }

    /// Whether a batch with this header can stand there.
    fn check_place(&self, header: &BatchHeader, position: u64, contiguous: bool) -> Result<(), String> {
        let (claimed, expected) = (header.base_offset, self.expected);
        if claimed < expected || (contiguous && claimed > expected) {
            return Err(format!("a batch claims offset {claimed} where {expected} follows"));
        }
        if header.next_offset() > self.end {
            let (next, end) = (header.next_offset(), self.end);
            return Err(format!("a batch claims offsets up to {next}, and the next segment begins at {end}"));
        }
        if header.next_offset().get() - self.base.get() > u64::from(u32::MAX) {
            return Err(format!("a batch claims offset {claimed}, more than a segment has"));
        }
        let rest = self.len - position;
        if header.total_len as u64 > rest {
            return Err(format!("a batch claims {} bytes where {rest} follow", header.total_len));
        }
        Ok(())
    }

    fn crc(&mut self, mut position: u64, mut len: u64) -> io::Result<u32> {
        let mut crc = 0;
        while len > 0 {
            let piece = self.window.get(position, len.min(PIECE_LEN))?;
            crc = crc32c_extend(crc, &piece);
            position += piece.len() as u64;
            len -= piece.len() as u64;
        }
        Ok(crc)
    }
}

/// Where in the bytes a batch's magic may stand. Long runs without one, such as zeros, are passed a stretch
/// at a time.
fn places_of_magic(bytes: &[u8]) -> impl Iterator<Item = usize> {
    const STRETCH: usize = 256;
    let stretches = bytes.chunks(STRETCH).enumerate().filter(|(_, stretch)| stretch.contains(&MAGIC));
    let places = stretches.flat_map(|(nth, stretch)| {
        stretch.iter().enumerate().filter(|(_, byte)| **byte == MAGIC).map(move |(at, _)| nth * STRETCH + at)
    });
    places.filter(|at| *at >= MAGIC_AT)
}
