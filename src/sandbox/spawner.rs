//! Starts and buries children, on one thread of its own.
//!
//! A child dies with the thread that started it (the parent-death signal is per thread), so that thread must live exactly
//! as long as the pool, which no thread of an asynchronous runtime promises.

use std::{
    io::{self, PipeReader, PipeWriter},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// Starts children of one program.
pub(super) struct Spawner {
    asks: Sender<Ask>,
}

/// A child, and the parent's ends of the pipes that are its input and its output.
pub(super) struct Started {
    pub(super) process: Child,
    pub(super) orders: PipeWriter,
    pub(super) reports: PipeReader,
}

type Report = Box<dyn FnOnce(io::Result<Started>) + Send>;

enum Ask {
    Spawn(Report),
    Bury(Child),
}

impl Spawner {
    /// A thread that starts `program sandbox`. It ends, and its children with it, when this value is dropped.
    pub(super) fn start(program: PathBuf) -> io::Result<Self> {
        // Bounded by the pool: it asks once for each place that is empty and once for each child that left.
        let (asks, inbox) = channel();
        thread::Builder::new().name("sandbox-spawner".into()).spawn(move || attend(&program, &inbox))?;
        Ok(Self { asks })
    }

    /// Starts a child and hands it to `report`, on the spawner's thread.
    pub(super) fn spawn(&self, report: Report) {
        // The thread ends only with this sender.
        let _delivered = self.asks.send(Ask::Spawn(report));
    }

    /// Kills a child and waits for its end.
    pub(super) fn bury(&self, mut child: Child) {
        // Already dead is as good.
        let _gone = child.kill();
        let _delivered = self.asks.send(Ask::Bury(child));
    }
}

fn attend(program: &PathBuf, inbox: &Receiver<Ask>) {
    while let Ok(ask) = inbox.recv() {
        match ask {
            Ask::Spawn(report) => report(spawn(program)),
            Ask::Bury(mut child) => {
                let _status = child.wait();
            }
        }
    }
}

/// Starts a child with two pipes as its input and output, and nothing else: no environment but the zone of the C library.
/// Pipes and no socket: who reads from a socket wakes the one at its other end, who may write again but waits to read.
fn spawn(program: &PathBuf) -> io::Result<Started> {
    let (input, orders) = io::pipe()?;
    let (reports, output) = io::pipe()?;
    let process = Command::new(program)
        .arg("sandbox")
        .env_clear()
        .env("TZ", "UTC0")
        .current_dir("/")
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Started { process, orders, reports })
}
