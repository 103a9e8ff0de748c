//! Logmill in one binary: a durable log broker with a stream processor inside.
//!
//! This library is the whole program; `main.rs` only calls [`main`]. A test or a bench that needs
//! a node in a process of its own declares a binary that does the same.
//!
//! Each command owns a module: its arguments, with their help, and what it does. Commands return
//! `failure::Failure` and print their results through `output::Output`; nothing else writes to
//! standard output, and only [`main`] writes the one sentence of a failure to standard error.
#![warn(missing_docs)]

mod args;
mod bench;
mod client;
mod codec;
mod consume;
mod failure;
mod group;
mod log;
mod node;
mod output;
mod produce;
mod quickstart;
mod record_json;
mod serve;
mod topic;
mod txn;
mod when;

use std::io::Write as _;
use std::process::ExitCode;

use failure::Failure;

/// Runs the program with this process's arguments and environment, and says how it ended:
/// 0 done, 1 failed, 2 wrong usage, 3 node unavailable, 4 denied, 5 not found, 6 conflict,
/// 7 damage found, 124 timed out.
///
/// A failure is one sentence on standard error. Never panics on what it is given.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     logmill::main()
/// }
/// ```
#[must_use]
pub fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(exit) => return exit,
    };
    match command.run() {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Told { exit, message }) => {
            // Nobody is left to tell if standard error is closed.
            let _ = writeln!(std::io::stderr(), "logmill: {message}");
            ExitCode::from(exit as u8)
        }
    }
}
