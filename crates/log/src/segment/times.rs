//! When the batches of a sealed segment were appended, as far as its rows know.

use logmill_record::TimestampMs;

use crate::format::index::Rows;

/// Asked from the front to the back of a segment.
pub(crate) struct AppendTimes {
    rows: Rows,
    at: usize,
    /// When the segment's last batch was appended.
    last: TimestampMs,
}

impl AppendTimes {
    pub(crate) fn new(rows: Rows, last: TimestampMs) -> Self {
        Self { rows, at: 0, last }
    }

    /// When the batch at `position` was appended, and whether that is an upper bound.
    pub(crate) fn of(&mut self, position: u64) -> (TimestampMs, bool) {
        while self.rows.get(self.at + 1).is_some_and(|next| u64::from(next.position) <= position) {
            self.at += 1;
        }
        let next = self.rows.get(self.at + 1).map_or(self.last, |next| next.appended_at);
        match self.rows.get(self.at) {
            Some(row) if u64::from(row.position) == position => (row.appended_at, row.estimated),
            Some(row) => row.appended(next),
            None => (self.last, true),
        }
    }
}
