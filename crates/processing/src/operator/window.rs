//! Aggregation over tumbling windows.
//!
//! What a step adds goes to accumulators of its own (`pending`) and is merged into the state when the step is sealed.
//! So a panic in `add` costs the step's work and not the state: the step is discarded and run again without that
//! record, this time *careful*, each record in an accumulator of its own before it is merged, so that further panics
//! of the same kind cost one record and no second run.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use logmill_record::{Offset, TimestampMs};

use super::{Discard, ErasedBatch, Item, NodeId, Origin, Step, Typed, Windows, erase, guarded};
use crate::aggregate::Aggregate;
use crate::window::Windowed;

pub(crate) struct WindowOperator<K, A: Aggregate> {
    node: NodeId,
    size_ms: i64,
    aggregate: Arc<A>,
    /// Sealed windows that are open, by their start.
    open: BTreeMap<i64, Window<K, A::Acc>>,
    /// What this step added, by window start.
    pending: BTreeMap<i64, Window<K, A::Acc>>,
    careful: bool,
}

/// The accumulators of one window, in the order in which their keys first came.
struct Window<K, Acc> {
    groups: Vec<(K, Acc)>,
    index: HashMap<K, usize>,
    /// The smallest offset that went in, by partition.
    needs: Vec<Option<Offset>>,
}

impl<K, Acc> Default for Window<K, Acc> {
    fn default() -> Self {
        Self { groups: Vec::new(), index: HashMap::new(), needs: Vec::new() }
    }
}

impl<K: Clone + Eq + Hash, Acc> Window<K, Acc> {
    fn need(&mut self, partition: usize, offset: Offset) {
        if self.needs.len() <= partition {
            self.needs.resize(partition + 1, None);
        }
        let need = &mut self.needs[partition];
        *need = Some(need.map_or(offset, |smallest| smallest.min(offset)));
    }

    fn group(&mut self, key: K, init: impl FnOnce() -> Acc) -> &mut Acc {
        let at = match self.index.get(&key) {
            Some(&at) => at,
            None => {
                self.groups.push((key.clone(), init()));
                self.index.insert(key, self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        &mut self.groups[at].1
    }

    fn absorb(&mut self, other: Self, mut merge: impl FnMut(&mut Acc, Acc)) {
        for (partition, offset) in other.needs.into_iter().enumerate() {
            if let Some(offset) = offset {
                self.need(partition, offset);
            }
        }
        for (key, acc) in other.groups {
            match self.index.get(&key) {
                Some(&at) => merge(&mut self.groups[at].1, acc),
                None => {
                    self.index.insert(key.clone(), self.groups.len());
                    self.groups.push((key, acc));
                }
            }
        }
    }
}

impl<K, A> WindowOperator<K, A>
where
    K: Clone + Eq + Hash + Send + 'static,
    A: Aggregate,
{
    pub(crate) fn new(node: NodeId, size_ms: i64, aggregate: Arc<A>) -> Self {
        Self { node, size_ms, aggregate, open: BTreeMap::new(), pending: BTreeMap::new(), careful: false }
    }

    /// The window of a time. The source lets no time near the ends of `i64` pass.
    fn start_of(&self, time: i64) -> i64 {
        time.saturating_sub(time.rem_euclid(self.size_ms))
    }

    /// Whether a record may still be counted. A late one is reported, one that an earlier run has handled is not.
    fn admits(&self, origin: Origin, start: i64, step: &mut Step) -> bool {
        let end = start.saturating_add(self.size_ms);
        let Some(record) = step.record(origin) else { return true };
        if record.replayed {
            return end > step.closed;
        }
        if end <= record.watermark {
            step.late(self.node, origin, start, end);
            return false;
        }
        true
    }

    fn add(&mut self, start: i64, key: K, value: A::In) -> Result<(), Spoiled> {
        let aggregate = &*self.aggregate;
        if !self.careful {
            let window = self.pending.entry(start).or_default();
            return guarded(|| aggregate.add(window.group(key, || aggregate.init()), value))
                .map_err(Spoiled::Accumulator);
        }
        let single = guarded(|| {
            let mut single = aggregate.init();
            aggregate.add(&mut single, value);
            single
        })
        .map_err(Spoiled::Record)?;
        let window = self.pending.entry(start).or_default();
        guarded(|| aggregate.merge(window.group(key, || aggregate.init()), single))
            .map_err(Spoiled::Accumulator)
    }

    /// What a window yields, as of this time at the latest: the result of an open window must not look as if it came
    /// from the future.
    fn results(
        &self,
        start: i64,
        window: &Window<K, A::Acc>,
        as_of: i64,
        step: &mut Step,
    ) -> Vec<Item<Windowed<K, A::Out>>> {
        let end = start.saturating_add(self.size_ms);
        let origin = step.window(start, end);
        let time = (end - 1).min(as_of);
        let mut out = Vec::with_capacity(window.groups.len());
        for (key, acc) in &window.groups {
            match guarded(|| self.aggregate.finish(acc)) {
                Ok(value) => {
                    let (start, end) = (TimestampMs(start), TimestampMs(end));
                    out.push(Item { time, origin, value: Windowed { key: key.clone(), start, end, value } });
                }
                Err(reason) => step.dead(self.node, origin, reason),
            }
        }
        step.counts(self.node).records_out += out.len() as u64;
        out
    }
}

/// What a panic of the aggregate has left behind.
enum Spoiled {
    /// Nothing: the record alone is lost.
    Record(String),
    /// An accumulator in an unknown state.
    Accumulator(String),
}

impl<K, A> Typed for WindowOperator<K, A>
where
    K: Clone + Eq + Hash + Send + 'static,
    A: Aggregate,
    A::In: Send + 'static,
{
    type In = (K, A::In);
    type Out = Windowed<K, A::Out>;

    fn run(&mut self, batch: Vec<Item<Self::In>>, step: &mut Step) -> Result<Vec<Item<Self::Out>>, Discard> {
        let node = self.node;
        step.counts(node).records_in += batch.len() as u64;
        for Item { time, origin, value: (key, value) } in batch {
            let start = self.start_of(time);
            if !self.admits(origin, start, step) {
                continue;
            }
            if let Some(reason) = step.poisoned(node, origin).cloned() {
                step.dead(node, origin, reason);
                continue;
            }
            match self.add(start, key, value) {
                Ok(()) => {}
                Err(Spoiled::Record(reason)) => {
                    step.dead(node, origin, reason);
                    continue;
                }
                Err(Spoiled::Accumulator(reason)) => return Err(Discard { node, origin, reason }),
            }
            if let (Some(record), Some(window)) = (step.record(origin), self.pending.get_mut(&start)) {
                window.need(record.partition, record.offset);
            }
        }
        Ok(Vec::new())
    }

    fn windows(&mut self) -> Option<&mut dyn Windows> {
        Some(self)
    }
}

impl<K, A> Windows for WindowOperator<K, A>
where
    K: Clone + Eq + Hash + Send + 'static,
    A: Aggregate,
{
    fn discard(&mut self, careful: bool) {
        self.pending.clear();
        self.careful |= careful;
    }

    fn seal(&mut self) -> Result<(), String> {
        self.careful = false;
        for (start, added) in std::mem::take(&mut self.pending) {
            let window = self.open.entry(start).or_default();
            guarded(|| window.absorb(added, |acc, other| self.aggregate.merge(acc, other)))?;
        }
        Ok(())
    }

    fn close(&mut self, watermark: i64, step: &mut Step) -> Option<ErasedBatch> {
        let mut out = Vec::new();
        while let Some(first) = self.open.first_entry() {
            if first.key().saturating_add(self.size_ms) > watermark {
                break;
            }
            let (start, window) = first.remove_entry();
            out.append(&mut self.results(start, &window, i64::MAX, step));
        }
        erase(out)
    }

    fn peek(&self, as_of: i64, step: &mut Step) -> Option<ErasedBatch> {
        let open = self.open.iter();
        erase(open.flat_map(|(start, window)| self.results(*start, window, as_of, step)).collect())
    }

    fn needs(&self, partition: usize) -> Option<Offset> {
        self.open.values().filter_map(|window| window.needs.get(partition).copied().flatten()).min()
    }

    fn earliest_end(&self) -> Option<i64> {
        let sealed = self.open.keys().next();
        let pending = self.pending.keys().next();
        sealed.into_iter().chain(pending).min().map(|start| start.saturating_add(self.size_ms))
    }
}
