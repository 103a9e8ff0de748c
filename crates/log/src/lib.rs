//! A segment-file append-only log: what a Rust program embeds when it needs one.
#![warn(missing_docs)]

pub mod env;
mod error;
mod format;
mod log;
mod options;
mod read;
mod segment;
mod set;
#[cfg(feature = "sim")]
pub mod sim;

pub use error::{Error, ErrorKind};
pub use format::meta::LogMeta;
pub use log::{Beyond, Log, LogState, LogStats, Receipt, Step, WaitFor};
pub use options::{LogOptions, SetOptions};
pub use read::{Chunk, ReadOut};
pub use set::LogSet;
