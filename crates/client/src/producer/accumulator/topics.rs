//! What is known of the topics that a producer writes to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::producer::partitioner::Partitioner;
use crate::producer::rules::TopicRules;

/// A topic can be deleted and made anew with another number of partitions; keys have to follow. And its settings can be
/// changed.
const FRESH_FOR: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(in crate::producer) struct Topics(HashMap<Arc<str>, Topic>);

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) partitioner: Partitioner,
    pub(super) rules: TopicRules,
    /// The place of each partition's queue, by the partition's number, as far as there is one.
    queues: Vec<Option<usize>>,
    /// When the node last described it; `None` after that has turned out to be out of date.
    known_since: Option<Instant>,
}

impl Topic {
    /// Where the place of a partition's queue is kept; the partition is one that the topic has.
    pub(super) fn queue_of(&mut self, partition: u32) -> &mut Option<usize> {
        let partition = partition as usize;
        if self.queues.len() <= partition {
            self.queues.resize(partition + 1, None);
        }
        &mut self.queues[partition]
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.known_since.is_some_and(|since| now < since + FRESH_FOR)
    }
}

impl Topics {
    /// A topic that the node described not long ago.
    pub(super) fn get_fresh(&mut self, topic: &str, now: Instant) -> Option<&mut Topic> {
        self.0.get_mut(topic).filter(|topic| topic.is_fresh(now))
    }

    pub(in crate::producer) fn is_known(&self, topic: &str) -> bool {
        self.0.get(topic).is_some_and(|topic| topic.known_since.is_some())
    }

    /// Whether the node described it not long ago.
    pub(in crate::producer) fn is_fresh(&self, topic: &str, now: Instant) -> bool {
        self.0.get(topic).is_some_and(|topic| topic.is_fresh(now))
    }

    /// The node has described the topic; `new` is for one that this producer has not written to before.
    pub(in crate::producer) fn learn(
        &mut self,
        topic: &Arc<str>,
        now: Instant,
        new: Partitioner,
        rules: TopicRules,
    ) {
        match self.0.get_mut(topic) {
            Some(topic) => {
                topic.known_since = Some(now);
                topic.partitioner.set_count(new.count());
                topic.rules = rules;
            }
            None => {
                let (queues, known_since) = (Vec::new(), Some(now));
                let new = Topic { partitioner: new, rules, queues, known_since };
                self.0.insert(Arc::clone(topic), new);
            }
        }
    }

    /// The node could not be asked: what is known has to do for longer.
    pub(in crate::producer) fn keep(&mut self, topic: &str, now: Instant) {
        if let Some(known_since) = self.0.get_mut(topic).and_then(|topic| topic.known_since.as_mut()) {
            *known_since = now;
        }
    }

    /// The node does not know the topic, or not this partition of it, or refused a batch by rules that are not those
    /// known here.
    pub(in crate::producer) fn forget(&mut self, topic: &str) {
        if let Some(topic) = self.0.get_mut(topic) {
            topic.known_since = None;
        }
    }
}
