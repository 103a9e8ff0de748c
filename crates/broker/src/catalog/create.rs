//! Creating a topic.

use std::sync::Arc;

use logmill_log::Log;
use logmill_log::env::Work;
use uuid::Uuid;

use super::directories::{TOPICS, remove_tree, topic_dir};
use super::load::Opener;
use super::record::{Event, Identity};
use super::state::TopicState;
use crate::broker::Core;
use crate::error::{Error, PartitionName, Reason, explain_metadata};
use crate::exec::run_all;
use crate::names::{check_partition_count, check_topic_name};
use crate::topic::{CreateTopic, Topic};

/// How many partitions of a topic are created at once. Each is a few syncs, which the kernel merges.
const CREATE_AT_ONCE: usize = 8;

/// What a request asks for, checked.
pub(crate) fn check(request: &CreateTopic) -> Result<u32, Error> {
    check_topic_name(&request.name)?;
    check_partition_count(request.partitions.unwrap_or(1).into())
}

/// Creates the topic; it is on disk when this returns. Runs alone among the changes of topics.
pub(crate) fn create(core: &Core, request: CreateTopic) -> Result<Topic, Error> {
    let partition_count = check(&request)?;
    let CreateTopic { name, internal, .. } = request;
    if core.catalog.contains(&name) {
        return Err(Error::topic_exists(&name));
    }
    let created_at = core.config.env.clock.now();
    let identity = Arc::new(Identity { name, partition_count, internal, created_at });
    let id = core.config.env.new_uuid();
    let doing = format!("the creation of topic {:?}", identity.name);

    let logs = make_directories(core, id, &identity, &doing)?;
    if let Err(error) = core.metadata.write(id, &Event::Created((*identity).clone()), created_at, &doing) {
        logs.iter().for_each(Log::retire);
        // The record may be on disk, and then the directories have to be there at the next start.
        if error.reason() != Reason::OutcomeUnknown {
            take_back(core, id);
        }
        return Err(error);
    }
    let topic = identity.topic(id, core.config.topic_settings());
    let opener = Opener { config: core.config.clone(), set: core.set.clone() };
    let name: Arc<str> = identity.name.as_str().into();
    let partitions = (0..)
        .zip(logs)
        .map(|(partition, log)| opener.serve(PartitionName { topic: Arc::clone(&name), partition }, log));
    let state = TopicState::new(topic.clone(), partitions.collect());
    core.catalog.insert(state).map_err(|topic| Error::topic_exists(&topic.topic.name))?;
    tracing::info!(topic = topic.name, id = %id, partitions = partition_count, "created a topic");
    Ok(topic)
}

/// Makes the directory of each partition, synced. All, or an error and nothing.
fn make_directories(core: &Core, id: Uuid, identity: &Arc<Identity>, doing: &str) -> Result<Vec<Log>, Error> {
    let fs = &*core.config.env.fs;
    let dir = core.set.dir().join(topic_dir(id));
    let topics = core.set.dir().join(TOPICS);
    if let Err(error) = fs.create_dir(&dir).and_then(|()| fs.sync_dir(&topics)) {
        take_back(core, id);
        return Err(Error::io(error, doing));
    }
    let opener = Opener { config: core.config.clone(), set: core.set.clone() };
    let partitions = (0..identity.partition_count).collect();
    let each = {
        let identity = Arc::clone(identity);
        move |partition| opener.create(id, partition, &identity)
    };
    let made = run_all(&*core.config.env.scheduler, Work::Append, CREATE_AT_ONCE, partitions, each);
    let mut logs = Vec::with_capacity(made.len());
    let mut failure = None;
    for log in made {
        match log {
            Some(Ok(log)) => logs.push(log),
            Some(Err(error)) => failure = failure.or(Some(explain_metadata(&error, doing))),
            None => failure = failure.or(Some(Error::fault(doing))),
        }
    }
    let Some(error) = failure else { return Ok(logs) };
    logs.iter().for_each(Log::retire);
    take_back(core, id);
    Err(error)
}

/// Removes what was made of a topic that does not come to be. What cannot be removed now is removed at the
/// next start, since nothing names it.
fn take_back(core: &Core, id: Uuid) {
    let dir = core.set.dir().join(topic_dir(id));
    if let Err(error) = remove_tree(&*core.config.env.fs, &dir, &|| false) {
        tracing::warn!(path = %dir.display(), %error, "cannot take back the directory of a topic; the next start will");
    }
}
