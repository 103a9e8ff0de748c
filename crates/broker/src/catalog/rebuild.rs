//! The list of topics made anew from their directories, for a node whose metadata log is lost or damaged.
//!
//! What the `meta` of each partition says is enough for names, numbers of partitions and times of creation;
//! settings are in the metadata log alone. The new log is written whole beside the old one, then the old one is
//! renamed, then the new one takes its place: a crash in between leaves a directory that a node does not start
//! in, and in which a rebuild can be run again. Nothing is deleted but what an earlier rebuild left unfinished.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use logmill_log::env::Env;
use logmill_log::inspect::{LogListing, list};
use logmill_log::{Log, LogSet, SetOptions};
use logmill_record::{BatchBuilder, NewRecord};
use uuid::Uuid;

use super::directories::{self, INTERNAL, TOPICS, is_deleted, remove_tree, topic_dir};
use super::layout;
use super::metadata::{self, METADATA};
use super::record::{self, Event, Identity};
use crate::error::OpenError;

/// Where the new log is written.
const NEW: &str = "internal/metadata.new";

/// Records of one batch.
const BATCH_RECORDS: usize = 1_000;

/// What a rebuild of the list of topics would do.
///
/// ```
/// use logmill_broker::{Broker, Config, plan_rebuild};
/// use logmill_log::env::Env;
///
/// # let dir = tempfile::tempdir()?;
/// # Broker::open(Config { reserve_bytes: 0, ..Config::new(dir.path()) })?.close()?;
/// let plan = plan_rebuild(&Env::real(), dir.path())?;
/// for topic in plan.topics() {
///     println!("{} with {} partitions", topic.name, topic.partition_count);
/// }
/// plan.execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RebuildPlan {
    env: Env,
    dir: PathBuf,
    /// How often the directory had been opened when it was looked at.
    open_counter: Option<u32>,
    topics: Vec<RebuiltTopic>,
    identities: Vec<(Uuid, Identity)>,
    skipped: Vec<SkippedDirectory>,
}

/// A topic that the list will have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuiltTopic {
    /// The name.
    pub name: String,
    /// Its identity, and the name of its directory.
    pub id: Uuid,
    /// How many partitions.
    pub partition_count: u32,
    /// Partitions that are not there, or cannot be told whose they are. The node will say so of each.
    pub missing: Vec<u32>,
}

/// A directory that no topic of the list will own. It stays where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedDirectory {
    /// Where it is, below the data directory.
    pub path: PathBuf,
    /// Why.
    pub why: String,
}

/// Looks at what a rebuild would find, and changes nothing.
///
/// # Errors
/// [`InUse`](crate::OpenErrorKind::InUse), [`NotADataDirectory`](crate::OpenErrorKind::NotADataDirectory), and those of the
/// file system.
pub fn plan_rebuild(env: &Env, dir: impl AsRef<Path>) -> Result<RebuildPlan, OpenError> {
    let dir = dir.as_ref();
    layout::check(env, dir)?;
    let listing = list(env, dir).map_err(OpenError::from_log)?;
    let mut skipped = Vec::new();
    let mut found: BTreeMap<Uuid, Found> = BTreeMap::new();
    for log in &listing.logs {
        match place_of(log) {
            Placed::Partition(id, number, identity) => {
                found.entry(id).or_default().add(number, log, identity);
            }
            Placed::Skipped(why) => skipped.push(SkippedDirectory { path: log.path.clone(), why }),
            Placed::Elsewhere => {}
        }
    }
    let mut by_name: BTreeMap<String, (Uuid, Found, Identity)> = BTreeMap::new();
    for (id, found) in found {
        let mut skip = |id, why| skipped.push(SkippedDirectory { path: topic_dir(id), why });
        let Some(identity) = found.identity() else {
            skip(id, "its creation was cut off, and there are no records in it".to_owned());
            continue;
        };
        let loser = match by_name.get(&identity.name) {
            Some((other, _, there)) if there.created_at >= identity.created_at => Some((id, *other)),
            Some((other, _, _)) => Some((*other, id)),
            None => None,
        };
        if let Some((loser, winner)) = loser {
            let name = &identity.name;
            skip(
                loser,
                format!("topic {name:?} was created again later, in {}", topic_dir(winner).display()),
            );
            if loser == id {
                continue;
            }
        }
        by_name.insert(identity.name.clone(), (id, found, identity));
    }
    let topics = by_name.values().map(|(id, found, identity)| RebuiltTopic {
        name: identity.name.clone(),
        id: *id,
        partition_count: identity.partition_count,
        missing: found.missing(identity.partition_count),
    });
    Ok(RebuildPlan {
        env: env.clone(),
        dir: dir.to_owned(),
        open_counter: listing.open_counter,
        topics: topics.collect(),
        identities: by_name.into_values().map(|(id, _, identity)| (id, identity)).collect(),
        skipped,
    })
}

/// What a log is to the list of topics.
enum Placed {
    Partition(Uuid, u32, Identity),
    /// It lies among the topics and is no partition of one.
    Skipped(String),
    /// It is another log of the node.
    Elsewhere,
}

fn place_of(log: &LogListing) -> Placed {
    if !log.path.starts_with(TOPICS) {
        return Placed::Elsewhere;
    }
    if is_deleted(&log.path) {
        return Placed::Skipped("its topic was deleted".to_owned());
    }
    let Some((id, number)) = directories::place_of(&log.path) else {
        return Placed::Skipped("it has no name that a partition has".to_owned());
    };
    let meta = match &log.meta {
        Ok(meta) => meta,
        Err(error) => return Placed::Skipped(error.to_string()),
    };
    match record::decode_owner(&meta.owner) {
        Ok((owner, partition, identity)) if (owner, partition) == (id, number) => {
            Placed::Partition(id, number, identity)
        }
        Ok(_) => Placed::Skipped("it says that it belongs elsewhere".to_owned()),
        Err(error) => Placed::Skipped(format!("it does not say which topic it belongs to: {error}")),
    }
}

/// What there is of a topic.
#[derive(Default)]
struct Found {
    /// Bytes of records, by partition.
    partitions: BTreeMap<u32, u64>,
    /// By how many partitions the topic had when the partition was made.
    identities: BTreeMap<u32, Identity>,
}

impl Found {
    fn add(&mut self, number: u32, log: &LogListing, identity: Identity) {
        self.partitions.insert(number, log.bytes());
        self.identities.insert(identity.partition_count, identity);
    }

    /// What the topic is. `None` if its creation was cut off: partitions are not there, and no records.
    fn identity(&self) -> Option<Identity> {
        let (mut count, mut identity) = self.identities.last_key_value()?;
        // A growth that was cut off is taken back.
        while let Some((fewer, before)) = self.identities.range(..count).next_back() {
            let added = *fewer..*count;
            let whole = added.clone().all(|number| self.partitions.contains_key(&number));
            if whole || self.partitions.range(added).any(|(_, bytes)| *bytes > 0) {
                break;
            }
            (count, identity) = (fewer, before);
        }
        let cut_off = !self.missing(*count).is_empty() && self.partitions.values().all(|bytes| *bytes == 0);
        (!cut_off).then(|| identity.clone())
    }

    fn missing(&self, count: u32) -> Vec<u32> {
        (0..count).filter(|number| !self.partitions.contains_key(number)).collect()
    }
}

impl RebuildPlan {
    /// The topics that the list will have, by name.
    #[must_use]
    pub fn topics(&self) -> &[RebuiltTopic] {
        &self.topics
    }

    /// What lies among the topics and will be in none of them.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedDirectory] {
        &self.skipped
    }

    /// Does it. The log that was there is kept beside the new one; returns where, below the data directory.
    ///
    /// # Errors
    /// [`InUse`](crate::OpenErrorKind::InUse), also if the directory was in use since the plan was made; and those of
    /// the file system, after which it can be tried again.
    pub fn execute(self) -> Result<Option<PathBuf>, OpenError> {
        let set = LogSet::open(&self.dir, SetOptions::new(self.env.clone())).map_err(OpenError::from_log)?;
        let expected = self.open_counter.and_then(|counter| i32::try_from(counter).ok());
        if expected.and_then(|counter| counter.checked_add(1)) != Some(set.epoch()) {
            return Err(OpenError::changed_meanwhile(&self.dir));
        }
        let fs = &*self.env.fs;
        let root = set.dir().to_owned();
        let io = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |error| OpenError::io(what, &path, error)
        };
        let new = root.join(NEW);
        remove_tree(fs, &new, &|| false).map_err(io("remove", &new))?;
        let log = set.create(NEW, b"", metadata::options()).map_err(OpenError::from_log)?;
        self.write(&log).map_err(OpenError::from_log)?;
        log.close().map_err(OpenError::from_log)?;

        let internal = root.join(INTERNAL);
        fs.sync_dir(&root).and_then(|()| fs.sync_dir(&internal)).map_err(io("sync", &internal))?;
        let old = root.join(METADATA);
        let replaced = match fs.list(&old) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(OpenError::io("list", &old, error)),
            Ok(_) => {
                let aside = PathBuf::from(format!("{METADATA}.replaced-{}", set.epoch()));
                fs.rename(&old, &root.join(&aside))
                    .and_then(|()| fs.sync_dir(&internal))
                    .map_err(io("rename", &old))?;
                Some(aside)
            }
        };
        fs.rename(&new, &old).and_then(|()| fs.sync_dir(&internal)).map_err(io("rename", &new))?;
        set.close().map_err(OpenError::from_log)?;
        Ok(replaced)
    }

    fn write(&self, log: &Log) -> Result<(), logmill_log::Error> {
        let now = self.env.clock.now();
        for identities in self.identities.chunks(BATCH_RECORDS) {
            let mut batch = BatchBuilder::new();
            for (id, identity) in identities {
                let value = record::encode(&Event::Is(identity.clone()));
                let key = Some(&id.as_bytes()[..]);
                let record = NewRecord { timestamp: now, key, value: value.as_deref(), headers: &[] };
                batch.push(&record).expect("a thousand records of a few hundred bytes fit a batch");
            }
            let batch = batch.build().expect("no chunk is empty");
            log.append(&[batch])?.wait()?;
        }
        Ok(())
    }
}
