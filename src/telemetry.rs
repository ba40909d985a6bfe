//! What the process says about itself: spans and events to standard error, as lines for a person or as JSON for a
//! journal. Standard output belongs to a verb's answer and is never written here.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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

/// Starts the log. `level` is a filter such as `info` or `warn,krilin::queue=debug`; with `json` each line is an object.
pub fn start(level: &str, json: bool) -> Result<(), Error> {
    let filter = EnvFilter::try_new(level).map_err(|e| Error::Level(level.to_owned(), e.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init()
    } else {
        let layer = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false);
        registry.with(layer).try_init()
    };
    started.map_err(|_| Error::Started)
}
