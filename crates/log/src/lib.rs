//! A segment-file append-only log: what a Rust program embeds when it needs one.
#![warn(missing_docs)]

pub mod env;
#[cfg(feature = "sim")]
pub mod sim;
