//! The one door between app code and the platform.
//!
//! A sandboxed handler (and later an agent) asks; a [`Host`] answers. `ctx` holds the only implementation that touches
//! real data; `krilin app try` and tests bring smaller ones.

use futures::future::BoxFuture;
use serde_json::{Value, value::RawValue};

use super::error::CtxError;

/// One call of app code: `ctx.<api>.<method>(...args)`.
#[derive(Debug, Clone)]
pub struct Call {
    /// The API: `storage`, …
    pub api: String,
    /// The method of that API: `query`, `insert`, …
    pub method: String,
    /// The arguments as a JSON array, in the order in which the author wrote them.
    pub args: Vec<Value>,
}

/// What a call came to. Results are JSON text: rows are written as text once, where they are read, and go to the sandbox as
/// text, so nothing in between need parse them.
pub type Settled = Result<Box<RawValue>, CtxError>;

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// `ctx.log.debug`, `console.debug`
    Debug,
    /// `ctx.log`, `console.log`, `console.info`
    Info,
    /// `ctx.log.warn`, `console.warn`
    Warn,
    /// `ctx.log.error`, `console.error`
    Error,
}

impl LogLevel {
    /// The level's name, as it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line of `ctx.log`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The author's words.
    pub message: String,
    /// The author's fields; an object or null.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub fields: Value,
}

/// Answers the calls of one handler pass.
pub trait Host: Send + Sync {
    /// Answers `calls`, one result each and in their order. The caller waits for all of them: they are the calls that
    /// were pending when the handler had nothing left to do.
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>>;

    /// Takes a log line. Must not block; the sandbox has already applied the limits on count and size.
    fn log(&self, line: LogLine);
}
