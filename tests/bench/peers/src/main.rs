//! `peers`: Krilin beside the systems a user would choose instead, and beside plain SQL: one Postgres, interleaved rounds,
//! each command a fresh process. Prints a table of medians with their spread, writes `target/bench/peers.json` and
//! `tests/bench/peers.svg`, and ends with 1 when a goal does not hold.
//!
//! `peers [ROUNDS] [SYSTEM…]`: three rounds of all systems unless said otherwise.

mod http;
mod picture;
#[path = "../../../load/report.rs"]
#[expect(dead_code, reason = "not every goal of the other benches occurs here")]
mod report;
mod run;
mod table;
#[path = "../../../load/wal.rs"]
mod wal;

use std::{fs, path::Path, process::ExitCode};

use krilin_os::cluster::Cluster;

use crate::{
    report::{Goal, Report},
    run::{Ground, SYSTEMS},
    table::Table,
};

/// Rounds unless the command line says otherwise.
const ROUNDS: usize = 3;
/// Turns of the steady load in each round. A disk that stalls for a tenth of a second makes one of them slow, whoever's it is.
const LOADS: usize = 5;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let rounds = arguments.next_if(|text| text.parse::<usize>().is_ok()).map_or(ROUNDS, |n| n.parse().unwrap_or(1));
    let chosen: Vec<String> = arguments.collect();
    let mut cluster = Cluster::throwaway().await.expect("a throwaway cluster starts");
    let mut table = Table::default();
    let broken;
    {
        let mut ground = Ground::new(&cluster).await;
        let mut systems: Vec<_> = SYSTEMS
            .iter()
            .filter(|system| chosen.is_empty() || chosen.iter().any(|name| name == system.name))
            .collect();
        // A peer that is not installed is left out, and said so.
        let mut ready = Vec::new();
        for system in systems.drain(..) {
            match ground.install(system).await {
                Ok(()) => ready.push(system),
                Err(why) => eprintln!("{} is left out: {why}", system.name),
            }
        }
        for round in 0..rounds {
            // Nobody always comes first, when the machine is cool.
            let count = ready.len().max(1);
            ready.rotate_left(round.min(1) % count);
            for system in &ready {
                eprintln!("round {} of {rounds}: {}", round + 1, system.name);
                ground.round(system, &mut table).await;
            }
            for turn in 0..LOADS {
                eprintln!("round {} of {rounds}: load {} of {LOADS}", round + 1, turn + 1);
                for system in &ready {
                    ground.load(system, &mut table).await;
                }
            }
        }
        broken = ground.broken;
    }
    cluster.stop().await.expect("the cluster is ours");
    println!("{}", table.words());
    let mut report = Report::new("peers");
    table.figures(&mut report);
    report.figure("fsck_findings", broken as f64, "", Goal::Is(0.0));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers.svg");
    fs::write(path, picture::draw(&table.panels(), "krilin")).expect("the picture can be written");
    ExitCode::from(u8::from(!report.finish()))
}
