//! What a loss of power, or a sync that fails, leaves of a file's unsynced steps.

use std::mem;

use logmill_record::TimestampMs;

use super::sectors::{FileImage, SECTOR, Version, overlay, sector_of};
use crate::sim::SimRandom;

/// How much of what was unsynced survives. Drawn per file: if each sector were drawn alone, a
/// large write would next to never survive whole, go whole, or be cut off at one place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    All,
    Nothing,
    /// Everything up to some moment, and of the write in flight then the first bytes.
    Prefix,
    /// Each on its own.
    Mixed,
}

impl Mood {
    pub(super) fn draw(random: &SimRandom) -> Self {
        match random.below(6) {
            0 => Self::All,
            1 => Self::Nothing,
            2 | 3 => Self::Prefix,
            _ => Self::Mixed,
        }
    }
}

impl FileImage {
    /// The power goes and comes back: the device has what was synced and some of the rest, and
    /// the program sees what the device has.
    pub(super) fn crash(&mut self, random: &SimRandom) {
        let modified = if random.one_in(2) { self.modified } else { self.durable_modified };
        let mood = if self.steps.is_empty() { Mood::Nothing } else { Mood::draw(random) };
        let (image, len) = match mood {
            Mood::All => self.prefix(self.steps.len(), random),
            Mood::Nothing => (self.base(0), self.durable_len),
            Mood::Prefix => self.prefix(random.index(self.steps.len() + 1), random),
            Mood::Mixed => self.mixed(random),
        };
        self.become_image(image, len, modified);
    }

    fn become_image(&mut self, mut image: Vec<u8>, len: usize, modified: TimestampMs) {
        image.resize(len, 0);
        self.durable.clone_from(&image);
        self.durable_len = len;
        self.live = image;
        self.modified = modified;
        self.durable_modified = modified;
        self.forget_steps();
    }

    /// All steps before a moment, and the beginning of the one that was under way.
    fn prefix(&self, moment: usize, random: &SimRandom) -> (Vec<u8>, usize) {
        let mut image = self.base(moment);
        let mut len = self.len_at(moment);
        let torn_end = self.steps.get(moment).map_or(0, |step| {
            let end = step.start + random.index(step.end - step.start + 1);
            if end > step.start {
                len = len.max(end);
            }
            end
        });
        for (&sector, versions) in &self.dirty {
            let older = versions.iter().rev().find(|version| version.step < moment);
            let mut bytes = self.sector_at(sector, older, moment);
            if let Some(newer) = versions.iter().find(|version| version.step == moment) {
                tear(&mut bytes, &newer.bytes, torn_end.saturating_sub(sector * SECTOR));
            }
            overlay(&mut image, sector, &bytes);
        }
        (image, len)
    }

    /// Any version of every sector, the length of any moment, and the last sector kept may be
    /// torn between two versions.
    fn mixed(&self, random: &SimRandom) -> (Vec<u8>, usize) {
        let moment = match random.below(4) {
            0 => 0,
            1 => random.index(self.steps.len() + 1),
            _ => self.steps.len(),
        };
        let keep_percent = [10, 50, 50, 90][random.index(4)];
        let mut image = self.base(moment);
        let mut last_kept = None;
        for (&sector, versions) in &self.dirty {
            let versions = self.possible(sector, versions, moment);
            if random.below(100) >= keep_percent || versions.is_empty() {
                continue;
            }
            let newest = versions.len() - 1;
            let kept = if random.one_in(2) { newest } else { random.index(versions.len()) };
            overlay(&mut image, sector, &self.sector_at(sector, Some(&versions[kept]), moment));
            last_kept = Some((sector, kept));
        }
        if let Some((sector, kept)) = last_kept.filter(|_| random.one_in(2)) {
            let versions = &self.dirty[&sector];
            let older = random.index(kept + 1).checked_sub(1).map(|older| &versions[older]);
            let mut bytes = self.sector_at(sector, older, moment);
            let newer = self.sector_at(sector, Some(&versions[kept]), moment);
            tear(&mut bytes, &newer, random.index(SECTOR + 1));
            overlay(&mut image, sector, &bytes);
        }
        (image, self.len_at(moment))
    }

    /// A sync that fails: some sectors reach the device, the others never will, for they count
    /// as clean from now on. The length stays unsynced.
    pub(in crate::sim) fn fail_sync(&mut self, random: &SimRandom) {
        let keep_percent = [0, 0, 50, 100][random.index(4)];
        let mut image = mem::take(&mut self.durable);
        for (&sector, versions) in &self.dirty {
            // Behind a cut that does not last, the device still has the bytes from before it.
            let reachable = self.possible(sector, versions, 0).len() == versions.len();
            if reachable && random.below(100) < keep_percent {
                overlay(&mut image, sector, sector_of(&self.live, sector));
            }
        }
        self.durable = image;
        self.dirty.clear();
    }

    fn len_at(&self, moment: usize) -> usize {
        moment.checked_sub(1).map_or(self.durable_len, |last| self.steps[last].len)
    }

    /// What the device has, with the cuts that last by `moment`.
    pub(super) fn base(&self, moment: usize) -> Vec<u8> {
        let mut image = self.durable.clone();
        if let Some(cut) = self.lowest_cut(0, moment) {
            image.truncate(cut);
        }
        image
    }

    /// A version of a sector, or what the device has, without what later cuts took off.
    fn sector_at(&self, sector: usize, version: Option<&Version>, moment: usize) -> Vec<u8> {
        let (bytes, since) = match version {
            Some(version) => (&*version.bytes, version.step + 1),
            None => (sector_of(&self.durable, sector), 0),
        };
        let cut = self.lowest_cut(since, moment).unwrap_or(usize::MAX);
        bytes[..bytes.len().min(cut.saturating_sub(sector * SECTOR))].to_vec()
    }

    /// The versions that the device can have: none from behind a cut that does not last.
    fn possible<'a>(&self, sector: usize, versions: &'a [Version], moment: usize) -> &'a [Version] {
        let undone = self.cuts.iter().find(|&&(step, len)| step >= moment && len <= sector * SECTOR);
        let count = undone
            .map_or(versions.len(), |&(step, _)| versions.partition_point(|version| version.step < step));
        &versions[..count]
    }
}

/// Replaces the first `count` bytes by those of `newer`.
fn tear(bytes: &mut Vec<u8>, newer: &[u8], count: usize) {
    let count = count.min(newer.len());
    if bytes.len() < count {
        bytes.resize(count, 0);
    }
    bytes[..count].copy_from_slice(&newer[..count]);
}
