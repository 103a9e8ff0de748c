//! What is appended in one write, measured before anything is decided.

use logmill_record::{Batch, BatchError};

use super::Appended;
use super::producers::{Note, concerns};
use crate::error::{Error, ErrorKind};

/// The batches of one append.
pub(super) struct Group<'a> {
    pub(super) batches: &'a [Batch],
    pub(super) size: Size,
    /// What the table of producers wants to know of each; empty if that is nothing.
    pub(super) notes: Vec<Option<Note>>,
}

impl<'a> Group<'a> {
    /// Refuses what no append can take: no batch, too much, a marker that cannot be understood.
    pub(super) fn new(batches: &'a [Batch]) -> Result<Self, Error> {
        Ok(Self { batches, size: measure(batches)?, notes: notes(batches)? })
    }

    pub(super) fn appended(&self) -> Appended {
        let Size { bytes, records, .. } = self.size;
        Appended { appends: 1, batches: self.batches.len() as u64, records, bytes }
    }
}

/// What a group of batches takes.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) offsets: u64,
    records: u64,
}

fn measure(batches: &[Batch]) -> Result<Size, Error> {
    let mut size = Size { bytes: 0, offsets: 0, records: 0 };
    for batch in batches {
        size.bytes += batch.bytes().len() as u64;
        size.records += u64::from(batch.header().record_count);
        size.offsets += u64::from(batch.header().last_offset_delta) + 1;
    }
    if batches.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "an append needs at least one batch"));
    }
    if size.bytes > u64::from(u32::MAX) || size.offsets > u64::from(u32::MAX) {
        return Err(Error::new(ErrorKind::Invalid, "an append is limited to 4 GiB; append in several steps"));
    }
    Ok(size)
}

fn notes(batches: &[Batch]) -> Result<Vec<Option<Note>>, Error> {
    if !batches.iter().any(|batch| concerns(batch.header())) {
        return Ok(Vec::new());
    }
    let refused = |error: BatchError| {
        let message = format!("a marker cannot be understood: {error}; build it anew");
        Error::new(ErrorKind::Invalid, message).because(error)
    };
    batches.iter().map(|batch| Note::of(batch).map_err(refused)).collect()
}
