//! Topics: which there are, and how they come and go.
//!
//! The truth is the metadata log ([`record`] has its bytes); the [`Catalog`] in memory follows it and never
//! runs ahead: a topic is in it from when its creation is on disk until its deletion is. Changes run one
//! at a time, so that "there is one already" is never said of something that may still fail.
//!
//! * Create: directories and `meta`, synced; then the record *is there*, synced; then the answer.
//! * Delete: the record *deleted*, synced; then the answer. In the background the logs end, which waits for
//!   syncs that are going on; the directory is renamed and unlinked; then null, which
//!   lets compaction forget it.
//! * Alter: the record written again, synced; then memory and logs follow; then the answer.
//! * Grow: directories and `meta` of the new partitions, synced; then the record written again, synced; then
//!   the answer.
//!
//! A crash between any two of these leaves a topic that is whole, or one that the next start takes away.
//!
//! Lock order: the metadata log's lock, then the log's own; the catalog's lock is a leaf.

mod alter;
mod create;
mod delete;
mod delete_records;
mod describe;
mod directories;
mod found;
mod grow;
mod inspect;
mod layout;
mod load;
mod metadata;
mod operations;
mod owner;
mod progress;
mod rebuild;
mod record;
mod report;
mod space;
mod state;

pub(crate) use delete::take_away;
pub use delete_records::{DeleteRecords, DeletedRecords};
pub use inspect::{Misplaced, TopicList};
pub(crate) use layout::check as check_layout;
pub(crate) use load::load;
pub(crate) use metadata::{MetadataLog, Unreadable};
pub use owner::PartitionOwner;
pub(crate) use progress::Opening;
pub use progress::{OnOpen, OpenProgress};
pub use rebuild::{RebuildPlan, RebuiltTopic, SkippedDirectory, plan_rebuild};
pub use report::{FailedPartition, OpenReport, UnknownDirectory};
pub(crate) use space::SpaceLeft;
pub(crate) use state::{Catalog, OffsetRange, Partition, TopicState};
