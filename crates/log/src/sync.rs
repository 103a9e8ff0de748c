//! The lock and the atomic of the wake-up protocol, by one name: `tests/loom.rs` compiles that
//! module with loom's in their place and runs it in every order.

pub(crate) use std::sync::atomic::AtomicU64;

pub(crate) use parking_lot::Mutex;
