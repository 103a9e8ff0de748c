//! What the directories of topics say of them, where the list of topics does not: by the `meta` of their
//! partitions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use logmill_log::ErrorKind;
use logmill_log::inspect::{Listing, LogListing};
use uuid::Uuid;

use super::directories::{self, TOPICS, is_deleted, partition_dir};
use super::rebuild::SkippedDirectory;
use super::record::{self, Identity};

/// The topics of a data directory, as its directories have them.
pub(super) struct Directories<'a> {
    dir: &'a Path,
    pub(super) topics: BTreeMap<Uuid, Found>,
    /// What belongs to none of them, or not where it is.
    pub(super) skipped: Vec<SkippedDirectory>,
    /// Partitions whose `meta` says nothing: their place says whose they are.
    nameless: Vec<(Uuid, u32, &'a LogListing)>,
}

impl<'a> Directories<'a> {
    pub(super) fn of(dir: &'a Path, listing: &'a Listing) -> Self {
        let mut directories =
            Self { dir, topics: BTreeMap::new(), skipped: Vec::new(), nameless: Vec::new() };
        for log in &listing.logs {
            if log.path.starts_with(TOPICS)
                && let Err(why) = directories.take(log, listing)
            {
                directories.skip(log.path.clone(), why);
            }
        }
        directories
    }

    pub(super) fn skip(&mut self, path: PathBuf, why: String) {
        self.skipped.push(SkippedDirectory { path, why });
    }

    /// Takes in what a log among the topics says, or says why it is not used where it is.
    fn take(&mut self, log: &'a LogListing, listing: &Listing) -> Result<(), String> {
        if is_deleted(&log.path) {
            return Err("its topic was deleted".to_owned());
        }
        let Some((id, number)) = directories::place_of(&log.path) else {
            return Err("it has no name that a partition has".to_owned());
        };
        let meta = match &log.meta {
            Ok(meta) => meta,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => {
                self.topics.entry(id).or_default().partitions.insert(number, log.bytes());
                self.nameless.push((id, number, log));
                return Ok(());
            }
            Err(error) => return Err(error.to_string()),
        };
        let (owner, partition, identity) = record::decode_owner(&meta.owner)
            .map_err(|error| format!("it does not say which topic it belongs to: {error}"))?;
        let found = self.topics.entry(owner).or_default();
        let why = belongs_elsewhere(&identity.name, (owner, partition), listing);
        found.identities.insert(identity.partition_count, identity);
        if (owner, partition) == (id, number) {
            found.partitions.insert(number, log.bytes());
            return Ok(());
        }
        found.bytes_elsewhere += log.bytes();
        Err(why)
    }

    /// Says of the partitions whose `meta` says nothing what they are, by the topics that are known now.
    pub(super) fn explain_nameless<'b>(&mut self, known: impl Fn(Uuid) -> Option<&'b Identity>) {
        for (id, number, log) in std::mem::take(&mut self.nameless) {
            let is_gone = log.meta.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
            let how = if is_gone { "missing" } else { "damaged" };
            let dir = self.dir.display();
            let why = match known(id) {
                Some(topic) => format!(
                    "its \"meta\" is {how}; by its place it is partition {number} of {:?}: make the list first, then \
                     'logmill log repair {dir}' makes \"meta\" again",
                    topic.name
                ),
                None => format!(
                    "its \"meta\" is {how}, so the topic's name is lost; the records can be read with 'logmill log \
                     dump {dir} --log {} --records'",
                    log.path.display()
                ),
            };
            self.skip(log.path.clone(), why);
        }
    }
}

/// Where a partition belongs that is somewhere else, and what is there.
fn belongs_elsewhere(topic: &str, place: (Uuid, u32), listing: &Listing) -> String {
    let path = partition_dir(place.0, place.1);
    let there = listing.logs.iter().find(|log| log.path == path);
    let owner = there.and_then(|log| record::decode_owner(log.owner()?).ok());
    let (what, path) = (format!("it is partition {} of {topic:?}", place.1), path.display());
    match (there, owner) {
        (None, _) => format!("{what}: put it in {path}"),
        (Some(_), Some((id, number, _))) if (id, number) == place => {
            format!("{what}, and so is {path}: it is left where it is")
        }
        (Some(_), _) => format!("{what}: swap it with {path}"),
    }
}

/// What there is of a topic.
#[derive(Clone, Default)]
pub(super) struct Found {
    /// Bytes of records, by partition that is in its place.
    partitions: BTreeMap<u32, u64>,
    /// Of its partitions that are in other places.
    bytes_elsewhere: u64,
    /// By how many partitions the topic had when the partition was made.
    identities: BTreeMap<u32, Identity>,
}

impl Found {
    /// What the topic is. `None` if its creation was cut off: partitions are not there, and no records; or if
    /// nothing says so.
    pub(super) fn identity(&self) -> Option<Identity> {
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
        let holds_records = self.bytes_elsewhere > 0 || self.partitions.values().any(|bytes| *bytes > 0);
        let cut_off = !self.missing(*count).is_empty() && !holds_records;
        (!cut_off).then(|| identity.clone())
    }

    /// Whether nothing says what it is.
    pub(super) fn is_nameless(&self) -> bool {
        self.identities.is_empty()
    }

    pub(super) fn missing(&self, count: u32) -> Vec<u32> {
        (0..count).filter(|number| !self.partitions.contains_key(number)).collect()
    }
}
