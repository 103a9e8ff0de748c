//! The result as it is shown: a table and four quantities for people, one document for scripts.
//!
//! What could not be measured in this run is `null` in the document and "–" for people: a second
//! run that had nothing to produce has no rate of producing.

use std::time::Duration;

use serde::Serialize;

use super::pipeline::TABLE;
use super::{RESULTS, SOURCE};
use crate::failure::Failure;
use crate::output::{Output, bytes_text, duration_text, framed_table, thousands, to_f64};

/// The days shown; all of them are in the SQLite file and in the document.
const ROWS_SHOWN: usize = 10;
/// A bar's width for the largest magnitude.
const BAR_WIDTH: f64 = 20.0;

/// Everything that the quickstart has to say.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What was read.
    pub(super) input: String,
    /// Records in the source topic.
    pub(super) records: u64,
    /// How many of them this run produced.
    pub(super) produced: u64,
    /// Records that were set aside.
    pub(super) dead: u64,
    /// Records of this run whose window was closed already; they are in a topic of their own.
    pub(super) late: u64,
    /// Rows of the table.
    pub(super) rows: usize,
    /// The SQLite file.
    pub(super) sqlite: String,
    /// The node's data directory.
    pub(super) data_dir: String,
    /// R: records produced per second.
    pub(super) rate_per_s: Option<f64>,
    /// R of the pipeline: records processed per second.
    pub(super) processing_rate_per_s: Option<f64>,
    /// D.
    pub(super) delay_ms: Delays,
    /// C.
    pub(super) capacity: Capacity,
    /// P.
    pub(super) throughput_bytes_per_s: Throughput,
    /// The rows themselves, in order of network and day.
    pub(super) table: Vec<Row>,
    /// Why records were set aside, and how many for each reason.
    pub(super) dead_reasons: Vec<DeadReason>,
    /// What to try next.
    pub(super) next: [String; 3],
}

/// One network's day, as it stands in the SQLite file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) net: String,
    pub(super) day: String,
    pub(super) count: i64,
    pub(super) max_mag: f64,
    pub(super) mean_mag: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct Delays {
    /// From sending a record to its durable acknowledgement.
    pub(super) stored: Percentiles,
    /// From the node's append of a record to the commit of the step that processed it.
    pub(super) processed: Percentiles,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

/// C = S·N, and how long the disk lasts.
#[derive(Debug, Serialize)]
pub(super) struct Capacity {
    /// S: mean stored bytes per record of the source topic.
    pub(super) mean_stored_bytes: Option<f64>,
    /// S·N.
    pub(super) stored_bytes: u64,
    /// What the file system of the data directory can still take.
    pub(super) disk_available_bytes: u64,
    /// Its size.
    pub(super) disk_total_bytes: u64,
    /// Until it is full, at the rate at which this run produced.
    pub(super) seconds_until_full: Option<f64>,
}

/// P = B·R.
#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    /// Bytes of records produced per second.
    #[serde(rename = "in")]
    pub(super) in_: Option<f64>,
    /// Bytes of rows and records that the pipeline wrote per second.
    pub(super) out: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct DeadReason {
    pub(super) reason: String,
    pub(super) count: u64,
}

impl Report {
    /// Prints it for people.
    pub(super) fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let Self { input, records, produced, rows, .. } = self;
        output.line(format_args!(
            "{input}: {} records in topic {SOURCE}, {} of them produced now; {rows} rows in {TABLE}",
            thousands(*records),
            thousands(*produced),
        ))?;
        output.line("")?;
        output.line("The strongest days, per network (UTC):")?;
        output.line(self.strongest())?;
        output.line("")?;
        for (name, text) in self.quantities() {
            output.line(format_args!("{name:<13}{text}"))?;
        }
        self.print_dead(output)?;
        output.line("")?;
        output.line(format_args!("All rows are in {} (table {TABLE}), and in topic", self.sqlite))?;
        output.line(format_args!(
            "{RESULTS}, where a row may come more than once after a crash, under the same key."
        ))?;
        output.line("")?;
        output.line("Try next, the first in a shell of its own:")?;
        self.next.iter().try_for_each(|command| output.line(format_args!("  {command}")))
    }

    fn print_dead(&self, output: &mut Output) -> Result<(), Failure> {
        if self.late > 0 {
            output.line("")?;
            let late = thousands(self.late);
            output.line(format_args!(
                "Too late for their day: {late}, set aside in topic {SOURCE}.per_day.late"
            ))?;
        }
        if self.dead == 0 {
            return Ok(());
        }
        output.line("")?;
        let dead = thousands(self.dead);
        output.line(format_args!("Set aside in topic {SOURCE}.dead: {dead}, because"))?;
        for DeadReason { reason, count } in &self.dead_reasons {
            let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            output.line(format_args!("  {count:>6}  {reason}"))?;
        }
        Ok(())
    }

    fn strongest(&self) -> String {
        let mut strongest: Vec<&Row> = self.table.iter().collect();
        strongest.sort_by(|a, b| b.max_mag.total_cmp(&a.max_mag).then_with(|| b.count.cmp(&a.count)));
        let mut table = framed_table(["day", "net", "quakes", "mean", "largest", ""], &[2, 3, 4]);
        for row in strongest.into_iter().take(ROWS_SHOWN) {
            table.add_row([
                row.day.clone(),
                row.net.clone(),
                row.count.to_string(),
                format!("{:.2}", row.mean_mag),
                format!("{:.1}", row.max_mag),
                bar(row.max_mag),
            ]);
        }
        table.to_string()
    }

    fn quantities(&self) -> [(&'static str, String); 5] {
        let per_s = |rate: Option<f64>| rate.map_or_else(none, |rate| format!("{} records/s", rounded(rate)));
        let bytes_per_s =
            |rate: Option<f64>| rate.map_or_else(none, |rate| format!("{}/s", bytes_text(rate)));
        let Capacity { mean_stored_bytes, stored_bytes, disk_available_bytes, seconds_until_full, .. } =
            self.capacity;
        let stored = bytes_text(to_f64(stored_bytes));
        let mean = mean_stored_bytes.map_or_else(none, bytes_text);
        let full = seconds_until_full.map_or_else(none, duration_text);
        let free = bytes_text(to_f64(disk_available_bytes));
        [
            (
                "Rate",
                format!(
                    "{} produced, {} processed",
                    per_s(self.rate_per_s),
                    per_s(self.processing_rate_per_s)
                ),
            ),
            ("Delay", format!("to stored     {}", self.delay_ms.stored.text())),
            ("", format!("to processed  {}", self.delay_ms.processed.text())),
            (
                "Capacity",
                format!("{stored} stored, {mean} a record; disk: {free} free, full in {full} at this rate"),
            ),
            (
                "Throughput",
                format!(
                    "{} in, {} out",
                    bytes_per_s(self.throughput_bytes_per_s.in_),
                    bytes_per_s(self.throughput_bytes_per_s.out)
                ),
            ),
        ]
    }
}

impl Percentiles {
    fn text(self) -> String {
        let ms = |value: Option<f64>| value.map_or_else(none, |value| format!("{value:.1} ms"));
        format!("p50 {}, p99 {}", ms(self.p50), ms(self.p99))
    }
}

/// `None` before any time has passed.
pub(super) fn bytes_per_s(bytes: u64, elapsed: Duration) -> Option<f64> {
    (!elapsed.is_zero()).then(|| to_f64(bytes) / elapsed.as_secs_f64())
}

fn none() -> String {
    "–".to_owned()
}

fn rounded(rate: f64) -> String {
    // `as` saturates, and a rate is never negative.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a figure for people")]
    thousands(rate.round() as u64)
}

/// Blocks for a magnitude; none for zero and below, which small quakes have.
fn bar(magnitude: f64) -> String {
    const LARGEST: f64 = 10.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width")]
    let blocks = (magnitude.clamp(0.0, LARGEST) / LARGEST * BAR_WIDTH).round() as usize;
    "█".repeat(blocks)
}

#[cfg(test)]
mod tests;
