//! Deleting a topic, and taking away what is left of one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_log::env::Work;
use uuid::Uuid;

use super::directories::{TOPICS, deleted_dir, remove_tree, topic_dir};
use super::record::Event;
use super::state::TopicState;
use crate::broker::Core;
use crate::error::{Error, Reason};

/// What is left on disk of a topic that does not exist any more.
#[derive(Debug)]
pub(crate) struct Leftover {
    pub(super) id: Uuid,
    /// Below the data directory. None if only the record is missing that they are gone.
    pub(super) dirs: Vec<PathBuf>,
    /// The metadata has it as deleted, and is to have it as gone.
    pub(super) recorded: bool,
}

/// Deletes the topic; it stays deleted when this returns. Runs alone among the changes of topics.
pub(super) fn delete(core: &Arc<Core>, name: &str) -> Result<(), Error> {
    let topic = core.catalog.topic(name)?;
    let id = topic.id;
    let doing = format!("the deletion of topic {name:?}");
    let deleted = core.metadata.write(id, &Event::Deleted, core.config.env.clock.now(), &doing);
    if let Err(error) = deleted {
        if error.reason() == Reason::OutcomeUnknown {
            // The next start may take the topic away, so nothing more may be called durable in it.
            fence(&topic, &deletion_unknown(&topic.identity.name).because(error.clone()));
        }
        return Err(error);
    }
    core.catalog.remove(name, id);
    core.groups.topic_gone(core, &topic);
    fence(&topic, &Error::topic_not_found(&topic.identity.name));
    tracing::info!(topic = name, id = %id, "deleted a topic");
    end(core, topic);
    Ok(())
}

/// Ends the topic's logs, on which whoever still waits hears that the topic is gone, and then takes it away.
/// In the background: a log ends when its sync has, and one that hangs is to hold up no other change.
fn end(core: &Arc<Core>, topic: Arc<TopicState>) {
    let Some(held) = core.background.take(1) else { return };
    let scheduler = Arc::clone(&core.config.env.scheduler);
    let core = Arc::clone(core);
    let end = move || {
        topic.partitions.iter().filter_map(|partition| partition.log().ok()).for_each(|log| log.retire());
        let id = topic.id;
        // Its files are let go before they are unlinked.
        drop(topic);
        let dirs = rename(&core, id);
        take_away(&core, Leftover { id, dirs, recorded: true });
        drop(held);
    };
    scheduler.spawn(Work::Background, Box::new(end));
}

/// The topic takes nothing more, for the reason given.
fn fence(topic: &TopicState, why: &Error) {
    for lane in topic.partitions.iter().filter_map(|partition| partition.lane().ok()) {
        lane.refuse(why.clone());
    }
}

/// Whether the topic is deleted is known at the next start.
fn deletion_unknown(topic: &str) -> Error {
    let message = format!(
        "topic {topic:?} takes nothing since a sync failed while it was being deleted: check the disk and start \
         the node again, and see whether the topic is there"
    );
    Error::new(Reason::MetadataFailed, message).with("topic", topic)
}

/// Gives the directory its new name; returns where it may be. The deletion is decided already: should this
/// fail, the directory goes under its old name.
fn rename(core: &Core, id: Uuid) -> Vec<PathBuf> {
    let fs = &*core.config.env.fs;
    let (from, to) = (topic_dir(id), deleted_dir(id));
    let root = core.set.dir();
    let renamed =
        fs.rename(&root.join(&from), &root.join(&to)).and_then(|()| fs.sync_dir(&root.join(TOPICS)));
    match renamed {
        Ok(()) => vec![to],
        Err(error) => {
            tracing::warn!(path = %from.display(), %error, "cannot rename the directory of a deleted topic");
            vec![from, to]
        }
    }
}

/// Unlinks what is left of a topic, in the background, and records that it is gone.
pub(crate) fn take_away(core: &Arc<Core>, leftover: Leftover) {
    let Some(held) = core.background.take(1) else { return };
    let removals = Arc::clone(&core.removals);
    let core = Arc::clone(core);
    removals.push(Box::new(move || {
        let Leftover { id, dirs, recorded } = leftover;
        let gone = dirs.iter().all(|dir| unlink(&core, dir));
        if gone && recorded {
            let recorder = Arc::clone(&core);
            core.changes.push(Box::new(move || {
                record_gone(&recorder, id);
                drop(held);
            }));
        }
    }));
}

fn record_gone(core: &Core, id: Uuid) {
    let now = core.config.env.clock.now();
    if let Err(error) = core.metadata.write(id, &Event::Gone, now, "the end of a deletion") {
        tracing::warn!(%id, %error, "a deleted topic is gone, but that is not recorded; the next start will");
    }
}

/// Removes a directory; whether it is gone, and will not come back with a power cut.
fn unlink(core: &Core, dir: &Path) -> bool {
    let fs = &*core.config.env.fs;
    let path = core.set.dir().join(dir);
    let stop = || core.closing.has_fired();
    let removed = remove_tree(fs, &path, &stop).and_then(|gone| {
        fs.sync_dir(&core.set.dir().join(TOPICS))?;
        Ok(gone)
    });
    removed.unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "cannot take away a deleted topic; the next start tries again");
        false
    })
}
