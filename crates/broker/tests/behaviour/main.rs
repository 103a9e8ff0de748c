//! The broker as its users have it: what it promises, tested through its public handle.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod beside_stalls;
mod beside_the_end;
mod by_time;
mod common;
mod compacted;
mod consume;
mod crash;
mod damage;
mod faults;
mod fetch;
mod groups;
mod grow;
mod idempotence;
mod inspect;
mod limits;
mod metadata;
mod open;
mod produce;
mod replaced;
mod settings;
mod stalls;
mod steps;
mod steps_cut_off;
mod subscribe;
mod topic_faults;
mod topics;
mod transactions;
mod truncation;

#[cfg(feature = "grpc")]
mod grpc;
