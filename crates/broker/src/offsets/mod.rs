//! What groups have committed: where each goes on reading in each partition.
//!
//! Every commit is a record of `internal/offsets`; those of a transaction count when it is committed. What is in
//! memory is on disk: a commit is applied when it is durable, in the order of the log. The same log says who has a
//! unit ([`record`](crate::group::record)), so that the order of both is one.
//!
//! Lock order: the order of commits, then the state's lock or a lane's.

mod commit;
mod record;
mod rewrite;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
pub(crate) use commit::CheckedCommit;
pub use commit::{MAX_COMMIT_METADATA_BYTES, OffsetToCommit};
use logmill_log::OpenTransaction;
use logmill_record::Offset;
use parking_lot::Mutex;
pub(crate) use record::{Committed, Key};

use crate::broker::Core;
use crate::budget::Budget;
use crate::error::{Error, OpenError, Reason};
use crate::exec::Receiver;
use crate::group::record::{self as assignments, About};
use crate::group::{AssignmentEpoch, OwnershipRecord, UnitId};
use crate::internal::codec::DecodeError;
use crate::internal::{InternalLog, batch_of, confirmed};
use crate::produce::{Answer, Lane};
use crate::transaction::{Admitted, ProducerEpoch};

/// See the module.
#[derive(Debug)]
pub(crate) struct Offsets {
    log: InternalLog,
    state: Mutex<State>,
    /// The highest epoch of a unit that was forgotten.
    forgotten: Mutex<AssignmentEpoch>,
    /// Commits on their way into the log.
    pending: Arc<Mutex<BTreeMap<Key, PendingCommit>>>,
    /// Changes by an operator that do not count yet, by group.
    rewrites: Mutex<BTreeMap<String, Budget>>,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeMap<String, BTreeMap<(String, u32), Entry>>,
}

/// A commit, and where it is in the log.
#[derive(Debug)]
struct Entry {
    at: Offset,
    committed: Committed,
}

/// The last commit for a partition that is on its way.
#[derive(Debug)]
struct PendingCommit {
    unit_epoch: Option<i32>,
    offset: Offset,
    count: usize,
}

/// Who has what, by group.
pub(crate) type Rows = BTreeMap<String, Vec<OwnershipRecord>>;

impl Offsets {
    pub(crate) fn new(log: InternalLog) -> Self {
        Self {
            log,
            state: Mutex::default(),
            forgotten: Mutex::default(),
            pending: Arc::default(),
            rewrites: Mutex::default(),
        }
    }

    /// Reads back what was committed, and who has what. Of the transactions that no marker has ended yet, those that are
    /// `undone` never will be committed, and all others are. Blocks.
    pub(crate) fn read_all(&self, undone: &[OpenTransaction]) -> Result<Rows, OpenError> {
        let mut state = State::default();
        let mut units = Units::default();
        self.log.read(undone, |stored| {
            if stored.key.starts_with(&assignments::KEY_VERSION.to_be_bytes()) {
                return units.apply(stored.key, stored.value);
            }
            let key = Key::decode(stored.key)?;
            let committed = stored.value.map(Committed::decode).transpose()?;
            state.apply(stored.offset, key, committed);
            Ok(())
        })?;
        *self.state.lock() = state;
        self.forget_up_to(units.forgotten);
        let mut by_group = Rows::new();
        for ((group, _), row) in units.rows {
            by_group.entry(group).or_default().push(row);
        }
        Ok(by_group)
    }

    /// The highest epoch of a unit that was forgotten: what is new begins after it.
    pub(crate) fn forgotten(&self) -> AssignmentEpoch {
        *self.forgotten.lock()
    }

    /// Something of this epoch was forgotten.
    pub(crate) fn forget_up_to(&self, epoch: AssignmentEpoch) {
        let mut forgotten = self.forgotten.lock();
        *forgotten = forgotten.max(epoch);
    }

    pub(crate) fn lane(&self) -> &Lane {
        self.log.lane()
    }

    /// What a group has committed for a partition.
    pub(crate) fn get(&self, group: &str, topic: &str, partition: u32) -> Option<Committed> {
        let state = self.state.lock();
        let entry = state.groups.get(group)?.get(&(topic.to_owned(), partition))?;
        Some(entry.committed.clone())
    }

    /// All that a group has committed, in order.
    pub(crate) fn all_of(&self, group: &str) -> Vec<(Key, Committed)> {
        let state = self.state.lock();
        let Some(of) = state.groups.get(group) else { return Vec::new() };
        let key =
            |topic: &str, partition| Key { group: group.to_owned(), topic: topic.to_owned(), partition };
        of.iter()
            .map(|((topic, partition), entry)| (key(topic, *partition), entry.committed.clone()))
            .collect()
    }

    /// The groups that have committed something, in order.
    pub(crate) fn groups(&self) -> Vec<String> {
        self.state.lock().groups.keys().cloned().collect()
    }

    /// Takes commits of a unit's owner into the log, in the order of the calls; what is returned resolves when they are
    /// on disk and count.
    pub(crate) fn commit(
        &self,
        core: &Arc<Core>,
        commits: Vec<CheckedCommit>,
    ) -> Result<impl Future<Output = Result<(), Error>> + Send + 'static + use<>, Error> {
        let pushed = if commits.is_empty() { None } else { Some(self.push(core, &commits, None)?) };
        let (core, lane) = (Arc::clone(core), self.lane().clone());
        Ok(async move {
            let Some((answer, _pending)) = pushed else { return Ok(()) };
            let at = confirmed(&lane, answer).await?;
            core.offsets.apply(at, commits);
            Ok(())
        })
    }

    /// Takes commits of a unit's owner into the log, also as a part of a transaction of this producer, unless they lie
    /// before some of the same epoch. Others are held against them until what is returned is dropped, which is when they
    /// count or never will.
    pub(crate) fn push(
        &self,
        core: &Core,
        commits: &[CheckedCommit],
        part_of: Option<(ProducerEpoch, Admitted)>,
    ) -> Result<(Receiver<Answer>, PendingCommits), Error> {
        // Held over the push: the order of the log is the order in which they were looked at.
        let mut pending = self.pending.lock();
        for CheckedCommit { key, committed } in commits {
            let before = pending.get(key).filter(|before| before.unit_epoch == committed.unit_epoch);
            if let Some(before) = before.filter(|before| committed.offset < before.offset) {
                return Err(went_back(key, committed.offset, before.offset));
            }
            self.check_forward(key, committed)?;
            // Another topic may have its name by now, for which somebody has committed since.
            if core.catalog.topic(&key.topic)?.id != committed.topic_id {
                return Err(Error::topic_not_found(&key.topic));
            }
        }
        let batches = vec![CheckedCommit::batch(commits, core.config.env.clock.now())];
        let answer = match part_of {
            Some((producer, admitted)) => self.lane().push_internal_of(producer, batches, admitted)?,
            None => self.lane().push_internal(batches)?,
        };
        for CheckedCommit { key, committed } in commits {
            let Committed { offset, unit_epoch, .. } = *committed;
            let entry = pending.entry(key.clone()).or_insert(PendingCommit { unit_epoch, offset, count: 0 });
            (entry.unit_epoch, entry.offset, entry.count) = (unit_epoch, offset, entry.count + 1);
        }
        drop(pending);
        let keys = commits.iter().map(|it| it.key.clone()).collect();
        Ok((answer, PendingCommits { pending: Arc::clone(&self.pending), keys }))
    }

    /// Refuses a commit that lies before one of the same epoch.
    fn check_forward(&self, key: &Key, committed: &Committed) -> Result<(), Error> {
        let state = self.state.lock();
        let place = (key.topic.clone(), key.partition);
        let before = state.groups.get(&key.group).and_then(|of| of.get(&place));
        let of = |it: &Committed| (it.unit_epoch, it.topic_id);
        let before = before.map(|entry| &entry.committed).filter(|before| of(before) == of(committed));
        match before.filter(|before| committed.offset < before.offset) {
            Some(before) => Err(went_back(key, committed.offset, before.offset)),
            None => Ok(()),
        }
    }

    /// Commits whose first record is at `at` of the log are on disk, and count.
    pub(crate) fn apply(&self, at: Offset, commits: Vec<CheckedCommit>) {
        let mut state = self.state.lock();
        for (index, CheckedCommit { key, committed }) in (0..).zip(commits) {
            state.apply(at.saturating_add(index), key, Some(committed));
        }
    }

    /// Takes into the log who has which units of a group, and which are forgotten; what is returned resolves when that
    /// is on disk.
    pub(crate) fn write_units(
        &self,
        core: &Core,
        group: &str,
        rows: &[OwnershipRecord],
        forgotten: &[(UnitId, AssignmentEpoch)],
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let key = |unit: &UnitId| assignments::encode_key(group, unit);
        let rows = rows.iter().map(|row| (key(&row.unit), Some(assignments::encode(row)))).collect();
        let written = self.write_forgotten(core, group, rows, forgotten);
        async move { written.await.map(drop) }
    }

    /// Takes the records into the log, and behind them that these units are forgotten. Resolves with the first offset.
    fn write_forgotten(
        &self,
        core: &Core,
        group: &str,
        mut records: Vec<(Bytes, Option<Bytes>)>,
        forgotten: &[(UnitId, AssignmentEpoch)],
    ) -> impl Future<Output = Result<Offset, Error>> + Send + 'static + use<> {
        records.extend(forgotten.iter().map(|(unit, _)| (assignments::encode_key(group, unit), None)));
        // Held over the push, so that of the epochs in the log the last is the highest.
        let mut highest = self.forgotten.lock();
        if let Some(epoch) = forgotten.iter().map(|(_, epoch)| *epoch).max() {
            *highest = highest.max(epoch);
            let value = assignments::encode_forgotten(*highest);
            records.push((assignments::encode_forgotten_key(), Some(value)));
        }
        let pushed = (!records.is_empty()).then(|| self.push_records(core, &records));
        drop(highest);
        let lane = self.lane().clone();
        async move {
            match pushed {
                Some(pushed) => confirmed(&lane, pushed?).await,
                None => Ok(Offset(0)),
            }
        }
    }

    fn push_records(
        &self,
        core: &Core,
        records: &[(Bytes, Option<Bytes>)],
    ) -> Result<Receiver<Answer>, Error> {
        let records = records.iter().map(|(key, value)| (&key[..], value.as_deref()));
        self.lane().push_internal(vec![batch_of(core.config.env.clock.now(), records)])
    }
}

/// What the log says of units, as it is read.
#[derive(Debug, Default)]
struct Units {
    rows: BTreeMap<(String, UnitId), OwnershipRecord>,
    forgotten: AssignmentEpoch,
}

impl Units {
    fn apply(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), DecodeError> {
        match (assignments::decode_key(key)?, value) {
            (About::Unit(group, unit), Some(value)) => {
                let row = assignments::decode(unit.clone(), value)?;
                self.rows.insert((group, unit), row);
            }
            (About::Unit(group, unit), None) => _ = self.rows.remove(&(group, unit)),
            (About::Forgotten, Some(value)) => self.forgotten = assignments::decode_forgotten(value)?,
            (About::Forgotten, None) => {}
        }
        Ok(())
    }
}

/// Commits that are on their way into the log, or wait for their transaction to end.
#[derive(Debug)]
pub(crate) struct PendingCommits {
    pending: Arc<Mutex<BTreeMap<Key, PendingCommit>>>,
    keys: Vec<Key>,
}

impl Drop for PendingCommits {
    fn drop(&mut self) {
        let mut pending = self.pending.lock();
        for key in &self.keys {
            if let Some(entry) = pending.get_mut(key) {
                entry.count -= 1;
                if entry.count == 0 {
                    pending.remove(key);
                }
            }
        }
    }
}

impl State {
    /// The record at `at` of the log is on disk, and counts unless a later one was applied before it.
    fn apply(&mut self, at: Offset, key: Key, committed: Option<Committed>) {
        let Key { group, topic, partition } = key;
        let place = (topic, partition);
        let of = self.groups.entry(group.clone()).or_default();
        if of.get(&place).is_none_or(|entry| entry.at <= at) {
            match committed {
                Some(committed) => _ = of.insert(place, Entry { at, committed }),
                None => _ = of.remove(&place),
            }
        }
        if of.is_empty() {
            self.groups.remove(&group);
        }
    }
}

fn went_back(key: &Key, offset: Offset, before: Offset) -> Error {
    let Key { group, topic, partition } = key;
    let message = format!(
        "the group {group:?} has committed offset {before} of partition {partition} of topic {topic:?}, and {offset} \
         lies before it: within an assignment a group only goes forward; to go back, stop its members and reset it"
    );
    let error = Error::new(Reason::CommitWentBack, message).with("group", group).with("topic", topic);
    error.with("partition", partition).with("committed_offset", before)
}
