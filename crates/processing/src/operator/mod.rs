//! Operators: the inside of a step, without I/O and without a clock.
//!
//! A batch of items goes from operator to operator by one dynamic call each; inside, everything is typed. An operator
//! writes what leaves the pipeline (rows, records, letters) into the [`Step`], and nothing else anywhere.
//!
//! Invariants:
//! * an item's origin says which source record, or which window, it came from: letters and the replay rules go by it;
//! * user closures run under [`guarded`], so a panic is a reason like any other;
//! * state changed in a step can be taken back until the step is sealed ([`Windows::discard`]).

mod each;
mod sink;
mod source;
mod step;
mod window;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use logmill_record::Offset;

pub(crate) use each::Each;
pub(crate) use sink::{TableSink, TopicSink};
pub(crate) use source::{Belief, Decoder, Drawn, Entry, SourceDecoder};
pub(crate) use step::{Counts, Letter, OutRecord, Step, Taken, Why};
pub(crate) use window::WindowOperator;

/// An operator's place in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) usize);

/// A value on its way through the operators.
#[derive(Clone, Copy)]
pub(crate) struct Item<T> {
    /// Event time, in ms.
    pub(crate) time: i64,
    pub(crate) origin: Origin,
    pub(crate) value: T,
}

/// Where an item comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// The step's source record of this index.
    Record(u32),
    /// The step's closed window of this index.
    Window(u32),
}

/// A `Vec<Item<T>>` whose `T` only the operators on both sides know.
pub(crate) type ErasedBatch = Box<dyn Any + Send>;

/// An operator as the engine drives it.
pub(crate) trait Operator: Send {
    /// Takes a batch, and gives what it makes of it, if anything.
    fn on_batch(&mut self, batch: ErasedBatch, step: &mut Step) -> Result<Option<ErasedBatch>, Discard>;

    /// Its windows, if it keeps any.
    fn windows(&mut self) -> Option<&mut dyn Windows> {
        None
    }
}

/// The state of an operator that aggregates over windows.
pub(crate) trait Windows {
    /// Forgets what the step added. `careful`: this operator was the reason, and must not let a single record spoil
    /// an accumulator again before the step is sealed.
    fn discard(&mut self, careful: bool);

    /// Makes what the step added part of the state. An error is a panic in `merge`.
    fn seal(&mut self) -> Result<(), String>;

    /// Takes out every window that ends at or before `watermark`, and gives their results.
    fn close(&mut self, watermark: i64, step: &mut Step) -> Option<ErasedBatch>;

    /// The results that open windows have so far, none of them later than `as_of`. Nothing changes.
    fn peek(&self, as_of: i64, step: &mut Step) -> Option<ErasedBatch>;

    /// The smallest offset of a partition that an open window holds a record of.
    fn needs(&self, partition: usize) -> Option<Offset>;

    /// When the first open window ends, whether sealed or not.
    fn earliest_end(&self) -> Option<i64>;
}

/// A closure panicked in the middle of an accumulator: the step has to run again without this record.
#[derive(Debug)]
pub(crate) struct Discard {
    pub(crate) node: NodeId,
    pub(crate) origin: Origin,
    pub(crate) reason: String,
}

/// An operator between two known types; [`Erased`] makes it an [`Operator`].
pub(crate) trait Typed: Send {
    type In: Send + 'static;
    type Out: Send + 'static;

    fn run(&mut self, batch: Vec<Item<Self::In>>, step: &mut Step) -> Result<Vec<Item<Self::Out>>, Discard>;

    fn windows(&mut self) -> Option<&mut dyn Windows> {
        None
    }
}

pub(crate) struct Erased<O>(pub(crate) O);

impl<O: Typed> Operator for Erased<O> {
    fn on_batch(&mut self, batch: ErasedBatch, step: &mut Step) -> Result<Option<ErasedBatch>, Discard> {
        Ok(erase(self.0.run(restore(batch), step)?))
    }

    fn windows(&mut self) -> Option<&mut dyn Windows> {
        self.0.windows()
    }
}

/// An empty batch is none.
pub(crate) fn erase<T: Send + 'static>(batch: Vec<Item<T>>) -> Option<ErasedBatch> {
    if batch.is_empty() { None } else { Some(Box::new(batch)) }
}

pub(crate) fn restore<T: 'static>(batch: ErasedBatch) -> Vec<Item<T>> {
    *batch.downcast().expect("invariant: the builder connects only streams and operators of one type")
}

/// What a fan-out of `T` does to a batch.
pub(crate) fn copy<T: Clone + Send + 'static>(batch: &ErasedBatch) -> ErasedBatch {
    let batch: &Vec<Item<T>> =
        batch.downcast_ref().expect("invariant: the builder connects only streams and operators of one type");
    Box::new(batch.clone())
}

/// Runs a user's closure; a panic becomes a reason.
///
/// What the closure was changing must not be looked at again after an error, which is why it may be unwind-unsafe.
pub(crate) fn guarded<R>(closure: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(closure)).map_err(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        match text {
            Some(text) => format!("panicked: {text}"),
            None => "panicked".to_owned(),
        }
    })
}
