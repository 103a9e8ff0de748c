//! The file `{base:020}.index`: where batches are in a segment, written when the segment is
//! sealed or closed.
//!
//! ```text
//! prefix   "LMIX" version:u16 0:u16
//! row ×n   offset:u32 position:u32 max_timestamp:i64 appended_at:i64 check:u32 flags:u32
//! footer   base:u64 next_offset:u64 data_len:u64 batches:u64 records:u64
//!          max_timestamp:i64 first_appended_at:i64 last_appended_at:i64 first_epoch:i32 last_epoch:i32 headers_crc:u32 flags:u32
//!          rows:u32 rows_crc:u32 footer_crc:u32
//! ```
//!
//! A row stands for a run of batches of about 32 KiB. `offset` counts from the segment's base;
//! `max_timestamp` is the largest from the segment's start through the row's last batch, so rows
//! can be searched by time also where producers disagree; `check` is a CRC-32C over the first 21
//! bytes of each of its batches, base offset to CRC. `headers_crc` is the same over all batches:
//! the 21 bytes end with the batch's own CRC, so it speaks for every byte of the segment, and a
//! walk of headers rebuilds it. The footer's CRC-32 covers the prefix and the footer; the rows
//! have one of their own, so that opening a log reads footers only.

use std::path::Path;

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};

use super::VERSION;
use super::atomic::read_exact;
use super::codec::{check_prefix, damaged, not_newer};
use crate::env::{Fs, OpenMode};
use crate::error::{Error, ErrorKind};

const MAGIC: [u8; 4] = *b"LMIX";
const PREFIX_LEN: usize = 8;
const ROW_LEN: usize = 32;
const FOOTER_LEN: usize = 92;
/// The shortest index: no rows.
const MIN_LEN: u64 = (PREFIX_LEN + FOOTER_LEN) as u64;

/// The time of append was lost with the index and is an upper bound, from the file's own time.
const FLAG_ESTIMATED: u32 = 1;
/// In the footer: batches of idempotent producers, or markers, lie in the segment.
const FLAG_PRODUCERS: u32 = 1;

/// A run of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Offset of the first batch, from the segment's base.
    pub(crate) relative_offset: u32,
    /// Where the first batch begins in the file.
    pub(crate) position: u32,
    /// Largest timestamp from the segment's start through this row.
    pub(crate) max_timestamp: TimestampMs,
    /// When the first batch was appended.
    pub(crate) appended_at: TimestampMs,
    /// Whether that time was lost and is an upper bound.
    pub(crate) estimated: bool,
    /// CRC-32C over the first 21 bytes of each batch.
    pub(crate) check: u32,
}

/// Append times in one row may differ by so much and still pass for one.
const ROW_SPAN_MS: i64 = 1_000;

impl Row {
    /// When the row's batches were appended, given when the next row begins or the segment ends:
    /// the time of the first if they all came within a second, else an upper bound, which is true
    /// of each of them, marked as estimated. The rows of a slow log can span hours.
    pub(crate) fn appended(&self, next: TimestampMs) -> (TimestampMs, bool) {
        if self.estimated || next.0.saturating_sub(self.appended_at.0) <= ROW_SPAN_MS {
            return (self.appended_at, self.estimated);
        }
        (next, true)
    }

    fn is_followed_by(&self, next: &Self) -> bool {
        self.relative_offset < next.relative_offset
            && self.position < next.position
            && self.max_timestamp <= next.max_timestamp
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.relative_offset.to_le_bytes());
        out.extend(self.position.to_le_bytes());
        out.extend(self.max_timestamp.0.to_le_bytes());
        out.extend(self.appended_at.0.to_le_bytes());
        out.extend(self.check.to_le_bytes());
        out.extend(if self.estimated { FLAG_ESTIMATED } else { 0 }.to_le_bytes());
    }

    fn decode(bytes: &[u8; ROW_LEN]) -> Self {
        Self {
            relative_offset: u32::from_le_bytes(array(bytes, 0)),
            position: u32::from_le_bytes(array(bytes, 4)),
            max_timestamp: TimestampMs(i64::from_le_bytes(array(bytes, 8))),
            appended_at: TimestampMs(i64::from_le_bytes(array(bytes, 16))),
            check: u32::from_le_bytes(array(bytes, 24)),
            estimated: u32::from_le_bytes(array(bytes, 28)) & FLAG_ESTIMATED != 0,
        }
    }
}

/// What an index says of its segment as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// The segment's base offset.
    pub(crate) base: Offset,
    /// The offset after its last record.
    pub(crate) next_offset: Offset,
    /// The length of its data file.
    pub(crate) data_len: u64,
    /// Batches in it.
    pub(crate) batches: u64,
    /// Records in it.
    pub(crate) records: u64,
    /// Its largest timestamp.
    pub(crate) max_timestamp: TimestampMs,
    /// When its first batch was appended, or an upper bound: what the first row says, for who does not
    /// read the rows.
    pub(crate) first_appended_at: TimestampMs,
    /// When its last batch was appended.
    pub(crate) last_appended_at: TimestampMs,
    /// Leader epoch of its first batch.
    pub(crate) first_epoch: i32,
    /// Leader epoch of its last batch.
    pub(crate) last_epoch: i32,
    /// CRC-32C over the first 21 bytes of every batch.
    pub(crate) headers_crc: u32,
    /// Batches with a producer id lie in it. Where none do, a `.state` that is missing can be made
    /// without a look at the data.
    pub(crate) producers: bool,
    /// Rows in the index.
    pub(crate) rows: u32,
    /// CRC-32 of the rows.
    pub(crate) rows_crc: u32,
}

impl Footer {
    /// Reads the footer of an index file; `None` if there is no file, or none that makes sense.
    ///
    /// # Errors
    ///
    /// `NewerFormat`: it makes sense to a newer version, and must not be replaced.
    pub(crate) fn read(fs: &dyn Fs, path: &Path) -> Result<Option<Self>, Error> {
        let Some((prefix, footer, len)) = Self::read_bytes(fs, path) else { return Ok(None) };
        match Self::decode(path, &prefix, &footer, len) {
            Ok(footer) => Ok(Some(footer)),
            Err(error) if error.kind() == ErrorKind::NewerFormat => Err(error),
            Err(error) => {
                tracing::warn!(%error, "an index is not used and will be rebuilt");
                Ok(None)
            }
        }
    }

    fn read_bytes(fs: &dyn Fs, path: &Path) -> Option<([u8; PREFIX_LEN], [u8; FOOTER_LEN], u64)> {
        let file = fs.open(path, OpenMode::Read).ok()?;
        let len = file.status().ok()?.len;
        let at = len.checked_sub(FOOTER_LEN as u64).filter(|_| len >= MIN_LEN)?;
        let (mut prefix, mut footer) = ([0; PREFIX_LEN], [0; FOOTER_LEN]);
        read_exact(&*file, &mut prefix, 0).ok()?;
        read_exact(&*file, &mut footer, at).ok()?;
        Some((prefix, footer, len))
    }

    /// Reads a footer and checks it, with the index file's length, for its own consistency.
    pub(crate) fn decode(path: &Path, head: &[u8], footer: &[u8], file_len: u64) -> Result<Self, Error> {
        let Some(bytes) = footer.first_chunk::<FOOTER_LEN>() else {
            return Err(damaged(path, "it is too short"));
        };
        let (body, crc) = bytes.split_at(FOOTER_LEN - 4);
        let is_whole = footer_crc(head, body).to_le_bytes() == crc;
        check_prefix(path, head, MAGIC)
            .map_err(|error| if is_whole { error } else { not_newer(path, error) })?;
        if !is_whole {
            return Err(damaged(path, "the checksum of its footer does not match"));
        }
        let offset = |at| {
            Offset::new(u64::from_le_bytes(array(bytes, at)))
                .ok_or_else(|| damaged(path, "it holds an offset that is out of range"))
        };
        let footer = Self {
            base: offset(0)?,
            next_offset: offset(8)?,
            data_len: u64::from_le_bytes(array(bytes, 16)),
            batches: u64::from_le_bytes(array(bytes, 24)),
            records: u64::from_le_bytes(array(bytes, 32)),
            max_timestamp: TimestampMs(i64::from_le_bytes(array(bytes, 40))),
            first_appended_at: TimestampMs(i64::from_le_bytes(array(bytes, 48))),
            last_appended_at: TimestampMs(i64::from_le_bytes(array(bytes, 56))),
            first_epoch: i32::from_le_bytes(array(bytes, 64)),
            last_epoch: i32::from_le_bytes(array(bytes, 68)),
            headers_crc: u32::from_le_bytes(array(bytes, 72)),
            producers: u32::from_le_bytes(array(bytes, 76)) & FLAG_PRODUCERS != 0,
            rows: u32::from_le_bytes(array(bytes, 80)),
            rows_crc: u32::from_le_bytes(array(bytes, 84)),
        };
        if file_len != MIN_LEN + u64::from(footer.rows) * ROW_LEN as u64 {
            return Err(damaged(path, "its length does not match its number of rows"));
        }
        if !footer.is_possible() {
            return Err(damaged(path, "it describes no segment that there can be"));
        }
        Ok(footer)
    }

    /// Whether a segment can be so: a checksum speaks for the disk, not for whoever wrote the file,
    /// and these numbers are counted on from.
    fn is_possible(&self) -> bool {
        let most = u64::from(u32::MAX);
        let offsets = self.next_offset.get().checked_sub(self.base.get());
        offsets.is_some_and(|offsets| offsets <= most && self.batches <= offsets && self.records <= offsets)
            && self.data_len <= most
    }

    /// Whether there is a record at each of its offsets.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.next_offset.checked_sub(self.base) == Some(self.records)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(self.base.get().to_le_bytes());
        out.extend(self.next_offset.get().to_le_bytes());
        out.extend(self.data_len.to_le_bytes());
        out.extend(self.batches.to_le_bytes());
        out.extend(self.records.to_le_bytes());
        out.extend(self.max_timestamp.0.to_le_bytes());
        out.extend(self.first_appended_at.0.to_le_bytes());
        out.extend(self.last_appended_at.0.to_le_bytes());
        out.extend(self.first_epoch.to_le_bytes());
        out.extend(self.last_epoch.to_le_bytes());
        out.extend(self.headers_crc.to_le_bytes());
        out.extend(if self.producers { FLAG_PRODUCERS } else { 0 }.to_le_bytes());
        out.extend(self.rows.to_le_bytes());
        out.extend(self.rows_crc.to_le_bytes());
        let crc = footer_crc(&prefix(), &out[start..]);
        out.extend(crc.to_le_bytes());
    }
}

/// Builds an index file, and its footer with row count and checksum filled in.
pub(crate) fn encode(rows: &[Row], footer: &Footer) -> (Vec<u8>, Footer) {
    let mut out = Vec::with_capacity(PREFIX_LEN + rows.len() * ROW_LEN + FOOTER_LEN);
    out.extend(prefix());
    for row in rows {
        row.encode(&mut out);
    }
    let rows_crc = crc32fast::hash(&out[PREFIX_LEN..]);
    let rows = u32::try_from(rows.len()).expect("a segment has fewer than 2^32 rows");
    let footer = Footer { rows, rows_crc, ..*footer };
    footer.encode(&mut out);
    (out, footer)
}

/// The rows of an index, read in place.
#[derive(Clone, Debug)]
pub(crate) struct Rows(Bytes);

impl Rows {
    /// Takes the rows out of a whole index file whose footer has been checked.
    pub(crate) fn new(path: &Path, file: &Bytes, footer: &Footer) -> Result<Self, Error> {
        let end = PREFIX_LEN + footer.rows as usize * ROW_LEN;
        if file.len() != end + FOOTER_LEN || crc32fast::hash(&file[PREFIX_LEN..end]) != footer.rows_crc {
            return Err(damaged(path, "the checksum of its rows does not match"));
        }
        let rows = Self(file.slice(PREFIX_LEN..end));
        if !rows.describe(footer) {
            return Err(damaged(path, "its rows do not describe a segment"));
        }
        Ok(rows)
    }

    /// Whether these can be the rows of that segment: whoever reads takes differences of what they
    /// say.
    fn describe(&self, footer: &Footer) -> bool {
        let offsets = footer.next_offset.get() - footer.base.get();
        let inside =
            |row: &Row| u64::from(row.relative_offset) < offsets && u64::from(row.position) < footer.data_len;
        let begins = self.get(0).map_or(footer.data_len == 0, |row| row.position == 0);
        begins && self.iter().all(|row| inside(&row)) && self.iter().is_sorted_by(Row::is_followed_by)
    }

    /// The footer and the rows of a whole index file.
    pub(crate) fn whole(path: &Path, file: &Bytes) -> Result<(Footer, Self), Error> {
        let at = file.len().checked_sub(FOOTER_LEN).filter(|at| *at >= PREFIX_LEN);
        let at = at.ok_or_else(|| damaged(path, "it is too short"))?;
        let footer = Footer::decode(path, &file[..PREFIX_LEN], &file[at..], file.len() as u64)?;
        let rows = Self::new(path, file, &footer)?;
        Ok((footer, rows))
    }

    /// Rows kept in memory only.
    pub(crate) fn from_rows(rows: &[Row]) -> Self {
        let mut out = Vec::with_capacity(rows.len() * ROW_LEN);
        for row in rows {
            row.encode(&mut out);
        }
        Self(out.into())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len() / ROW_LEN
    }

    pub(crate) fn get(&self, index: usize) -> Option<Row> {
        let start = index.checked_mul(ROW_LEN)?;
        self.0.get(start..start + ROW_LEN)?.first_chunk().map(Row::decode)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Row> {
        (0..self.len()).map_while(|index| self.get(index))
    }

    /// The number of rows at the front for which `before` holds, which must be all or a prefix.
    pub(crate) fn partition_point(&self, before: impl Fn(&Row) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(|row| before(&row)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

fn prefix() -> [u8; PREFIX_LEN] {
    let [v0, v1] = VERSION.to_le_bytes();
    [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], v0, v1, 0, 0]
}

fn footer_crc(prefix: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix);
    hasher.update(body);
    hasher.finalize()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
