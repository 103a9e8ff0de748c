//! Reading a data file from front to back, to rebuild what was known of it.

use std::io;

use bytes::Bytes;
use logmill_record::{BatchHeader, HEADER_LEN, Offset, check_crc};

use super::Gaps;
use super::builder::{IndexBuilder, Placed};
use super::walk::{HEAD_LEN, no_batch};
use crate::env::{File, FileStatus};
use crate::format::atomic::read_exact;

/// A data file is read in pieces of this size, or of a batch where that is larger.
const PIECE_LEN: u64 = 256 * 1024;

/// What to scan.
pub(crate) struct Scan<'a> {
    pub(crate) file: &'a dyn File,
    /// The segment's first offset.
    pub(crate) base: Offset,
    /// Where to begin, and the offset that must be found there.
    pub(crate) from: u64,
    pub(crate) offset: Offset,
    /// Where to end.
    pub(crate) to: u64,
    /// Whether offsets may be missing.
    pub(crate) gaps: Gaps,
    /// Check whole batches against their CRC, or headers only.
    pub(crate) crc: bool,
}

/// How far the batches of a file make sense.
#[derive(Debug)]
pub(crate) struct Found {
    /// The byte after the last good batch.
    pub(crate) end: u64,
    /// The offset after the last good batch.
    pub(crate) next_offset: Offset,
    /// What is wrong there, if it is not the end.
    pub(crate) damage: Option<String>,
}

/// Calls `visit` for each good batch, in order, until the end or the first that is not.
pub(crate) fn scan(
    scan: &Scan<'_>,
    mut visit: impl FnMut(&[u8; HEAD_LEN], &BatchHeader),
) -> io::Result<Found> {
    let mut window = Window::new(scan.file, scan.to);
    let mut found = Found { end: scan.from, next_offset: scan.offset, damage: None };
    while found.end < scan.to {
        match good_batch(scan, &mut window, &found)? {
            Ok((head, header)) => {
                visit(&head, &header);
                found.end += header.total_len as u64;
                found.next_offset = header.next_offset();
            }
            Err(what) => {
                found.damage = Some(what);
                break;
            }
        }
    }
    Ok(found)
}

/// Rebuilds the index of a whole data file by a walk of its headers. Times of append are not in
/// the data: they become the file's own time, as an upper bound.
pub(crate) fn rebuild(
    file: &dyn File,
    base: Offset,
    status: FileStatus,
    gaps: Gaps,
) -> io::Result<(IndexBuilder, Found)> {
    let mut index = IndexBuilder::new(base);
    let whole = Scan { file, base, from: 0, offset: base, to: status.len, gaps, crc: false };
    let found = scan(&whole, |head, header| {
        index.push(head, header, Placed::found(header, status));
    })?;
    Ok((index, found))
}

pub(super) type Good = Result<([u8; HEAD_LEN], BatchHeader), String>;

pub(super) fn good_batch(scan: &Scan<'_>, window: &mut Window<'_>, at: &Found) -> io::Result<Good> {
    let rest = scan.to - at.end;
    let head_bytes = window.get(at.end, rest.min(HEADER_LEN as u64))?;
    let header = match BatchHeader::parse(&head_bytes) {
        Ok(header) => header,
        Err(error) => return Ok(Err(no_batch(&error, &head_bytes))),
    };
    if let Err(what) = scan.gaps.check(&header, at.next_offset) {
        return Ok(Err(what));
    }
    if header.total_len as u64 > rest {
        return Ok(Err(format!("a batch claims {} bytes where {rest} follow", header.total_len)));
    }
    let offsets = header.next_offset().get() - scan.base.get();
    if offsets > u64::from(u32::MAX) || at.end + header.total_len as u64 > u64::from(u32::MAX) {
        return Ok(Err(format!(
            "a batch claims offsets up to {}, more than a segment has",
            header.last_offset()
        )));
    }
    if scan.crc {
        let batch = window.get(at.end, header.total_len as u64)?;
        if let Err(error) = check_crc(&batch, &header) {
            return Ok(Err(error.to_string()));
        }
    }
    let head = *head_bytes.first_chunk().expect("a parsed header has 61 bytes");
    Ok(Ok((head, header)))
}

/// The piece of the file that is in memory.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    file: &'a dyn File,
    start: u64,
    bytes: Bytes,
    limit: u64,
}

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn File, limit: u64) -> Self {
        Self { file, start: 0, bytes: Bytes::new(), limit }
    }

    /// `len` bytes from `position`, which the caller knows to lie below the limit.
    pub(crate) fn get(&mut self, position: u64, len: u64) -> io::Result<Bytes> {
        let held = self.start..self.start + self.bytes.len() as u64;
        if position < held.start || position + len > held.end {
            let piece = PIECE_LEN.max(len).min(self.limit - position);
            let mut buf = vec![0; usize::try_from(piece).map_err(|_| io::ErrorKind::FileTooLarge)?];
            read_exact(self.file, &mut buf, position)?;
            self.start = position;
            self.bytes = buf.into();
        }
        let from = usize::try_from(position - self.start).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        Ok(self.bytes.slice(from..from + len))
    }
}
