//! Where in the active segment a reader begins, and what it needs to know of it.

use std::sync::Arc;

use logmill_record::{Offset, TimestampMs};

use super::{ActiveView, MOST_ROWS, Mark, Part, ROW_SPAN};
use crate::format::index::Row;
use crate::log::LogInner;
use crate::log::state::{Active, State};
use crate::segment::RowRange;

impl Mark {
    fn of_row(row: &Row, base: Offset, appended_by: TimestampMs) -> Self {
        let (appended_at, estimated) = row.appended(appended_by);
        Self {
            position: row.position.into(),
            offset: base.saturating_add(row.relative_offset.into()),
            appended_at,
            estimated,
        }
    }
}

impl Active {
    /// The number of the row that holds `from`.
    fn row_of(&self, from: Offset) -> usize {
        let relative = from.get().saturating_sub(self.base().get());
        let rows = self.index.rows();
        rows.partition_point(|row| u64::from(row.relative_offset) <= relative).saturating_sub(1)
    }

    /// The rows from `first` on that begin at or before `reach`, of those that can be checked as a
    /// whole.
    fn whole_rows(&self, first: usize, most: usize, reach: u64) -> Vec<RowRange> {
        let (rows, base, footer) = (self.index.rows(), self.base(), self.index.footer());
        let fits = |row: &&Row| u64::from(row.position) < self.rows_end && u64::from(row.position) <= reach;
        let wanted = rows[first..].iter().take(most).take_while(fits);
        let range = |(index, row): (usize, &Row)| {
            let next = rows.get(index + 1);
            let at = next.map_or(footer.next_offset, |next| base.saturating_add(next.relative_offset.into()));
            let end = next.map_or(footer.data_len, |next| u64::from(next.position));
            let appended_by = next.map_or(footer.last_appended_at, |next| next.appended_at);
            RowRange::new(*row, base, (end, at), appended_by)
        };
        wanted.enumerate().map(|(number, row)| range((first + number, row))).collect()
    }

    /// The first batch behind `offset` of which it is known where it begins.
    fn known_behind(&self, offset: Offset) -> Option<Offset> {
        let (rows, base) = (self.index.rows(), self.base());
        let of_row = |row: &Row| base.saturating_add(row.relative_offset.into());
        let row = rows.get(rows.partition_point(|row| of_row(row) <= offset)).map(of_row);
        let recent = self.recent.get(self.recent.partition_point(|recent| recent.offset <= offset));
        row.into_iter().chain(recent.map(|recent| recent.offset)).min()
    }
}

impl State {
    pub(super) fn known_behind(&self, base: Offset, offset: Offset) -> Option<Offset> {
        // Else it was sealed meanwhile.
        (self.active.base() == base).then(|| self.active.known_behind(offset)).flatten()
    }
}

impl ActiveView {
    /// A view for reading about `max_bytes` from `from`, which is durable and in the active segment.
    pub(in crate::log) fn at_offset(log: &LogInner, state: &State, from: Offset, max_bytes: usize) -> Self {
        let active = &state.active;
        let reach = |position: u64| position.saturating_add(ROW_SPAN).saturating_add(max_bytes as u64);
        let newest = active.recent.partition_point(|recent| recent.offset <= from);
        let Some(first) = newest.checked_sub(1) else {
            let (first, rows) = (active.row_of(from), active.index.rows());
            let begin = rows.get(first).map_or(0, |row| u64::from(row.position));
            let whole = active.whole_rows(first, usize::MAX, begin.saturating_add(max_bytes as u64));
            if !whole.is_empty() {
                return Self::new(log, state, Part::Rows(whole));
            }
            let last = active.index.footer().last_appended_at;
            let mark = |(index, row): (usize, &Row)| {
                let appended_by = rows.get(index + 1).map_or(last, |next| next.appended_at);
                Mark::of_row(row, active.base(), appended_by)
            };
            let within = |row: &(usize, &Row)| u64::from(row.1.position) <= reach(begin);
            let marks = rows.iter().enumerate().skip(first).take_while(within).map(mark).collect();
            return Self::new(log, state, Part::Marks(marks));
        };
        let mut marks: Vec<Mark> = Vec::new();
        for recent in active.recent.range(first..) {
            if marks.first().is_some_and(|mark| recent.position > reach(mark.position)) {
                break;
            }
            if marks.last().is_none_or(|mark| mark.appended_at != recent.appended_at) {
                let (position, offset, appended_at) = (recent.position, recent.offset, recent.appended_at);
                marks.push(Mark { position, offset, appended_at, estimated: false });
            }
        }
        Self::new(log, state, Part::Marks(marks))
    }

    /// A view for a search by time from `from` on; `None` if the segment holds nothing as late.
    pub(in crate::log) fn at_time(
        log: &LogInner,
        state: &State,
        at: TimestampMs,
        from: Offset,
    ) -> Option<Self> {
        let active = &state.active;
        let rows = active.index.rows();
        let first = rows.partition_point(|row| row.max_timestamp < at).max(active.row_of(from));
        let row = rows.get(first)?;
        let whole = active.whole_rows(first, MOST_ROWS, u64::MAX);
        let part = if whole.is_empty() {
            Part::Marks(vec![Mark::of_row(row, active.base(), row.appended_at)])
        } else {
            Part::Rows(whole)
        };
        Some(Self::new(log, state, part))
    }

    /// What was there when the log was opened, row by row, and the means to look into the rows.
    pub(in crate::log) fn by_rows(log: &LogInner, state: &State) -> (Self, Vec<RowRange>) {
        let rows = state.active.whole_rows(0, usize::MAX, u64::MAX);
        (Self::new(log, state, Part::Rows(Vec::new())), rows)
    }

    fn new(log: &LogInner, state: &State, part: Part) -> Self {
        Self {
            file: state.active.open.as_ref().map(|open| Arc::clone(&open.file)),
            base: state.active.base(),
            dir: log.dir.clone(),
            part,
            epoch: state.epoch,
            end: state.visible().position,
            end_offset: state.visible().end,
        }
    }
}
