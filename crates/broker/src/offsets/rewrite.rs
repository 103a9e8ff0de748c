//! Changes by an operator.

use std::future::Future;
use std::sync::Arc;

use logmill_record::Offset;

use super::{Committed, Key, Offsets};
use crate::broker::Core;
use crate::budget::{Budget, Permit};
use crate::error::Error;
use crate::group::{AssignmentEpoch, UnitId};
use crate::internal::{append_until_durable, batch_of};

impl Offsets {
    /// Held from before a group is found without members until what is [rewritten](Self::rewrite) counts.
    pub(crate) fn begin_rewrite(&self, group: &str) -> Result<Permit, Error> {
        let mut rewrites = self.rewrites.lock();
        rewrites.retain(|_, rewrites| rewrites.used() > 0);
        let rewrites = rewrites.entry(group.to_owned()).or_insert_with(Budget::unbounded);
        rewrites.take(1).ok_or_else(|| Error::fault("a change of offsets"))
    }

    /// Resolves when no rewrite of the group is on its way. Whoever has come meanwhile is told nothing before: where it
    /// goes on would be where the group was.
    pub(crate) async fn rewritten(&self, group: &str) {
        let rewritten = self.rewrites.lock().get(group).map(Budget::empty);
        if let Some(rewritten) = rewritten {
            let _ = rewritten.await;
        }
    }

    /// Takes into the log what an operator has decided: other offsets, or none, and units that are forgotten. What is
    /// returned resolves when it is on disk and counts.
    ///
    /// Where it may be on disk and may not, what counts is written once more: a restart finds what the group was told.
    pub(crate) fn rewrite(
        &self,
        core: &Arc<Core>,
        group: &str,
        changes: Vec<(Key, Option<Committed>)>,
        forgotten: &[(UnitId, AssignmentEpoch)],
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let value = |committed: &Option<Committed>| committed.as_ref().map(Committed::encode);
        let records = changes.iter().map(|(key, committed)| (key.encode(), value(committed))).collect();
        let written = self.write_forgotten(core, group, records, forgotten);
        let core = Arc::clone(core);
        async move {
            let outcome = written.await;
            match outcome {
                Ok(at) => core.offsets.changed(at, changes),
                Err(_) => {
                    let keys = changes.into_iter().map(|(key, _)| key).collect();
                    core.offsets.write_current(&core, keys).await;
                }
            }
            outcome.map(drop)
        }
    }

    /// The changes are in the log from `at` on.
    fn changed(&self, at: Offset, changes: Vec<(Key, Option<Committed>)>) {
        let mut state = self.state.lock();
        for (index, (key, committed)) in (0..).zip(changes) {
            state.apply(at.saturating_add(index), key, committed);
        }
    }

    /// Writes what counts for these, however often it takes.
    async fn write_current(&self, core: &Core, keys: Vec<Key>) {
        let stands = |key: Key| {
            let committed = self.get(&key.group, &key.topic, key.partition);
            (key, committed)
        };
        let all: Vec<_> = keys.into_iter().map(stands).collect();
        if all.is_empty() {
            return;
        }
        let encoded: Vec<_> =
            all.iter().map(|(key, it)| (key.encode(), it.as_ref().map(Committed::encode))).collect();
        let records = encoded.iter().map(|(key, value)| (&key[..], value.as_deref()));
        let batch = batch_of(core.config.env.clock.now(), records);
        if let Ok(at) = append_until_durable(self.lane(), batch, &core.timer, &core.closing).await {
            self.changed(at, all);
        }
    }
}
