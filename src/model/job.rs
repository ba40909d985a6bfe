//! A job's life: five states, four endings of an attempt, and the one function that decides what follows.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::CtxError;

/// Where a job stands. Scheduled is `Pending` with a future `run_at`; retrying is `Pending` with `attempt > 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its time or for a worker.
    Pending,
    /// A worker holds its lease.
    Running,
    /// Ended well; its effects are committed.
    Done,
    /// Ended badly and for good.
    Dead,
    /// Somebody stopped it.
    Cancelled,
}

impl State {
    /// Whether nothing follows by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled)
    }

    /// The name in JSON, SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an attempt ended when nothing went wrong.
#[derive(Debug)]
pub enum Outcome {
    /// The work is done; its result as JSON. A kind whose completion is `transaction` has already committed it.
    Done(Option<Box<RawValue>>),
    /// Not now: run again after this long. Costs no attempt.
    Snooze(Duration),
    /// Never: nobody wants it any more, for this reason.
    Cancel(String),
}

/// How an attempt ended when something went wrong. `?` on an [`anyhow::Error`] makes a `Retry`: the safe choice is the
/// default one, and [`Failure::fatal`] is a visible decision.
#[derive(Debug)]
pub enum Failure {
    /// Try again: after the given time (which costs no attempt), else after the policy's backoff.
    Retry {
        /// What went wrong.
        source: CtxError,
        /// How long the other side asked us to wait.
        after: Option<Duration>,
    },
    /// Do not try again.
    Fatal {
        /// What went wrong.
        source: CtxError,
    },
}

impl Failure {
    /// A failure that another attempt would only repeat.
    pub fn fatal(source: CtxError) -> Self {
        Self::Fatal { source }
    }

    /// What went wrong.
    pub fn source(&self) -> &CtxError {
        match self {
            Self::Retry { source, .. } | Self::Fatal { source } => source,
        }
    }
}
