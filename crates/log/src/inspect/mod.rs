//! Looking into data directories that nobody has open: what is in them, whether every byte is what
//! was written, and mending what is not.
//!
//! * [`list()`] says which logs there are, without reading their records.
//! * [`verify()`] reads every byte and reports what is damaged, what can be made again, and what
//!   will happen at the next open. It changes nothing.
//! * [`plan_repair()`] says how what is damaged would be mended, and [`Plan::execute`] does it.
//! * [`dump()`] hands out batches one after the other, damaged ones among them.
//!
//! All take the directory's lock, so a running node is answered with
//! [`Locked`](crate::ErrorKind::Locked), and all work through the [`Env`](crate::env::Env), so also
//! in the simulator. A copy of a data directory is a data directory.
//!
//! ```
//! use logmill_log::env::Env;
//! use logmill_log::{LogOptions, LogSet, SetOptions, inspect};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! let set = LogSet::open(dir.path(), SetOptions::default())?;
//! set.create("orders", b"", LogOptions::default())?;
//! set.close()?;
//!
//! let env = Env::real();
//! assert_eq!(inspect::list(&env, dir.path())?.logs.len(), 1);
//! let report = inspect::verify(&env, dir.path(), &mut |progress| {
//!     println!("{} of {} bytes", progress.done_bytes, progress.total_bytes);
//! })?;
//! assert!(!report.is_damaged(), "{:?}", report.findings);
//! # Ok(())
//! # }
//! ```
//!
//! # What is told apart
//!
//! The checkpoint draws the line, as it does when a log is opened. Behind it, at the end of the
//! newest segment, bytes that make no sense are a write that was never acknowledged: a note, and
//! they are cut at the next open. Before it they are damage, and so are they in a log that was closed
//! cleanly. Without a checkpoint that can be read, all of it counts as damage.

mod directory;
mod dump;
mod finding;
mod list;
mod repair;
mod verify;

pub(crate) use directory::logs_in;
pub use dump::{DumpOptions, Dumped, DumpedBatch, DumpedDamage, dump};
pub use finding::{Finding, FindingKind, Progress, Severity};
pub use list::{CheckpointRow, Listing, LogListing, SegmentListing, list};
pub(crate) use list::{end_of, read_meta, segments};
pub use repair::{Plan, RepairStep, plan_repair};
pub use verify::{LogReport, Report, verify, verify_log};
