//! Topics and partitions as the running node knows them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};

use logmill_log::{Log, LogState};
use logmill_record::{Offset, TimestampMs};
use parking_lot::RwLock;
use uuid::Uuid;

use super::delete_records::Deletions;
use super::record::Identity;
use crate::broker::Core;
use crate::config::Config;
use crate::error::{Error, PartitionName, Reason};
use crate::exec::Turns;
use crate::limits::Limit;
use crate::produce::Lane;
use crate::settings::{Effective, Rules};
use crate::topic::{PartitionInfo, Topic};

/// The topics that exist, by name. Only what is durable is in it.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    topics: RwLock<BTreeMap<String, Arc<TopicState>>>,
    /// Their names, by id.
    names: RwLock<BTreeMap<Uuid, String>>,
}

/// A topic as it is at one time. When it changes another takes its place, with the same partitions.
#[derive(Debug)]
pub(crate) struct TopicState {
    pub(crate) id: Uuid,
    pub(crate) identity: Identity,
    /// What is asked of records, as it follows from the settings.
    pub(crate) rules: Arc<Rules>,
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// Whose turn it is to take records without a key.
    pub(crate) next_keyless: AtomicU32,
}

/// A partition, or why it could not be opened.
#[derive(Debug)]
pub(crate) struct Partition {
    name: PartitionName,
    open: Result<Lane, Error>,
    /// Reads that may block, so many at once.
    reads: Turns,
    /// Deletions of records; there are none of most partitions.
    deletions: OnceLock<Deletions>,
}

impl Catalog {
    /// The topic of that name.
    pub(crate) fn topic(&self, name: &str) -> Result<Arc<TopicState>, Error> {
        self.topics.read().get(name).map(Arc::clone).ok_or_else(|| Error::topic_not_found(name))
    }

    /// The name of the topic with this id.
    pub(crate) fn name_of(&self, id: Uuid) -> Option<String> {
        self.names.read().get(&id).cloned()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.topics.read().contains_key(name)
    }

    /// Adds a topic. Gives it back if there is one of that name.
    pub(super) fn insert(&self, topic: Arc<TopicState>) -> Result<(), Arc<TopicState>> {
        match self.topics.write().entry(topic.identity.name.clone()) {
            Entry::Occupied(_) => Err(topic),
            Entry::Vacant(place) => {
                self.names.write().insert(topic.id, topic.identity.name.clone());
                place.insert(topic);
                Ok(())
            }
        }
    }

    /// Puts what a topic has become in the place of what it was.
    pub(super) fn replace(&self, topic: Arc<TopicState>) {
        if let Some(place) = self.topics.write().get_mut(&topic.identity.name)
            && place.id == topic.id
        {
            *place = topic;
        }
    }

    /// Takes the topic out if it is still the one with this id.
    pub(super) fn remove(&self, name: &str, id: Uuid) {
        let mut topics = self.topics.write();
        if topics.get(name).is_some_and(|topic| topic.id == id) {
            topics.remove(name);
            self.names.write().remove(&id);
        }
    }

    /// At most `most` topics whose names come after `after`, in order.
    pub(super) fn page(&self, after: Option<&str>, most: usize, internal: bool) -> Vec<Arc<TopicState>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let topics = self.topics.read();
        let shown = topics.range::<str, _>((from, Bound::Unbounded)).map(|(_, topic)| topic);
        shown.filter(|topic| internal || !topic.identity.internal).take(most).map(Arc::clone).collect()
    }

    /// How many topics there are, and how many partitions of all of them together.
    pub(crate) fn count(&self) -> (usize, usize) {
        let topics = self.topics.read();
        (topics.len(), topics.values().map(|topic| topic.partitions.len()).sum())
    }

    /// All topics, in order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<TopicState>> {
        self.topics.read().values().map(Arc::clone).collect()
    }
}

impl TopicState {
    pub(super) fn new(
        id: Uuid,
        identity: Identity,
        rules: Arc<Rules>,
        partitions: Vec<Arc<Partition>>,
    ) -> Arc<Self> {
        Arc::new(Self { id, identity, rules, partitions, next_keyless: AtomicU32::new(0) })
    }

    /// What it looks like from outside. Settings of the node count as it has them now.
    pub(super) fn describe(&self, config: &Config) -> Topic {
        let Identity { name, partition_count, internal, created_at, settings } = &self.identity;
        Topic {
            name: name.clone(),
            id: self.id,
            partition_count: *partition_count,
            created_at: *created_at,
            settings: Effective::described(config, settings),
            internal: *internal,
        }
    }

    pub(crate) fn partition(&self, partition: u32) -> Result<&Partition, Error> {
        self.find(partition).map(|partition| &**partition)
    }

    /// The partition, to be kept.
    pub(super) fn share(&self, partition: u32) -> Result<Arc<Partition>, Error> {
        self.find(partition).map(Arc::clone)
    }

    fn find(&self, partition: u32) -> Result<&Arc<Partition>, Error> {
        let found = usize::try_from(partition).ok().and_then(|index| self.partitions.get(index));
        found.ok_or_else(|| {
            Error::partition_not_found(&self.identity.name, partition, self.identity.partition_count)
        })
    }
}

/// A partition's offsets, as readers see them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OffsetRange {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    /// Where the first transaction that has not ended begins.
    pub(crate) last_stable: Offset,
}

impl Partition {
    /// Where it is open, with the turns of those who read it.
    pub(super) fn new(name: PartitionName, open: Result<Lane, Error>, reads: Turns) -> Self {
        Self { name, open, reads, deletions: OnceLock::new() }
    }

    pub(crate) fn name(&self) -> &PartitionName {
        &self.name
    }

    /// Its log as it is now: another takes its place when it is opened again.
    pub(crate) fn log(&self) -> Result<Log, Error> {
        self.lane().map(Lane::log)
    }

    pub(crate) fn lane(&self) -> Result<&Lane, Error> {
        self.open.as_ref().map_err(Clone::clone)
    }

    /// The turns of those who read from its files.
    pub(crate) fn reads(&self) -> &Turns {
        &self.reads
    }

    /// Why somebody's turn to read did not come.
    pub(crate) fn too_many_reads(&self) -> Error {
        let doing = format!("another read of {} at the same time", self.name);
        let advice = "the disk does not answer the others; try again, and look at the disk if it stays so";
        self.name.named(Error::limit(Limit::MaxPartitionReads, self.reads.at_once(), &doing, advice))
    }

    /// Why nobody waits any longer for a search by time.
    pub(crate) fn search_takes_long(&self) -> Error {
        let message = format!(
            "a search by time in {} takes long: try again, and look at the disk if it stays so",
            self.name
        );
        self.name.named(Error::new(Reason::IoFailed, message))
    }

    /// Its deletions of records.
    pub(super) fn deletions(&self, core: &Core) -> &Deletions {
        self.deletions.get_or_init(|| Deletions::new(core))
    }

    /// What `error` of the partition's log means to a caller.
    pub(crate) fn explain(&self, error: &logmill_log::Error) -> Error {
        match &self.open {
            Ok(lane) => lane.explain(error),
            Err(_) => self.name.explain(error),
        }
    }

    /// Whether it can be written, as far as is known without trying.
    pub(crate) fn takes_records(&self) -> bool {
        self.open.as_ref().is_ok_and(Lane::takes_records)
    }

    /// When the record at an offset was appended, if it is there and can be read. Blocks.
    pub(crate) fn appended_at(&self, offset: Offset) -> Option<TimestampMs> {
        let read = self.log().ok()?.read(offset, 1).ok()?;
        read.chunks.first().map(|chunk| chunk.appended_at)
    }

    /// Waits for nothing.
    pub(crate) fn range(&self) -> OffsetRange {
        let range = |log: Log| {
            let (start, end) = (log.start_offset(), log.end_offset());
            // An append may come between the looks.
            OffsetRange { start, end, last_stable: log.last_stable_offset().min(end) }
        };
        self.log().map_or_else(|_| OffsetRange::default(), range)
    }

    /// How it stands. Waits for nothing.
    pub(crate) fn info(&self) -> PartitionInfo {
        let partition = self.name.partition;
        match &self.open {
            Err(error) => PartitionInfo {
                partition,
                start_offset: Offset::ZERO,
                end_offset: Offset::ZERO,
                stored_bytes: 0,
                segment_count: 0,
                leader_epoch: -1,
                error: Some(error.clone()),
            },
            Ok(lane) => {
                let stats = lane.log().stats();
                let refused = || lane.refusal().or_else(|| lane.reopening());
                let error = match &stats.state {
                    LogState::Open => refused(),
                    LogState::ReadOnly(error) => Some(self.name.failed(error)),
                    LogState::Poisoned(error) => Some(refused().unwrap_or_else(|| self.name.failed(error))),
                    _ => Some(refused().unwrap_or_else(Error::closing)),
                };
                PartitionInfo {
                    partition,
                    start_offset: stats.start_offset,
                    end_offset: stats.end_offset,
                    stored_bytes: stats.stored_bytes,
                    segment_count: u32::try_from(stats.segments).unwrap_or(u32::MAX),
                    leader_epoch: stats.epoch,
                    error,
                }
            }
        }
    }
}
