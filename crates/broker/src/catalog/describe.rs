//! What topics and the node look like.

use super::space::SpaceLeft;
use super::state::TopicState;
use crate::broker::Core;
use crate::error::Error;
use crate::exec::yield_now;
use crate::names::MAX_TOPIC_NAME_BYTES;
use crate::topic::{ListTopics, NodeDescription, TopicDescription, TopicPage};

/// So many partitions are looked at without a pause: less than a millisecond.
const AT_ONCE: usize = 500;
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
    let most = crate::paging::page_size(page_size);
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

/// Waits for no partition.
pub(super) async fn describe(core: &Core, topic: &TopicState) -> TopicDescription {
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    let mut pauses = Pauses::default();
    for partition in &topic.partitions {
        partitions.push(partition.info());
        pauses.after_one().await;
    }
    TopicDescription { topic: topic.describe(&core.config), partitions }
}

/// Waits for no partition: it is also what a client greets a node with.
pub(super) async fn describe_node(core: &Core) -> Result<NodeDescription, Error> {
    let space = SpaceLeft::look(core).await?;
    let topics = core.catalog.all();
    let (mut stored_bytes, mut partition_count) = (0, 0);
    let mut pauses = Pauses::default();
    for topic in &topics {
        for partition in &topic.partitions {
            stored_bytes += partition.info().stored_bytes;
            partition_count += 1;
            pauses.after_one().await;
        }
    }
    Ok(NodeDescription {
        version: env!("CARGO_PKG_VERSION"),
        node_id: core.set.id(),
        leader_epoch: core.set.epoch(),
        stored_bytes,
        available_bytes: space.available_bytes,
        capacity_bytes: space.total_bytes,
        topic_count: topics.len() as u64,
        partition_count,
    })
}

/// Who looks at many partitions leaves the thread to others now and then: it also wakes those whose time has come.
#[derive(Default)]
struct Pauses {
    looked_at: usize,
}

impl Pauses {
    async fn after_one(&mut self) {
        self.looked_at += 1;
        if self.looked_at.is_multiple_of(AT_ONCE) {
            yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn who_looks_at_many_leaves_the_thread_to_others_in_between() {
        let mut all = pin!(async {
            let mut pauses = Pauses::default();
            for _ in 0..3 * AT_ONCE {
                pauses.after_one().await;
            }
        });
        let mut turns = 1;
        while all.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            turns += 1;
        }
        assert_eq!(turns, 4);
    }
}
