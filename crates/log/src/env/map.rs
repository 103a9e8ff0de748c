//! Memory maps of sealed files: the crate's only unsafe code.
//!
//! Sound as long as nobody cuts or rewrites a mapped file. The log never does: it maps sealed
//! segments only, which are replaced by renaming and removed by unlinking. Another program that
//! cuts a file under a running node makes the next touch fault (SIGBUS), as it would any program
//! that maps files.
//!
//! A range that was populated can still fault: the kernel may take its pages back at any time, reads
//! them again at the next touch, and sends SIGBUS if the disk fails just then. Locking them
//! (`mlock`) would need rights that few processes have. Whoever cannot live with that turns maps
//! off: `SetOptions::read_mode`.

#![allow(unsafe_code, reason = "memory maps cannot be had without; the module's contract makes it sound")]

use std::fs;
use std::io;
use std::ops::Range;

use memmap2::{Advice, MmapOptions};

use super::Map;

/// A read-only shared map.
#[derive(Debug)]
pub(super) struct FileMap(memmap2::Mmap);

impl FileMap {
    /// Maps the first `len` bytes, which the caller has checked to exist.
    pub(super) fn new(file: &fs::File, len: usize) -> io::Result<Self> {
        // SAFETY: the map is read-only, lies within the file's length, and the module's contract
        // keeps the file from being cut or rewritten while any handle to the map lives.
        unsafe { MmapOptions::new().len(len).map(file) }.map(Self)
    }
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Map for FileMap {
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.0.advise_range(Advice::PopulateRead, range.start, range.len()).map_err(|error| {
            // EINVAL: a kernel before 5.14, which does not know the advice.
            if error.kind() == io::ErrorKind::InvalidInput {
                io::Error::new(io::ErrorKind::Unsupported, error)
            } else {
                error
            }
        })
    }
}
