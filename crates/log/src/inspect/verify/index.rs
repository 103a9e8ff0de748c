//! The index of one segment against its data.

use std::collections::BTreeSet;
use std::path::Path;

use logmill_record::{Offset, TimestampMs};

use super::super::finding::{FindingKind, Severity};
use super::log::View;
use super::{Finding, Target, damage};
use crate::error::Error;
use crate::format::index::{Footer, Row, Rows};
use crate::format::{atomic, damaged};
use crate::log::unsettled_index;
use crate::segment::Whole;
use crate::segment::{DATA, INDEX, crc32c_extend, path};

/// An index as it was found, and what the batches of the data say beside it.
#[derive(Debug)]
pub(super) struct IndexLook {
    found: Found,
    data: Data,
    /// The next row to be met.
    row: usize,
    /// The row that is being summed up.
    current: Option<(Row, u32)>,
    /// The first row that does not fit its batches.
    wrong: Option<Row>,
    /// The numbers of those whose checksum is that of other batches.
    refuted: BTreeSet<usize>,
}

#[derive(Debug)]
enum Found {
    Missing,
    Bad(String),
    Good(Footer, Rows),
}

/// What the footer should say.
#[derive(Debug, Default)]
struct Data {
    batches: u64,
    records: u64,
    max_timestamp: Option<TimestampMs>,
    first_epoch: Option<i32>,
    last_epoch: Option<i32>,
    headers_crc: u32,
    producers: bool,
    any_empty: bool,
    next_offset: Offset,
}

impl IndexLook {
    pub(super) fn open(view: &View<'_>, target: Target) -> Result<Self, Error> {
        let (dir, base) = (view.log_dir(), target.listing.base_offset);
        // The next open puts it in the place of one that is of the data before compaction.
        let file = unsettled_index(view.fs, &dir, base)?.unwrap_or_else(|| path(&dir, base, INDEX));
        let read = atomic::read(view.fs, &file);
        let read = read.and_then(|bytes| bytes.map(|bytes| decode(&file, bytes, base)).transpose());
        let found = match read {
            Ok(None) => Found::Missing,
            Ok(Some((footer, rows))) => Found::Good(footer, rows),
            Err(error) => Found::Bad(damage(error)?),
        };
        let data = Data { next_offset: base, ..Data::default() };
        let refuted = BTreeSet::new();
        Ok(Self { found, data, row: 0, current: None, wrong: None, refuted })
    }

    /// Whether it knows that no offset is missing between the batches of the segment's `len` bytes: one
    /// that is from before a compaction does not.
    pub(super) fn says_contiguous(&self, len: u64) -> bool {
        self.footer_of(len).is_some_and(Footer::is_contiguous)
    }

    /// Whether it knows that there are some: compaction has been over the segment, which was sealed before.
    pub(super) fn says_compacted(&self, len: u64) -> bool {
        self.footer_of(len).is_some_and(|footer| !footer.is_contiguous())
    }

    /// The footer, if it is that of `len` bytes.
    fn footer_of(&self, len: u64) -> Option<&Footer> {
        self.footer().filter(|footer| footer.data_len == len)
    }

    /// The footer, if the index is whole.
    pub(super) fn footer(&self) -> Option<&Footer> {
        match &self.found {
            Found::Good(footer, _) => Some(footer),
            Found::Bad(_) | Found::Missing => None,
        }
    }

    /// Takes in the next whole batch.
    pub(super) fn see(&mut self, whole: &Whole) {
        let header = &whole.header;
        let data = &mut self.data;
        data.batches += 1;
        data.records += u64::from(header.record_count);
        data.max_timestamp = data.max_timestamp.max(Some(header.max_timestamp));
        data.first_epoch.get_or_insert(header.leader_epoch);
        data.last_epoch = Some(header.leader_epoch);
        data.producers |= header.producer_id >= 0;
        data.any_empty |= header.record_count == 0;
        data.headers_crc = crc32c_extend(data.headers_crc, &whole.head);
        data.next_offset = header.next_offset();
        self.see_row(whole);
    }

    fn see_row(&mut self, whole: &Whole) {
        let Found::Good(footer, rows) = &self.found else { return };
        let base = footer.base;
        if whole.position >= footer.data_len {
            // Appended after the index was written.
            return self.close_row();
        }
        if let Some(row) = rows.get(self.row).filter(|row| u64::from(row.position) == whole.position) {
            self.close_row();
            let relative = whole.header.base_offset.get() - base.get();
            if u64::from(row.relative_offset) != relative {
                self.wrong.get_or_insert(row);
            }
            self.row += 1;
            self.current = Some((row, 0));
        }
        if let Some((_, check)) = &mut self.current {
            *check = crc32c_extend(*check, &whole.head);
        }
    }

    pub(super) fn close_row(&mut self) {
        if let Some((row, check)) = self.current.take()
            && row.check != check
        {
            self.wrong.get_or_insert(row);
            self.refuted.insert(self.row - 1);
        }
    }

    /// Passes bytes that are no batch: what else lies in their row has no checksum.
    pub(super) fn pass_damage(&mut self, end: u64) {
        let Found::Good(_, rows) = &self.found else { return };
        self.current = None;
        while rows.get(self.row).is_some_and(|row| u64::from(row.position) < end) {
            self.row += 1;
        }
    }

    /// The row of the batch that was taken in last; none if the index does not reach there.
    pub(super) fn row(&self) -> Option<usize> {
        self.current.is_some().then(|| self.row - 1)
    }

    /// Whether the checksum of a row that ended is of other batches than those that were taken in.
    pub(super) fn refutes(&self, row: usize) -> bool {
        self.refuted.contains(&row)
    }

    /// Whether the whole batches that are there, `len` bytes without damage, are others than those that the
    /// index was made of. A wrong leader epoch makes no others of them: all that is compared
    /// lies under their own CRC.
    pub(super) fn is_of_others(&self, len: u64, compacted: bool) -> bool {
        let Found::Good(footer, rows) = &self.found else { return false };
        let data = &self.data;
        if footer.data_len != len {
            // A repair that was cut off leaves batches without records in the place of others.
            return data.next_offset == footer.next_offset && !compacted && !data.any_empty;
        }
        let max_timestamp = data.max_timestamp.unwrap_or(TimestampMs(i64::MIN));
        data.headers_crc != footer.headers_crc
            && (self.row != rows.len()
                || data.batches != footer.batches
                || data.records != footer.records
                || data.producers != footer.producers
                || max_timestamp != footer.max_timestamp)
    }

    /// The last leader epoch of these `len` bytes, if it is of this data.
    pub(super) fn agreed_epoch(&self, len: u64) -> Option<i32> {
        let footer = self.footer().filter(|footer| footer.data_len == len)?;
        Some(footer.last_epoch)
    }

    /// Whether any batch came from a producer with an identity.
    pub(super) fn saw_producers(&self) -> bool {
        self.data.producers
    }

    /// Reports what does not fit; says whether the index has to be made again.
    pub(super) fn finish(
        &mut self,
        view: &View<'_>,
        target: Target,
        damaged: bool,
        findings: &mut Vec<Finding>,
    ) -> bool {
        self.close_row();
        let (sealed, len) = (target.end.is_some(), target.listing.bytes);
        let file = path(&view.log_dir(), target.listing.base_offset, INDEX);
        // An open goes by the footer alone: what is wrong with the rows, a read finds and mends in memory.
        let advice = "it is made again from the data when it is needed, but for the times of append, and for good \
                      by a repair";
        let mut bad = |what: String| {
            findings.push(view.finding(Severity::Sidecar, FindingKind::Index, file.clone(), what, advice));
            true
        };
        match &self.found {
            Found::Bad(what) => bad(what.clone()),
            Found::Missing if sealed || (view.clean && len > 0) => bad("it is missing".into()),
            Found::Missing => false,
            // What the data lacks has been told of.
            Found::Good(..) if damaged => true,
            Found::Good(footer, _) if footer.data_len != len => {
                if sealed || view.clean {
                    return bad(format!("it is of {} bytes of data, and there are {len}", footer.data_len));
                }
                false
            }
            Found::Good(footer, rows) => {
                let same_headers = self.data.headers_crc == footer.headers_crc;
                if !same_headers {
                    self.report_headers(view, target, footer, findings);
                } else if self.wrong.is_some() || self.row != rows.len() || !self.data.agrees(footer) {
                    return bad("it does not fit its segment".into());
                }
                !same_headers
            }
        }
    }

    /// The index is whole, and the headers are not those that it was made of.
    fn report_headers(&self, view: &View<'_>, target: Target, footer: &Footer, findings: &mut Vec<Finding>) {
        let what = "the headers of its batches are not those that were written";
        let advice = "their records are whole; restore the file from a backup, or repair the log, which takes the \
                      headers as they are";
        let file = path(&view.log_dir(), target.listing.base_offset, DATA);
        let mut finding = view.finding(Severity::Data, FindingKind::Headers, file, what, advice);
        let Found::Good(_, rows) = &self.found else { return };
        let at = |row: &Row| footer.base.saturating_add(row.relative_offset.into());
        if let Some(row) = self.wrong {
            let next = rows.iter().find(|next| next.position > row.position);
            finding.position = Some(row.position.into());
            finding.offsets = Some(at(&row)..next.as_ref().map_or(footer.next_offset, at));
        }
        findings.push(finding);
    }
}

impl Data {
    fn agrees(&self, footer: &Footer) -> bool {
        self.batches == footer.batches
            && self.records == footer.records
            && self.next_offset == footer.next_offset
            && self.max_timestamp.unwrap_or(TimestampMs(i64::MIN)) == footer.max_timestamp
            && self.producers == footer.producers
            && self.first_epoch.unwrap_or(-1) == footer.first_epoch
            && self.last_epoch.unwrap_or(-1) == footer.last_epoch
    }
}

fn decode(file: &Path, bytes: Vec<u8>, base: Offset) -> Result<(Footer, Rows), Error> {
    let (footer, rows) = Rows::whole(file, &bytes.into())?;
    if footer.base != base {
        return Err(damaged(file, "it is of another segment"));
    }
    Ok((footer, rows))
}
