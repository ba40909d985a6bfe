//! Writes the manual pages of all verbs into a directory: `cargo run --example man -- DIRECTORY`. They are what `--help` says.

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).ok_or_else(|| std::io::Error::other("which directory?"))?;
    std::fs::create_dir_all(&directory)?;
    clap_mangen::generate_to(krilin::cli::command(), directory)
}
