//! Stateless steps: each item becomes none, one or many, or a dead letter.

use std::sync::Arc;

use super::{Discard, Item, NodeId, Step, Typed, guarded};

/// `filter`, `map`, `try_map`, `flat_map` and `key_by`: `apply` pushes what the item becomes.
pub(crate) struct Each<T, U, F> {
    node: NodeId,
    apply: Arc<F>,
    /// Empty between items; kept for its room.
    made: Vec<U>,
    takes: std::marker::PhantomData<fn(T)>,
}

impl<T, U, F> Each<T, U, F> {
    pub(crate) fn new(node: NodeId, apply: Arc<F>) -> Self {
        Self { node, apply, made: Vec::new(), takes: std::marker::PhantomData }
    }
}

impl<T, U, F> Typed for Each<T, U, F>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(T, &mut Vec<U>) -> Result<(), String> + Send + Sync,
{
    type In = T;
    type Out = U;

    fn run(&mut self, batch: Vec<Item<T>>, step: &mut Step) -> Result<Vec<Item<U>>, Discard> {
        let taken = batch.len() as u64;
        let mut out = Vec::with_capacity(batch.len());
        for Item { time, origin, value } in batch {
            match guarded(|| (self.apply)(value, &mut self.made)).flatten() {
                Ok(()) => out.extend(self.made.drain(..).map(|value| Item { time, origin, value })),
                Err(reason) => {
                    self.made.clear();
                    step.dead(self.node, origin, reason);
                }
            }
        }
        let counts = step.counts(self.node);
        counts.records_in += taken;
        counts.records_out += out.len() as u64;
        Ok(out)
    }
}
