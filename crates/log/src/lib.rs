//! A segment-file append-only log: what a Rust program embeds when it needs one.
//!
//! A [`Log`] is an ordered sequence of records on disk. Appending gives them consecutive offsets;
//! an append is *acknowledged* when its [`Receipt`] resolves, and an acknowledged record is on
//! disk: it survives a kill, a full disk beside it and a power cut. Readers see only such records,
//! so what a reader has seen does not vanish either.
//!
//! # A log in ten lines
//!
//! ```
//! use logmill_log::{Log, LogOptions, SetOptions};
//! use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
//!
//! let mut batch = BatchBuilder::new();
//! for city in ["Hualien", "Castaic"] {
//!     let value = Some(city.as_bytes());
//!     batch.push(&NewRecord { timestamp: TimestampMs(1_517_966_773_840), key: None, value, headers: &[] })?;
//! }
//! log.append(&[batch.build()?])?.wait()?; // on disk from here on
//!
//! let mut cities = Vec::new();
//! for chunk in log.read(Offset(0), 1 << 20)?.chunks {
//!     let mut batches = chunk.batches;
//!     while let Some(batch) = Batch::split_from(&mut batches)? {
//!         for record in batch.records()? {
//!             cities.push(String::from_utf8_lossy(record?.value.unwrap_or_default()).into_owned());
//!         }
//!     }
//! }
//! assert_eq!(cities, ["Hualien", "Castaic"]);
//! log.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # The unit is the batch
//!
//! What is appended, stored and read is Kafka's record batch v2, byte for byte (see
//! [`logmill_record`]). The log stamps base offset and leader epoch, which lie before the batch's
//! CRC, in the same write; nothing is encoded again, and a read hands out the stored bytes after
//! checking them. Segment files hold nothing but batches, so tools that read Kafka's segments read
//! these.
//!
//! # One sync for many
//!
//! There is no linger time to set. While the disk works on one sync, appends go on; the next sync
//! covers all of them, and every receipt at or below it resolves. A single writer pays one sync per
//! append, a hundred writers share one. [`Receipt`] is a future that needs no runtime, with a
//! blocking [`wait`](Receipt::wait) beside it.
//!
//! Readers of a [relaxed](Durability::Relaxed) log see an append at once, and it is synced when its
//! flush interval is over. A receipt means *on disk* there too: waiting for it asks for a sync now.
//! What readers have seen and nobody waited for, a power cut can take back.
//!
//! # Many logs
//!
//! A [`LogSet`] is a directory of logs with one lock, one checkpoint and shared threads. The
//! checkpoint, at most a second behind, says up to where each log is known to be on disk, and so
//! what damage means: after it, a broken batch is a write that tore and was never acknowledged, and
//! is saved aside and cut; before it, it is corruption, which is named and never deleted. Opening
//! costs the unsynced tail, never the length of the log. [`LogSet::open_logs`] opens many at a time.
//!
//! The logs of a set share budgets. So many files at most are
//! [open for appends](SetOptions::max_open_files), and logs take turns with them: ten thousand work
//! under a limit of 1,024. So many bytes at most are [unsynced](SetOptions::max_dirty_bytes) over all
//! logs, and appends wait their turn for room. A log that is idle for a minute keeps little but its
//! totals in memory. Every [maintenance interval](SetOptions::maintenance_interval) the set looks
//! after its logs. [`LogSet::stats`] and [`Log::stats`] say how all that stands.
//!
//! # Producers that try again
//!
//! A batch may carry a producer's id, epoch and sequence (see
//! [`BatchOptions::producer`](logmill_record::BatchOptions::producer)). The log then knows one that is sent again, because the
//! answer was lost: its [`Receipt`] has the offsets of the first time, says that it is a
//! [duplicate](Receipt::is_duplicate), and resolves only when those are on disk. A batch that comes
//! before its time is [`OutOfSequence`](ErrorKind::OutOfSequence), one of an older epoch
//! [`Fenced`](ErrorKind::Fenced), and one that comes again too late to be recognised
//! [`SequenceForgotten`](ErrorKind::SequenceForgotten). A failed append counts for nothing: the same sequence is taken
//! when it comes again. The last [64 batches](REMEMBERED_BATCHES) of each producer are remembered, also over restarts,
//! and a producer itself for [a day](LogOptions::producer_expiry).
//!
//! Transactional batches stay undecided until a marker
//! ([`ControlRecord`](logmill_record::ControlRecord)) commits or aborts them. A reader of committed records reads with
//! [`Log::read_committed`], which ends at [`Log::last_stable_offset`], leaves out what [`Log::aborted`] names, and waits
//! with [`Log::stable_beyond`]. Markers are appended like any batch; it is the owner's part to let no stranger append
//! them.
//!
//! # What is kept
//!
//! Everything, unless the owner says otherwise: [`LogOptions::retention_age`] and
//! [`LogOptions::retention_bytes`] let whole segments go from the front, by the time at which they
//! were appended and by their size, and [`Log::set_start_offset`] moves the start by hand, also into
//! the middle of a segment. The start is on disk before the first file goes: no crash brings back
//! what was below it, or takes what was not. A reader keeps the bytes that it holds; its next read
//! below the start is [`OutOfRange`](ErrorKind::OutOfRange) and names the range there is.
//!
//! # Compaction
//!
//! A log whose records have keys can be kept as small as its keys are few: with
//! [`LogOptions::compaction`], of all records with the same key only the last stays, and a reader of
//! the whole log still learns the last value of each. What stays keeps its offset and its time of
//! append; where records went, offsets are missing, and a reader that asks for one gets the next.
//! Records without a key stay. A record with a key and no value is a *tombstone*: it deletes its
//! key, and goes itself when readers have had [time to see
//! it](CompactionOptions::delete_retention). Records of transactions are superseded, and supersede
//! nothing.
//!
//! Only sealed segments are compacted, each written anew beside the old one and renamed over it, so
//! that a crash leaves the one or the other. What cannot be written, for want of space or for
//! another reason, leaves the log as it was. Damage stops compaction before it: a record that
//! cannot be read may be the only one of its key. A set compacts its logs by itself, in the
//! background, one segment or group of segments at a time, as soon as [enough is new](CompactionOptions::min_dirty_ratio);
//! [`Log::compact`] does it all at once. When it has been through, small neighbours become one
//! segment, so that a log does not fall into ever more files; where retention is to take segments,
//! merged ones are a tenth of that at most. [`LogStats::compaction`] says what was done.
//!
//! ```
//! use logmill_log::{CompactionOptions, Log, LogOptions, SetOptions};
//! use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let compacted = LogOptions::default().compaction(Some(CompactionOptions::default()));
//! let log = Log::open(dir.path(), SetOptions::default(), compacted)?;
//! for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
//!     let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
//!     let mut batch = BatchBuilder::new();
//!     batch.push(&NewRecord { timestamp: TimestampMs(0), key, value, headers: &[] })?;
//!     log.append(&[batch.build()?])?.wait()?;
//! }
//! log.roll()?; // only sealed segments are compacted
//! log.compact()?;
//!
//! let first = Batch::parse(log.read(Offset(0), 1)?.chunks[0].batches.clone())?;
//! assert_eq!(first.header().base_offset, Offset(1), "the first value of a is gone");
//! # Ok(())
//! # }
//! ```
//!
//! # When the disk fails
//!
//! A failed sync is not tried again: the kernel marks the pages clean all the same, and the second
//! try would lie. The log is *poisoned*: waiters get
//! [`OutcomeUnknown`](ErrorKind::OutcomeUnknown), appends are refused, other logs of the set go on.
//! [`LogSet::open_log`] opens it again after the last record known to be durable. A full disk is
//! [`Full`](ErrorKind::Full), nothing was appended, and the next append may succeed. A
//! [watermark](SetOptions::low_space_bytes) ends appends before the disk is full, and a
//! [reserve](SetOptions::reserve_bytes) keeps space for what has to be written all the same. A disk
//! that hangs holds up whoever waits for it; [`LogSet::close_within`] and [`Log::close_within`] do
//! not.
//!
//! # Seams
//!
//! The file system, the clock, randomness and scheduling come from an [`env::Env`]. With the
//! feature `sim` there is one in which one seed is one identical run and in which power cuts tear
//! files at any byte; this crate's own tests and those of programs that embed it run there.
#![deny(missing_docs)]

mod compaction;
pub mod env;
mod error;
mod format;
mod histogram;
pub mod inspect;
mod log;
mod options;
mod read;
mod segment;
mod set;
#[cfg(feature = "sim")]
pub mod sim;
mod sync;

pub use compaction::{Compacted, CompactionOptions};
pub use error::{Error, ErrorKind};
pub use format::meta::LogMeta;
pub use format::state::{AbortedTxn, REMEMBERED_BATCHES};
pub use histogram::Histogram;
pub use log::{
    Appended, Beyond, CompactionStats, Log, LogState, LogStats, OnDisk, OpenTransaction, ProducerView,
    Receipt, Recovered, Step, WaitFor,
};
pub use options::{Durability, LogOptions, ReadMode, ScanProgress, SetOptions};
pub use read::{Chunk, ReadOut};
pub use set::{BudgetStats, LogSet, OpenProgress, ReserveState, SetStats};
