//! The `krilin` binary.

fn main() {}
