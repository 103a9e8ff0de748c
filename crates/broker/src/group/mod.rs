//! Consumer groups: who reads which partitions.
//!
//! [`machine`] decides, and does nothing else: it has no clock, no disk and no streams.

mod machine;
