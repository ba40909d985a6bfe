//! The `krilin` binary. Everything is in the library; here the process begins and ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    krilin::cli::main()
}
