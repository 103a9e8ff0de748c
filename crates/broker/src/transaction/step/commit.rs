//! A step whose records have all come: it is written, decided and marked.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use logmill_log::env::Work;

use super::{CommittedStep, Part, Step, StepAppended, StepHeader, step_name};
use crate::broker::Core;
use crate::budget::Budget;
use crate::error::{Error, Reason};
use crate::exec::Receiver;
use crate::group::Held;
use crate::internal::{OFFSETS_ID, written};
use crate::offsets::{CheckedCommit, PendingCommits};
use crate::produce::{Answer, Lane, Load};
use crate::topic::TopicPartition;
use crate::transaction::admit::{Admitted, AllTouched, Touched};
use crate::transaction::end::{Decision, all_durable};
use crate::transaction::entry::Next;
use crate::transaction::record::StepRecord;
use crate::transaction::table::{Ending, StepCheck};
use crate::transaction::{Outcome, ProducerEpoch};

impl Step {
    /// Commits the step: all of it, or nothing. It goes on when the future is dropped.
    ///
    /// # Errors
    /// [`RequestInvalid`](crate::Reason::RequestInvalid) for fewer bytes than its header says, and for offsets outside
    /// the unit; [`OffsetOutOfRange`](crate::Reason::OffsetOutOfRange) for one past the end of its partition;
    /// [`StaleAssignment`](crate::Reason::StaleAssignment) of a unit that is another's now;
    /// [`UnitUndeclared`](crate::Reason::UnitUndeclared) of a named one that no member has declared since the restart;
    /// [`StepOutOfSequence`](crate::Reason::StepOutOfSequence); those of
    /// [`Broker::produce`](crate::Broker::produce). It has no effect then.
    /// After [`OutcomeUnknown`](crate::Reason::OutcomeUnknown), which comes when the node stops meanwhile, the same
    /// step is sent again when it is back.
    pub fn commit(self) -> impl Future<Output = Result<CommittedStep, Error>> + Send + 'static + use<> {
        let (total_bytes, bytes) = (self.header.total_bytes, self.bytes);
        let whole = if bytes == total_bytes {
            Ok(())
        } else {
            let rule = "what follows the header has fewer bytes than that";
            Err(Error::field("total_bytes", total_bytes, rule).with("bytes", bytes))
        };
        let committed = whole.and_then(|()| self.core.check_open()).map(|()| {
            let core = Arc::clone(&self.core);
            core.carry_on_with(Work::Append, "a step", self.run())
        });
        async move { committed?.await }
    }

    async fn run(self) -> Result<CommittedStep, Error> {
        let Self { core, mut header, parts, room: _room, .. } = self;
        let name: Arc<str> = step_name(&header.group, &header.unit).into();
        let turn = core.transactions.table.lock().step_turn(&name);
        let _turn = turn.take().await;
        let held = core.groups.hold(&core, &header.group, &header.unit, header.unit_epoch)?;
        let checked = {
            let mut table = core.transactions.table.lock();
            table.check_step(&name, &header, || core.fresh_producer_id())?
        };
        let producer = match checked {
            StepCheck::Repeated(appended) => return Ok(CommittedStep { appended, duplicate: true }),
            StepCheck::Fresh(producer) => producer,
        };
        let input_checksum = header.input_checksum();
        let offsets = core.offsets.check(&core, &held, std::mem::take(&mut header.offsets))?;
        let run = Run { core, name, header, input_checksum, producer, _held: held };
        run.commit(parts, offsets).await
    }
}

/// A step that is being written.
struct Run {
    core: Arc<Core>,
    name: Arc<str>,
    header: StepHeader,
    /// See [`StepRecord`].
    input_checksum: u32,
    producer: ProducerEpoch,
    _held: Held,
}

/// What has been written, or is on its way.
#[derive(Default)]
struct Written {
    touched: AllTouched,
    /// Under way, by partition.
    answers: Vec<(TopicPartition, Lane, Receiver<Answer>)>,
    /// Its offsets, until they count or never will.
    offsets: Option<PendingCommits>,
}

impl Run {
    async fn commit(
        self,
        parts: BTreeMap<TopicPartition, Part>,
        offsets: Vec<CheckedCommit>,
    ) -> Result<CommittedStep, Error> {
        let under_way = Budget::unbounded();
        let started_at = self.core.config.env.clock.now();
        let mut written = Written::default();
        let pushed = self.push(parts, &offsets, &under_way, &mut written);
        let _offsets = written.offsets.take();
        let (touched, answered) = written.answered(pushed).await;
        let outcome = match answered {
            Ok(appends) => all_durable(&touched).await.map(|()| appends),
            Err(error) => Err(error),
        };
        let ending = Ending { producer: self.producer, started_at, touched, ..Ending::of_step(under_way) };
        let (mut appended, failed) = match outcome {
            Ok(appended) => (appended, None),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let offsets_at = appended.remove(&OFFSETS_ID).map(|append| append.first_offset);
        let appended: Vec<StepAppended> = appended.into_values().collect();
        let record = match &failed {
            None => Some(self.record(&appended)),
            // What is remembered is the step before.
            Some(_) => self.core.transactions.table.lock().get(&self.name)?.step.clone(),
        };
        let outcome = if failed.is_some() { Outcome::Abort } else { Outcome::Commit };
        let next = Next { markers: self.producer, next_id: None };
        let decision = Decision { outcome, next, step: record.clone() };
        let ended = decision.carry_out(&self.core, &self.name, &ending).await;
        if ended.is_err() {
            // It may be decided, and has partitions without a marker: a restart ends it, and until then no step comes
            // after.
            self.core.transactions.table.lock().set_ending(&self.name, outcome, started_at);
        }
        if let Some(error) = failed {
            return Err(error);
        }
        ended.map_err(|error| not_known(&self.header, &error))?;
        if let Some(at) = offsets_at {
            self.core.offsets.apply(at, offsets);
        }
        self.core.transactions.table.lock().step_ended(&self.name, record);
        Ok(CommittedStep { appended, duplicate: false })
    }

    /// Hands everything to its partitions.
    fn push(
        &self,
        parts: BTreeMap<TopicPartition, Part>,
        offsets: &[CheckedCommit],
        under_way: &Budget,
        written: &mut Written,
    ) -> Result<(), Error> {
        let now = self.core.config.env.clock.now();
        for (id, Part { lane, parts }) in parts {
            let load = Load::Step(self.producer, parts, now);
            let admitted = Some(written.admit(id, &lane, under_way)?);
            let answer = lane.push(load, None, admitted, &self.core.queued)?;
            written.answers.push((id, lane, answer));
        }
        if !offsets.is_empty() {
            let lane = self.core.offsets.lane().clone();
            let admitted = written.admit(OFFSETS_ID, &lane, under_way)?;
            let part_of = Some((self.producer, admitted));
            let (answer, pending) = self.core.offsets.push(&self.core, offsets, part_of)?;
            written.answers.push((OFFSETS_ID, lane, answer));
            written.offsets = Some(pending);
        }
        Ok(())
    }

    fn record(&self, appended: &[StepAppended]) -> StepRecord {
        let StepHeader { group, unit, unit_epoch, sequence, .. } = &self.header;
        StepRecord {
            group: group.clone(),
            unit: unit.clone(),
            unit_epoch: *unit_epoch,
            sequence: *sequence,
            input_checksum: self.input_checksum,
            appended: appended.to_vec(),
        }
    }
}

impl Written {
    fn admit(&mut self, id: TopicPartition, lane: &Lane, under_way: &Budget) -> Result<Admitted, Error> {
        let touched = Touched::new(Arc::clone(&lane.name().topic), lane.clone());
        self.touched.insert(id, Arc::clone(&touched));
        let under_way = under_way.take(1).ok_or_else(|| Error::fault("a step"))?;
        Ok(Admitted { touched, _under_way: under_way })
    }

    /// Waits until everything is written, or has failed; and where it is, by partition, unless something has failed.
    async fn answered(
        self,
        pushed: Result<(), Error>,
    ) -> (AllTouched, Result<BTreeMap<TopicPartition, StepAppended>, Error>) {
        let mut outcome = pushed.map(|()| BTreeMap::new());
        for (id, lane, answer) in self.answers {
            match (written(&lane, answer).await, &mut outcome) {
                (Ok(at), Ok(appends)) => {
                    let append = StepAppended {
                        topic: lane.name().topic.to_string(),
                        partition: id.partition,
                        first_offset: at.first_offset,
                        last_offset: at.last_offset,
                        appended_at: at.appended_at,
                    };
                    appends.insert(id, append);
                }
                (Err(error), Ok(_)) => outcome = Err(error),
                (_, Err(_)) => {}
            }
        }
        (self.touched, outcome)
    }
}

/// The node closes before the step has ended.
fn not_known(header: &StepHeader, error: &Error) -> Error {
    let message = format!(
        "the node stops, and whether step {} of unit {:?} is committed is decided by what is on disk when it starts \
         again: send it again then ({error})",
        header.sequence, header.unit
    );
    Error::new(Reason::OutcomeUnknown, message).because(error.clone())
}
