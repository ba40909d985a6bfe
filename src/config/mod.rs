//! What an operator may choose: read in layers, checked wholly, then passed on as values.
//!
//! From weakest to strongest: `config/krilin.toml` (built in; every key is there with its default, so that file *is* the
//! reference) → `/etc/krilin/krilin.toml` → `KRILIN_…` environment variables → command-line flags. A key that nobody knows
//! is an error that names its source. Secrets are refused here; they come as [`credentials`].
//!
//! This is the only place that reads the environment.

pub mod credentials;
mod environment;
mod layers;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    environment::{inherited_listener, notify_socket, program_path},
    layers::{DEFAULTS, Entry, Error, FILE, Layers, Loaded},
};
use crate::model::duration::HumanDuration;

/// The whole configuration. Fields and `config/krilin.toml` mirror each other; a test holds them together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where a private cluster lives; empty means [`Config::state_directory`] decides.
    pub state_directory: PathBuf,
    /// Where the operator's policies for kinds of jobs are; it need not exist.
    pub policies_directory: PathBuf,
    /// The log.
    pub log: Log,
    /// Spans for a collector.
    pub traces: Traces,
    /// The HTTP server.
    pub http: Http,
    /// Figures for operators.
    pub metrics: Metrics,
    /// Connections to Postgres.
    pub database: Database,
    /// Workers.
    pub work: Work,
    /// The processes for app code.
    pub sandbox: Sandbox,
}

/// The log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A level or a filter in tracing's language.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// JSON when standard error goes to systemd's journal, else for people.
    Auto,
    /// For people; in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

impl Log {
    /// Whether lines are JSON here.
    pub fn is_json(&self) -> bool {
        self.format == LogFormat::Json || (self.format == LogFormat::Auto && environment::under_journal())
    }
}

/// Spans for a collector.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// The collector's base address; empty means [`Traces::endpoint`] decides.
    pub endpoint: String,
    /// Which spans are sent: a filter in tracing's language.
    pub level: String,
}

impl Traces {
    /// Where spans are sent: as configured; else, in a binary that can send them, as the standard variable says.
    pub fn endpoint(&self) -> Option<String> {
        let chosen = Some(self.endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
        chosen.or_else(|| environment::collector().filter(|_| cfg!(feature = "otel")))
    }

    /// What the spans are said to be of: as the standard variable says, else us.
    pub fn service(&self) -> String {
        environment::service_name().unwrap_or_else(|| "krilin".to_owned())
    }
}

/// The HTTP server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
}

/// Figures for operators.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Where a process answers `/metrics` and `/healthz` without a token.
    pub listen: Place,
}

/// An address to listen on; nowhere when it is empty.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place(pub Option<SocketAddr>);

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let unfit = |_| format!("`{text}` is no address with a port, such as 127.0.0.1:9717");
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|address| Self(Some(address))).map_err(unfit) }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.0.map(|address| address.to_string()).unwrap_or_default()
    }
}

/// Connections to Postgres.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The most connections of one `krilin serve` for requests; some more are for what it does by itself.
    pub serve_connections: u32,
    /// The most connections of one `krilin work` for its jobs; actions have as many beside as can run at once, at most this
    /// number again, and the queue some more.
    pub work_connections: u32,
}

/// Workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Jobs that run at once on each queue.
    pub concurrency: NonZeroUsize,
    /// How long running jobs may go on after the wish to stop.
    pub drain: HumanDuration,
}

/// The processes for app code.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sandbox {
    /// Processes kept warm; 0 means two for each core.
    pub children: usize,
}

impl Config {
    /// The directory for what must outlive the process: as configured, else systemd's, else the user's own.
    pub fn state_directory(&self) -> PathBuf {
        if self.state_directory.as_os_str().is_empty() {
            environment::state_directory()
        } else {
            self.state_directory.clone()
        }
    }
}
