//! How figures are taken: two things alternate in one run, and what counts is their ratio.
//!
//! Absolute figures move with the machine, the hour and the neighbours; the ratio of two that were
//! taken in turns moves much less. So every row has a baseline: [`compare`] runs both in turns seven
//! times, prints the median and the spread of each and of their ratio, and says whether
//! the row's [`Aim`] is met. `docs/benchmarks.md` says what was measured, and how.
//!
//! A bench takes `--quick`, which does little of everything: it shows that the bench works, and
//! its figures mean nothing.
#![warn(missing_docs)]

mod child;
mod disk;
mod logs;
mod machine;
mod node;
mod records;
mod run;
mod series;

pub use child::Part;
pub use disk::{drop_from_cache, files_below};
pub use logs::{WARM, fill, open, raw_append, wait_for_oldest};
pub use machine::{Memory, describe_file_system, describe_machine, load, memory_of, touch_memory};
pub use node::Node;
pub use records::{Values, batch_of_bytes, single_record_batch};
pub use run::Run;
pub use series::{Aim, Compared, Row, Series, Unit, compare, percentile};
