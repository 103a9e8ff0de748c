//! A restart finishes what was decided, and aborts what was not, before anybody reads it.

use std::collections::BTreeMap;
use std::sync::Arc;

use logmill_log::OpenTransaction;
use logmill_log::env::block_on;
use logmill_record::Batch;

use super::admit::{AllTouched, Touched};
use super::end::{batch_about, mark_all, mark_all_once};
use super::entry::{Last, Next, RESTARTED};
use super::record::{Status, TransactionRecord};
use super::step::is_step;
use super::{Outcome, ProducerEpoch, TransactionRecords};
use crate::broker::Core;
use crate::error::Error;
use crate::internal::{OFFSETS_ID, append_durable};
use crate::produce::Lane;
use crate::topic::TopicPartition;

/// A transaction that no marker has ended in a partition.
#[derive(Debug)]
struct Open {
    id: TopicPartition,
    lane: Lane,
    transaction: OpenTransaction,
}

/// A transaction that has partitions without a marker.
#[derive(Debug)]
struct Unfinished<'a> {
    /// Whose it is; `None` for a producer that no transactional id has.
    of: Option<(&'a Arc<str>, &'a TransactionRecord)>,
    /// Who wrote it.
    producer: ProducerEpoch,
    /// How it was decided, if it was.
    decided: Option<Outcome>,
    touched: AllTouched,
}

/// Ends every transaction that is open in some partition: as it was decided, or else aborted. Blocks until all have
/// their markers that can; where a disk fails it is tried again in the background, and the transactional id takes
/// nothing meanwhile. Of the node's log of offsets those are returned that are not committed, for who reads it before
/// they have their markers.
pub(crate) fn recover(core: &Arc<Core>, records: &TransactionRecords) -> Vec<OpenTransaction> {
    core.transactions.table.lock().fence_all(|| core.fresh_producer_id());
    let mut all: BTreeMap<(i64, i16, bool), Unfinished<'_>> = BTreeMap::new();
    let mut undone = Vec::new();
    for open in open_transactions(core) {
        let unfinished = Unfinished::of(&open, records);
        if open.id == OFFSETS_ID && unfinished.decided != Some(Outcome::Commit) {
            undone.push(open.transaction);
        }
        let ProducerEpoch { id, epoch } = unfinished.producer;
        let key = (id, epoch, unfinished.decided.is_some());
        let touched = Touched::new(Arc::clone(&open.lane.name().topic), open.lane);
        all.entry(key).or_insert(unfinished).touched.insert(open.id, touched);
    }
    for unfinished in all.into_values() {
        unfinished.finish(core);
    }
    for (name, known) in records {
        if let (Status::Decided(outcome), true) = (known.status, has_unavailable_partition(core, known)) {
            tracing::error!(transactional_id = %name, "a transaction was {outcome}, and one of its partitions cannot be opened");
            core.transactions.table.lock().set_unavailable_partition(name, outcome, known.started_at);
        }
    }
    undone
}

/// Of all partitions, and of the node's log of offsets.
fn open_transactions(core: &Core) -> Vec<Open> {
    let mut lanes = vec![(OFFSETS_ID, core.offsets.lane().clone())];
    for topic in core.catalog.all() {
        let named = (0..).zip(&topic.partitions);
        lanes.extend(named.filter_map(|(partition, of)| {
            Some((TopicPartition { topic: topic.id, partition }, of.lane().ok()?.clone()))
        }));
    }
    let open = |(id, lane): (TopicPartition, Lane)| {
        let open = lane.log().open_transactions();
        open.into_iter().map(move |transaction| Open { id, lane: lane.clone(), transaction })
    };
    lanes.into_iter().flat_map(open).collect()
}

/// Whether a partition that a decision names is there, and cannot be written.
fn has_unavailable_partition(core: &Core, known: &TransactionRecord) -> bool {
    let mut topics =
        known.touched.iter().filter(|touched| touched.id != OFFSETS_ID && touched.last.is_some());
    topics.any(|touched| {
        let topic = core.catalog.topic(&touched.topic).ok().filter(|topic| topic.id == touched.id.topic);
        topic.is_some_and(|topic| topic.partition(touched.id.partition).is_ok_and(|it| it.lane().is_err()))
    })
}

impl<'a> Unfinished<'a> {
    /// To which transaction an open one belongs.
    fn of(open: &Open, records: &'a TransactionRecords) -> Self {
        let OpenTransaction { producer_id, producer_epoch, .. } = open.transaction;
        let is_of = |known: &TransactionRecord| {
            known.producer.id == producer_id || known.next_id == Some(producer_id)
        };
        let of = records.iter().find(|(_, known)| is_of(known));
        let decided = of.and_then(|(_, known)| match known.status {
            Status::Decided(outcome) if decides(known, open) => Some(outcome),
            _ => None,
        });
        let producer = ProducerEpoch { id: producer_id, epoch: producer_epoch };
        Self { of, producer, decided, touched: AllTouched::new() }
    }

    /// What its markers carry. Of one that is aborted the producer is not to go on as if nothing had happened; the
    /// node itself writes those of a step, and goes on.
    fn next(&self, core: &Core) -> Next {
        match (self.of, self.decided) {
            (Some((_, known)), Some(_)) => Next { markers: known.producer, next_id: known.next_id },
            _ if self.is_newest() => Next::after(self.producer, || core.fresh_producer_id()),
            _ => Next { markers: self.producer, next_id: None },
        }
    }

    /// Whether its producer would be the one to go on. One that a partition has kept which could not be opened for a
    /// while is older, and its id has gone on without it.
    fn is_newest(&self) -> bool {
        self.of.is_some_and(|(name, known)| {
            let now = Next { markers: known.producer, next_id: known.next_id }.producer();
            !is_step(name) && now == self.producer
        })
    }

    fn finish(self, core: &Arc<Core>) {
        let outcome = self.decided.unwrap_or(Outcome::Abort);
        let next = self.next(core);
        tracing::info!(
            transactional_id = self.of.map(|(name, _)| &**name),
            producer = self.producer.id,
            partitions = self.touched.len(),
            "a transaction that the last run left is {outcome}"
        );
        // As long as a partition that cannot be opened has no marker nothing is said, and a later restart finds the
        // decision.
        let of =
            self.of.filter(|(_, known)| self.decided.is_none() || !has_unavailable_partition(core, known));
        let recovered = Recovered {
            name: of.map(|(name, _)| Arc::clone(name)),
            known: of.and_then(|(_, known)| self.record(known, next, outcome)),
            last: Last {
                producer: self.producer,
                outcome,
                why: self.decided.is_none().then(|| RESTARTED.to_owned()),
            },
            next,
        };
        let scheduler = &*core.config.env.scheduler;
        let marked = block_on(scheduler, mark_all_once(core, &self.touched, next.markers, outcome));
        let done = marked.and_then(|()| block_on(scheduler, recovered.note_once(core)));
        let Err(error) = done else { return };
        tracing::warn!(%error, "the end of a transaction is tried again");
        if let (Some(name), Some((_, known))) = (&recovered.name, self.of) {
            core.transactions.table.lock().set_ending(name, outcome, known.started_at);
        }
        let (again, touched) = (Arc::clone(core), self.touched);
        drop(core.carry_on("the end of a transaction", async move {
            mark_all(&again, &touched, recovered.next.markers, outcome).await?;
            recovered.note(&again).await
        }));
    }

    /// What is to be written of it; nothing where that would say nothing new.
    fn record(&self, known: &TransactionRecord, next: Next, outcome: Outcome) -> Option<TransactionRecord> {
        let says_something = self.decided.is_some() || self.is_newest();
        says_something.then(|| TransactionRecord {
            producer: next.markers,
            next_id: next.next_id,
            status: Status::Complete(outcome),
            touched: Vec::new(),
            ..known.clone()
        })
    }
}

/// A transaction whose markers are on disk.
#[derive(Debug)]
struct Recovered {
    name: Option<Arc<str>>,
    known: Option<TransactionRecord>,
    last: Last,
    next: Next,
}

impl Recovered {
    /// Writes that it has ended, however often it takes, and lets its transactional id go on.
    async fn note(&self, core: &Core) -> Result<(), Error> {
        if let Some(batch) = self.batch() {
            core.transactions.log.write(batch, &core.timer, &core.closing).await?;
        }
        self.go_on(core);
        Ok(())
    }

    /// The same, tried once: a restart does not wait for a disk that fails.
    async fn note_once(&self, core: &Core) -> Result<(), Error> {
        if let Some(batch) = self.batch() {
            append_durable(core.transactions.log.lane(), batch).await?;
        }
        self.go_on(core);
        Ok(())
    }

    fn batch(&self) -> Option<Batch> {
        Some(batch_about(self.name.as_ref()?, self.known.as_ref()?))
    }

    fn go_on(&self, core: &Core) {
        let Some(name) = &self.name else { return };
        let mut table = core.transactions.table.lock();
        match self.known {
            Some(_) => {
                let now = core.config.env.clock.now();
                table.ended(name, self.last.clone(), self.next.producer(), now);
            }
            // Of a step, whose producer is the node's.
            None => table.set_empty(name),
        }
    }
}

/// Whether what is open in a partition is what the decision is about, and not what came after it.
fn decides(known: &TransactionRecord, open: &Open) -> bool {
    let here = known.touched.iter().find(|touched| touched.id == open.id);
    here.and_then(|touched| touched.last).is_some_and(|last| open.transaction.first_offset <= last)
}
