//! What a run did so far: counts per step, and the delay from stored to committed.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use logmill_record::TimestampMs;

use crate::operator::{Counts, NodeId};
use crate::pipeline::Plan;

/// What a run has done, up to its last committed step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunReport {
    /// The pipeline.
    pub pipeline: String,
    /// How long the run took, or takes so far.
    pub elapsed: Duration,
    /// How many steps were committed.
    pub commits: u64,
    /// Every step of the plan, in the order of [`Plan::steps`].
    pub steps: Vec<StepStats>,
    /// From the moment the node stored a source record to the commit of the step that contains it.
    pub delay: Delay,
}

/// What one step of a plan did.
///
/// Source records that an earlier run has handled, and that are read again because open windows need them, are counted
/// at the source as `replayed` and nowhere else there; the steps behind the source count them like any other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepStats {
    /// The step's name.
    pub name: String,
    /// What it does.
    pub kind: &'static str,
    /// Records that came in; for a source those that were read.
    pub records_in: u64,
    /// Records, results or rows that it gave on.
    pub records_out: u64,
    /// Source records that were read again.
    pub replayed: u64,
    /// Records that were set aside because they could not be processed.
    pub dead: u64,
    /// Records that were set aside because their window was closed.
    pub late: u64,
    /// Keys and values that a source has read.
    pub bytes_in: u64,
    /// Keys and values, or column values, that a sink has written.
    pub bytes_out: u64,
}

impl RunReport {
    pub(crate) fn new(plan: &Plan) -> Self {
        let steps = plan
            .steps()
            .map(|step| StepStats { name: step.name.clone(), kind: step.kind, ..StepStats::default() })
            .collect();
        Self {
            pipeline: plan.name().to_owned(),
            elapsed: Duration::ZERO,
            commits: 0,
            steps,
            delay: Delay::new(),
        }
    }

    /// Takes a committed step in.
    pub(crate) fn add(
        &mut self,
        counts: &BTreeMap<NodeId, Counts>,
        appended: &[(TimestampMs, u64)],
        now: TimestampMs,
    ) {
        self.commits += 1;
        for (node, counts) in counts {
            let Some(step) = self.steps.get_mut(node.0) else { continue };
            step.records_in += counts.records_in;
            step.records_out += counts.records_out;
            step.replayed += counts.replayed;
            step.dead += counts.dead;
            step.late += counts.late;
            step.bytes_in += counts.bytes_in;
            step.bytes_out += counts.bytes_out;
        }
        for (appended_at, records) in appended {
            self.delay.add(now.0.saturating_sub(appended_at.0), *records);
        }
    }

    /// The step of this name.
    #[must_use]
    pub fn step(&self, name: &str) -> Option<&StepStats> {
        self.steps.iter().find(|step| step.name == name)
    }

    /// Source records that were read for the first time.
    #[must_use]
    pub fn records_in(&self) -> u64 {
        self.sources().map(|step| step.records_in).sum()
    }

    /// Keys and values of those records, in bytes.
    #[must_use]
    pub fn bytes_in(&self) -> u64 {
        self.sources().map(|step| step.bytes_in).sum()
    }

    /// Rows and records that the sinks have written.
    #[must_use]
    pub fn records_out(&self) -> u64 {
        self.sinks().map(|step| step.records_out).sum()
    }

    /// What those hold, in bytes.
    #[must_use]
    pub fn bytes_out(&self) -> u64 {
        self.sinks().map(|step| step.bytes_out).sum()
    }

    /// Records set aside because they could not be processed.
    #[must_use]
    pub fn dead(&self) -> u64 {
        self.steps.iter().map(|step| step.dead).sum()
    }

    /// Records set aside because their window was closed.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.steps.iter().map(|step| step.late).sum()
    }

    /// Source records per second of the run; 0 before any time has passed.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate of more than 2^53 records has no use for the last digit"
    )]
    pub fn rate_per_s(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.records_in() as f64 / seconds } else { 0.0 }
    }

    fn sources(&self) -> impl Iterator<Item = &StepStats> {
        self.steps.iter().filter(|step| step.kind == "source")
    }

    fn sinks(&self) -> impl Iterator<Item = &StepStats> {
        self.steps.iter().filter(|step| matches!(step.kind, "topic" | "sqlite"))
    }
}

/// A histogram of delays, in milliseconds: the resolution of the time at which a node stores a record.
///
/// Records whose time of storing the node no longer knows exactly are not in it. It compares the node's clock with
/// this machine's; what would be negative is 0.
#[derive(Clone, Debug)]
pub struct Delay(Histogram<u64>);

impl Delay {
    fn new() -> Self {
        Self(Histogram::new(3).expect("invariant: three significant digits are within the limits"))
    }

    fn add(&mut self, delay_ms: i64, records: u64) {
        // It resizes itself, and only fails when it cannot count that far.
        let _ = self.0.record_n(u64::try_from(delay_ms).unwrap_or_default(), records);
    }

    /// The delay that this share of the records stays within, in ms: 0.5 is the median.
    #[must_use]
    pub fn quantile_ms(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The median, in ms.
    #[must_use]
    pub fn p50_ms(&self) -> u64 {
        self.quantile_ms(0.5)
    }

    /// What 99 % of the records stay within, in ms.
    #[must_use]
    pub fn p99_ms(&self) -> u64 {
        self.quantile_ms(0.99)
    }

    /// The largest delay, in ms.
    #[must_use]
    pub fn max_ms(&self) -> u64 {
        self.0.max()
    }

    /// How many records are in it.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.len()
    }
}
