//! The `logmill` program under a name of its own, for the tests to start and kill.

use std::process::ExitCode;

fn main() -> ExitCode {
    logmill::main()
}
