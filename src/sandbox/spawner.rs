//! Starts and buries children, on one thread of its own.
//!
//! A child dies with the thread that started it (the parent-death signal is per thread), so that thread must live exactly
//! as long as the pool, which no thread of an asynchronous runtime promises.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

/// Starts children of one program.
pub(super) struct Spawner {
    asks: Sender<Ask>,
}

type Report = Box<dyn FnOnce(io::Result<(Child, UnixStream)>) + Send>;

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

/// Starts a child with one socket as its input and output, and nothing else: no environment but the zone of the C library.
fn spawn(program: &PathBuf) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let theirs = OwnedFd::from(theirs);
    let child = Command::new(program)
        .arg("sandbox")
        .env_clear()
        .env("TZ", "UTC0")
        .current_dir("/")
        .stdin(theirs.try_clone()?)
        .stdout(theirs)
        .stderr(Stdio::null())
        .spawn()?;
    Ok((child, ours))
}
