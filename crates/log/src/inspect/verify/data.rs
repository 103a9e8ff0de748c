//! The data of one segment: every batch, every record, and the damage between them.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use logmill_record::{Batch, BatchErrorKind, BatchHeader, Compression, HEADER_LEN, Inflater, Offset};

use super::super::finding::{Finding, FindingKind, Severity};
use super::super::list::SegmentListing;
use super::index::IndexLook;
use super::log::View;
use super::state::check_state;
use super::{Line, Meter, Target};
use crate::env::OpenMode;
use crate::error::Error;
use crate::segment::{DATA, path};
use crate::segment::{Epochs, Gap, Piece, Survey, Whole};

/// What was seen of a segment.
#[derive(Debug)]
pub(in crate::inspect) struct DataLook {
    pub(in crate::inspect) listing: SegmentListing,
    /// The offset after the last batch that an open would keep.
    pub(in crate::inspect) end_offset: Offset,
    pub(in crate::inspect) batches: u64,
    pub(in crate::inspect) records: u64,
    /// Whether batches in it are damaged or missing.
    pub(in crate::inspect) damaged: bool,
    /// The damage between its batches.
    pub(in crate::inspect) gaps: Vec<Gap>,
    /// Whether compaction may have left gaps in it.
    pub(in crate::inspect) gaps_allowed: bool,
    pub(in crate::inspect) largest_epoch: i32,
    /// The same, as far as it is not only what a header claims.
    pub(in crate::inspect) proved_epoch: i32,
    /// Of its last whole batch, or of the segment before.
    pub(in crate::inspect) last_epoch: i32,
    /// Those that were checked.
    pub(in crate::inspect) epochs: Option<Epochs>,
    /// Whether its index has to be made again.
    pub(in crate::inspect) index_bad: bool,
    /// Whether producers with an identity wrote to it.
    pub(in crate::inspect) producers: bool,
    /// Whether its `.state` is of no use.
    pub(in crate::inspect) state_bad: bool,
    /// Its batches are whole, and others than those that its index was made of.
    pub(in crate::inspect) foreign: bool,
    /// Where batches begin that could be put right, and that its index says were never there.
    pub(in crate::inspect) refuted: BTreeSet<u64>,
}

impl DataLook {
    /// Of a segment of which nothing has been read.
    fn unread(listing: SegmentListing, gaps_allowed: bool, last_epoch: i32, epochs: Option<Epochs>) -> Self {
        Self {
            end_offset: listing.base_offset,
            listing,
            batches: 0,
            records: 0,
            damaged: false,
            gaps: Vec::new(),
            gaps_allowed,
            largest_epoch: 0,
            proved_epoch: 0,
            last_epoch,
            epochs,
            index_bad: false,
            producers: false,
            state_bad: false,
            foreign: false,
            refuted: BTreeSet::new(),
        }
    }
}

/// Reads the whole segment, before which a batch has the leader epoch `last_epoch`.
pub(super) fn look_at_data(
    view: &View<'_>,
    target: Target,
    (line, last_epoch): (Option<Line>, i32),
    findings: &mut Vec<Finding>,
    meter: &mut Meter<'_>,
) -> Result<DataLook, Error> {
    let base = target.listing.base_offset;
    let file = path(&view.log_dir(), base, DATA);
    let mut index = IndexLook::open(view, target)?;
    let handle = view.fs.open(&file, OpenMode::Read).map_err(|error| Error::io("open", &file, error))?;
    let len = target.listing.bytes;
    // The last segment that is left may have been sealed and compacted, and what came behind it be lost.
    let sealed = target.end.is_some() || index.says_compacted(len);
    let gaps = sealed && base < view.gaps_below && !index.says_contiguous(len);
    let end = target.end.unwrap_or(Offset::MAX);
    // Without an index that is of this data, epochs can only be held against one another.
    let is_known = index.footer().is_some_and(|footer| footer.data_len == target.listing.bytes);
    let epochs = (target.end.is_none() && !is_known).then(|| Epochs::after(last_epoch, view.largest_epoch()));
    let survey = Survey::new(&*handle, target.listing.bytes, base, end, gaps).checking(epochs);
    let mut pass = Pass {
        view,
        file,
        target,
        line,
        findings,
        inflater: Inflater::default(),
        codecs: Vec::new(),
        torn: None,
        boundary: None,
        restored: Vec::new(),
    };
    let mut look = DataLook::unread(target.listing, gaps, last_epoch, epochs);
    pass.run(survey, &mut index, &mut look, meter).map_err(|error| Error::io("read", &pass.file, error))?;
    index.close_row();
    pass.refute(&index, &mut look);
    let compacted = base < view.gaps_below;
    let is_whole = look.gaps.is_empty() && pass.torn.is_none();
    if is_whole && index.is_of_others(target.listing.bytes, compacted) {
        pass.note_others(&index, &mut look);
    } else {
        pass.check_end(&mut look);
    }
    let footer = index.footer().copied();
    look.producers = index.saw_producers();
    look.proved_epoch = match (epochs, index.agreed_epoch(target.listing.bytes)) {
        (Some(_), _) => look.largest_epoch,
        (None, agreed) => agreed.unwrap_or(0),
    };
    look.index_bad = index.finish(view, target, look.damaged, findings);
    look.state_bad = check_state(view, target, footer.as_ref(), findings)?;
    Ok(look)
}

struct Pass<'a, 'b> {
    view: &'a View<'a>,
    file: PathBuf,
    target: Target,
    line: Option<Line>,
    findings: &'b mut Vec<Finding>,
    inflater: Inflater,
    /// Compressions that this program cannot undo and that were told of.
    codecs: Vec<Compression>,
    /// Where the torn tail begins.
    torn: Option<u64>,
    /// The offset found where the line is, once a batch ends or begins there.
    boundary: Option<Offset>,
    /// Batches that could be put right: which finding and gap they are, and their row of the index.
    restored: Vec<(usize, usize, usize)>,
}

const OTHERS: &str = "its batches are not those that its index was made of: another segment's file?";
const PUT_BACK: &str = "put the right one back; or repair the log, which takes them out";

impl Pass<'_, '_> {
    fn run(
        &mut self,
        mut survey: Survey<'_>,
        index: &mut IndexLook,
        look: &mut DataLook,
        meter: &mut Meter<'_>,
    ) -> io::Result<()> {
        self.note_boundary(survey.position(), survey.expected());
        while let Some(piece) = survey.next()? {
            match piece {
                Piece::Batch(whole) => {
                    meter.add(whole.header.total_len as u64);
                    if self.torn.is_some() {
                        continue;
                    }
                    index.see(&whole);
                    look.batches += 1;
                    look.last_epoch = whole.header.leader_epoch;
                    look.largest_epoch = look.largest_epoch.max(look.last_epoch);
                    look.records += u64::from(whole.header.record_count);
                    look.end_offset = whole.header.next_offset();
                    let bytes = survey.bytes(&whole)?;
                    self.check_records(&whole, bytes);
                }
                Piece::Damage(gap) => {
                    meter.add(gap.len);
                    if self.torn.is_none() {
                        self.note_gap(&gap, look);
                        let restored = put_right(&gap, &mut survey)?.filter(|_| self.torn.is_none());
                        self.see_gap(&gap, restored.as_ref(), index, look);
                    }
                }
            }
            self.note_boundary(survey.position(), survey.expected());
        }
        Ok(())
    }

    fn note_boundary(&mut self, at: u64, offset: Offset) {
        if let Some(Line::At { position, .. }) = self.line
            && at == position
        {
            self.boundary = Some(offset);
        }
    }

    /// Damage is a torn write behind the line, and corruption before it.
    fn note_gap(&mut self, gap: &Gap, look: &mut DataLook) {
        let (end, behind) = match self.line {
            None => (self.target.end, false),
            Some(Line::Unknown) => (None, false),
            Some(Line::At { position, end }) => {
                let behind = gap.position >= position && !self.view.clean && !gap.is_epoch;
                (Some(end), behind)
            }
        };
        if behind {
            self.torn = Some(gap.position);
            let bytes = self.target.listing.bytes - gap.position;
            let end = end.unwrap_or(gap.from);
            let what = format!(
                "the last {bytes} bytes are not whole, behind what the checkpoint (offset {end}) vouches for: the end \
                 of a write that the kill cut off, or damage to it"
            );
            let advice = "the next start saves them aside and cuts them off";
            self.push(Severity::Note, FindingKind::TornTail, Some(gap.position), None, what, advice);
            return;
        }
        look.damaged = true;
        look.gaps.push(gap.clone());
        let to = gap.to.or(end).unwrap_or(gap.from).max(gap.from);
        let advice = if gap.restored.is_some() {
            "its records are whole: repair the log, which puts the header right"
        } else {
            "restore the file from a backup, or repair the log, which takes these bytes out and keeps them aside"
        };
        let offsets = Some(gap.from..to);
        self.push(Severity::Data, FindingKind::Batch, Some(gap.position), offsets, gap.what.clone(), advice);
        look.end_offset = to.max(look.end_offset);
    }

    /// Holds a batch that was put right against the index, if there is one.
    fn see_gap(&mut self, gap: &Gap, restored: Option<&Whole>, index: &mut IndexLook, look: &DataLook) {
        let Some(whole) = restored else { return index.pass_damage(gap.position + gap.len) };
        index.see(whole);
        // With a wrong epoch alone it is in its place, whatever its epoch was.
        if let Some(row) = index.row().filter(|_| !gap.is_epoch) {
            self.restored.push((self.findings.len() - 1, look.gaps.len() - 1, row));
        }
    }

    /// A batch fits where it is once its header is put right, but the index knows of another one there.
    fn refute(&mut self, index: &IndexLook, look: &mut DataLook) {
        for (finding, gap, _) in self.restored.iter().filter(|(_, _, row)| index.refutes(*row)) {
            let gap = &mut look.gaps[*gap];
            gap.restored = None;
            look.refuted.insert(gap.position);
            let finding = &mut self.findings[*finding];
            OTHERS.clone_into(&mut finding.what);
            PUT_BACK.clone_into(&mut finding.advice);
        }
    }

    /// All of the file is of another segment, whose batches happen to have the same offsets.
    fn note_others(&mut self, index: &IndexLook, look: &mut DataLook) {
        let from = look.listing.base_offset;
        let known = index.footer().map_or(from, |footer| footer.next_offset);
        let promised = match self.line {
            Some(Line::At { end, .. }) => end,
            Some(Line::Unknown) | None => from,
        };
        let to = self.target.end.unwrap_or_else(|| known.max(promised).max(look.end_offset));
        self.push(Severity::Data, FindingKind::Batch, Some(0), Some(from..to), OTHERS.to_owned(), PUT_BACK);
        let (len, what) = (look.listing.bytes, OTHERS.to_owned());
        look.gaps = vec![Gap { position: 0, len, from, to: None, what, restored: None, is_epoch: false }];
        (look.foreign, look.damaged, look.end_offset) = (true, true, to);
    }

    /// A segment must reach the next one, or what the checkpoint promised.
    fn check_end(&mut self, look: &mut DataLook) {
        let len = self.target.listing.bytes;
        let advice = "restore the file from a backup, or repair the log, which goes on behind the damage";
        let kind = FindingKind::Missing;
        match (self.target.end, self.line) {
            (Some(end), _) if look.end_offset < end => {
                let offsets = Some(look.end_offset..end);
                let what = "the segment ends before the next one begins".to_owned();
                self.push(Severity::Data, kind, Some(len), offsets, what, advice);
                look.damaged = true;
            }
            (None, Some(Line::At { position, end })) => {
                if self.boundary == Some(end) || look.damaged {
                    return;
                }
                look.damaged = true;
                let (what, offsets) = if len < position {
                    let end = end.max(look.end_offset);
                    ("it ends before what was acknowledged".to_owned(), Some(look.end_offset..end))
                } else {
                    let what = format!(
                        "its batches are whole, and none begins at byte {position} with offset {end}, as the \
                         checkpoint has it: they are not of the same copy"
                    );
                    (what, None)
                };
                self.push(Severity::Data, kind, Some(len.min(position)), offsets, what, advice);
            }
            _ => {}
        }
    }

    fn check_records(&mut self, whole: &Whole, bytes: Bytes) {
        let checked = Batch::parse(bytes).and_then(|batch| batch.check_stored_with(&mut self.inflater));
        let Err(error) = checked else { return };
        let compression = whole.header.attributes.compression();
        let offsets = Some(whole.header.base_offset..whole.header.next_offset());
        if error.kind() == BatchErrorKind::Unsupported {
            if !self.codecs.contains(&compression) {
                self.codecs.push(compression);
                let what = format!("records compressed with {compression} were not looked into");
                let advice = "their batches are whole; a program built with this compression reads them";
                self.push(Severity::Note, FindingKind::Codec, Some(whole.position), offsets, what, advice);
            }
            return;
        }
        let what = format!("the batch is as it was written, and its records do not add up: {error}");
        let advice = "who wrote it wrote it so: a repair leaves it alone, and readers go on behind it";
        self.push(Severity::Data, FindingKind::Records, Some(whole.position), offsets, what, advice);
    }

    fn push(
        &mut self,
        severity: Severity,
        kind: FindingKind,
        position: Option<u64>,
        offsets: Option<Range<Offset>>,
        what: String,
        advice: &str,
    ) {
        let mut finding = self.view.finding(severity, kind, self.file.clone(), what, advice);
        finding.position = position;
        finding.offsets = offsets;
        self.findings.push(finding);
    }
}

/// The batch that the bytes of a gap are once its header is put right.
fn put_right(gap: &Gap, survey: &mut Survey<'_>) -> io::Result<Option<Whole>> {
    let Some(restored) = &gap.restored else { return Ok(None) };
    let mut bytes = survey.raw(gap.position, HEADER_LEN as u64)?.to_vec();
    bytes[..restored.len()].copy_from_slice(restored);
    let header = BatchHeader::parse(&bytes).ok();
    let head = bytes.first_chunk().copied();
    Ok(header.zip(head).map(|(header, head)| Whole { position: gap.position, header, head }))
}
