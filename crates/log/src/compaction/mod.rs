//! Compaction by key: what it keeps, and how it goes over a log.
//!
//! A *run* makes as many *passes* as its memory needs. A pass first notes the last record of each
//! key in the part of the log that is new since the run before, up to the end of the sealed
//! segments or of its table; then it goes over all segments from the log's start to there and
//! leaves out what those records supersede. A segment in which nothing changes is not written.
//! When the last pass is over, small neighbours become one segment.
//!
//! What is here decides and writes files beside a segment's own; putting them in its place, and
//! settling what a crash leaves of that, is the log's (`log/replace.rs`, `log/merge.rs`).
//! Batches keep their base and last offsets, so sequence numbers and offsets stay what they were;
//! the last batch of a segment stays, if need be without records.

mod clean;
mod group;
mod key_map;
mod key_memory;
mod options;
mod rewrite;
mod run;

pub(crate) use clean::{Cleaner, note_keys};
pub(crate) use group::{Candidate, Most, next_group};
pub(crate) use key_map::KeyMap;
pub(crate) use key_memory::{KeyMemory, KeyRoom};
pub use options::CompactionOptions;
pub(crate) use rewrite::{CLEANED, Rewrite, Rewritten, cleaned_path, discard};
pub use run::Compacted;
pub(crate) use run::{Pass, Run};
