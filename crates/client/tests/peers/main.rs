//! The client against peers: a real node, and one that misbehaves on request.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod connect;
mod consume_faults;
mod fake;
mod node;
mod produce_faults;
mod subscribe_faults;
mod transaction_faults;
