//! More partitions for a topic.
//!
//! The directories of the new partitions are made and synced, then the topic's record is written again with
//! their number, then they are served. A crash before the record leaves directories that the next start
//! removes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use logmill_log::Log;

use super::create::{check_room, make_partitions, serve, take_back};
use super::directories::{holds_data, partition_dir};
use super::load::Plan;
use super::record::{Event, Identity};
use crate::broker::Core;
use crate::error::{Error, Reason};
use crate::topic::Topic;

/// Gives the topic more partitions, `count` in all; they are on disk when this returns. Runs alone among the
/// changes of topics.
pub(super) fn add_partitions(core: &Arc<Core>, name: &str, count: u32) -> Result<Topic, Error> {
    let topic = core.catalog.topic(name)?;
    let before = topic.identity.partition_count;
    if count <= before {
        return Err(not_more(name, before, count));
    }
    check_room(core, 0, count - before)?;
    let identity = Identity { partition_count: count, ..topic.identity.clone() };
    let plan = Arc::new(Plan::new(&core.config, topic.id, identity));
    let doing = format!("the growth of topic {name:?}");
    let dirs = || (before..count).map(|partition| partition_dir(topic.id, partition));
    let take_all_back = || dirs().for_each(|dir| take_back(core, &dir));

    dirs().try_for_each(|dir| check_way(core, &dir, &doing))?;
    // A growth of which the outcome is not known may have been recorded: its directories stay as long as that is so.
    core.metadata.check_writable(&doing)?;
    // What an earlier growth that failed could not take back.
    take_all_back();
    let logs = make_partitions(core, &plan, before..count, &doing).inspect_err(|_| take_all_back())?;
    let event = Event::Is(plan.identity.clone());
    if let Err(error) = core.metadata.write(topic.id, &event, core.config.env.clock.now(), &doing) {
        logs.iter().for_each(Log::retire);
        // The record may be on disk, and then the directories have to be there at the next start.
        if error.reason() != Reason::OutcomeUnknown {
            take_all_back();
        }
        return Err(error);
    }
    let partitions = topic.partitions.iter().cloned().chain(serve(core, &plan, before, logs));
    let grown = plan.state(partitions.collect());
    core.catalog.replace(Arc::clone(&grown));
    core.groups.topic_exists(core, &grown);
    tracing::info!(topic = name, id = %topic.id, partitions = count, "added partitions to a topic");
    Ok(grown.describe(&core.config))
}

/// Whether nothing lies where the directory is to be, or nothing that is worth anything.
fn check_way(core: &Core, dir: &Path, doing: &str) -> Result<(), Error> {
    let path = core.set.dir().join(dir);
    match holds_data(&*core.config.env.fs, &path) {
        Ok(false) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(error, doing)),
        Ok(true) => {
            let message = format!(
                "{doing} did not happen: {} is in the way, and there are records in it; move it to another place, \
                 and try again",
                path.display()
            );
            Err(Error::new(Reason::IoFailed, message))
        }
    }
}

fn not_more(topic: &str, before: u32, asked: u32) -> Error {
    let message = format!(
        "topic {topic:?} has {before} partitions already, and their number only grows: ask for more than {before} \
         in all, not for {asked}"
    );
    Error::new(Reason::PartitionCountInvalid, message)
        .with("topic", topic)
        .with("partitions", asked)
        .with("partition_count", before)
}
