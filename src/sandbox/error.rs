//! How a pass fails.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::error::{Code, CtxError};

/// A place in the author's source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The bundle's name, `app.js`.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A pass that did not return, with what it had used until then.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}{}", at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default())]
pub struct Error {
    /// What the caller and, for uncaught errors of the host, the author's user see.
    pub error: Box<CtxError>,
    /// Where in the author's source, when the engine knows.
    pub at: Option<Position>,
    /// The JavaScript stack, frames of the author's file only; empty when there is none.
    pub stack: String,
    /// CPU time of the pass, as far as it is known.
    pub cpu: Duration,
    /// Wall time of the pass.
    pub wall: Duration,
    /// Whether the child had to be killed or was found dead.
    pub killed: bool,
}

impl Error {
    /// An error with a code and words, at no place and with no stack.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        CtxError::new(code, message).into()
    }

    /// The code of the error.
    pub fn code(&self) -> Code {
        self.error.code
    }

    /// Whether the child that ran the pass may not run another.
    pub(super) fn faulty(&self) -> bool {
        self.killed || matches!(self.error.code, Code::CpuLimit | Code::MemoryLimit | Code::Timeout)
    }
}

impl From<CtxError> for Error {
    fn from(error: CtxError) -> Self {
        Self {
            error: Box::new(error),
            at: None,
            stack: String::new(),
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
            killed: false,
        }
    }
}

impl From<Error> for CtxError {
    /// The error for clients. An error of the author's own carries its place and stack in `details` when it brings none.
    fn from(failed: Error) -> Self {
        let mut error = *failed.error;
        if error.details.is_none()
            && let Some(at) = failed.at
        {
            error.details = Some(serde_json::json!({ "at": at.to_string(), "stack": failed.stack }));
        }
        error
    }
}
