//! The index of the active segment, in memory and growing with it.

use std::ops::Range;

use logmill_record::{BatchHeader, Offset, TimestampMs};

use super::walk::{HEAD_LEN, crc32c_extend};
use crate::env::FileStatus;
use crate::format::index::{Footer, Row, Rows, encode};

/// A row for so many bytes of data.
const ROW_BYTES: u64 = 32 * 1024;
/// Or for so long, if at least so many bytes came.
const ROW_MS: i64 = 1_000;
const ROW_MIN_BYTES: u64 = 4 * 1024;

/// Rows and totals of the batches appended so far.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    rows: Vec<Row>,
    footer: Footer,
    /// The next batch begins a row.
    row_ended: bool,
}

impl IndexBuilder {
    pub(crate) fn new(base: Offset) -> Self {
        let footer = Footer {
            base,
            next_offset: base,
            data_len: 0,
            batches: 0,
            records: 0,
            max_timestamp: TimestampMs(i64::MIN),
            first_appended_at: TimestampMs(i64::MIN),
            last_appended_at: TimestampMs(i64::MIN),
            first_epoch: -1,
            last_epoch: -1,
            headers_crc: 0,
            producers: false,
            rows: 0,
            rows_crc: 0,
        };
        Self { rows: Vec::new(), footer, row_ended: false }
    }

    /// Goes on where a trusted index ends.
    pub(crate) fn resume(rows: &Rows, footer: Footer) -> Self {
        Self { rows: rows.iter().collect(), footer, row_ended: false }
    }

    /// Lets go of the rows; until [`resume`](Self::resume) brings them back nothing may be added.
    pub(crate) fn forget_rows(&mut self) {
        self.rows = Vec::new();
    }

    /// Adds the batch that `head` begins, which lies at the end of what has been added.
    pub(crate) fn push(&mut self, head: &[u8; HEAD_LEN], header: &BatchHeader, placed: Placed) {
        if self.starts_row(self.footer.data_len, placed.appended_at) {
            self.push_row(placed.base_offset, placed.appended_at, placed.estimated);
        }
        let footer = &mut self.footer;
        if footer.batches == 0 {
            footer.first_epoch = placed.epoch;
            footer.first_appended_at = placed.appended_at;
        }
        footer.last_epoch = placed.epoch;
        footer.last_appended_at = placed.appended_at;
        footer.next_offset = placed.base_offset.saturating_add(u64::from(header.last_offset_delta) + 1);
        footer.data_len += header.total_len as u64;
        footer.batches += 1;
        footer.records += u64::from(header.record_count);
        footer.producers |= header.producer_id >= 0;
        footer.max_timestamp = footer.max_timestamp.max(header.max_timestamp);
        footer.headers_crc = crc32c_extend(footer.headers_crc, head);
        if let Some(row) = self.rows.last_mut() {
            row.check = crc32c_extend(row.check, head);
            row.max_timestamp = footer.max_timestamp;
        }
    }

    /// Adds bytes that are no whole batches, and the offsets that are gone with them: a row of their
    /// own, which no batches have the checksum of.
    pub(crate) fn push_damage(&mut self, len: u64, offsets: &Range<Offset>, appended_by: TimestampMs) {
        self.push_row(offsets.start, appended_by, true);
        self.footer.next_offset = offsets.end;
        self.footer.data_len += len;
        self.row_ended = true;
    }

    /// The next batch begins a row: what is there now can be checked by whole rows.
    pub(crate) fn end_row(&mut self) {
        self.row_ended = true;
    }

    fn push_row(&mut self, begins: Offset, appended_at: TimestampMs, estimated: bool) {
        let relative = begins.get() - self.footer.base.get();
        self.rows.push(Row {
            relative_offset: u32::try_from(relative)
                .expect("append and scan bound a segment to 2^32 offsets"),
            position: u32::try_from(self.footer.data_len).expect("append and scan bound a segment to 4 GiB"),
            max_timestamp: self.footer.max_timestamp,
            appended_at,
            estimated,
            check: 0,
        });
        self.row_ended = false;
    }

    fn starts_row(&self, position: u64, appended_at: TimestampMs) -> bool {
        let Some(row) = self.rows.last() else { return true };
        if self.row_ended {
            return true;
        }
        let bytes = position - u64::from(row.position);
        bytes >= ROW_BYTES
            || (bytes >= ROW_MIN_BYTES && appended_at.0.saturating_sub(row.appended_at.0) >= ROW_MS)
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// Sets when the last append was, where the batches that are left do not tell.
    pub(crate) fn set_last_appended_at(&mut self, at: TimestampMs) {
        self.footer.last_appended_at = at;
    }

    /// The index file, and its footer.
    pub(crate) fn encode(&self) -> (Vec<u8>, Footer) {
        encode(&self.rows, &self.footer)
    }
}

/// What the log adds to a batch when it places it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) base_offset: Offset,
    pub(crate) epoch: i32,
    pub(crate) appended_at: TimestampMs,
    pub(crate) estimated: bool,
}

impl Placed {
    /// Of a batch found in a file of which nothing else is known: the file's own time is an upper
    /// bound of when it was appended.
    pub(crate) fn found(header: &BatchHeader, file: FileStatus) -> Self {
        Self {
            base_offset: header.base_offset,
            epoch: header.leader_epoch,
            appended_at: file.modified,
            estimated: true,
        }
    }
}
