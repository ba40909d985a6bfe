//! The running server: made, started, awaited, stopped.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Binaries, Error, SUPERUSER, account::Account, directory::Layout, settings};
use crate::{cluster::settings::Durability, model::secret::Secret};

/// How long Postgres may take to be ready; after a crash it first replays its log.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// How long a fast stop (clients are disconnected, a checkpoint is written) may take before it becomes an immediate one.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to look whether Postgres is ready or has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much of the end of a program's words an error repeats, in bytes.
const WORDS_MAX_BYTES: u64 = 1_500;
/// The log is started afresh when a start finds it larger than this, in bytes.
const LOG_MAX_BYTES: u64 = 10 * 1024 * 1024;
/// What Postgres says while the processes of a killed predecessor still end.
const PREDECESSOR_ENDS: &str = "pre-existing shared memory block";

/// Watches a throwaway cluster: when the standard input ends, because its owner has dropped it or has died, Postgres is
/// stopped and the directory removed. `$0` is the directory.
const LIFELINE: &str = r#"cat >/dev/null
pid=$(head -n 1 "$0/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef "$0/data" ]; then
  kill -QUIT "$pid"
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
fi
rm -rf "$0""#;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A Postgres of ours. Dropping it leaves a kept cluster running (a later start finds and replaces it) and removes a
/// throwaway one.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    account: Account,
    binaries: Binaries,
    durability: Durability,
    server: Option<Child>,
    lifeline: Option<(Child, Option<ChildStdin>)>,
}

impl Cluster {
    /// Starts the cluster in `directory`, which is made when it is missing, and waits until it is ready. A server that a
    /// killed predecessor left behind is stopped first; the caller holds whatever lock guards the directory.
    pub async fn start(directory: &Path, durability: Durability) -> Result<Self, Error> {
        let account = Account::here()?;
        let layout = Layout::new(directory);
        layout.prepare(&account)?;
        let binaries = Binaries::find(layout.major())?;
        let mut cluster = Self { layout, account, binaries, durability, server: None, lifeline: None };
        cluster.stop_predecessor().await?;
        if cluster.layout.major().is_none() {
            cluster.initialise()?;
        }
        cluster.resume().await?;
        Ok(cluster)
    }

    /// Starts a new cluster in a temporary directory. It is durable like a kept one, so that what is measured on it holds,
    /// and gone when this value is dropped or its process dies.
    pub async fn throwaway() -> Result<Self, Error> {
        let name = format!("krilin-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        let mut lifeline = Command::new("sh")
            .args(["-c", LIFELINE])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|e| Error::Program { program: "sh", words: e.to_string() })?;
        let stdin = lifeline.stdin.take();
        let started = Self::start(&directory, Durability::Full).await;
        match started {
            Ok(mut cluster) => {
                cluster.lifeline = Some((lifeline, stdin));
                Ok(cluster)
            }
            Err(error) => {
                drop(stdin);
                let _ = lifeline.wait();
                Err(error)
            }
        }
    }

    /// The cluster's directory.
    pub fn directory(&self) -> &Path {
        &self.layout.root
    }

    /// Postgres' log.
    pub fn log(&self) -> PathBuf {
        self.layout.log.clone()
    }

    /// The connection string of `role` in `database`.
    pub fn url(&self, role: &str, database: &str) -> Secret {
        Secret::new(super::url(&self.layout.root, role, database))
    }

    /// The connection string of the superuser.
    pub fn superuser_url(&self) -> Secret {
        self.url(SUPERUSER, "postgres")
    }

    /// The server's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// Whether the server has ended without being asked.
    pub fn has_ended(&mut self) -> bool {
        self.server.as_mut().is_none_or(|server| matches!(server.try_wait(), Ok(Some(_))))
    }

    /// Stops Postgres and waits for its end: clients are disconnected, everything is written. Past 30 s it is
    /// stopped without a checkpoint, which costs the next start some time and no data.
    pub async fn stop(&mut self) -> Result<(), Error> {
        self.end(Signal::INT).await
    }

    /// Stops Postgres as a crash would: without a checkpoint, without a word to clients. For tests of survival.
    pub async fn crash(&mut self) -> Result<(), Error> {
        self.end(Signal::QUIT).await
    }

    /// Starts a stopped cluster again.
    pub async fn resume(&mut self) -> Result<(), Error> {
        self.write_settings()?;
        let begun = Instant::now();
        loop {
            self.spawn()?;
            match self.ready(begun).await {
                Err(Error::Program { words, .. })
                    if words.contains(PREDECESSOR_ENDS) && begun.elapsed() < STOP_TIMEOUT =>
                {
                    tokio::time::sleep(LOOK_EVERY * 10).await;
                }
                ended => return ended,
            }
        }
    }

    async fn end(&mut self, signal: Signal) -> Result<(), Error> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let pid = Pid::from_child(&server);
        let _ = kill_process(pid, signal);
        let begun = Instant::now();
        let mut hurried = false;
        while server.try_wait().map_err(|e| Error::directory(&self.layout.data, e))?.is_none() {
            if begun.elapsed() > STOP_TIMEOUT && !hurried {
                let _ = kill_process(pid, Signal::QUIT);
                hurried = true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn stop_predecessor(&self) -> Result<(), Error> {
        let Some(pid) = running(&self.layout.data) else { return Ok(()) };
        tracing::warn!(pid = pid.as_raw_nonzero().get(), "stopping the Postgres that a killed krilin left behind");
        let begun = Instant::now();
        let mut signal = Signal::INT;
        while running(&self.layout.data) == Some(pid) {
            if begun.elapsed() > STOP_TIMEOUT {
                signal = Signal::QUIT;
            }
            kill_process(pid, signal).map_err(|e| Error::directory(&self.layout.data, e))?;
            tokio::time::sleep(LOOK_EVERY * 5).await;
        }
        Ok(())
    }

    /// Makes the data directory beside its place and then moves it there, so that a half-made one is never mistaken for data.
    fn initialise(&self) -> Result<(), Error> {
        let fresh = self.layout.root.join("data.new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(|e| Error::directory(&fresh, e))?;
        }
        let mut command = Command::new(self.binaries.directory.join("initdb"));
        command.arg("--pgdata").arg(&fresh);
        command.args([
            "--username",
            SUPERUSER,
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--auth=trust",
            "--no-instructions",
        ]);
        if self.durability == Durability::None {
            command.arg("--no-sync");
        }
        self.account.run(&mut command);
        let output = command
            .current_dir(&self.layout.root)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Error::Program { program: "initdb", words: e.to_string() })?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Program { program: "initdb", words });
        }
        fs::rename(&fresh, &self.layout.data).map_err(|e| Error::directory(&self.layout.data, e))
    }

    fn write_settings(&self) -> Result<(), Error> {
        let files = [
            ("postgresql.conf", settings::postgresql_conf(&self.layout.socket, self.durability)),
            ("pg_hba.conf", settings::PG_HBA_CONF.to_owned()),
        ];
        for (name, text) in files {
            let path = self.layout.data.join(name);
            fs::write(&path, text).map_err(|e| Error::directory(&self.layout.data, e))?;
            self.account.own(&path)?;
        }
        Ok(())
    }

    /// Starts the process in a group of its own: a Ctrl-C on the terminal is for krilin, which stops Postgres last.
    fn spawn(&mut self) -> Result<(), Error> {
        let path = &self.layout.log;
        if fs::metadata(path).is_ok_and(|log| log.len() > LOG_MAX_BYTES) {
            fs::remove_file(path).map_err(|e| Error::directory(path, e))?;
        }
        let fail = |e| Error::directory(path, e);
        let log = File::options().create(true).append(true).open(path).map_err(fail)?;
        let mut command = Command::new(self.binaries.directory.join("postgres"));
        command.arg("-D").arg(&self.layout.data).current_dir(&self.layout.data).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(fail)?).stderr(log);
        self.account.run(&mut command);
        let server = command.spawn().map_err(|e| Error::Program { program: "postgres", words: e.to_string() })?;
        self.server = Some(server);
        Ok(())
    }

    async fn ready(&mut self, begun: Instant) -> Result<(), Error> {
        let Some(server) = &mut self.server else { return Ok(()) };
        loop {
            if let Ok(Some(_)) = server.try_wait() {
                self.server = None;
                return Err(Error::Program { program: "postgres", words: tail(&self.layout.log) });
            }
            if postmaster(&self.layout.data).is_some_and(|(pid, ready)| ready && pid == Pid::from_child(server)) {
                return Ok(());
            }
            if begun.elapsed() > READY_TIMEOUT {
                return Err(Error::NotReady { seconds: READY_TIMEOUT.as_secs(), log: self.layout.log.clone() });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some((mut lifeline, stdin)) = self.lifeline.take() else { return };
        drop(stdin);
        if let Some(server) = &mut self.server {
            let _ = server.wait();
        }
        let _ = lifeline.wait();
    }
}

/// Whether a ready server runs on the cluster in `directory`.
pub fn is_running(directory: &Path) -> bool {
    let data = Layout::new(directory).data;
    running(&data).is_some() && postmaster(&data).is_some_and(|(_, ready)| ready)
}

/// The server that runs on `data`. A pid file alone proves nothing: after a crash the number may be another process's;
/// Postgres works in its data directory, which tells them apart.
fn running(data: &Path) -> Option<Pid> {
    let (pid, _) = postmaster(data)?;
    let works_in = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok()?;
    (works_in == fs::canonicalize(data).ok()?).then_some(pid)
}

/// Line 1 (the process) and line 8 (its state) of `postmaster.pid`, as `pg_ctl` reads it.
fn postmaster(data: &Path) -> Option<(Pid, bool)> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let mut lines = text.lines();
    let pid = Pid::from_raw(lines.next()?.trim().parse().ok()?)?;
    let ready = lines.nth(6).is_some_and(|state| state.trim() == "ready");
    Some((pid, ready))
}

/// The end of a log.
fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WORDS_MAX_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    read().unwrap_or_else(|e| format!("and its log `{}` cannot be read: {e}", path.display()))
}
