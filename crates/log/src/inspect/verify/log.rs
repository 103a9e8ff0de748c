//! One log: its `meta`, its segments one after the other, and the files that do not belong.

use std::io;
use std::path::{Path, PathBuf};

use logmill_record::Offset;

use super::super::finding::{Finding, FindingKind, Severity};
use super::super::list::{SegmentListing, read_meta};
use super::data::{DataLook, look_at_data};
use super::whole::most_epoch;
use super::{Frame, Line, LogReport, Meter, Target, damage};
use crate::compaction::CLEANED;
use crate::env::{Fs, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic::TEMPORARY;
use crate::format::checkpoint::Durable;
use crate::format::meta::{FILE as META, LogMeta};
use crate::format::replacement::MERGE;
use crate::log::{Replaced, Rolls, base_of_record, read_record, replaced_by};
use crate::segment::{DATA, INDEX, STATE, base_of, base_with, path};
use crate::set::{CHECKPOINT, LOCK, RESERVE, SET};

/// One log of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) dir: &'a Path,
    pub(super) below: &'a Path,
    pub(super) frame: &'a Frame,
    /// Below this offset compaction may have left gaps; without `meta` it may have anywhere.
    pub(super) gaps_below: Offset,
    /// Whether the log was closed cleanly, so that nothing in it is torn.
    pub(super) clean: bool,
}

/// What was seen of a log: what to report, and what a repair goes by.
#[derive(Debug)]
pub(in crate::inspect) struct Look {
    pub(in crate::inspect) report: LogReport,
    pub(in crate::inspect) meta: Option<LogMeta>,
    /// It has neither `meta` nor records, as a creation that was cut off leaves it.
    pub(in crate::inspect) unborn: bool,
    pub(in crate::inspect) durable: Option<Durable>,
    /// Whether it was closed cleanly there.
    pub(in crate::inspect) clean: bool,
    pub(in crate::inspect) segments: Vec<DataLook>,
    pub(in crate::inspect) merges: Vec<MergeLook>,
    /// Segments that were never begun: their files are empty.
    pub(in crate::inspect) unbegun: Vec<Offset>,
}

/// A merging of segments that was cut off behind its commit point.
#[derive(Clone, Debug)]
pub(in crate::inspect) struct MergeLook {
    pub(in crate::inspect) base: Offset,
    /// Whether its record is damaged.
    pub(in crate::inspect) damaged: bool,
    pub(in crate::inspect) replaced: Replaced,
}

impl View<'_> {
    pub(super) fn look(
        mut self,
        segments: &[SegmentListing],
        findings: &mut Vec<Finding>,
        meter: &mut Meter<'_>,
    ) -> Result<Look, Error> {
        let (meta, unborn) = self.meta(segments, findings)?;
        self.gaps_below = meta.as_ref().map_or(Offset::MAX, |meta| meta.gaps_below);
        let row = match (&meta, &self.frame.checkpoint) {
            (Some(meta), Some(rows)) => rows.get(&meta.id).copied(),
            _ => None,
        };
        let durable = row.map(|row| row.durable);
        self.clean = self.frame.clean() && row.is_some_and(|row| row.clean);
        let merges = self.look_at_merges(findings)?;
        self.note_strays(segments, &merges, findings)?;
        let start_offset = meta.as_ref().map_or(Offset::ZERO, |meta| meta.start_offset);
        let (segments, unbegun) = self.sort_out(segments, (start_offset, durable), findings, meter)?;
        let mut looks = Vec::with_capacity(segments.len());
        for (index, listing) in segments.iter().enumerate() {
            let end = segments.get(index + 1).map(|next| next.base_offset);
            let target = Target { listing: *listing, end };
            let line = self.line(*listing, end, durable, meta.is_some());
            let last_epoch = looks.last().map_or(0, |last: &DataLook| last.last_epoch);
            looks.push(look_at_data(&self, target, (line, last_epoch), findings, meter)?);
        }
        let end_offset = looks.last().map_or(start_offset, |last| last.end_offset);
        self.check_ends(start_offset, durable, &segments, end_offset, findings);
        let report = LogReport {
            path: self.below.to_owned(),
            id: meta.as_ref().map(|meta| meta.id),
            owner: meta.as_ref().map(|meta| meta.owner.clone()),
            start_offset,
            end_offset,
            segments: segments.len(),
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            batches: looks.iter().map(|look| look.batches).sum(),
            records: looks.iter().map(|look| look.records).sum(),
        };
        Ok(Look { report, meta, unborn, durable, clean: self.clean, segments: looks, merges, unbegun })
    }

    /// The segments that an open takes for the log's, and those that were never begun.
    fn sort_out(
        &self,
        segments: &[SegmentListing],
        (start, durable): (Offset, Option<Durable>),
        findings: &mut Vec<Finding>,
        meter: &mut Meter<'_>,
    ) -> Result<(Vec<SegmentListing>, Vec<Offset>), Error> {
        let View { fs, clean, gaps_below, .. } = *self;
        let rolls = Rolls { fs, dir: &self.log_dir(), durable, clean, gaps_below };
        let (mut kept, mut unbegun) = (Vec::<SegmentListing>::with_capacity(segments.len()), Vec::new());
        for listing in segments {
            let base = listing.base_offset;
            if let Some(last) = kept.last().copied() {
                if listing.bytes == 0 && rolls.was_never_begun(last.base_offset, base)? {
                    let what = "the empty file of a segment that was never begun";
                    let (kind, file) = (FindingKind::Stray, path(&self.log_dir(), base, DATA));
                    let advice = "the next start removes it";
                    findings.push(self.finding(Severity::Note, kind, file, what, advice));
                    unbegun.push(base);
                    continue;
                }
                if base <= start {
                    meter.add(last.bytes);
                    self.note_removal(last, findings);
                    kept.pop();
                }
            }
            kept.push(*listing);
        }
        Ok((kept, unbegun))
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.dir.join(self.below)
    }

    /// The epochs that batches can have been stamped with, also where `set` is an older copy.
    pub(super) fn largest_epoch(&self) -> i32 {
        self.frame.set.map_or(i32::MAX, most_epoch)
    }

    pub(super) fn finding(
        &self,
        severity: Severity,
        kind: FindingKind,
        file: PathBuf,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let (what, advice) = (what.into(), advice.into());
        let log = Some(self.below.to_owned());
        Finding { severity, kind, log, file, position: None, offsets: None, what, advice }
    }

    /// Its `meta`, if that can be read; and whether the creation of the log was cut off.
    fn meta(
        &self,
        segments: &[SegmentListing],
        findings: &mut Vec<Finding>,
    ) -> Result<(Option<LogMeta>, bool), Error> {
        const ADVICE: &str = "restore this file from a backup, or repair the log: it gets a new identity, and what \
                              its owner kept with it is lost unless the owner can tell it again";
        let file = self.log_dir().join(META);
        let error = match read_meta(self.fs, &file) {
            Ok(meta) => return Ok((Some(meta), false)),
            Err(error) => error,
        };
        let kind = FindingKind::Meta;
        let is_gone = error.kind() == ErrorKind::NotFound;
        let unborn = is_gone && segments.iter().all(|segment| segment.bytes == 0);
        findings.push(if unborn {
            let what = "it is missing and there are no records: the creation of the log was cut off";
            self.finding(Severity::Note, kind, file, what, "nothing is lost")
        } else if is_gone {
            let what = "it is missing, so the log cannot be opened";
            self.finding(Severity::Data, kind, file, what, ADVICE)
        } else {
            self.finding(Severity::Data, kind, file, damage(error)?, ADVICE)
        });
        Ok((None, unborn))
    }

    /// The line in the newest segment; sealed segments were promised whole.
    fn line(
        &self,
        listing: SegmentListing,
        end: Option<Offset>,
        durable: Option<Durable>,
        known: bool,
    ) -> Option<Line> {
        if end.is_some() {
            return None;
        }
        let start = Line::At { position: 0, end: listing.base_offset };
        Some(match durable {
            Some(durable) if durable.active_base == listing.base_offset => {
                Line::At { position: durable.position, end: durable.end }
            }
            // Rolled after the checkpoint was written.
            Some(durable) if durable.active_base < listing.base_offset => start,
            // The segment that was the newest is gone: this one had been sealed.
            Some(_) => Line::Unknown,
            None if known && self.frame.checkpoint.is_some() => start,
            // Without its identity, its row of the checkpoint cannot be told.
            None => Line::Unknown,
        })
    }

    /// The log's first and last offsets against its start and its checkpoint.
    fn check_ends(
        &self,
        start: Offset,
        durable: Option<Durable>,
        segments: &[SegmentListing],
        end: Offset,
        findings: &mut Vec<Finding>,
    ) {
        let mut missing = |base, offsets, what: &str| {
            let file = path(&self.log_dir(), base, DATA);
            let advice = "restore the file from a backup, or repair the log, which goes on behind the damage";
            let mut finding = self.finding(Severity::Data, FindingKind::Missing, file, what, advice);
            finding.offsets = Some(offsets);
            findings.push(finding);
        };
        if let Some(first) = segments.first().map(|first| first.base_offset).filter(|first| *first > start) {
            missing(start, start..first, "the first segment of the log is gone");
        }
        let newest = segments.last().map_or(start, |last| last.base_offset);
        match durable {
            Some(durable) if durable.end > end && (durable.active_base > newest || segments.is_empty()) => {
                missing(durable.active_base, end..durable.end, "the newest segment of the log is gone");
            }
            _ if start > end && !segments.is_empty() => {
                missing(end, end..start, "the log ends before its start offset");
            }
            _ => {}
        }
    }

    /// The mergings of segments that were cut off; a damaged record is a finding.
    fn look_at_merges(&self, findings: &mut Vec<Finding>) -> Result<Vec<MergeLook>, Error> {
        let dir = self.log_dir();
        let entries = self.fs.list(&dir).map_err(|error| Error::io("list", &dir, error))?;
        let bases: Vec<_> = entries.iter().filter_map(|entry| base_of(&entry.name)).collect();
        let mut merges = Vec::new();
        for base in entries.iter().filter_map(|entry| base_of_record(&entry.name)) {
            let read = read_record(self.fs, &dir, base);
            let damaged = read.is_err();
            if let Err(error) = read {
                let advice = "a repair moves it aside; the records of all segments that it names are there";
                let (kind, file) = (FindingKind::Replacement, path(&dir, base, MERGE));
                findings.push(self.finding(Severity::Sidecar, kind, file, damage(error)?, advice));
            }
            let replaced = replaced_by(self.fs, &dir, base, &bases)?;
            merges.push(MergeLook { base, damaged, replaced });
        }
        Ok(merges)
    }

    /// A segment wholly below the log's start was to go, and others there may have gone before it.
    fn note_removal(&self, listing: SegmentListing, findings: &mut Vec<Finding>) {
        let file = path(&self.log_dir(), listing.base_offset, DATA);
        let what = "all of it lies below the log's start: its removal was cut off";
        findings.push(self.finding(
            Severity::Note,
            FindingKind::Stray,
            file,
            what,
            "the next open removes it",
        ));
    }

    fn note_strays(
        &self,
        segments: &[SegmentListing],
        merges: &[MergeLook],
        findings: &mut Vec<Finding>,
    ) -> Result<(), Error> {
        let dir = self.log_dir();
        let entries = self.fs.list(&dir).map_err(|error| Error::io("list", &dir, error))?;
        let root = self.below.as_os_str().is_empty();
        let is_listed = |base| segments.iter().any(|segment| segment.base_offset == base);
        let is_told = |base| merges.iter().any(|merge| merge.damaged && merge.base == base);
        for entry in &entries {
            let name = entry.name.as_str();
            if let Some(base) = base_of(name) {
                if !is_listed(base) {
                    self.note_no_file(dir.join(name), findings)?;
                }
                continue;
            }
            let own = name == META || (root && [SET, LOCK, CHECKPOINT, RESERVE].contains(&name));
            let sidecar = [INDEX, STATE].into_iter().find_map(|ending| base_with(name, ending));
            let told = base_of_record(name).is_some_and(is_told) || sidecar.is_some_and(is_listed);
            if own || told || entry.is_dir {
                continue;
            }
            let (what, advice) = match sidecar {
                Some(_) => ("it belongs to a segment that is gone", "it can be removed"),
                None => stray(name),
            };
            findings.push(self.finding(Severity::Note, FindingKind::Stray, dir.join(name), what, advice));
        }
        Ok(())
    }

    /// What has the name of a segment and is none: one that was merged into another, or no plain file.
    fn note_no_file(&self, data: PathBuf, findings: &mut Vec<Finding>) -> Result<(), Error> {
        match self.fs.open(&data, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                let advice = "move it out of the data directory: the log does not open while it is there";
                let kind = FindingKind::NoFile;
                findings.push(self.finding(Severity::Data, kind, data, error.to_string(), advice));
                Ok(())
            }
            Err(error) => Err(Error::io("open", &data, error)),
            Ok(_) => Ok(()),
        }
    }
}

/// What a file that is none of the log's own is, by its name, and what to do about it.
fn stray(name: &str) -> (&'static str, &'static str) {
    match name {
        _ if name.ends_with(TEMPORARY) => {
            ("a file that was being written when the process ended", "the next open removes it")
        }
        _ if name.ends_with(CLEANED) => (
            "what a compaction had written when the process ended",
            "the next open finishes the compaction, or removes it",
        ),
        _ if base_of_record(name).is_some() => {
            ("the record of a merging of segments that was cut off", "the next open finishes the merging")
        }
        _ if name.contains(".log.torn-") => (
            "the end of a segment that was not whole after a kill, and that an open cut off",
            "look at it with dump, and remove it",
        ),
        _ if name.ends_with(".log.replaced") => (
            "a segment that a repair moved aside: the one that it was merged into was damaged",
            "look at it, and remove it",
        ),
        _ if name.contains(".log.damaged-") || name.ends_with(".merge.damaged") => {
            ("what a repair took out", "look at it, and remove it")
        }
        _ => ("the log does not know this file", "it is left alone"),
    }
}
