//! What the end-to-end tests share: the program as a child process, a node to kill, the checker of
//! [histories](history), and the independent computation of the quickstart's result.
//!
//! Every wait here has a limit, and a child process never outlives the value that started it, so
//! a test that fails does not hang and leaves nothing running.
#![warn(missing_docs)]
#![expect(clippy::panic, reason = "a test that cannot go on has failed")]

pub mod history;
mod node;
mod oracle;
mod program;
mod running;

pub use node::{Node, rss_anon};
pub use oracle::{check_table, embedded_feed};
pub use program::{Outcome, Program, finish, free_port, pause};
pub use running::Running;

/// The program that this package builds, from inside one of its integration tests.
#[macro_export]
macro_rules! program {
    () => {
        $crate::Program::new(env!("CARGO_BIN_EXE_logmill-node"))
    };
}

/// What the documents show compiles, and runs unless they say otherwise.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/embedding.md")]
    mod embedding {}
    #[doc = include_str!("../../docs/pipelines.md")]
    mod pipelines {}
}
