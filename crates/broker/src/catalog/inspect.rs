//! The list of topics of a node that does not run, and whether the directories are those that it names.
//!
//! The log crate sees whether bytes are what was written. What it cannot see is a partition whose directory is
//! gone, or stands in the place of another one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use logmill_log::env::Env;
use logmill_log::inspect::{
    DumpOptions, Dumped, Finding, FindingKind, LogReport, Report, Severity, dump, verify_log,
};
use logmill_log::{Error, ErrorKind};
use logmill_record::Batch;
use uuid::Uuid;

use super::directories::{TOPICS, is_deleted, partition_dir, place_of};
use super::layout::{CHECKPOINT, lost_logs};
use super::metadata::METADATA;
use super::record::{self, Event, Identity};
use crate::error::{RESTORE, lost_text};

/// The topics that the metadata log of a data directory names, as far as it can be read.
///
/// ```
/// use logmill_broker::{Broker, Config, TopicList};
/// use logmill_log::env::Env;
/// use logmill_log::inspect::verify;
///
/// # let dir = tempfile::tempdir()?;
/// # Broker::open(Config { reserve_bytes: 0, ..Config::new(dir.path()) })?.close()?;
/// let report = verify(&Env::real(), dir.path(), &mut |_| ())?;
/// let topics = TopicList::read(&Env::real(), dir.path())?;
/// for misplaced in topics.check(&report) {
///     println!("{}: {}; {}", misplaced.path.display(), misplaced.what, misplaced.advice);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct TopicList {
    topics: BTreeMap<Uuid, Identity>,
    /// Those that are gone or about to be.
    deleted: BTreeSet<Uuid>,
    /// Whether there is a metadata log at all.
    is_there: bool,
    /// Whether there is a checkpoint, which says what logs there were.
    has_checkpoint: bool,
    /// Whether parts of it could not be read.
    is_damaged: bool,
    /// Whether nothing of it could be: a newer version wrote it, or this user may not read it.
    is_unread: bool,
}

/// A partition that is not where the list of topics has it, or something else that is in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Misplaced {
    /// The directory, below the data directory.
    pub path: PathBuf,
    /// What is the matter.
    pub what: String,
    /// What can be done about it.
    pub advice: String,
}

impl TopicList {
    /// Reads the list of the data directory `dir`, which nobody may have open. It is empty without a metadata
    /// log, and where `dir` cannot be listed, which `verify` and `plan_repair` report; what is damaged in it is
    /// passed over.
    ///
    /// # Errors
    /// As [`dump`].
    pub fn read(env: &Env, dir: impl AsRef<Path>) -> Result<Self, Error> {
        match Self::read_or_say_why(env, dir.as_ref()) {
            // Whoever looks at the logs names it.
            Err(error) if matches!(error.kind(), ErrorKind::NewerFormat | ErrorKind::Denied) => {
                Ok(Self { is_unread: true, ..Self::default() })
            }
            read => read,
        }
    }

    /// As [`read`](Self::read), but an error if a newer version wrote it, or this user may not read it.
    pub(super) fn read_or_say_why(env: &Env, dir: &Path) -> Result<Self, Error> {
        // Whoever looks at the logs says why.
        let Ok(entries) = env.fs.list(dir) else { return Ok(Self::default()) };
        let has_checkpoint = entries.iter().any(|entry| entry.name == CHECKPOINT);
        let mut list = Self { is_there: true, has_checkpoint, ..Self::default() };
        let of_metadata = DumpOptions::default().log(METADATA);
        let read = dump(env, dir, &of_metadata, &mut |dumped| list.hear(dumped));
        match read {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { is_there: false, ..list }),
            read => read.map(|()| list),
        }
    }

    /// Whether this is where the list is, below the data directory.
    #[must_use]
    pub fn is_at(log: &Path) -> bool {
        log == Path::new(METADATA)
    }

    /// Reads a list that was put aside, in the directory `log`: it is not the node's any more.
    pub(super) fn read_aside(env: &Env, log: &Path) -> Result<Self, Error> {
        let mut list = Self::default();
        let mut files: Vec<_> =
            env.fs.list(log).unwrap_or_default().into_iter().map(|entry| entry.name).collect();
        files.retain(|name| Path::new(name).extension() == Some("log".as_ref()));
        files.sort();
        for file in files {
            dump(env, log.join(file), &DumpOptions::default(), &mut |dumped| list.hear(dumped))?;
        }
        Ok(list)
    }

    fn hear(&mut self, dumped: Dumped) -> ControlFlow<()> {
        let understood = match dumped {
            Dumped::Batch(batch) => self.take(batch.bytes).is_some(),
            _ => false,
        };
        self.is_damaged |= !understood;
        ControlFlow::Continue(())
    }

    /// Takes in what a batch says; `None` if it cannot be read to its end.
    fn take(&mut self, batch: Bytes) -> Option<()> {
        let batch = Batch::parse(batch).ok()?;
        for record in batch.records().ok()? {
            let record = record.ok()?;
            let (id, event) = record::decode(record.key.unwrap_or_default(), record.value).ok()?;
            if let Event::Is(identity) = event {
                self.topics.insert(id, identity);
            } else {
                self.topics.remove(&id);
                self.deleted.insert(id);
            }
        }
        Some(())
    }

    pub(super) fn topics(&self) -> &BTreeMap<Uuid, Identity> {
        &self.topics
    }

    /// Whether there is one, readable or not.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Topics that are gone or about to be.
    pub(super) fn deleted(&self) -> impl Iterator<Item = Uuid> {
        self.deleted.iter().copied()
    }

    /// Whether it says all that it ever said: nothing of its log is damaged or gone.
    pub(super) fn is_whole(&self, env: &Env, dir: &Path) -> Result<bool, Error> {
        if !self.is_there || self.is_damaged {
            return Ok(false);
        }
        Ok(verify_log(env, dir, METADATA, &mut |_| ())?.count(Severity::Data) == 0)
    }

    /// What the broker keeps in the `meta` of the log at this path below the data directory, if that is a
    /// partition of a topic of the list.
    #[must_use]
    pub fn owner_of(&self, log: &Path) -> Option<Bytes> {
        let (id, number) = place_of(log)?;
        let identity = self.topics.get(&id).filter(|identity| number < identity.partition_count)?;
        Some(record::encode_owner(id, number, identity))
    }

    /// The names of topics that have records among `logs`, and are not in the list.
    #[must_use]
    pub fn unlisted(&self, logs: &[LogReport]) -> BTreeSet<String> {
        let unlisted = logs.iter().filter(|log| {
            let id = place_of(&log.path).map(|(id, _)| id);
            log.records > 0
                && id.is_some_and(|id| !self.topics.contains_key(&id) && !self.deleted.contains(&id))
        });
        unlisted.filter_map(|log| Some(owner(log)?.2.name)).collect()
    }

    /// Holds the logs of a report on the directory against the list: partitions that are not there,
    /// directories that belong elsewhere, and records that no topic owns. What is wrong with a log itself is
    /// not told again.
    #[must_use]
    pub fn check(&self, report: &Report) -> Vec<Misplaced> {
        if self.is_unread {
            return Vec::new();
        }
        if !self.is_there {
            return self.without_list(report).into_iter().collect();
        }
        // Of these a repair makes `meta` again.
        let of_meta = |found: &&Finding| found.kind == FindingKind::Meta && found.severity == Severity::Data;
        let told: BTreeSet<_> =
            report.findings.iter().filter(of_meta).filter_map(|found| found.log.as_deref()).collect();
        let logs = report.logs.iter().filter(|log| !told.contains(log.path.as_path()));
        let mut found: Vec<_> = logs.filter_map(|log| self.check_log(log)).collect();
        // A record that cannot be read may have said that the topic is deleted.
        if !self.is_damaged {
            self.find_missing(report, &mut found);
        }
        found
    }

    /// Partitions that are where they belong, or were there, and no list of topics.
    fn without_list(&self, report: &Report) -> Option<Misplaced> {
        let missing = |what: String, advice: String| Some(Misplaced { path: METADATA.into(), what, advice });
        let is_placed = |log: &LogReport| {
            owner(log).is_some_and(|(id, number, _)| place_of(&log.path) == Some((id, number)))
        };
        if report.logs.iter().any(is_placed) {
            let advice = "put it back from a backup, or make it anew with 'logmill log rebuild-topics'";
            return missing("the node's list of topics is not there".to_owned(), advice.to_owned());
        }
        let lost = if self.has_checkpoint && report.logs.is_empty() { lost_logs(report) } else { 0 };
        if lost == 0 {
            return None;
        }
        let what = format!("the list of topics and the topics are not there: {}", lost_text(lost));
        missing(what, RESTORE.to_owned())
    }

    fn check_log(&self, log: &LogReport) -> Option<Misplaced> {
        if !log.path.starts_with(TOPICS) || is_deleted(&log.path) {
            return None;
        }
        let misplaced = |what: String, advice: &str| {
            Some(Misplaced { path: log.path.clone(), what, advice: advice.to_owned() })
        };
        let unused = |what: &str| {
            let advice = "the node leaves it alone: put it back where it belongs, or move it away";
            if log.records > 0 { misplaced(format!("it holds records, and {what}"), advice) } else { None }
        };
        let Some((id, number)) = place_of(&log.path) else {
            return unused("its name is none that a partition has");
        };
        let Some(identity) = self.topics.get(&id) else {
            if self.deleted.contains(&id) {
                return None;
            }
            let what = "it holds records, and the list of topics has no topic of this identity".to_owned();
            let advice = "if the list has lost it, 'logmill log rebuild-topics' makes the list anew; else put it back \
                          where it belongs: the node leaves it alone";
            return if log.records > 0 { misplaced(what, advice) } else { None };
        };
        let name = &identity.name;
        if number >= identity.partition_count {
            return unused(&format!("topic {name:?} has {} partitions", identity.partition_count));
        }
        match owner(log) {
            None if log.owner.is_none() => {
                let what = format!("partition {number} of topic {name:?} has no \"meta\", and no records");
                misplaced(what, "restore the directory from a backup, or delete the topic")
            }
            None => {
                let advice = "restore its \"meta\" from a backup, or move that file away and run 'logmill log repair', \
                              which makes it again by the list of topics; the node refuses it as it is";
                misplaced("its \"meta\" does not say which topic and partition it belongs to".into(), advice)
            }
            Some((at, of, there)) if (at, of, &there.name) == (id, number, name) => None,
            Some((at, of, there)) => {
                let place = partition_dir(at, of);
                let what = format!(
                    "it is partition {of} of topic {:?}, and belongs in {}",
                    there.name,
                    place.display()
                );
                misplaced(what, "put it there; the node refuses it here")
            }
        }
    }

    /// Partitions without a directory.
    fn find_missing(&self, report: &Report, found: &mut Vec<Misplaced>) {
        let unread = report.findings.iter().filter(|finding| finding.kind == FindingKind::Unread);
        let unread = unread.filter_map(|finding| finding.log.as_deref());
        let paths = report.logs.iter().map(|log| log.path.as_path()).chain(unread);
        let there: BTreeSet<_> = paths.filter_map(place_of).collect();
        for (id, identity) in &self.topics {
            let numbers = (0..identity.partition_count).filter(|number| !there.contains(&(*id, *number)));
            found.extend(numbers.map(|number| Misplaced {
                path: partition_dir(*id, number),
                what: format!("partition {number} of topic {:?} is not there", identity.name),
                advice: "put its directory back, from a backup if need be, or delete the topic".to_owned(),
            }));
        }
    }
}

fn owner(log: &LogReport) -> Option<(Uuid, u32, Identity)> {
    record::decode_owner(log.owner.as_deref()?).ok()
}
