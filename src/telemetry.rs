//! What the process says about itself: spans and events to standard error, as lines for a person or as JSON for a
//! journal. Standard output belongs to a verb's answer and is never written here.

use std::io::{IsTerminal, stderr};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON when standard error goes to systemd's journal, else for people.
    #[default]
    Auto,
    /// For people; in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is not one; tracing's words follow.
    #[error("log.level = \"{0}\" is no log filter (try `info`, or `info,krilin=debug`): {1}")]
    Level(String, String),
    /// A subscriber is there already.
    #[error("the log has been started before")]
    Started,
}

/// Starts the log. `level` is a filter such as `info` or `warn,krilin::queue=debug`; `journal` says whether standard
/// error is systemd's journal, which decides what [`Format::Auto`] means.
pub fn start(level: &str, format: Format, journal: bool) -> Result<(), Error> {
    let filter = EnvFilter::try_new(level).map_err(|e| Error::Level(level.to_owned(), e.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    let json = format == Format::Json || (format == Format::Auto && journal);
    let started = if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init()
    } else {
        let layer = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false);
        registry.with(layer).try_init()
    };
    started.map_err(|_| Error::Started)
}
