//! Reading back what there is: the metadata log against the directories, and all partitions opened.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_log::env::{Entry, Work};
use logmill_log::{ErrorKind, Log, LogOptions, LogSet};
use uuid::Uuid;

use super::delete::Leftover;
use super::directories::{
    Named, TOPICS, classify, deleted_dir, holds_data, partition_dir, remove_tree, topic_dir,
};
use super::metadata::{LastEvents, MetadataLog};
use super::progress::Opening;
use super::record::{self, Event, Identity};
use super::report::{FailedPartition, OpenReport, UnknownDirectory};
use super::state::{Catalog, Partition, TopicState};
use crate::config::Config;
use crate::error::{Error, OpenError, PartitionName};
use crate::exec::{Turns, run_all};
use crate::limits::{Bounds, Limit};
use crate::produce::Lane;
use crate::settings::{Effective, Rules};

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
pub(crate) fn load(
    config: &Config,
    bounds: &Arc<Bounds>,
    set: &LogSet,
    opening: &Arc<Opening>,
) -> Result<Loaded, OpenError> {
    let (metadata, events) = MetadataLog::open(set)?;
    let mut report = OpenReport::default();
    let leftovers = find_leftovers(set, &events, &mut report)?;
    report.removing = leftovers.len();

    let catalog = Catalog::default();
    for topic in open_topics(config, bounds, set, events, opening) {
        report.topics += 1;
        report.partitions += topic.partitions.len();
        report.failed.extend(topic.partitions.iter().filter_map(|partition| failure(partition)));
        catalog.insert(topic).map_err(|topic| OpenError::metadata_twice(set.dir(), &topic.identity.name))?;
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
    let mut leftovers: BTreeMap<Uuid, Leftover> = events
        .iter()
        .filter(|(_, event)| **event == Event::Deleted)
        .map(|(id, _)| (*id, Leftover { id: *id, dirs: Vec::new(), recorded: true }))
        .collect();
    for entry in list_topics_dir(set)? {
        let named = classify(&entry.name);
        let (id, dir) = match named {
            Named::Topic(id) => (id, topic_dir(id)),
            Named::Deleted(id) => (id, deleted_dir(id)),
            Named::Other => {
                report.note_unknown(set.dir().join(TOPICS).join(&entry.name), None);
                continue;
            }
        };
        match (events.get(&id), named) {
            (Some(Event::Is(identity)), Named::Topic(_)) => {
                remove_partitions_beyond(set, id, identity, report)?;
            }
            (event, _) if keeps(set, &dir, event, named)? => {
                report.note_unknown(set.dir().join(&dir), owner(set, id));
            }
            (event, _) => {
                if event.is_none() {
                    let (path, topic) = (set.dir().join(&dir), owner(set, id));
                    tracing::warn!(path = %path.display(), topic, "no topic owns this, and no records are in it: it is removed");
                }
                let leftover = Leftover { id, dirs: Vec::new(), recorded: false };
                leftovers.entry(id).or_insert(leftover).dirs.push(dir);
            }
        }
    }
    Ok(leftovers.into_values().collect())
}

/// What lies in `topics`, which is made if it is not there.
fn list_topics_dir(set: &LogSet) -> Result<Vec<Entry>, OpenError> {
    let fs = &*set.env().fs;
    let topics = set.dir().join(TOPICS);
    let entries = match fs.list(&topics) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs.create_dir(&topics).map_err(|error| OpenError::io("create", &topics, error))?;
            Vec::new()
        }
        Err(error) => return Err(OpenError::io("list", &topics, error)),
    };
    // Also where a node that was killed here before had made it and not synced it.
    fs.sync_dir(set.dir()).map_err(|error| OpenError::io("sync", set.dir(), error))?;
    Ok(entries)
}

/// Whether a directory that is not that of a topic which exists stays where it is.
fn keeps(set: &LogSet, dir: &Path, event: Option<&Event>, named: Named) -> Result<bool, OpenError> {
    match (event, named) {
        // Never taken away, whatever it is called.
        (Some(Event::Is(_)), _) => Ok(true),
        // Its creation was cut off before it was recorded, unless there are records in it.
        (None, Named::Topic(_)) => {
            let path = set.dir().join(dir);
            holds_data(&*set.env().fs, &path).map_err(|error| OpenError::io("read", &path, error))
        }
        _ => Ok(false),
    }
}

/// The name of the topic that a directory nobody knows belonged to, from its first partition.
fn owner(set: &LogSet, id: Uuid) -> Option<String> {
    let meta = set.read_meta(partition_dir(id, 0)).ok()?;
    let (_, _, identity) = record::decode_owner(&meta.owner).ok()?;
    Some(identity.name)
}

/// Removes what is left of partitions that a topic was to get and has not got, unless there are records in it.
fn remove_partitions_beyond(
    set: &LogSet,
    id: Uuid,
    identity: &Identity,
    report: &mut OpenReport,
) -> Result<(), OpenError> {
    let fs = &*set.env().fs;
    let dir = set.dir().join(topic_dir(id));
    let entries = match fs.list(&dir) {
        Ok(entries) => entries,
        // Each of its partitions is going to say so.
        Err(_) => return Ok(()),
    };
    let beyond = |name: &str| {
        let number = name.parse::<u32>().ok().filter(|number| number.to_string() == name);
        number.is_some_and(|number| number >= identity.partition_count)
    };
    for entry in entries.iter().filter(|entry| entry.is_dir && beyond(&entry.name)) {
        let path = dir.join(&entry.name);
        if holds_data(fs, &path).map_err(|error| OpenError::io("read", &path, error))? {
            report.note_unknown(path, Some(identity.name.clone()));
        } else {
            remove_tree(fs, &path, &|| false)
                .and_then(|_| fs.sync_dir(&dir))
                .map_err(|error| OpenError::io("remove", &path, error))?;
        }
    }
    Ok(())
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
    bounds: &Arc<Bounds>,
    set: &LogSet,
    events: LastEvents,
    opening: &Arc<Opening>,
) -> Vec<Arc<TopicState>> {
    let mut topics = Vec::new();
    let mut jobs = Vec::new();
    for (id, event) in events {
        let Event::Is(identity) = event else { continue };
        let name: Arc<str> = identity.name.as_str().into();
        let plan = Arc::new(Plan::new(config, id, identity));
        jobs.extend(
            (0..plan.identity.partition_count)
                .map(|partition| (PartitionName { topic: Arc::clone(&name), partition }, Arc::clone(&plan))),
        );
        topics.push(plan);
    }
    let names: Vec<PartitionName> = jobs.iter().map(|(name, _)| name.clone()).collect();
    let opener = Opener { set: set.clone(), bounds: Arc::clone(bounds) };
    opening.begin(names.len());
    let hears = Arc::clone(opening);
    let open = move |(name, plan): (PartitionName, Arc<Plan>)| {
        let partition = opener.open(name, &plan);
        hears.opened();
        partition
    };
    let scheduler = &*config.env.scheduler;
    let opened = run_all(scheduler, Work::Read, OPEN_AT_ONCE, jobs, open);
    let mut opened = opened.into_iter().zip(names).map(|(partition, name)| {
        partition.unwrap_or_else(|| {
            let reads = bounds.turns(Limit::MaxPartitionReads);
            Partition::new(name, Err(Error::fault("the opening of a partition")), reads)
        })
    });
    let state = |plan: Arc<Plan>| {
        let partitions = opened.by_ref().take(plan.identity.partition_count as usize).map(Arc::new);
        plan.state(partitions.collect())
    };
    topics.into_iter().map(state).collect()
}

/// What a topic is, and what follows from it for its partitions.
pub(super) struct Plan {
    pub(super) id: Uuid,
    pub(super) identity: Identity,
    pub(super) options: LogOptions,
    pub(super) rules: Arc<Rules>,
}

impl Plan {
    pub(super) fn new(config: &Config, id: Uuid, identity: Identity) -> Self {
        let effective = Effective::new(config, &identity.settings);
        let options = effective.log_options().producer_expiry(config.producer_id_expiration);
        Self { id, identity, options, rules: Arc::new(effective.rules()) }
    }

    /// The topic, with these partitions.
    pub(super) fn state(&self, partitions: Vec<Arc<Partition>>) -> Arc<TopicState> {
        TopicState::new(self.id, self.identity.clone(), Arc::clone(&self.rules), partitions)
    }
}

/// Opens or creates the logs of partitions.
pub(super) struct Opener {
    pub(super) set: LogSet,
    pub(super) bounds: Arc<Bounds>,
}

impl Opener {
    /// A partition that the metadata knows. Its directory is never made anew.
    fn open(&self, name: PartitionName, plan: &Plan) -> Partition {
        match self.try_open(&name, plan) {
            Ok(log) => self.serve(name, log, plan),
            Err(error) => Partition::new(name, Err(error), self.reads()),
        }
    }

    fn try_open(&self, name: &PartitionName, plan: &Plan) -> Result<Log, Error> {
        let path = partition_dir(plan.id, name.partition);
        let explain = |error: logmill_log::Error| match error.kind() {
            ErrorKind::NotFound => name.missing(&self.set.dir().join(&path), error),
            _ => name.failed(&error),
        };
        let meta = self.set.read_meta(&path).map_err(explain)?;
        // How many partitions there were when this one was made does not matter: there may be more now.
        let belongs = record::decode_owner(&meta.owner).is_ok_and(|(id, partition, owner)| {
            (id, partition, owner.name) == (plan.id, name.partition, plan.identity.name.clone())
        });
        if !belongs {
            return Err(name.misplaced(&self.set.dir().join(&path)));
        }
        self.set.open_log(&path, plan.options).map_err(explain)
    }

    pub(super) fn create(&self, partition: u32, plan: &Plan) -> Result<Log, logmill_log::Error> {
        let owner = record::encode_owner(plan.id, partition, &plan.identity);
        self.set.create(partition_dir(plan.id, partition), &owner, plan.options)
    }

    fn reads(&self) -> Turns {
        self.bounds.turns(Limit::MaxPartitionReads)
    }

    pub(super) fn serve(&self, name: PartitionName, log: Log, plan: &Plan) -> Partition {
        let scheduler = Arc::clone(&self.set.env().scheduler);
        let queued = self.bounds.budget(Limit::MaxPartitionQueuedBytes);
        let (rules, reopenings) = (Arc::clone(&plan.rules), self.bounds.reopenings.clone());
        let lane = Lane::new(name.clone(), log, scheduler, rules, plan.options, queued, reopenings);
        Partition::new(name, Ok(lane), self.reads())
    }
}
