//! Creating a topic.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use logmill_log::Log;
use logmill_log::env::Work;

use super::directories::{TOPICS, remove_tree, topic_dir};
use super::load::{Opener, Plan};
use super::record::{Event, Identity};
use super::state::Partition;
use crate::broker::Core;
use crate::error::{Error, PartitionName, Reason, explain_metadata};
use crate::exec::run_all;
use crate::limits::Limit;
use crate::names::{check_partition_count, check_topic_name};
use crate::topic::{CreateTopic, Topic};

/// How many partitions of a topic are created at once. Each is a few syncs, which the kernel merges.
const CREATE_AT_ONCE: usize = 8;

/// What a request asks for, checked.
pub(super) fn check(request: &CreateTopic, core: &Core) -> Result<u32, Error> {
    check_topic_name(&request.name)?;
    request.settings.check(&core.bounds)?;
    check_count(core, request.partitions.unwrap_or(1))
}

/// Whether a topic can have so many partitions.
pub(super) fn check_count(core: &Core, partitions: u32) -> Result<u32, Error> {
    let count = check_partition_count(partitions.into())?;
    let doing = || format!("a topic of {count} partitions");
    core.bounds.check(Limit::MaxPartitionsPerTopic, count as usize, doing, "ask for fewer")?;
    Ok(count)
}

/// Whether there may be so many topics and partitions more. Changes run one at a time, so it stays true until
/// they are there.
pub(super) fn check_room(core: &Core, topics: usize, partitions: u32) -> Result<(), Error> {
    let advice = "delete topics that nobody needs, or set the limit higher";
    let (now, partitions_now) = core.catalog.count();
    let (after, partitions_after) = (now + topics, partitions_now + partitions as usize);
    if topics > 0 {
        core.bounds.check(Limit::MaxTopics, after, || format!("topic number {after}"), advice)?;
    }
    let doing = || format!("{partitions} partitions more, {partitions_after} in all topics together,");
    core.bounds.check(Limit::MaxPartitions, partitions_after, doing, advice)
}

/// Creates the topic; it is on disk when this returns. Runs alone among the changes of topics.
pub(super) fn create(core: &Arc<Core>, request: CreateTopic) -> Result<Topic, Error> {
    let partition_count = check(&request, core)?;
    let CreateTopic { name, internal, settings, .. } = request;
    if core.catalog.contains(&name) {
        return Err(Error::topic_exists(&name));
    }
    check_room(core, 1, partition_count)?;
    let created_at = core.config.env.clock.now();
    let identity = Identity { name, partition_count, internal, created_at, settings };
    let id = core.config.env.new_uuid();
    let plan = Arc::new(Plan::new(&core.config, id, identity));
    let doing = format!("the creation of topic {:?}", plan.identity.name);

    let logs = make_topic(core, &plan, &doing)?;
    let event = Event::Is(plan.identity.clone());
    if let Err(error) = core.metadata.write(id, &event, created_at, &doing) {
        logs.iter().for_each(Log::retire);
        // The record may be on disk, and then the directories have to be there at the next start.
        if error.reason() != Reason::OutcomeUnknown {
            take_back(core, &topic_dir(id));
        }
        return Err(error);
    }
    let state = plan.state(serve(core, &plan, 0, logs));
    let topic = state.describe(&core.config);
    let made = Arc::clone(&state);
    core.catalog.insert(state).map_err(|topic| Error::topic_exists(&topic.identity.name))?;
    core.groups.topic_exists(core, &made);
    tracing::info!(topic = topic.name, id = %id, partitions = partition_count, "created a topic");
    Ok(topic)
}

/// Partitions to be served, from the number of the first on.
pub(super) fn serve(core: &Core, plan: &Plan, first: u32, logs: Vec<Log>) -> Vec<Arc<Partition>> {
    let opener = Opener { set: core.set.clone(), bounds: Arc::clone(&core.bounds) };
    let topic: Arc<str> = plan.identity.name.as_str().into();
    let name = |partition| PartitionName { topic: Arc::clone(&topic), partition };
    (first..).zip(logs).map(|(number, log)| Arc::new(opener.serve(name(number), log, plan))).collect()
}

/// Makes the topic's directory and those of its partitions, synced. All, or an error and nothing.
fn make_topic(core: &Core, plan: &Arc<Plan>, doing: &str) -> Result<Vec<Log>, Error> {
    let fs = &*core.config.env.fs;
    let dir = topic_dir(plan.id);
    let made = fs
        .create_dir(&core.set.dir().join(&dir))
        .and_then(|()| fs.sync_dir(&core.set.dir().join(TOPICS)))
        .map_err(|error| Error::io(error, doing))
        .and_then(|()| make_partitions(core, plan, 0..plan.identity.partition_count, doing));
    if made.is_err() {
        take_back(core, &dir);
    }
    made
}

/// Makes the directories of partitions, synced. All, or an error, and then the caller takes back what was made.
pub(super) fn make_partitions(
    core: &Core,
    plan: &Arc<Plan>,
    partitions: Range<u32>,
    doing: &str,
) -> Result<Vec<Log>, Error> {
    let opener = Opener { set: core.set.clone(), bounds: Arc::clone(&core.bounds) };
    let each = {
        let plan = Arc::clone(plan);
        move |partition| opener.create(partition, &plan)
    };
    let scheduler = &*core.config.env.scheduler;
    let made = run_all(scheduler, Work::Append, CREATE_AT_ONCE, partitions.collect(), each);
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
    Err(error)
}

/// Removes what was made of something that does not come to be; `dir` lies below the data directory. What
/// cannot be removed now is removed at the next start, since nothing names it.
pub(super) fn take_back(core: &Core, dir: &Path) {
    let path = core.set.dir().join(dir);
    if let Err(error) = remove_tree(&*core.config.env.fs, &path, &|| false) {
        tracing::warn!(path = %path.display(), %error, "cannot take back the directory of a topic; the next start will");
    }
}
