//! Reading back what there is: the metadata log against the directories, and all partitions opened.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use logmill_log::env::Work;
use logmill_log::{ErrorKind, Log, LogOptions, LogSet};
use uuid::Uuid;

use super::delete::Leftover;
use super::directories::{Named, TOPICS, classify, deleted_dir, holds_data, partition_dir, topic_dir};
use super::metadata::{LastEvents, MetadataLog};
use super::progress::Opening;
use super::record::{self, Event, Identity};
use super::report::{FailedPartition, OpenReport, UnknownDirectory};
use super::state::{Catalog, Partition, TopicState};
use crate::config::Config;
use crate::error::{Error, OpenError, PartitionName};
use crate::exec::run_all;
use crate::produce::Lane;
use crate::topic::{Setting, Topic};

/// How many partitions are opened at once.
const OPEN_AT_ONCE: usize = 16;

/// What a data directory holds.
pub(crate) struct Loaded {
    pub(crate) catalog: Catalog,
    pub(crate) metadata: MetadataLog,
    pub(crate) report: OpenReport,
    /// What is to be taken away, now that the node runs.
    pub(crate) leftovers: Vec<Leftover>,
}

/// Reads the metadata, opens every partition, and finds what is left of topics that are gone.
pub(crate) fn load(config: &Config, set: &LogSet, opening: &Arc<Opening>) -> Result<Loaded, OpenError> {
    let (metadata, events) = MetadataLog::open(set)?;
    let mut report = OpenReport::default();
    let leftovers = find_leftovers(set, &events, &mut report)?;
    report.removing = leftovers.len();

    let catalog = Catalog::default();
    for topic in open_topics(config, set, events, opening) {
        report.topics += 1;
        report.partitions += topic.partitions.len();
        report.failed.extend(topic.partitions.iter().filter_map(failure));
        catalog.insert(topic).map_err(|topic| OpenError::metadata_twice(set.dir(), &topic.topic.name))?;
    }
    for failed in &report.failed {
        tracing::error!(topic = failed.topic, partition = failed.partition, error = %failed.error, "a partition failed");
    }
    Ok(Loaded { catalog, metadata, report, leftovers })
}

fn failure(partition: &Partition) -> Option<FailedPartition> {
    let name = partition.name();
    let error = partition.info().error?;
    Some(FailedPartition { topic: name.topic.to_string(), partition: name.partition, error })
}

/// Compares what lies in `topics` with what the metadata says of it.
fn find_leftovers(
    set: &LogSet,
    events: &LastEvents,
    report: &mut OpenReport,
) -> Result<Vec<Leftover>, OpenError> {
    let fs = &*set.env().fs;
    let topics = set.dir().join(TOPICS);
    let entries = match fs.list(&topics) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            fs.create_dir(&topics).map_err(|error| OpenError::io("create", &topics, error))?;
            Vec::new()
        }
        Err(error) => return Err(OpenError::io("list", &topics, error)),
    };
    // Also where a node that was killed here before had made it and not synced it.
    fs.sync_dir(set.dir()).map_err(|error| OpenError::io("sync", set.dir(), error))?;

    let mut leftovers: BTreeMap<Uuid, Leftover> = events
        .iter()
        .filter(|(_, event)| **event == Event::Deleted)
        .map(|(id, _)| (*id, Leftover { id: *id, dirs: Vec::new(), recorded: true }))
        .collect();
    for entry in entries {
        let named = classify(&entry.name);
        let (Named::Topic(id) | Named::Deleted(id)) = named else {
            report.note_unknown(topics.join(&entry.name), None);
            continue;
        };
        let dir = if named == Named::Topic(id) { topic_dir(id) } else { deleted_dir(id) };
        let keep = match events.get(&id) {
            // Never taken away, whatever it is called.
            Some(Event::Created(_)) if named == Named::Topic(id) => continue,
            Some(Event::Created(_)) => true,
            Some(Event::Deleted | Event::Gone) => false,
            // Its creation was cut off before it was recorded, unless there are records in it.
            None if named == Named::Topic(id) => {
                let path = set.dir().join(&dir);
                holds_data(fs, &path).map_err(|error| OpenError::io("read", &path, error))?
            }
            None => false,
        };
        if keep {
            report.note_unknown(set.dir().join(&dir), owner(set, id));
        } else {
            let leftover = Leftover { id, dirs: Vec::new(), recorded: false };
            leftovers.entry(id).or_insert(leftover).dirs.push(dir);
        }
    }
    Ok(leftovers.into_values().collect())
}

/// The name of the topic that a directory nobody knows belonged to, from its first partition.
fn owner(set: &LogSet, id: Uuid) -> Option<String> {
    let meta = set.read_meta(partition_dir(id, 0)).ok()?;
    let (_, _, identity) = record::decode_owner(&meta.owner).ok()?;
    Some(identity.name)
}

impl OpenReport {
    fn note_unknown(&mut self, path: PathBuf, topic: Option<String>) {
        tracing::warn!(path = %path.display(), topic, "no topic owns this; it is left as it is");
        self.unknown.push(UnknownDirectory { path, topic });
    }
}

/// Opens every partition of every topic that exists, many at a time.
fn open_topics(
    config: &Config,
    set: &LogSet,
    events: LastEvents,
    opening: &Arc<Opening>,
) -> Vec<Arc<TopicState>> {
    let mut topics = Vec::new();
    let mut jobs = Vec::new();
    for (id, event) in events {
        let Event::Created(identity) = event else { continue };
        let name: Arc<str> = identity.name.as_str().into();
        let identity = Arc::new(identity);
        jobs.extend((0..identity.partition_count).map(|partition| {
            (id, PartitionName { topic: Arc::clone(&name), partition }, Arc::clone(&identity))
        }));
        topics.push((id, identity));
    }
    let names: Vec<PartitionName> = jobs.iter().map(|(_, name, _)| name.clone()).collect();
    let opener = Opener { config: config.clone(), set: set.clone() };
    opening.begin(names.len());
    let hears = Arc::clone(opening);
    let open = move |(id, name, identity): (Uuid, PartitionName, Arc<Identity>)| {
        let partition = opener.open(id, name, &identity);
        hears.opened();
        partition
    };
    let scheduler = &*config.env.scheduler;
    let opened = run_all(scheduler, Work::Read, OPEN_AT_ONCE, jobs, open);
    let mut opened = opened.into_iter().zip(names).map(|(partition, name)| {
        partition.unwrap_or_else(|| Partition::failed(name, Error::fault("the opening of a partition")))
    });
    let settings = config.topic_settings();
    let state = |(id, identity): (Uuid, Arc<Identity>)| {
        let partitions = opened.by_ref().take(identity.partition_count as usize).collect();
        TopicState::new(identity.topic(id, settings.clone()), partitions)
    };
    topics.into_iter().map(state).collect()
}

impl Identity {
    pub(super) fn topic(&self, id: Uuid, settings: Vec<Setting>) -> Topic {
        Topic {
            name: self.name.clone(),
            id,
            partition_count: self.partition_count,
            created_at: self.created_at,
            settings,
            internal: self.internal,
        }
    }
}

/// Opens or creates the logs of partitions.
pub(super) struct Opener {
    pub(super) config: Config,
    pub(super) set: LogSet,
}

impl Opener {
    /// A partition that the metadata knows. Its directory is never made anew.
    fn open(&self, id: Uuid, name: PartitionName, identity: &Identity) -> Partition {
        match self.try_open(id, &name, identity) {
            Ok(log) => self.serve(name, log),
            Err(error) => Partition::failed(name, error),
        }
    }

    fn try_open(&self, id: Uuid, name: &PartitionName, identity: &Identity) -> Result<Log, Error> {
        let path = partition_dir(id, name.partition);
        let explain = |error: logmill_log::Error| match error.kind() {
            ErrorKind::NotFound => name.missing(&self.set.dir().join(&path), error),
            _ => name.failed(&error),
        };
        let meta = self.set.read_meta(&path).map_err(explain)?;
        let belongs = record::decode_owner(&meta.owner);
        if belongs.as_ref() != Ok(&(id, name.partition, identity.clone())) {
            return Err(name.misplaced(&self.set.dir().join(&path)));
        }
        self.set.open_log(&path, self.options()).map_err(explain)
    }

    pub(super) fn create(
        &self,
        id: Uuid,
        partition: u32,
        identity: &Identity,
    ) -> Result<Log, logmill_log::Error> {
        let owner = record::encode_owner(id, partition, identity);
        self.set.create(partition_dir(id, partition), &owner, self.options())
    }

    pub(super) fn serve(&self, name: PartitionName, log: Log) -> Partition {
        let Config { env, max_message_bytes, limits, .. } = &self.config;
        let lane = Lane::new(
            name.clone(),
            log.clone(),
            Arc::clone(&env.scheduler),
            *max_message_bytes,
            limits.max_partition_queued_bytes,
        );
        Partition::open(name, log, lane)
    }

    fn options(&self) -> LogOptions {
        LogOptions::default().segment_bytes(self.config.segment_bytes)
    }
}
