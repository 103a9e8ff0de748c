//! What topics and the node look like.

use super::state::TopicState;
use crate::broker::Core;
use crate::error::{Error, Reason};
use crate::names::MAX_TOPIC_NAME_BYTES;
use crate::topic::{ListTopics, NodeDescription, TopicDescription, TopicPage};

/// The most topics in a page, and the default.
const MAX_PAGE: usize = 1_000;
/// A page token says after which name the page starts.
const TOKEN: &str = "after:";

pub(super) fn list(core: &Core, request: ListTopics) -> Result<TopicPage, Error> {
    let ListTopics { page_size, page_token, include_internal } = request;
    let after = match page_token.as_str() {
        "" => None,
        token => Some(
            token.strip_prefix(TOKEN).filter(|name| name.len() <= MAX_TOPIC_NAME_BYTES).ok_or_else(|| {
                let shown = crate::error::shorten(token);
                Error::field(
                    "page_token",
                    format!("{shown:?}"),
                    "it is the next_page_token of an earlier answer, or empty",
                )
            })?,
        ),
    };
    let most = match page_size {
        0 => MAX_PAGE,
        size => size.min(MAX_PAGE),
    };
    // One more, to know whether another page follows.
    let mut found = core.catalog.page(after, most + 1, include_internal);
    let more = found.len() > most;
    found.truncate(most);
    let next_page_token = match found.last() {
        Some(last) if more => format!("{TOKEN}{}", last.identity.name),
        _ => String::new(),
    };
    let topics = found.iter().map(|topic| topic.describe(&core.config)).collect();
    Ok(TopicPage { topics, next_page_token })
}

/// Waits for nothing.
pub(super) fn describe(core: &Core, topic: &TopicState) -> TopicDescription {
    TopicDescription {
        topic: topic.describe(&core.config),
        partitions: topic.partitions.iter().map(|partition| partition.info()).collect(),
    }
}

/// Waits for no partition: it is also what a client greets a node with.
pub(super) fn describe_node(core: &Core) -> Result<NodeDescription, Error> {
    let topics = core.catalog.all();
    let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
    let space =
        core.set.space().map_err(|error| Error::new(Reason::IoFailed, error.to_string()).because(error))?;
    Ok(NodeDescription {
        version: env!("CARGO_PKG_VERSION"),
        node_id: core.set.id(),
        leader_epoch: core.set.epoch(),
        stored_bytes: partitions().map(|partition| partition.info().stored_bytes).sum(),
        available_bytes: space.available_bytes,
        capacity_bytes: space.total_bytes,
        topic_count: topics.len() as u64,
        partition_count: partitions().count() as u64,
    })
}
