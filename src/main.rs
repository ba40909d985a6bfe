//! The `krilin` binary. Everything is in the library; here the process begins and ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Before anything else: a sandbox child has no use for a command line, a runtime, a configuration or a log.
    if let Some((verb, rest)) = args.split_first()
        && verb == "sandbox"
    {
        return krilin::sandbox::child::main(rest);
    }
    krilin::cli::main()
}
