//! The figures as they are printed.

use serde::Serialize;

use super::args::Common;
use super::measure::{Cost, Measured};
use crate::failure::Failure;
use crate::output::{Output, bytes_text, thousands, to_f64};

/// What was measured, and what it depends on. MB and GB are 10^6 and 10^9 bytes of record values.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    records_per_s: f64,
    mb_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    /// User and system time; of the node only where its process is known.
    cpu_s_per_gb: Sides,
    /// The largest `RssAnon` seen.
    rss_anon_mb: Sides,
    /// The largest `RssFile` seen: pages of mapped files, which the kernel can have back at any time.
    rss_file_mb: Sides,
    #[serde(flatten)]
    conditions: Conditions,
    record_bytes: usize,
    batch_bytes: usize,
    compression: &'static str,
    in_flight_bytes: usize,
    partitions: u32,
    seconds: f64,
}

/// What was measured, and on what it depends, as far as the commands differ in it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Conditions {
    pub(super) work: &'static str,
    /// From when to when the latencies are.
    #[serde(skip)]
    pub(super) latency: &'static str,
    pub(super) durability: &'static str,
    pub(super) connections: u32,
    /// The rate asked for; null is as fast as it goes.
    pub(super) rate: Option<f64>,
    /// What a subscriber has granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credit_bytes: Option<usize>,
    /// What is there to be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backlog_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Sides {
    client: Option<f64>,
    server: Option<f64>,
}

impl Figures {
    pub(super) fn new(args: &Common, conditions: Conditions, measured: &Measured) -> Self {
        let seconds = measured.time.as_secs_f64();
        let bytes = to_f64(measured.records) * to_f64(args.record_bytes as u64);
        let ms = |quantile| to_f64(measured.latency_us.value_at_quantile(quantile)) / 1e3;
        let sides = |of: &dyn Fn(&Cost) -> Option<f64>| Sides {
            client: of(&measured.client),
            server: measured.server.as_ref().and_then(of),
        };
        let cpu_s_per_gb =
            |cost: &Cost| Some(cost.cpu?.as_secs_f64() / (bytes / 1e9)).filter(|x| x.is_finite());
        let rss_anon_mb = |cost: &Cost| Some(to_f64(cost.peak?.anonymous_bytes) / 1e6);
        let rss_file_mb = |cost: &Cost| Some(to_f64(cost.peak?.file_bytes) / 1e6);
        Self {
            records_per_s: to_f64(measured.records) / seconds,
            mb_per_s: bytes / 1e6 / seconds,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            cpu_s_per_gb: sides(&cpu_s_per_gb),
            rss_anon_mb: sides(&rss_anon_mb),
            rss_file_mb: sides(&rss_file_mb),
            conditions,
            record_bytes: args.record_bytes,
            batch_bytes: args.batch_bytes,
            compression: args.compression.name(),
            in_flight_bytes: args.in_flight_bytes,
            partitions: args.partitions,
            seconds,
        }
    }

    pub(super) fn print(&self, output: &mut Output) -> Result<(), Failure> {
        let load = match self.conditions.rate {
            Some(rate) => format!("{rate:.0} records/s asked for"),
            None => "as fast as it goes".to_owned(),
        };
        let text = |bytes: u64| bytes_text(to_f64(bytes));
        let mut line = format!(
            "{}: {}, {}-byte records, batches up to {}, {}, {} in flight, {} connection(s), {} partition(s)",
            self.conditions.work,
            self.conditions.durability,
            self.record_bytes,
            text(self.batch_bytes as u64),
            self.compression,
            text(self.in_flight_bytes as u64),
            self.conditions.connections,
            self.partitions,
        );
        if let Some(bytes) = self.conditions.credit_bytes {
            line += &format!(", credit {}", text(bytes as u64));
        }
        if let Some(bytes) = self.conditions.backlog_bytes {
            line += &format!(", {} to read", text(bytes));
        }
        output.line(format_args!("{line}, {load}, {:.0} s", self.seconds))?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
        let records_per_s = thousands(self.records_per_s.round() as u64);
        output.line(format_args!("rate       {records_per_s} records/s, {:.1} MB/s", self.mb_per_s))?;
        output.line(format_args!(
            "latency    p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, {}",
            self.p50_ms, self.p99_ms, self.p999_ms, self.conditions.latency
        ))?;
        output.line(format_args!("processor  {} (s per GB)", self.cpu_s_per_gb.text()))?;
        output.line(format_args!("memory     {} (MB, peak anonymous)", self.rss_anon_mb.text()))?;
        output.line(format_args!("           {} (MB, peak of mapped files)", self.rss_file_mb.text()))
    }
}

impl Sides {
    fn text(&self) -> String {
        let text = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.2}"));
        format!("client {}, node {}", text(self.client), text(self.server))
    }
}
