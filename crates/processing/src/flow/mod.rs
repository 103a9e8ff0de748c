//! A flow: one source with everything that hangs on it.
//!
//! It merges the source's partitions by event time, runs the operators over what it takes, and seals a step: windows
//! close, and what is to leave the pipeline is handed over with the positions to commit beside it. All of it without
//! I/O and without a clock of its own; the engine fetches, writes and tells the time.
//!
//! Invariants:
//! * a record is taken after every smaller offset of its partition, and only while no other partition has unread
//!   records it knows nothing of, so that partitions do not drift apart;
//! * lateness is decided by the watermark just before a record; windows are closed when the step is sealed;
//! * while a partition repeats what an earlier run has handled, its stored position stays as it is;
//! * a record that was taken keeps its verdict: a replay does not judge its time again.

mod letters;
mod partition;
mod refused;
pub(crate) mod watermark;

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_record::{BatchError, TimestampMs};
use rusqlite::types::Value;

use crate::backend::{FetchFrom, Fetched, TopicDescription};
use crate::error::{Error, ErrorKind};
use crate::operator::{
    Counts, Decoder, Discard, Drawn, ErasedBatch, NodeId, Operator, Origin, OutRecord, Step,
};
use crate::pipeline::{Plan, SourceSpec};
use crate::sqlite::{Position, Resume};
use partition::Partition;
pub(crate) use refused::Refused;
use watermark::Watermarks;

/// How many records go through the operators at once.
const BATCH_RECORDS: usize = 4_096;

pub(crate) struct Flow {
    plan: Plan,
    source: NodeId,
    topic: String,
    topic_id: String,
    decoder: Box<dyn Decoder>,
    partitions: Vec<Partition>,
    marks: Watermarks,
    /// The operators behind the source, by node.
    operators: BTreeMap<NodeId, Box<dyn Operator>>,
    step: Step,
    taken_bytes: usize,
}

/// What a sealed step hands over.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    /// Records for topics: dead and late ones, and those of topic sinks.
    pub(crate) records: BTreeMap<String, Vec<OutRecord>>,
    /// Rows by table sink.
    pub(crate) rows: BTreeMap<NodeId, Vec<Vec<Value>>>,
    pub(crate) positions: Vec<Position>,
    pub(crate) counts: BTreeMap<NodeId, Counts>,
    /// How many records the node stored at which time, where that is known exactly.
    pub(crate) appended: Vec<(TimestampMs, u64)>,
}

impl Flow {
    /// A flow of `plan` that goes on where `positions` end. `now` is monotonic.
    pub(crate) fn new(
        plan: &Plan,
        (source, spec): (NodeId, &SourceSpec),
        description: &TopicDescription,
        positions: &[Position],
        bounded: bool,
        now: Duration,
    ) -> Self {
        let resume_of = |number: u32| {
            positions
                .iter()
                .find(|position| position.topic == spec.topic && position.partition == number)
                .map(|position| position.resume.clone())
        };
        let closed = positions
            .iter()
            .filter(|position| position.topic == spec.topic)
            .map(|position| position.resume.closed)
            .max()
            .unwrap_or(watermark::NONE);
        let partitions: Vec<Partition> = description
            .partitions
            .iter()
            .map(|state| {
                let start = state.start_offset;
                let fresh = || Resume {
                    read: start,
                    replay: start,
                    largest: None,
                    closed,
                    refused: Refused::default(),
                };
                Partition::new(state, resume_of(state.partition).unwrap_or_else(fresh), bounded)
            })
            .collect();
        let largest = partitions.iter().map(|partition| partition.resume.largest);
        let mut marks = Watermarks::new(spec.disorder, spec.idle, closed, largest, now);
        for (at, partition) in partitions.iter().enumerate() {
            marks.set_replaying(at, partition.is_replaying());
            marks.set_at_end(at, partition.is_at_stable_end());
        }
        Self {
            plan: plan.clone(),
            source,
            topic: spec.topic.clone(),
            topic_id: description.topic_id.clone(),
            decoder: (spec.make)(partitions.len()),
            partitions,
            marks,
            operators: plan.operators_behind(source),
            step: Step::new(closed),
            taken_bytes: 0,
        }
    }

    /// What to fetch, for each partition that has nothing left to take.
    pub(crate) fn wants(&self) -> Vec<FetchFrom> {
        let place = |partition: &Partition| {
            partition.wants().map(|offset| FetchFrom {
                topic: self.topic.clone(),
                partition: partition.number,
                offset,
            })
        };
        self.partitions.iter().filter_map(place).collect()
    }

    pub(crate) fn buffered_bytes(&self) -> usize {
        self.partitions.iter().map(Partition::buffered_bytes).sum()
    }

    /// Whether a bounded run has taken everything.
    pub(crate) fn is_done(&self) -> bool {
        self.partitions.iter().all(Partition::is_done)
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Takes in what was fetched of this flow's topic.
    pub(crate) fn offer(&mut self, fetched: Fetched, now: Duration) -> Result<(), Error> {
        let Some(at) = self.partitions.iter().position(|partition| partition.number == fetched.partition)
        else {
            return Ok(());
        };
        let partition = &mut self.partitions[at];
        match partition.fill(at, fetched, &mut *self.decoder) {
            Ok(true) => self.marks.arrived(at, now),
            Ok(false) if partition.is_at_stable_end() => self.marks.silent(at, now),
            Ok(false) => {}
            Err(error) => return Err(unreadable(&self.topic, partition, error)),
        }
        self.note_progress(at);
        Ok(())
    }

    /// Lets silence act on the watermark.
    pub(crate) fn advance(&mut self) {
        self.marks.advance();
    }

    /// Whether sealing now would close a window.
    pub(crate) fn can_close(&mut self) -> bool {
        let watermark = self.marks.current();
        self.earliest_end().is_some_and(|end| end <= watermark)
    }

    /// How long until [`advance`](Self::advance) could change anything.
    pub(crate) fn wakes_in(&mut self, now: Duration) -> Option<Duration> {
        let end = self.earliest_end();
        self.marks.wakes_in(now, end)
    }

    fn earliest_end(&mut self) -> Option<i64> {
        self.operators.values_mut().filter_map(|operator| operator.windows()?.earliest_end()).min()
    }

    /// How many records, and bytes of them, this step has taken.
    pub(crate) fn taken(&self) -> (usize, usize) {
        (self.step.taken.len(), self.taken_bytes)
    }

    /// Takes up to a batch of records in order of their event time, and runs the operators over them. Gives how many.
    pub(crate) fn take(&mut self) -> Result<usize, Error> {
        let mut order = Vec::new();
        let first = self.step.taken.len();
        while self.step.taken.len() - first < BATCH_RECORDS {
            let Some(at) = self.next_partition() else { break };
            self.take_from(at, &mut order);
        }
        let taken = self.step.taken.len() - first;
        if let Err(discard) = self.run(&order) {
            self.run_again(discard)?;
        }
        Ok(taken)
    }

    /// The partition with the earliest record; none while one is empty that has more to read.
    fn next_partition(&self) -> Option<usize> {
        let mut earliest: Option<(i64, usize)> = None;
        for (at, partition) in self.partitions.iter().enumerate() {
            match partition.head() {
                Some(time) if earliest.is_none_or(|(earliest, _)| time < earliest) => {
                    earliest = Some((time, at));
                }
                None if !partition.is_at_end() => return None,
                _ => {}
            }
        }
        earliest.map(|(_, at)| at)
    }

    fn take_from(&mut self, at: usize, order: &mut Vec<Drawn>) {
        let Some((taken, entry)) = self.partitions[at].take(at, self.marks.current()) else { return };
        let origin = Origin::Record(u32::try_from(self.step.taken.len()).unwrap_or(u32::MAX));
        self.step.taken.push(taken);
        self.taken_bytes += entry.size_bytes;
        let counts = self.step.counts(self.source);
        if taken.replayed {
            counts.replayed += 1;
        } else {
            counts.records_in += 1;
            counts.bytes_in += entry.size_bytes as u64;
        }
        match entry.bad {
            Some(bad) => self.step.dead(self.source, origin, bad.reason),
            None => {
                counts.records_out += 1;
                order.push(Drawn { partition: at, time: taken.time, origin });
                self.marks.observe(at, taken.time);
            }
        }
        self.note_progress(at);
    }

    fn note_progress(&mut self, at: usize) {
        let partition = &self.partitions[at];
        self.marks.set_at_end(at, partition.is_at_stable_end());
        if self.marks.is_replaying(at) && !partition.is_replaying() {
            self.marks.set_replaying(at, false);
        }
    }

    fn run(&mut self, order: &[Drawn]) -> Result<(), Discard> {
        match self.decoder.draw(order) {
            Some(batch) => self.push(self.source, batch),
            None => Ok(()),
        }
    }

    /// Hands a batch to everything behind `from`.
    fn push(&mut self, from: NodeId, batch: ErasedBatch) -> Result<(), Discard> {
        let mut waiting = vec![(from, batch)];
        let mut operate = |node: NodeId, batch| {
            let operator = self.operators.get_mut(&node);
            let operator = operator.expect("invariant: every node behind the source has its operator");
            Ok::<_, Discard>(operator.on_batch(batch, &mut self.step)?.map(|out| (node, out)))
        };
        while let Some((from, batch)) = waiting.pop() {
            let Some((last, others)) = self.plan.consumers(from).split_last() else { continue };
            for to in others {
                waiting.extend(operate(*to, self.plan.copy(from, &batch))?);
            }
            waiting.extend(operate(*last, batch)?);
        }
        Ok(())
    }

    /// An operator panicked where it cannot take one record back: everything that the step has done is forgotten, and
    /// done again without that record.
    fn run_again(&mut self, mut discard: Discard) -> Result<(), Error> {
        loop {
            for (node, operator) in &mut self.operators {
                if let Some(windows) = operator.windows() {
                    windows.discard(*node == discard.node);
                }
            }
            self.step.discard(self.source, discard);
            self.decode_again()?;
            match self.run_all() {
                Ok(()) => return Ok(()),
                Err(again) => discard = again,
            }
        }
    }

    fn decode_again(&mut self) -> Result<(), Error> {
        for (at, partition) in self.partitions.iter().enumerate() {
            let mut taken = self.step.taken.iter().filter(|taken| taken.partition == at);
            let Some(first) = taken.next() else { continue };
            let last = taken.next_back().unwrap_or(first);
            self.decoder.set_aside(at);
            partition
                .decode_again(at, &(first.offset..last.offset.next()), &mut *self.decoder)
                .map_err(|error| unreadable(&self.topic, partition, error))?;
            self.decoder.restore(at);
        }
        Ok(())
    }

    fn run_all(&mut self) -> Result<(), Discard> {
        let all: Vec<Drawn> = (0_u32..)
            .zip(&self.step.taken)
            .filter(|(_, taken)| !taken.bad)
            .map(|(index, taken)| Drawn {
                partition: taken.partition,
                time: taken.time,
                origin: Origin::Record(index),
            })
            .collect();
        // Every value is drawn before an operator can fail: what is left in the decoder is what comes next.
        let batches: Vec<_> = all.chunks(BATCH_RECORDS).map(|order| self.decoder.draw(order)).collect();
        batches.into_iter().flatten().try_for_each(|batch| self.push(self.source, batch))
    }

    /// Ends the step: closes windows up to the watermark and gives everything that is to be committed.
    ///
    /// `show_open`: also gives what the open windows hold, and keeps them: the end of a bounded run.
    pub(crate) fn seal(&mut self, show_open: bool) -> Result<Sealed, Error> {
        let watermark = self.marks.current();
        self.seal_windows(watermark, show_open)?;
        let letters = std::mem::take(&mut self.step.letters);
        let mut records = self.address(letters)?;
        for (node, sent) in std::mem::take(&mut self.step.records) {
            records.entry(self.plan.sink_topic(node).to_owned()).or_default().extend(sent);
        }
        let sealed = Sealed {
            records,
            rows: std::mem::take(&mut self.step.rows),
            positions: self.positions(watermark),
            counts: std::mem::take(&mut self.step.counts),
            appended: self.appended(),
        };
        self.step.clear();
        self.taken_bytes = 0;
        self.partitions.iter_mut().for_each(Partition::release);
        Ok(sealed)
    }

    fn seal_windows(&mut self, watermark: i64, show_open: bool) -> Result<(), Error> {
        let as_of =
            (0..self.partitions.len()).filter_map(|at| self.marks.largest(at)).max().unwrap_or(i64::MAX);
        let nodes: Vec<NodeId> = self.operators.keys().copied().collect();
        for node in nodes {
            let step = &mut self.step;
            let Some(windows) = self.operators.get_mut(&node).and_then(|operator| operator.windows()) else {
                continue;
            };
            windows.seal().map_err(|reason| self.plan.unblamable(node, "merge", &reason))?;
            let closed = windows.close(watermark, step);
            let open = if show_open { windows.peek(as_of, step) } else { None };
            for results in closed.into_iter().chain(open) {
                self.push(node, results)
                    .map_err(|discard| self.plan.unblamable(discard.node, "add", &discard.reason))?;
            }
        }
        Ok(())
    }

    fn positions(&mut self, closed: i64) -> Vec<Position> {
        let mut positions = Vec::with_capacity(self.partitions.len());
        for (at, partition) in self.partitions.iter_mut().enumerate() {
            let needs =
                self.operators.values_mut().filter_map(|operator| operator.windows()?.needs(at)).min();
            positions.push(Position {
                topic: self.topic.clone(),
                partition: partition.number,
                topic_id: self.topic_id.clone(),
                resume: partition.seal(needs, self.marks.largest(at), closed),
            });
        }
        positions
    }

    fn appended(&self) -> Vec<(TimestampMs, u64)> {
        let mut appended: BTreeMap<TimestampMs, u64> = BTreeMap::new();
        for taken in self.step.taken.iter().filter(|taken| !taken.replayed) {
            if let Some(at) = self.partitions[taken.partition].appended_at(taken.offset) {
                *appended.entry(at).or_default() += 1;
            }
        }
        appended.into_iter().collect()
    }
}

fn unreadable(topic: &str, partition: &Partition, error: BatchError) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "topic {topic:?}, partition {}, near offset {}: a stored batch cannot be read: {error}",
            partition.number,
            partition.position(),
        ),
    )
    .caused_by(error)
}
