//! Standard output: text for people, JSON lines for scripts, and a quiet end when the reader goes.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::failure::Failure;

/// Buffered standard output. Whoever writes for a reader that follows along calls
/// [`Output::flush`] before waiting; it is also flushed when dropped.
pub(crate) struct Output {
    out: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Output {
    /// Locks standard output for as long as this lives.
    pub(crate) fn stdout() -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { out: BufWriter::with_capacity(64 * 1024, stdout.lock()), terminal }
    }

    /// Whether a person is likely to read along.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(|error| Failure::output(&error))
    }

    /// A document on one line.
    pub(crate) fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.out, document).map_err(|error| Failure::output(&error.into()))?;
        self.out.write_all(b"\n").map_err(|error| Failure::output(&error))
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| Failure::output(&error))
    }

    /// Hands everything to the reader.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| Failure::output(&error))
    }
}

/// A table without lines, for lists: the columns are separated by spaces only, as `ls` and `docker`
/// do, so that a line can be cut with the usual tools.
pub(crate) fn plain_table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    let mut table = styled_table(presets::NOTHING, header, numbers);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    table
}

/// A table with a frame, for a result that is to be looked at.
pub(crate) fn framed_table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    styled_table(presets::UTF8_FULL_CONDENSED, header, numbers)
}

fn styled_table<const N: usize>(
    style: comfy_table::TableStyle,
    header: [&str; N],
    numbers: &[usize],
) -> Table {
    let mut table = Table::new();
    // Never folded to a width: what is printed must not depend on who looks.
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for &index in numbers {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A number with its thousands apart: 1,219,853.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many there are of something: 1 step, 2 steps.
pub(crate) fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{} {}", thousands(count), if count == 1 { one } else { more })
}

/// Bytes in the largest decimal unit that leaves a number of at least one: 1.2 MB.
pub(crate) fn bytes_text(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.95 {
            return if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} PB")
}

/// A count for arithmetic; past 2^53 it is rounded, which no figure for people shows.
#[expect(clippy::cast_precision_loss, reason = "rounding is what is wanted")]
pub(crate) fn to_f64(count: u64) -> f64 {
    count as f64
}

/// Delays in µs, up to an hour, to three digits.
pub(crate) fn delay_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are in order")
}

/// A duration in the unit that a person would use: 40 s, 3.2 h, 11 days.
pub(crate) fn duration_text(seconds: f64) -> String {
    const YEAR: f64 = 365.25 * 86_400.0;
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s if s < 2.0 * YEAR => format!("{:.0} days", s / 86_400.0),
        s if s < 1_000.0 * YEAR => format!("{:.0} years", s / YEAR),
        _ => "more than 1,000 years".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_219_853, "1,219,853")] {
            assert_eq!(thousands(number), text);
        }
        let counts = [0, 1, 2_000].map(|count| counted(count, "batch", "batches"));
        assert_eq!(counts, ["0 batches", "1 batch", "2,000 batches"]);
    }

    #[test]
    fn sizes_and_durations_take_a_fitting_unit() {
        assert_eq!(bytes_text(0.0), "0 B");
        assert_eq!(bytes_text(1_219_853.0), "1.2 MB");
        assert_eq!(bytes_text(999_960.0), "1.0 MB");
        assert_eq!(duration_text(40.2), "40 s");
        assert_eq!(duration_text(86_400.0 * 11.0), "11 days");
        assert_eq!(duration_text(f64::INFINITY), "more than 1,000 years");
    }

    #[test]
    fn a_plain_table_has_no_lines() {
        let mut table = plain_table(["NAME", "PARTITIONS"], &[1]);
        table.add_row(["quakes", "4"]);
        let text = table.trim_fmt();
        assert_eq!(text, "NAME    PARTITIONS\nquakes           4");
    }
}
