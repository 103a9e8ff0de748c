//! Altering the settings of a topic.
//!
//! The topic's record is written again, whole. What is in memory follows once that is on disk, and the logs
//! with their next group of appends, or soon if there is none: an alteration waits for no partition.

use std::sync::Arc;

use super::load::Plan;
use super::record::{Event, Identity};
use crate::broker::Core;
use crate::error::Error;
use crate::settings::SettingChange;
use crate::topic::Topic;

/// Makes the changes; they are on disk when this returns. Runs alone among the changes of topics.
pub(super) fn alter(core: &Core, name: &str, changes: &[SettingChange]) -> Result<Topic, Error> {
    let topic = core.catalog.topic(name)?;
    let settings = topic.identity.settings.changed(changes, &core.config.node_settings())?;
    settings.check(&core.bounds)?;
    if settings == topic.identity.settings {
        // Only what is on disk is in the catalog.
        return Ok(topic.describe(&core.config));
    }
    let identity = Identity { settings, ..topic.identity.clone() };
    let doing = format!("the alteration of topic {name:?}");
    core.metadata.write(topic.id, &Event::Is(identity.clone()), core.config.env.clock.now(), &doing)?;

    let plan = Plan::new(&core.config, topic.id, identity);
    let altered = plan.state(topic.partitions.clone());
    core.catalog.replace(Arc::clone(&altered));
    for lane in altered.partitions.iter().filter_map(|partition| partition.lane().ok()) {
        lane.set_rules(Arc::clone(&plan.rules), plan.options);
    }
    tracing::info!(topic = name, id = %topic.id, "altered a topic");
    Ok(altered.describe(&core.config))
}
