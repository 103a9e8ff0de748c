//! The directories of topics: what they are called, what is in them, and taking them away.
//!
//! `topics/{uuid}/{partition}` is the log of a partition. `topics/{uuid}.deleted` is a topic that has been
//! deleted and not yet been taken away.

use std::io;
use std::path::{Path, PathBuf};

use logmill_log::env::{Fs, OpenMode};
use uuid::Uuid;

use crate::error::OpenError;

/// The directory of the node's own logs, in the data directory.
pub(super) const INTERNAL: &str = "internal";
/// The directory of the topics, in the data directory.
pub(super) const TOPICS: &str = "topics";

const DELETED: &str = ".deleted";
/// The file that makes a directory a log's.
pub(super) const LOG_META: &str = "meta";

/// A topic's directory, below the data directory.
pub(super) fn topic_dir(id: Uuid) -> PathBuf {
    Path::new(TOPICS).join(id.to_string())
}

/// What a topic's directory is called when the topic has been deleted.
pub(super) fn deleted_dir(id: Uuid) -> PathBuf {
    Path::new(TOPICS).join(format!("{id}{DELETED}"))
}

/// A partition's directory, below the data directory.
pub(super) fn partition_dir(id: Uuid, partition: u32) -> PathBuf {
    topic_dir(id).join(partition.to_string())
}

/// The topic and the number of the partition whose directory this is, below the data directory.
pub(super) fn place_of(path: &Path) -> Option<(Uuid, u32)> {
    let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
    let [TOPICS, topic, partition] = names[..] else { return None };
    let number = partition.parse().ok().filter(|number: &u32| number.to_string() == partition)?;
    match classify(topic) {
        Named::Topic(id) => Some((id, number)),
        Named::Deleted(_) | Named::Other => None,
    }
}

/// Whether this lies in the directory of a topic that was deleted.
pub(super) fn is_deleted(path: &Path) -> bool {
    let topic = path.strip_prefix(TOPICS).ok().and_then(|below| below.iter().next()?.to_str());
    topic.is_some_and(|topic| matches!(classify(topic), Named::Deleted(_)))
}

/// What the name of something in `topics` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Topic(Uuid),
    Deleted(Uuid),
    /// Nothing that the node made.
    Other,
}

pub(super) fn classify(name: &str) -> Named {
    // Only the form that the node itself writes.
    let parse = |text: &str| Uuid::try_parse(text).ok().filter(|id| id.to_string() == text);
    if let Some(id) = name.strip_suffix(DELETED).and_then(parse) {
        return Named::Deleted(id);
    }
    parse(name).map_or(Named::Other, Named::Topic)
}

/// Whether `topics` holds a directory that the node could have made.
pub(super) fn holds_topic(fs: &dyn Fs, topics: &Path) -> Result<bool, OpenError> {
    match fs.list(topics) {
        Ok(entries) => Ok(entries.iter().any(|entry| classify(&entry.name) != Named::Other)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(OpenError::io("list", topics, error)),
    }
}

/// Whether anything below `dir` may be a record: any file that is not empty, save those that the creation of
/// a log leaves.
pub(super) fn holds_data(fs: &dyn Fs, dir: &Path) -> io::Result<bool> {
    for entry in fs.list(dir)? {
        let path = dir.join(&entry.name);
        let holds = if entry.is_dir {
            holds_data(fs, &path)?
        } else if entry.name == LOG_META || entry.name.ends_with(".tmp") {
            false
        } else {
            match fs.open(&path, OpenMode::Read).and_then(|file| file.status()) {
                Ok(status) => status.len > 0,
                // A link to a directory, or a stranger: nothing that the node made.
                Err(error) if error.kind() == io::ErrorKind::IsADirectory || is_unspelled(&error) => true,
                Err(error) => return Err(error),
            }
        };
        if holds {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether what was just listed is not there: its name is not UTF-8, and was listed in another spelling.
fn is_unspelled(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Removes `dir` and everything in it, unless `stop` says to leave off. Whether it is gone. What cannot be
/// removed stays, and the others go; the error is the first.
pub(super) fn remove_tree(fs: &dyn Fs, dir: &Path, stop: &dyn Fn() -> bool) -> io::Result<bool> {
    let entries = match fs.list(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let mut failure = None;
    for entry in entries {
        if stop() {
            return Ok(false);
        }
        let removed = if entry.is_dir {
            remove_tree(fs, &dir.join(&entry.name), stop)
        } else {
            remove_file(fs, dir, &entry.name).map(|()| true)
        };
        match removed {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) => Err(error),
        None => fs.remove_dir(dir).map(|()| true),
    }
}

fn remove_file(fs: &dyn Fs, dir: &Path, name: &str) -> io::Result<()> {
    fs.remove_file(&dir.join(name)).map_err(|error| {
        if !is_unspelled(&error) {
            return error;
        }
        let dir = dir.display();
        io::Error::other(format!("{dir} holds {name}, a name that is not UTF-8: remove that by hand"))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use logmill_log::env::StdFs;

    use super::*;

    #[test]
    fn only_the_nodes_own_names_are_taken_for_topics() {
        let id = Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF);
        assert_eq!(classify("00112233-4455-6677-8899-aabbccddeeff"), Named::Topic(id));
        assert_eq!(classify("00112233-4455-6677-8899-aabbccddeeff.deleted"), Named::Deleted(id));
        for other in [
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "00112233445566778899aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeeff.old",
            "lost+found",
            ".deleted",
            "",
        ] {
            assert_eq!(classify(other), Named::Other, "{other}");
        }
        assert_eq!(partition_dir(id, 7), Path::new("topics/00112233-4455-6677-8899-aabbccddeeff/7"));
        assert_eq!(place_of(&partition_dir(id, 7)), Some((id, 7)));
        for other in
            [topic_dir(id), topic_dir(id).join("07"), partition_dir(id, 7).join("x"), "internal".into()]
        {
            assert_eq!(place_of(&other), None, "{}", other.display());
        }
        assert!(is_deleted(&deleted_dir(id).join("7")) && !is_deleted(&partition_dir(id, 7)));
        assert_eq!(classify(&deleted_dir(id).file_name().unwrap().to_string_lossy()), Named::Deleted(id));
    }

    #[test]
    fn a_name_that_is_not_utf8_is_named_kept_and_holds_up_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (topic, odd) = (dir.path().join("t"), OsStr::from_bytes(b"odd\xFF"));
        StdFs.create_dir(&topic).unwrap();
        for partition in ["0", "1", "2"] {
            StdFs.create_dir(&topic.join(partition)).unwrap();
            StdFs.open(&topic.join(partition).join("meta"), OpenMode::CreateNew).unwrap();
        }
        assert!(!holds_data(&StdFs, &topic).unwrap());
        StdFs.open(&topic.join("1").join(odd), OpenMode::CreateNew).unwrap();
        assert!(holds_data(&StdFs, &topic).unwrap(), "the node did not make it");

        let error = remove_tree(&StdFs, &topic, &|| false).unwrap_err().to_string();
        assert!(error.contains(&*topic.join("1").to_string_lossy()) && error.contains("odd"), "{error}");
        let names =
            |dir: &Path| StdFs.list(dir).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!(names(&topic), ["1"]);
        assert_eq!(names(&topic.join("1")).len(), 1, "nothing but what has no name");
        StdFs.remove_file(&topic.join("1").join(odd)).unwrap();
        assert!(remove_tree(&StdFs, &topic, &|| false).unwrap());
        assert!(names(dir.path()).is_empty());
    }
}
