//! The engine: one task that owns all source partitions of a plan, and drives it step by step.
//!
//! A step is gathered (fetch, merge, operate), sealed (windows close), published (letters and topic sinks, durable) and
//! committed (rows and positions, one transaction). A run that ends anywhere in between has left its last commit, and
//! perhaps records in topics that the next run writes again.
//!
//! The flows inside have no I/O and no clock; everything that waits is here, on the task's own thread, and can be cut
//! short by [`Stop`].

mod calls;
mod publish;
mod resume;
mod stop;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use logmill_record::TimestampMs;
use parking_lot::Mutex;
use rusqlite::types::Value;

use crate::backend::{Backend, TopicDescription, TopicSpec};
use crate::clock::Clock;
use crate::error::Error;
use crate::flow::Flow;
use crate::operator::{Counts, NodeId, OutRecord};
use crate::pipeline::Plan;
use crate::sqlite::{Position, Store};
use crate::stats::RunReport;
use calls::{Calls, stopped};
pub(crate) use stop::{Stop, Urgency};

/// A step ends at the latest when it has taken so many records,
const STEP_RECORDS: usize = 200_000;
/// or so many bytes of them.
const STEP_BYTES: usize = 32 * 1024 * 1024;
/// What is fetched and not yet taken stays about below this.
const BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// How long a fetch may wait while nothing else is to be done.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How many partitions are asked for at once.
const FETCH_PARTITIONS: usize = 1_000;

/// How a run works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// How long a step gathers at most.
    pub(crate) every: Duration,
    /// Whether the run ends where the topics end when it starts.
    pub(crate) bounded: bool,
}

/// Why gathering ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// The step is to be committed.
    Due,
    /// A bounded run has taken everything.
    Done,
    /// The run is to end.
    Stopped,
}

/// What a step still has to do.
#[derive(Debug, Default)]
pub(crate) struct StepOutput {
    pub(crate) records: BTreeMap<String, Vec<OutRecord>>,
    /// By table, in the plan's order.
    pub(crate) rows: Vec<Vec<Vec<Value>>>,
    pub(crate) positions: Vec<Position>,
    counts: BTreeMap<NodeId, Counts>,
    appended: Vec<(TimestampMs, u64)>,
}

pub(crate) struct Engine {
    plan: Plan,
    calls: Calls,
    clock: Arc<dyn Clock>,
    store: Store,
    flows: Vec<Flow>,
    /// How many partitions each topic has that is written to.
    partitions: BTreeMap<String, u32>,
    mode: Mode,
    /// When the step took its first record.
    began: Option<Duration>,
    report: Arc<Mutex<RunReport>>,
    started: Duration,
}

impl Engine {
    /// Checks topics, positions and tables, and takes the SQLite file over.
    pub(crate) fn open(
        plan: &Plan,
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        mode: Mode,
        stop: Arc<Stop>,
        report: Arc<Mutex<RunReport>>,
    ) -> Result<Self, Error> {
        let started = clock.monotonic();
        let calls = Calls { backend, stop };
        let mut sources = describe_sources(&calls, plan)?;
        let tables: Vec<_> = plan.tables().map(|(_, table)| table).collect();
        let check = |positions: &[Position]| {
            // Once more: until the file was ours, another run may have read on.
            sources = describe_sources(&calls, plan)?;
            positions.iter().try_for_each(|position| match sources.get(&position.topic) {
                Some(topic) => resume::check(position, topic, plan.name(), plan.database()),
                None => Ok(()),
            })
        };
        let (store, positions) =
            Store::open(plan.database(), plan.name(), &plan.state_signature(), &tables, check)?;
        let partitions = ensure_outputs(&calls, plan)?;
        let flows = plan
            .sources()
            .filter_map(|source| {
                let topic = sources.get(&source.1.topic)?;
                Some(Flow::new(plan, source, topic, &positions, mode.bounded, started))
            })
            .collect();
        Ok(Self {
            plan: plan.clone(),
            calls,
            clock,
            store,
            flows,
            partitions,
            mode,
            began: None,
            report,
            started,
        })
    }

    /// Runs to the end of a bounded run, or until stopped.
    pub(crate) fn run(&mut self) -> Result<(), Error> {
        loop {
            let gathered = self.gather()?;
            // The last step may have nothing of its own, and still has to show the open windows.
            if self.has_work() || gathered == Gathered::Done {
                let output = self.seal(gathered == Gathered::Done)?;
                let output = self.publish(output)?;
                self.commit(&output)?;
            }
            if gathered != Gathered::Due {
                self.report.lock().elapsed = self.clock.monotonic().saturating_sub(self.started);
                return Ok(());
            }
        }
    }

    /// Fetches, merges and operates until the step is due.
    pub(crate) fn gather(&mut self) -> Result<Gathered, Error> {
        loop {
            let now = self.clock.monotonic();
            let mut taken = 0;
            for flow in &mut self.flows {
                flow.advance();
                taken += flow.take()?;
            }
            if taken > 0 && self.began.is_none() {
                self.began = Some(now);
            }
            if self.calls.stop.is_requested(Urgency::Soon) {
                return Ok(Gathered::Stopped);
            }
            if self.mode.bounded && self.flows.iter().all(Flow::is_done) {
                return Ok(Gathered::Done);
            }
            if self.is_due(now) {
                return Ok(Gathered::Due);
            }
            if taken == 0 {
                self.fetch(now)?;
            }
        }
    }

    fn is_due(&mut self, now: Duration) -> bool {
        match self.began {
            Some(began) => {
                let (records, bytes) = self.taken();
                now.saturating_sub(began) >= self.mode.every || records >= STEP_RECORDS || bytes >= STEP_BYTES
            }
            None => self.flows.iter_mut().any(Flow::can_close),
        }
    }

    fn taken(&self) -> (usize, usize) {
        self.flows.iter().map(Flow::taken).fold((0, 0), |(records, bytes), (more_records, more_bytes)| {
            (records + more_records, bytes + more_bytes)
        })
    }

    /// Whether there is anything to commit.
    pub(crate) fn has_work(&mut self) -> bool {
        self.taken().0 > 0 || self.flows.iter_mut().any(Flow::can_close)
    }

    fn fetch(&mut self, now: Duration) -> Result<(), Error> {
        let places: Vec<_> = self.flows.iter().flat_map(Flow::wants).collect();
        let buffered: usize = self.flows.iter().map(Flow::buffered_bytes).sum();
        let max_bytes = BUFFER_BYTES.saturating_sub(buffered).max(1);
        let wakes_in = self.flows.iter_mut().filter_map(|flow| flow.wakes_in(now)).min();
        let step_ends_in = self.began.map(|began| began.saturating_add(self.mode.every).saturating_sub(now));
        let wait = [wakes_in, step_ends_in].into_iter().flatten().fold(LONGEST_WAIT, Duration::min);
        let rounds = u32::try_from(places.chunks(FETCH_PARTITIONS).len()).unwrap_or(u32::MAX).max(1);
        for places in places.chunks(FETCH_PARTITIONS) {
            let answer = self.calls.call(Urgency::Soon, "cannot read the source topics", |backend| {
                backend.fetch(places, max_bytes, wait / rounds)
            })?;
            let now = self.clock.monotonic();
            for fetched in answer.into_iter().flatten() {
                if let Some(flow) = self.flows.iter_mut().find(|flow| flow.topic() == fetched.topic) {
                    flow.offer(fetched, now)?;
                }
            }
        }
        Ok(())
    }

    /// Ends the step. After this nothing of it can be taken back; it is committed, or the run ends.
    pub(crate) fn seal(&mut self, show_open: bool) -> Result<StepOutput, Error> {
        let mut output = StepOutput::default();
        let mut rows = BTreeMap::new();
        for flow in &mut self.flows {
            let sealed = flow.seal(show_open)?;
            rows.extend(sealed.rows);
            for (topic, records) in sealed.records {
                output.records.entry(topic).or_default().extend(records);
            }
            output.positions.extend(sealed.positions);
            output.counts.extend(sealed.counts);
            output.appended.extend(sealed.appended);
        }
        output.rows = self.plan.tables().map(|(node, _)| rows.remove(&node).unwrap_or_default()).collect();
        self.began = None;
        Ok(output)
    }

    /// Makes what goes to topics durable there.
    pub(crate) fn publish(&self, mut output: StepOutput) -> Result<StepOutput, Error> {
        let records = std::mem::take(&mut output.records);
        let is_letter = |topic: &str| self.plan.letter_topics().any(|letters| letters == topic);
        publish::publish(&self.calls, records, &self.partitions, is_letter)?;
        Ok(output)
    }

    /// Commits rows and positions.
    pub(crate) fn commit(&mut self, output: &StepOutput) -> Result<(), Error> {
        if self.calls.stop.is_requested(Urgency::Now) {
            return Err(stopped());
        }
        self.store.commit(&output.rows, &output.positions)?;
        let mut report = self.report.lock();
        report.add(&output.counts, &output.appended, self.clock.now());
        report.elapsed = self.clock.monotonic().saturating_sub(self.started);
        Ok(())
    }
}

fn describe_sources(calls: &Calls, plan: &Plan) -> Result<BTreeMap<String, TopicDescription>, Error> {
    let mut topics = BTreeMap::new();
    for (_, spec) in plan.sources() {
        let name = &spec.topic;
        let topic = calls
            .must(&format!("pipeline {:?} cannot read topic {name:?}", plan.name()), |backend| {
                backend.describe(name)
            })?;
        topics.insert(name.clone(), topic);
    }
    Ok(topics)
}

/// Creates the topics that are written to, and learns how many partitions they have.
fn ensure_outputs(calls: &Calls, plan: &Plan) -> Result<BTreeMap<String, u32>, Error> {
    let spec = |name: &str, partitions| TopicSpec { name: name.to_owned(), partitions, internal: false };
    let letters = plan.letter_topics().map(|topic| spec(topic, Some(1)));
    let sinks = plan.topic_sinks().map(|(_, topic)| spec(topic, None));
    let mut specs: Vec<TopicSpec> = letters.chain(sinks).collect();
    specs.sort_by(|a, b| a.name.cmp(&b.name));
    specs.dedup_by(|a, b| a.name == b.name);
    calls.must("cannot create the topics that the pipeline writes to", |backend| {
        backend.ensure_topics(&specs)
    })?;
    let mut partitions = BTreeMap::new();
    for TopicSpec { name, .. } in specs {
        let topic =
            calls.must(&format!("cannot write to topic {name:?}"), |backend| backend.describe(&name))?;
        let count = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        partitions.insert(name, count);
    }
    Ok(partitions)
}
