//! What the process says about itself: spans and events to standard error, as lines for a person or as JSON for a
//! journal, and spans to a collector where one is named. Standard output belongs to a verb's answer and is never written
//! here.

#[cfg(feature = "otel")]
mod otel;
pub mod trace;

use std::io::{IsTerminal, stderr};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, fmt, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt};

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The level is not one; tracing's words follow.
    #[error("{0} = \"{1}\" is no log filter (try `info`, or `info,krilin=debug`): {2}")]
    Level(&'static str, String, String),
    /// Spans cannot be sent there.
    #[error("spans cannot be sent to `{0}`: {1}")]
    Export(String, String),
    /// A subscriber is there already.
    #[error("the log has been started before")]
    Started,
}

/// What is to be said, and where.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// What is worth a line: a filter such as `info` or `warn,krilin::queue=debug`.
    pub level: &'a str,
    /// Whether each line is an object.
    pub json: bool,
    /// Where spans are sent, if anywhere.
    pub export: Option<Export<'a>>,
}

/// What carries spans to a collector: the network is asked through one door, which is not here.
#[cfg(feature = "otel")]
pub type Sender = std::sync::Arc<dyn opentelemetry_http::HttpClient>;
/// What carries spans to a collector: nothing in this binary.
#[cfg(not(feature = "otel"))]
pub type Sender = ();

/// Where spans are sent.
#[derive(Debug, Clone)]
pub struct Export<'a> {
    /// A collector's base address, such as `http://127.0.0.1:4318`.
    pub endpoint: &'a str,
    /// The filter of those that are sent.
    pub level: &'a str,
    /// What the spans are said to be of.
    pub service: &'a str,
    /// What carries them there.
    pub sender: Sender,
}

/// Starts the log. Spans are sent from within the runtime that this is called on.
pub fn start(options: Options<'_>) -> Result<(), Error> {
    let filter = filter("log.level", options.level)?;
    let Some(to) = options.export else {
        // One filter for all: what it leaves out costs nothing.
        let registry = tracing_subscriber::registry().with(filter);
        return registry.with(lines(options.json)).try_init().map_err(|_| Error::Started);
    };
    export(options.json, filter, &to)
}

#[cfg(feature = "otel")]
fn export(json: bool, shown: EnvFilter, to: &Export<'_>) -> Result<(), Error> {
    let sent = filter("traces.level", to.level)?;
    let registry = tracing_subscriber::registry().with(otel::layer(to)?.with_filter(sent));
    registry.with(lines(json).with_filter(shown)).try_init().map_err(|_| Error::Started)
}

#[cfg(not(feature = "otel"))]
fn export(_: bool, _: EnvFilter, to: &Export<'_>) -> Result<(), Error> {
    Err(Error::Export(to.endpoint.to_owned(), "this krilin was built without the cargo feature `otel`".to_owned()))
}

/// Sends what is left to be sent. Waits for it; must not be called on a thread of the runtime.
pub fn stop() {
    #[cfg(feature = "otel")]
    otel::stop();
}

fn filter(key: &'static str, level: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(level).map_err(|e| Error::Level(key, level.to_owned(), e.to_string()))
}

/// Lines on standard error.
fn lines<S: Subscriber + for<'a> LookupSpan<'a>>(json: bool) -> Box<dyn Layer<S> + Send + Sync> {
    if json {
        fmt::layer().json().flatten_event(true).with_writer(stderr).boxed()
    } else {
        fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_target(false).boxed()
    }
}
