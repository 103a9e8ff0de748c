//! Memory maps of sealed files: the crate's only unsafe code.
//!
//! Sound as long as nobody cuts or rewrites a mapped file. The log never does: it maps sealed
//! segments only, which are replaced by renaming and removed by unlinking. Another program that
//! cuts a file under a running node makes the next touch fault (SIGBUS), as it would any program
//! that maps files.
//!
//! A range that was populated, or found in memory, can still fault: the kernel may take its pages back
//! at any time, reads them again at the next touch, and sends SIGBUS if the disk fails just then. Locking them
//! (`mlock`) would need rights that few processes have. Whoever cannot live with that turns maps
//! off: `SetOptions::read_mode`.

#![allow(unsafe_code, reason = "memory maps cannot be had without; the module's contract makes it sound")]

use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;

use memmap2::{Advice, MmapOptions};

use super::Map;

/// Pages are asked after in runs of so many: 4 MiB.
const PAGES_AT_ONCE: usize = 1024;

/// A read-only shared map.
#[derive(Debug)]
pub(super) struct FileMap {
    map: memmap2::Mmap,
    page_len: usize,
    /// The kernel says which pages of the file are in memory. Of files of others it says so of all.
    tells_residents: bool,
}

impl FileMap {
    /// Maps the first `len` bytes, which the caller has checked to exist.
    pub(super) fn new(file: &fs::File, len: usize) -> io::Result<Self> {
        // SAFETY: the map is read-only, lies within the file's length, and the module's contract
        // keeps the file from being cut or rewritten while any handle to the map lives.
        let map = unsafe { MmapOptions::new().len(len).map(file) }?;
        let tells_residents = file.metadata()?.uid() == rustix::process::geteuid().as_raw();
        Ok(Self { map, page_len: rustix::param::page_size(), tells_residents })
    }

    /// Whether all pages of a range are in memory, which costs a thirtieth of populating pages that
    /// are. False also where that cannot be said.
    fn is_resident(&self, range: &Range<usize>) -> bool {
        let mut from = range.start - range.start % self.page_len;
        let mut resident = [0; PAGES_AT_ONCE];
        while self.tells_residents && from < range.end {
            let len = (range.end - from).min(PAGES_AT_ONCE * self.page_len);
            let pages = &mut resident[..len.div_ceil(self.page_len)];
            let start = self.map[from..from + len].as_ptr().cast_mut().cast();
            // SAFETY: the range lies in the map, whose pages `from` is a multiple of, and there is a
            // byte for each of its pages; mincore(2) writes these and touches nothing else.
            let told = unsafe { libc::mincore(start, len, pages.as_mut_ptr()) } == 0;
            if !told || pages.iter().any(|page| page & 1 == 0) {
                return false;
            }
            from += len;
        }
        self.tells_residents
    }
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        &self.map
    }
}

impl Map for FileMap {
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if range.is_empty() || self.is_resident(&range) {
            return Ok(());
        }
        self.map.advise_range(Advice::PopulateRead, range.start, range.len()).map_err(|error| {
            // EINVAL: a kernel before 5.14, which does not know the advice.
            if error.kind() == io::ErrorKind::InvalidInput {
                io::Error::new(io::ErrorKind::Unsupported, error)
            } else {
                error
            }
        })
    }
}
