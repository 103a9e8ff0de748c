//! The topics that members subscribe to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

/// A topic as the catalog has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) partitions: u32,
}

/// A change of the catalog, told in the order in which they happened there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TopicChange {
    /// There is this topic under that name now: it is new, or has more partitions.
    Exists(Arc<str>, Topic),
    /// The topic with this id was deleted.
    Gone(Uuid),
}

/// Topics by name and by id. Only those that some member subscribes to, so that an idle group has none.
#[derive(Debug, Default)]
pub(super) struct Topics {
    by_name: BTreeMap<Arc<str>, Topic>,
    names: BTreeMap<Uuid, Arc<str>>,
}

impl Topics {
    /// Takes the topic in. Gives the one that had its name before, if that was another: its units are gone.
    pub(super) fn insert(&mut self, name: &Arc<str>, topic: Topic) -> Option<Uuid> {
        let before = self.by_name.get(name).copied();
        let partitions = match before {
            Some(same) if same.id == topic.id => same.partitions.max(topic.partitions),
            _ => topic.partitions,
        };
        self.by_name.insert(Arc::clone(name), Topic { partitions, ..topic });
        self.names.insert(topic.id, Arc::clone(name));
        let other = before.filter(|before| before.id != topic.id)?;
        self.names.remove(&other.id);
        Some(other.id)
    }

    pub(super) fn remove(&mut self, id: Uuid) {
        if let Some(name) = self.names.remove(&id) {
            self.by_name.remove(&name);
        }
    }

    /// Keeps the topics of these names.
    pub(super) fn retain(&mut self, subscribed: &BTreeSet<&Arc<str>>) {
        self.by_name.retain(|name, _| subscribed.contains(name));
        self.names.retain(|_, name| subscribed.contains(name));
    }

    pub(super) fn name(&self, id: Uuid) -> Option<&Arc<str>> {
        self.names.get(&id)
    }
}
