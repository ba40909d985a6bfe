//! The benches, one program: `cargo bench --bench load -- NAME`. Each prints a table, writes `target/bench/NAME.json` and
//! ends with 1 when a goal does not hold.
#![expect(unreachable_pub, reason = "a bench has no outside")]
#![expect(clippy::print_stdout, reason = "a bench talks to people")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has to say where")]

mod action;
mod beside;
mod churn;
mod crash;
mod findings;
mod fleet;
mod flow;
#[path = "../it/hostile.rs"]
mod hostile;
mod limit;
mod queue;
mod report;
mod sandbox;
mod schedule;
mod storm;
mod wal;
mod wanted;

use std::process::ExitCode;

/// The benches by name.
const BENCHES: &[&str] = &["sandbox", "queue", "crash", "schedule"];

#[tokio::main]
async fn main() -> ExitCode {
    // cargo adds flags of its own.
    let name = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let holds = match name.as_deref() {
        Some("action") => action::bench().await,
        Some("crash") => crash::bench().await,
        Some(storm::worker::NAME) => storm::worker::work(&std::env::args().nth(2).unwrap()).await,
        Some("queue") => queue::bench().await,
        Some("sandbox") => sandbox::bench().await,
        Some("schedule") => schedule::bench().await,
        // `cargo test --all-targets` runs benches without a name, to see that they run.
        None => true,
        Some(other) => {
            println!("there is no bench `{other}`; there are: {}", BENCHES.join(" "));
            false
        }
    };
    ExitCode::from(u8::from(!holds))
}
