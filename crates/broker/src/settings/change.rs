//! What an alteration says of each setting that it names.

use super::values::{CleanupPolicy, Value};
use super::{SettingName, TopicSettings};
use crate::error::Error;

/// A change of one setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// The setting's name, such as `retention.ms`.
    pub name: String,
    /// What becomes of it.
    pub change: Change,
}

/// What becomes of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has this value from now on.
    Set(String),
    /// It is what the node, or this version, has for topics that do not say.
    Reset,
    /// These are added to the list that it is; only `cleanup.policy` is one.
    Append(String),
    /// These are taken out of the list.
    Remove(String),
}

impl SettingChange {
    /// The setting `name` is to have `value`.
    #[must_use]
    pub fn set(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), change: Change::Set(value.into()) }
    }

    /// The setting `name` is to be what the node has.
    #[must_use]
    pub fn reset(name: impl Into<String>) -> Self {
        Self { name: name.into(), change: Change::Reset }
    }
}

impl TopicSettings {
    /// These settings with `changes`; `node` has what a list is where the topic has none of its own.
    pub(crate) fn changed(&self, changes: &[SettingChange], node: &Self) -> Result<Self, Error> {
        let mut changed = self.clone();
        let mut seen = Vec::with_capacity(changes.len());
        for SettingChange { name, change } in changes {
            let name = SettingName::named(name)?;
            if seen.contains(&name) {
                return Err(name.named_twice());
            }
            seen.push(name);
            match change {
                Change::Set(value) => changed.set(name, value)?,
                Change::Reset => changed.clear(name),
                Change::Append(value) => {
                    let (listed, item) = changed.list(name, value, node)?;
                    changed.cleanup_policy = Some(listed.with(item));
                }
                Change::Remove(value) => {
                    let (listed, item) = changed.list(name, value, node)?;
                    let left = listed.without(item).ok_or_else(|| {
                        name.refuse("", "something has to become of old records, so one policy stays")
                    })?;
                    changed.cleanup_policy = Some(left);
                }
            }
        }
        Ok(changed)
    }

    /// The list that `name` is, and the one that `value` says.
    fn list(
        &self,
        name: SettingName,
        value: &str,
        node: &Self,
    ) -> Result<(CleanupPolicy, CleanupPolicy), Error> {
        if name != SettingName::CleanupPolicy {
            return Err(name.refuse(value, "it is no list that one could add to or take from: set it"));
        }
        let item = CleanupPolicy::parse(value.trim()).ok_or_else(|| name.refuse(value, name.rule()))?;
        let listed = self.cleanup_policy.or(node.cleanup_policy).unwrap_or(CleanupPolicy::DELETE);
        Ok((listed, item))
    }
}
