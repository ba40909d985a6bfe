//! What every verb is given: the options, the configuration, the clock, the database, and the way to answer.
//!
//! Nothing is read before a verb asks for it, so that `krilin app check` works with a broken configuration and without a
//! Postgres.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write, stderr, stdout},
    net::TcpListener,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, bail};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};

use super::Global;
use crate::{
    clock::SystemClock,
    cluster,
    config::{self, Config, Layers, Loaded, credentials},
    jobs,
    model::{policy::Policies, secret::Secret},
    store,
    supervisor::Supervisor,
    telemetry,
};

/// The most connections of a verb that asks and ends.
const VERB_CONNECTIONS: u32 = 2;

/// One run of the command line.
#[derive(Debug)]
pub struct Context {
    /// The options that every verb has.
    pub global: Global,
    /// The real clock.
    pub clock: SystemClock,
    loaded: OnceLock<Loaded>,
    inherited: Mutex<io::Result<Option<TcpListener>>>,
}

impl Context {
    /// A context for these options. `inherited` is the socket that the service manager listens on for us.
    pub fn new(global: Global, inherited: io::Result<Option<TcpListener>>) -> Self {
        Self { global, clock: SystemClock, loaded: OnceLock::new(), inherited: Mutex::new(inherited) }
    }

    /// The socket that the service manager listens on for us, the first time it is asked for.
    pub fn inherited_listener(&self) -> anyhow::Result<Option<TcpListener>> {
        let mut inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *inherited, Ok(None)).context("taking the socket that the service manager listens on")
    }

    /// The service manager that wants to be told how we are. An address that cannot be used is no reason not to work.
    pub fn supervisor(&self) -> Supervisor {
        let Some(address) = config::notify_socket() else { return Supervisor::default() };
        Supervisor::at(&address).unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager cannot be told how things stand (NOTIFY_SOCKET)");
            Supervisor::default()
        })
    }

    /// The policies of all kinds of jobs, with the operator's changes.
    pub fn policies(&self) -> anyhow::Result<Policies> {
        let directory = self.config()?.policies_directory.as_path();
        Ok(jobs::policies(Some(directory).filter(|directory| directory.is_dir()))?)
    }

    /// The configuration with its provenance, read and checked at the first call.
    pub fn loaded(&self) -> anyhow::Result<&Loaded> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let mut layers = Layers { flags: self.global.set.clone(), ..Layers::default() };
        if let Some(file) = &self.global.config {
            layers.file.clone_from(file);
            layers.required = true;
        }
        if let Some(level) = &self.global.log_level {
            layers.flags.push(("log.level".to_owned(), level.clone()));
        }
        if let Some(format) = self.global.log_format {
            layers.flags.push(("log.format".to_owned(), serde_json::to_string(&format)?));
        }
        let loaded = layers.load()?;
        Ok(self.loaded.get_or_init(|| loaded))
    }

    /// The configuration.
    pub fn config(&self) -> anyhow::Result<&Config> {
        self.loaded().map(|loaded| &loaded.config)
    }

    /// Starts the log as configured. For the verbs that stay; the others answer and end.
    pub fn start_log(&self) -> anyhow::Result<()> {
        let config = self.config()?;
        let endpoint = config.traces.endpoint();
        let (level, service) = (config.traces.level.as_str(), config.traces.service());
        let export = match endpoint.as_deref() {
            Some(endpoint) => Some(telemetry::Export { endpoint, level, service: &service, sender: sender()? }),
            None => None,
        };
        Ok(telemetry::start(telemetry::Options { level: &config.log.level, json: config.log.is_json(), export })?)
    }

    /// Where credentials are looked for, strongest first.
    pub fn credential_directories(&self) -> anyhow::Result<Vec<PathBuf>> {
        self.config()?;
        Ok(credentials::directories())
    }

    /// The connection string of the role `krilin_runtime`.
    pub fn database_url(&self) -> anyhow::Result<Secret> {
        self.credential(credentials::DATABASE_URL, "krilin_runtime")
    }

    /// The connection string of the role `krilin_owner`.
    pub fn owner_database_url(&self) -> anyhow::Result<Secret> {
        self.credential(credentials::OWNER_DATABASE_URL, "krilin_owner")
    }

    /// The directory of the private cluster, once `krilin up` has made one.
    pub fn private_cluster(&self) -> anyhow::Result<Option<PathBuf>> {
        let directory = self.cluster_directory()?;
        Ok(cluster::exists(&directory).then_some(directory))
    }

    /// Where `krilin up` keeps its private cluster.
    pub fn cluster_directory(&self) -> anyhow::Result<PathBuf> {
        Ok(self.config()?.state_directory().join("postgres"))
    }

    /// The credential `name` when it was given. A file that everybody may read earns a warning.
    pub fn given_credential(&self, name: &str) -> anyhow::Result<Option<Secret>> {
        let Some(found) = credentials::find(name, &self.credential_directories()?)? else { return Ok(None) };
        if found.world_readable {
            let path = found.path.display();
            self.warn(&format!(
                "everybody on this machine can read the credential `{path}`; `chmod 600 {path}` ends that"
            ));
        }
        Ok(Some(found.secret))
    }

    fn credential(&self, name: &str, role: &str) -> anyhow::Result<Secret> {
        if let Some(secret) = self.given_credential(name)? {
            return Ok(secret);
        }
        if let Some(directory) = self.private_cluster()? {
            if !cluster::is_running(&directory) {
                bail!("the Postgres in `{}` is not running; `krilin up` starts it", directory.display());
            }
            return Ok(Secret::new(cluster::url(&directory, role, cluster::DATABASE)));
        }
        let directories = self.credential_directories()?;
        let places: Vec<String> = directories.iter().map(|d| format!("`{}`", d.display())).collect();
        bail!(
            "there is no credential `{name}` in {} and no private cluster in `{}`; `krilin up` makes a Postgres of its own, \
             or put the connection string into a file of that name",
            places.join(", "),
            self.cluster_directory()?.display()
        )
    }

    /// A small pool as `krilin_runtime`, for a verb that asks and ends.
    pub fn database(&self) -> anyhow::Result<PgPool> {
        Ok(store::pool(&self.database_url()?, "krilin-cli", VERB_CONNECTIONS)?)
    }

    /// A small pool as `krilin_owner`, for publishing.
    pub fn owner_database(&self) -> anyhow::Result<PgPool> {
        Ok(store::pool(&self.owner_database_url()?, "krilin-cli", VERB_CONNECTIONS)?)
    }

    /// One connection as `krilin_owner`, for migrations.
    pub async fn owner_connection(&self) -> anyhow::Result<PgConnection> {
        let url = self.owner_database_url()?;
        store::connect(&url, "krilin-cli").await.context("connecting as `krilin_owner`")
    }

    /// Gives the verb's answer: JSON with `--json`, else as it displays. A reader that has gone is no error.
    pub fn answer<T: Serialize + Display>(&self, answer: &T) -> anyhow::Result<()> {
        let text = if self.global.json { serde_json::to_string(answer)? } else { answer.to_string() };
        match writeln!(stdout().lock(), "{text}") {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Gives a text as it is: a file's content, for a pipe. A reader that has gone is no error.
    pub fn print(&self, text: &str) -> anyhow::Result<()> {
        match stdout().lock().write_all(text.as_bytes()) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
            _ => Ok(()),
        }
    }

    /// Says something to the person that is no part of the answer.
    pub fn warn(&self, words: &str) {
        let _ = writeln!(stderr().lock(), "krilin: {words}");
    }

    /// Says why the verb failed; with `--json` as an object on standard error.
    pub fn report(&self, error: &anyhow::Error) {
        let words = format!("{error:#}");
        let line = if self.global.json {
            serde_json::json!({ "error": { "message": words } }).to_string()
        } else {
            format!("krilin: {words}")
        };
        let _ = writeln!(stderr().lock(), "{line}");
    }
}

/// What carries spans to a collector.
#[cfg(feature = "otel")]
fn sender() -> anyhow::Result<telemetry::Sender> {
    Ok(std::sync::Arc::new(crate::http::Collector::new()?))
}

#[cfg(not(feature = "otel"))]
#[expect(clippy::unnecessary_wraps, reason = "with the feature it can fail")]
fn sender() -> anyhow::Result<telemetry::Sender> {
    Ok(())
}
