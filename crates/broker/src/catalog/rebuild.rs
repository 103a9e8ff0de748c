//! The list of topics made anew from their directories, for a node whose metadata log is lost or damaged.
//!
//! What the `meta` of each partition says ([`found`](super::found)) is enough for names, numbers of partitions and
//! times of creation. Settings are in the metadata log alone: they are taken from what can be read of it. The
//! new log is written whole beside the old one, then the old one is
//! renamed, then the new one takes its place: a crash in between leaves a directory that a node does not start
//! in, and in which a rebuild can be run again. Nothing is deleted but what an earlier rebuild left unfinished.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use logmill_log::env::Env;
use logmill_log::inspect::{Listing, list};
use logmill_log::{ErrorKind, Log, LogSet, SetOptions};
use logmill_record::{BatchBuilder, NewRecord};
use uuid::Uuid;

use super::directories::{INTERNAL, remove_tree, topic_dir};
use super::found::{Directories, Found};
use super::inspect::TopicList;
use super::layout;
use super::metadata::{self, METADATA};
use super::record::{self, Event, Identity};
use crate::error::OpenError;

/// Where the new log is written.
const NEW: &str = "internal/metadata.new";

/// What the old log is called in [`INTERNAL`] when it is put aside; the directory's open counter follows.
const ASIDE: &str = "metadata.replaced-";

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
    /// What the new list is going to say.
    events: Vec<(Uuid, Event)>,
    skipped: Vec<SkippedDirectory>,
    is_needed: bool,
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
    /// Partitions that are not there, or in whose place is another. The node will say so of each.
    pub missing: Vec<u32>,
    /// Whether its settings could be read in the old list. Else they become the defaults.
    pub has_settings: bool,
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
/// [`InUse`](crate::OpenErrorKind::InUse), [`NotADataDirectory`](crate::OpenErrorKind::NotADataDirectory),
/// [`Damaged`](crate::OpenErrorKind::Damaged) where something else has to be mended first, and those of the file
/// system.
pub fn plan_rebuild(env: &Env, dir: impl AsRef<Path>) -> Result<RebuildPlan, OpenError> {
    let dir = dir.as_ref();
    layout::check(env, dir)?;
    let listing = list(env, dir).map_err(OpenError::from_log)?;
    let old = OldList::read(env, dir, &listing)?;
    let mut directories = Directories::of(dir, &listing);
    let mut chosen = BTreeMap::new();
    let mut topics = std::mem::take(&mut directories.topics);
    // Each of the partitions of the others is told of by itself.
    topics.retain(|id, found| !found.is_nameless() || old.list.topics().contains_key(id));
    for (id, identity) in old.list.topics().iter().filter(|(id, _)| !topics.contains_key(id)) {
        match old.unseen_topic(*id, identity, &listing) {
            Ok(topic) => old.choose(topic, &mut chosen, &mut directories.skipped),
            Err(why) => directories.skip(topic_dir(*id), why),
        }
    }
    for (id, found) in topics {
        match old.topic(id, &found) {
            Ok(topic) => old.choose(topic, &mut chosen, &mut directories.skipped),
            Err(why) => directories.skip(topic_dir(id), why),
        }
    }
    directories.explain_nameless(|id| chosen.values().find(|topic| topic.id == id).map(|it| &it.identity));
    let is_needed = !old.agrees(&chosen);
    // Of those that are being taken away.
    let deleted = old.list.deleted().filter(|id| has_directory(&listing, *id));
    let mut events: Vec<_> = deleted.map(|id| (id, Event::Deleted)).collect();
    events.extend(chosen.values().map(|topic| (topic.id, Event::Is(topic.identity.clone()))));
    Ok(RebuildPlan {
        env: env.clone(),
        dir: dir.to_owned(),
        open_counter: listing.open_counter,
        topics: chosen.values().map(Candidate::rebuilt).collect(),
        events,
        skipped: directories.skipped,
        is_needed,
    })
}

fn has_directory(listing: &Listing, id: Uuid) -> bool {
    listing.logs.iter().any(|log| log.path.starts_with(topic_dir(id)))
}

/// A topic that may come into the new list.
struct Candidate {
    id: Uuid,
    identity: Identity,
    found: Found,
    is_listed: bool,
}

impl Candidate {
    fn rebuilt(&self) -> RebuiltTopic {
        RebuiltTopic {
            name: self.identity.name.clone(),
            id: self.id,
            partition_count: self.identity.partition_count,
            missing: self.found.missing(self.identity.partition_count),
            has_settings: self.is_listed,
        }
    }
}

/// What can be read of the list that there was.
struct OldList {
    list: TopicList,
    /// It says all that it ever said.
    is_whole: bool,
}

impl OldList {
    fn read(env: &Env, dir: &Path, listing: &Listing) -> Result<Self, OpenError> {
        let log = listing.logs.iter().find(|log| TopicList::is_at(&log.path));
        if let Some(Err(error)) = log.map(|log| &log.meta)
            && error.kind() == ErrorKind::NewerFormat
        {
            return Err(OpenError::from_log(error.clone()));
        }
        let list = TopicList::read_or_say_why(env, dir).map_err(OpenError::from_log)?;
        if list.is_there() {
            return Ok(Self { is_whole: list.is_whole(env, dir).map_err(OpenError::from_log)?, list });
        }
        // A rebuild that was cut off may have put it aside, and settings are nowhere else. What an earlier one
        // replaced is too old: topics have been changed since.
        let was_cut_off = env.fs.list(&dir.join(NEW)).is_ok();
        let names = env.fs.list(&dir.join(INTERNAL)).unwrap_or_default().into_iter();
        let aside = names
            .filter(|_| was_cut_off)
            .filter_map(|entry| Some((entry.name.strip_prefix(ASIDE)?.parse::<i32>().ok()?, entry.name)));
        let list = match aside.max() {
            Some((_, name)) => {
                TopicList::read_aside(env, &dir.join(INTERNAL).join(name)).map_err(OpenError::from_log)?
            }
            None => list,
        };
        Ok(Self { is_whole: false, list })
    }

    /// What the topic of a directory is, or why it is none.
    fn topic(&self, id: Uuid, found: &Found) -> Result<Candidate, String> {
        if self.list.deleted().any(|deleted| deleted == id) {
            return Err("its topic was deleted".to_owned());
        }
        let listed = self.list.topics().get(&id);
        let identity = match (listed, found.identity()) {
            (None, Some(identity)) => identity,
            (None, None) => return Err("its creation was cut off, and there are no records in it".to_owned()),
            // That it grew may have been in what was lost.
            (Some(listed), Some(there)) if !self.is_whole => Identity {
                partition_count: listed.partition_count.max(there.partition_count),
                ..listed.clone()
            },
            (Some(listed), _) => listed.clone(),
        };
        Ok(Candidate { id, identity, found: found.clone(), is_listed: listed.is_some() })
    }

    /// A topic of the list of which no partition says anything, or why it is left out.
    fn unseen_topic(&self, id: Uuid, identity: &Identity, listing: &Listing) -> Result<Candidate, String> {
        if self.is_whole || has_directory(listing, id) {
            let identity = identity.clone();
            return Ok(Candidate { id, identity, found: Found::default(), is_listed: true });
        }
        Err(format!("topic {:?} of the old list has no directory: it may have been deleted", identity.name))
    }

    /// Adds a topic, unless there is another one of its name that is rather it.
    fn choose(
        &self,
        topic: Candidate,
        chosen: &mut BTreeMap<String, Candidate>,
        skipped: &mut Vec<SkippedDirectory>,
    ) {
        let name = topic.identity.name.clone();
        let rank = |topic: &Candidate| (self.is_whole && topic.is_listed, topic.identity.created_at);
        let (winner, loser) = match chosen.remove(&name) {
            None => (topic, None),
            Some(other) if rank(&other) >= rank(&topic) => (other, Some(topic)),
            Some(other) => (topic, Some(other)),
        };
        if let Some(loser) = loser {
            let why = format!("topic {name:?} is rather the one in {}", topic_dir(winner.id).display());
            skipped.push(SkippedDirectory { path: topic_dir(loser.id), why });
        }
        chosen.insert(name, winner);
    }

    /// Whether a node would find these topics, and no others, by it.
    fn agrees(&self, chosen: &BTreeMap<String, Candidate>) -> bool {
        let listed = self.list.topics();
        self.is_whole
            && listed.len() == chosen.len()
            && chosen.values().all(|topic| listed.get(&topic.id) == Some(&topic.identity))
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

    /// Whether there is anything to do: the old list cannot be read to its end, or it does not name these topics.
    #[must_use]
    pub const fn is_needed(&self) -> bool {
        self.is_needed
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
                let aside = PathBuf::from(format!("{INTERNAL}/{ASIDE}{}", set.epoch()));
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
        for events in self.events.chunks(BATCH_RECORDS) {
            let mut batch = BatchBuilder::new();
            for (id, event) in events {
                let value = record::encode(event);
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
