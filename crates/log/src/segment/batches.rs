//! The batches of a data file, one by one, each whole and checked: for who rewrites segments.

use std::path::Path;

use logmill_record::{Batch, Offset};

use super::Gaps;
use super::scan::{Found, Scan, Window, good_batch};
use crate::env::File;
use crate::error::Error;

/// Reads a whole data file from front to back.
pub(crate) struct Batches<'a> {
    path: &'a Path,
    scan: Scan<'a>,
    window: Window<'a>,
    at: Found,
    end: Offset,
}

impl<'a> Batches<'a> {
    /// The batches in the first `len` bytes of a segment that begins at `base` and ends at `end`.
    pub(crate) fn new(file: &'a dyn File, path: &'a Path, len: u64, base: Offset, end: Offset) -> Self {
        let scan = Scan { file, base, from: 0, offset: base, to: len, gaps: Gaps::Below(end), crc: false };
        let at = Found { end: 0, next_offset: base, damage: None };
        Self { path, scan, window: Window::new(file, len), at, end }
    }

    /// The next batch and where it begins in the file; `None` at the end.
    ///
    /// # Errors
    ///
    /// `Io`, and `Corrupt` at the first batch that is not what was written.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Batch)>, Error> {
        if self.at.end == self.scan.to {
            return Ok(None);
        }
        let position = self.at.end;
        let failed = |error| Error::io("read", self.path, error);
        let (_, header) = good_batch(&self.scan, &mut self.window, &self.at)
            .map_err(failed)?
            .map_err(|what| self.damage(position, self.end, what))?;
        let bytes = self.window.get(position, header.total_len as u64).map_err(failed)?;
        let batch = Batch::parse(bytes)
            .map_err(|error| self.damage(position, header.next_offset(), error.to_string()))?;
        self.at.end += header.total_len as u64;
        self.at.next_offset = header.next_offset();
        Ok(Some((position, batch)))
    }

    fn damage(&self, position: u64, to: Offset, what: String) -> Error {
        Error::corrupt(self.path, position, self.at.next_offset..to, what)
    }
}
