//! One suite for every backend: what the engine relies on, and whole pipelines, over a broker in the same process and
//! over the network.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod conformance;
mod node;
mod pipelines;
