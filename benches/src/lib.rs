//! How figures are taken: two things alternate in one run, and what counts is their ratio.
//!
//! Absolute figures move with the machine, the hour and the neighbours; the ratio of two that were
//! taken in turns moves much less. So every bench has a baseline, [`alternate`] runs both at least
//! five times, and prints the median and the spread of each and of their ratio. `docs/benchmarks.md`
//! says what was measured, and how.
#![warn(missing_docs)]

mod machine;
mod series;

pub use machine::{Memory, describe_machine, memory_of, touch_memory};
pub use series::{Series, Unit, alternate};
