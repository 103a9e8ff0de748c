//! Aggregates: how the records of one key and window become one result.

use std::marker::PhantomData;

use crate::Data;

/// How records become one value.
///
/// The engine starts from [`init`](Self::init), [`add`](Self::add)s records to an accumulator, may
/// [`merge`](Self::merge) accumulators that were filled apart, and asks for the result by
/// [`finish`](Self::finish), which may happen more than once.
///
/// # Laws
/// The order in which records of different partitions arrive is not defined, and where records are cut into partial
/// accumulators is the engine's choice. So `merge` has to be associative and commutative, `init` its neutral
/// element, and adding a record the same as merging an accumulator that holds only it. Floating point sums keep
/// these laws up to rounding.
///
/// Adding must depend on nothing but its arguments: after a restart the records of open windows are added again.
///
/// ```
/// use logmill_processing::Aggregate;
///
/// /// The mean of all values.
/// struct Mean;
///
/// impl Aggregate for Mean {
///     type In = f64;
///     type Acc = (f64, u64);
///     type Out = f64;
///
///     fn init(&self) -> (f64, u64) {
///         (0.0, 0)
///     }
///     fn add(&self, acc: &mut (f64, u64), value: f64) {
///         acc.0 += value;
///         acc.1 += 1;
///     }
///     fn merge(&self, acc: &mut (f64, u64), other: (f64, u64)) {
///         acc.0 += other.0;
///         acc.1 += other.1;
///     }
///     fn finish(&self, acc: &(f64, u64)) -> f64 {
///         acc.0 / acc.1 as f64 // a window without records has no result, so the count is not 0
///     }
/// }
///
/// let (mut left, mut right) = (Mean.init(), Mean.init());
/// Mean.add(&mut left, 1.0);
/// Mean.add(&mut right, 4.0);
/// Mean.merge(&mut left, right);
/// assert_eq!(Mean.finish(&left), 2.5);
/// ```
pub trait Aggregate: Send + Sync + 'static {
    /// What is added.
    type In;
    /// What is kept while the window is open.
    type Acc: Data;
    /// The result.
    type Out: Send + 'static;

    /// An accumulator of nothing.
    fn init(&self) -> Self::Acc;

    /// Adds one value.
    fn add(&self, acc: &mut Self::Acc, value: Self::In);

    /// Adds everything that `other` holds.
    fn merge(&self, acc: &mut Self::Acc, other: Self::Acc);

    /// The result for what was added so far.
    fn finish(&self, acc: &Self::Acc) -> Self::Out;
}

/// How many values there are: what [`count`](crate::WindowedStream::count) uses.
pub(crate) struct Count<T>(PhantomData<fn(T)>);

impl<T> Count<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: 'static> Aggregate for Count<T> {
    type In = T;
    type Acc = u64;
    type Out = u64;

    fn init(&self) -> u64 {
        0
    }

    fn add(&self, acc: &mut u64, _: T) {
        *acc += 1;
    }

    fn merge(&self, acc: &mut u64, other: u64) {
        *acc += other;
    }

    fn finish(&self, acc: &u64) -> u64 {
        *acc
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    /// Count, sum, smallest and largest: what most aggregates are made of.
    struct Summary;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Held {
        count: u64,
        sum: i64,
        smallest: i64,
        largest: i64,
    }

    impl Aggregate for Summary {
        type In = i64;
        type Acc = Held;
        type Out = Held;

        fn init(&self) -> Held {
            Held { count: 0, sum: 0, smallest: i64::MAX, largest: i64::MIN }
        }

        fn add(&self, acc: &mut Held, value: i64) {
            self.merge(acc, Held { count: 1, sum: value, smallest: value, largest: value });
        }

        fn merge(&self, acc: &mut Held, other: Held) {
            acc.count += other.count;
            acc.sum += other.sum;
            acc.smallest = acc.smallest.min(other.smallest);
            acc.largest = acc.largest.max(other.largest);
        }

        fn finish(&self, acc: &Held) -> Held {
            acc.clone()
        }
    }

    fn filled<A: Aggregate<In = i64>>(aggregate: &A, values: &[i64]) -> A::Acc {
        let mut acc = aggregate.init();
        values.iter().for_each(|value| aggregate.add(&mut acc, *value));
        acc
    }

    fn merged<A: Aggregate>(aggregate: &A, mut one: A::Acc, other: A::Acc) -> A::Acc {
        aggregate.merge(&mut one, other);
        one
    }

    /// The laws, on three runs of values.
    fn obeys_the_laws<A>(aggregate: &A, [a, b, c]: [&[i64]; 3]) -> Result<(), TestCaseError>
    where
        A: Aggregate<In = i64, Out: PartialEq + std::fmt::Debug>,
    {
        let of = |values| filled(aggregate, values);
        let all = filled(aggregate, &[a, b, c].concat());
        let left = merged(aggregate, merged(aggregate, of(a), of(b)), of(c));
        let right = merged(aggregate, of(a), merged(aggregate, of(b), of(c)));
        let swapped = merged(aggregate, of(c), merged(aggregate, of(b), of(a)));
        let with_none = merged(aggregate, aggregate.init(), merged(aggregate, left, aggregate.init()));
        for acc in [with_none, right, swapped] {
            prop_assert_eq!(aggregate.finish(&acc), aggregate.finish(&all));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn where_values_are_cut_and_in_which_order_they_are_merged_makes_no_difference(
            a in prop::collection::vec(-1_000_i64..1_000, 0..20),
            b in prop::collection::vec(-1_000_i64..1_000, 0..20),
            c in prop::collection::vec(-1_000_i64..1_000, 0..20),
        ) {
            obeys_the_laws(&Count::new(), [&a, &b, &c])?;
            obeys_the_laws(&Summary, [&a, &b, &c])?;
        }
    }
}
