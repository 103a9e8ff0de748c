//! The bytes of one file: as a program sees them, as the device has them, and what lies between.
//!
//! `live` is the page cache. `durable` is the device. `steps` are the writes and length changes
//! since the last sync, `dirty` the 512-byte sectors they touched with every version of them: a
//! device may have any of these versions when the power goes, since the kernel writes back when
//! it likes. A sector that is neither dirty nor equal on both sides has been lost by a failed
//! sync: no later sync carries it to the device.
//!
//! Lengths are metadata and change in order; a cut and what it cuts off go together: bytes cut
//! off never come back once the cut lasts, and bytes written behind a cut are not seen without it.

use std::collections::BTreeMap;

use logmill_record::TimestampMs;

pub(super) const SECTOR: usize = 512;

#[derive(Debug)]
pub(in crate::sim) struct FileImage {
    pub(super) live: Vec<u8>,
    pub(super) modified: TimestampMs,
    /// Can hold bytes behind `durable_len`: written back, but the length was not.
    pub(super) durable: Vec<u8>,
    pub(super) durable_len: usize,
    pub(super) durable_modified: TimestampMs,
    pub(super) steps: Vec<Step>,
    /// Steps that made the file shorter, and to which length.
    pub(super) cuts: Vec<(usize, usize)>,
    pub(super) dirty: BTreeMap<usize, Vec<Version>>,
}

/// One write, or one change of the length alone (then `start` = `end`).
#[derive(Debug)]
pub(super) struct Step {
    pub(super) start: usize,
    pub(super) end: usize,
    /// The file's length after it.
    pub(super) len: usize,
}

/// A sector as it was after a step.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) step: usize,
    pub(super) bytes: Box<[u8]>,
}

impl FileImage {
    pub(in crate::sim) fn new(now: TimestampMs) -> Self {
        Self {
            live: Vec::new(),
            modified: now,
            durable: Vec::new(),
            durable_len: 0,
            durable_modified: now,
            steps: Vec::new(),
            cuts: Vec::new(),
            dirty: BTreeMap::new(),
        }
    }

    pub(in crate::sim) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(in crate::sim) fn durable(&self) -> &[u8] {
        &self.durable[..self.durable_len]
    }

    pub(in crate::sim) fn modified(&self) -> TimestampMs {
        self.modified
    }

    pub(in crate::sim) fn write(&mut self, bytes: &[u8], start: usize, now: TimestampMs) {
        if bytes.is_empty() {
            return;
        }
        let end = start + bytes.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[start..end].copy_from_slice(bytes);
        self.modified = now;
        let step = self.steps.len();
        self.steps.push(Step { start, end, len: self.live.len() });
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let bytes = sector_of(&self.live, sector).into();
            self.dirty.entry(sector).or_default().push(Version { step, bytes });
        }
    }

    pub(in crate::sim) fn set_len(&mut self, len: usize, now: TimestampMs) {
        if len < self.live.len() {
            self.cuts.push((self.steps.len(), len));
        }
        self.live.resize(len, 0);
        self.modified = now;
        self.steps.push(Step { start: 0, end: 0, len });
    }

    /// Carries the dirty sectors and the length to the device.
    pub(in crate::sim) fn sync(&mut self) {
        if let Some(cut) = self.lowest_cut(0, self.steps.len()) {
            self.durable.truncate(cut);
        }
        for &sector in self.dirty.keys() {
            overlay(&mut self.durable, sector, sector_of(&self.live, sector));
        }
        let len = self.live.len();
        self.durable.resize(len, 0);
        // The time of change is written with the length; alone it is not worth a data sync.
        if self.durable_len != len {
            self.durable_modified = self.modified;
        }
        self.durable_len = len;
        self.forget_steps();
    }

    /// Makes both sides equal, with everything written so far.
    pub(in crate::sim) fn settle(&mut self) {
        self.durable.clone_from(&self.live);
        self.durable_len = self.live.len();
        self.durable_modified = self.modified;
        self.forget_steps();
    }

    /// Forgets what is clean: sectors that a failed sync lost read as the device has them.
    pub(in crate::sim) fn drop_cache(&mut self) {
        let mut image = self.base(self.steps.len());
        image.resize(self.live.len(), 0);
        for &sector in self.dirty.keys() {
            overlay(&mut image, sector, sector_of(&self.live, sector));
        }
        image.truncate(self.live.len());
        self.live = image;
    }

    pub(super) fn forget_steps(&mut self) {
        self.steps.clear();
        self.cuts.clear();
        self.dirty.clear();
    }

    /// The shortest length that the steps from `since` up to `until` cut the file to.
    pub(super) fn lowest_cut(&self, since: usize, until: usize) -> Option<usize> {
        self.cuts.iter().filter(|(step, _)| (since..until).contains(step)).map(|&(_, len)| len).min()
    }
}

/// The bytes of a sector, fewer at the end of the image.
pub(super) fn sector_of(image: &[u8], sector: usize) -> &[u8] {
    let start = (sector * SECTOR).min(image.len());
    let end = (start + SECTOR).min(image.len());
    &image[start..end]
}

/// Replaces a sector; what `bytes` leaves of it is zeros.
pub(super) fn overlay(image: &mut Vec<u8>, sector: usize, bytes: &[u8]) {
    let start = sector * SECTOR;
    if image.len() < start + SECTOR {
        image.resize(start + SECTOR, 0);
    }
    image[start..start + bytes.len()].copy_from_slice(bytes);
    image[start + bytes.len()..start + SECTOR].fill(0);
}
