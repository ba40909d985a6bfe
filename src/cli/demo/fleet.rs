//! The demo's processes: this very binary as a server and as workers, with credentials of their own, and its verbs as a
//! person would type them.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{
    cli::db,
    cluster::{self, Cluster},
    model::secret::Secret,
    store::{self, health, schema},
};

/// Where the demo's user lives: with daylight saving, so that days of 23 and 25 hours are among the sixty.
pub(super) const TIMEZONE: &str = "Europe/Berlin";
const USER: &str = "Ada";
const APP: &str = "habit-tracker";
/// The longest a process may take to be ready or a verb to end.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the worker that is to be killed is looked at for a job in hand, and how long apart.
const CATCHES: usize = 200;
const CATCH_PAUSE: Duration = Duration::from_millis(5);

/// Server and worker over a throwaway cluster. Children die with this value.
pub(super) struct Fleet {
    directory: PathBuf,
    url: Secret,
    server: Option<Child>,
    worker: Option<Child>,
    workers: usize,
}

impl Fleet {
    /// Makes roles, database and schema, and lays the credentials for the children.
    pub(super) async fn prepare(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut admin = store::connect(&cluster.superuser_url(), "krilin-demo").await.context("connecting")?;
        schema::set_up(&mut admin, cluster::DATABASE).await.context("creating roles and database")?;
        let owner_url = cluster.url("krilin_owner", cluster::DATABASE);
        let mut owner = store::connect(&owner_url, "krilin-demo").await.context("connecting as `krilin_owner`")?;
        db::bring_up(&mut owner).await?;
        let url = cluster.url("krilin_runtime", cluster::DATABASE);
        let directory = cluster.directory().join("demo");
        fs::create_dir(&directory).context("making the demo's directory")?;
        for (name, url) in [("database_url", &url), ("owner_database_url", &owner_url)] {
            let path = directory.join(name);
            fs::write(&path, url.expose()).context("laying credentials")?;
            fs::set_permissions(&path, Permissions::from_mode(0o600)).context("laying credentials")?;
        }
        Ok(Self { directory, url, server: None, worker: None, workers: 0 })
    }

    /// Adds the user, publishes and installs the app, and gives a token for both.
    pub(super) async fn introduce_user(&self) -> anyhow::Result<Secret> {
        self.verb(&["user", "add", "--name", USER, "--timezone", TIMEZONE]).await?;
        self.verb(&["app", "publish", APP]).await?;
        self.verb(&["app", "install", APP, "--user", USER]).await?;
        let scopes = ["--scope", "apps:call", "--scope", "apps:read", "--scope", "jobs:read"];
        let token = self.verb(&[&["token", "create", "--user", USER], &scopes[..]].concat()).await?;
        token["secret"].as_str().map(Secret::new).context("reading the new token")
    }

    /// Starts `krilin serve` on a free port; gives its URL.
    pub(super) async fn start_server(&mut self) -> anyhow::Result<String> {
        let (server, answer) = self.role("serve", &["serve", "--listen", "127.0.0.1:0"]).await?;
        self.server = Some(server);
        answer["url"].as_str().map(str::to_owned).context("reading where the server listens")
    }

    /// Starts `krilin work`.
    pub(super) async fn start_worker(&mut self) -> anyhow::Result<()> {
        self.workers += 1;
        let (worker, _) = self.role(&format!("work-{}", self.workers), &["work"]).await?;
        self.worker = Some(worker);
        Ok(())
    }

    /// Kills the worker as a power cut would, if it can be caught at that with a job in hand; gives how many jobs it had
    /// claimed and not ended.
    pub(super) async fn kill_worker(&mut self) -> anyhow::Result<usize> {
        let mut worker = self.worker.take().context("there is no worker to kill")?;
        let mut connection = store::connect(&self.url, "krilin-demo").await.context("connecting")?;
        for _ in 0..CATCHES {
            signal(&worker, Signal::STOP);
            if health::leases(&mut connection).await.context("counting leases")? > 0 {
                break;
            }
            signal(&worker, Signal::CONT);
            sleep(CATCH_PAUSE).await;
        }
        worker.kill().await.context("killing the worker")?;
        let held = health::leases(&mut connection).await.context("counting leases")?;
        Ok(usize::try_from(held).unwrap_or(0))
    }

    /// Asks server and worker to stop and waits for their end.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        for mut child in [self.worker.take(), self.server.take()].into_iter().flatten() {
            signal(&child, Signal::TERM);
            let status = timeout(PATIENCE, child.wait()).await.context("waiting for a role to stop")??;
            if !status.success() {
                bail!("a role ended badly when asked to stop: {status}");
            }
        }
        Ok(())
    }

    /// Runs a verb to its end; gives its answer.
    async fn verb(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let what = || format!("krilin {}", arguments.join(" "));
        let mut command = self.command()?;
        let output =
            timeout(PATIENCE, command.args(arguments).output()).await.with_context(what)?.with_context(what)?;
        if !output.status.success() {
            bail!("{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(what)
    }

    /// Starts a role and waits for its first line, which says that it is ready.
    async fn role(&self, name: &str, arguments: &[&str]) -> anyhow::Result<(Child, Value)> {
        let log = self.directory.join(format!("{name}.log"));
        let mut command = self.command()?;
        command.args(arguments).stdout(Stdio::piped()).stderr(File::create(&log).context("making a log")?);
        let mut child = command.spawn().with_context(|| format!("starting `{name}`"))?;
        let output = child.stdout.take().context("reading a role's first line")?;
        let mut line = String::new();
        let read = timeout(PATIENCE, BufReader::new(output).read_line(&mut line)).await;
        match read.ok().map(|_| serde_json::from_str(&line)) {
            Some(Ok(answer)) => Ok((child, answer)),
            _ => bail!("`{name}` does not start: {}", last_words(&log)),
        }
    }

    fn command(&self) -> anyhow::Result<Command> {
        let program = std::env::current_exe().context("finding this program, to start it again")?;
        let mut command = Command::new(program);
        command.args(["--json", "--log-level", "warn"]).env("CREDENTIALS_DIRECTORY", &self.directory);
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }
}

/// Sends `signal` to a child that runs.
fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        let _ = kill_process(pid, signal);
    }
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.trim().lines().last().unwrap_or("it said nothing").to_owned()
}
