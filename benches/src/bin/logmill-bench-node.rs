//! The `logmill` program under a name of its own, for the benches to start and measure.

use std::process::ExitCode;

fn main() -> ExitCode {
    logmill::main()
}
