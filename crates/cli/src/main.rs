//! The `logmill` program. Everything is in the library, so that tests and benches can declare a
//! program of their own that does the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    logmill::main()
}
