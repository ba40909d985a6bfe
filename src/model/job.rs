//! A job's life: five states, four endings of an attempt, and the one function that decides what follows.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    error::{Again, Code, CtxError},
    id::{AppId, JobId, LeaseToken, UserId},
    policy::Backoff,
};

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

impl FromStr for State {
    type Err = CtxError;

    fn from_str(text: &str) -> Result<Self, CtxError> {
        [Self::Pending, Self::Running, Self::Done, Self::Dead, Self::Cancelled]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| CtxError::new(Code::ValidationFailed, format!("`{text}` is no state of a job")))
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

impl From<CtxError> for Failure {
    fn from(source: CtxError) -> Self {
        let after = source.retry_after_ms.map(Duration::from_millis);
        if source.code.again() == Again::Never { Self::Fatal { source } } else { Self::Retry { source, after } }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        tracing::warn!(error = format!("{cause:#}"), "a handler failed without a code");
        Self::Retry { source: CtxError::new(Code::Internal, "something went wrong on our side"), after: None }
    }
}

/// How often a job has been tried, as the claim of its present attempt found it.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    /// The present attempt; the first is 1.
    pub attempt: u32,
    /// The attempts it may have.
    pub max_attempts: u32,
    /// How the attempt before failed.
    pub last_code: Option<Code>,
}

/// What becomes of a job whose attempt has ended.
#[derive(Debug)]
pub enum Next {
    /// To the history as done.
    Done(Option<Box<RawValue>>),
    /// To the history as dead.
    Dead(CtxError),
    /// To the history as cancelled, for this reason.
    Cancelled(String),
    /// Pending again, for this long at least.
    Later {
        /// The time until the next attempt.
        wait: Duration,
        /// Whether the attempt counts.
        spent: bool,
        /// What went wrong; none for a snooze.
        error: Option<CtxError>,
    },
}

/// Decides what follows an attempt. `chance` is uniform in 0..1.
///
/// [`Again::Once`] means: a second failure in a row with the same code is final. A wait that the other side asked for
/// costs no attempt.
pub fn next(ended: Result<Outcome, Failure>, tries: Tries, backoff: &Backoff, chance: f64) -> Next {
    let (source, after) = match ended {
        Ok(Outcome::Done(result)) => return Next::Done(result),
        Ok(Outcome::Snooze(wait)) => return Next::Later { wait, spent: false, error: None },
        Ok(Outcome::Cancel(reason)) => return Next::Cancelled(reason),
        Err(Failure::Fatal { source }) => return Next::Dead(source),
        Err(Failure::Retry { source, after }) => (source, after),
    };
    let repeated = source.code.again() == Again::Once && tries.last_code == Some(source.code);
    match after {
        _ if source.code.again() == Again::Never || repeated => Next::Dead(source),
        Some(wait) => Next::Later { wait, spent: false, error: Some(source) },
        None if tries.attempt >= tries.max_attempts => Next::Dead(source),
        None => Next::Later { wait: backoff.wait(tries.attempt, chance), spent: true, error: Some(source) },
    }
}

/// The right to finish one job: whoever names the job's present token. Cheap to copy; worthless once the job was claimed
/// again, cancelled or finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub job_id: JobId,
    /// Fresh with each claim.
    pub token: LeaseToken,
}

/// A job as a claim hands it to its handler.
#[derive(Debug, Clone)]
pub struct ClaimedJob {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// For whom it runs; none for the system's own.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<AppId>,
    /// What it was given.
    pub args: Box<RawValue>,
    /// How often it has been tried.
    pub tries: Tries,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// The time that was asked for, where it was not at once.
    pub due_at: Option<DateTime<Utc>>,
    /// W3C traceparent of the request that asked.
    pub trace_parent: Option<String>,
    /// What asked for it.
    pub cause: Option<String>,
    /// Whether somebody waits for its end.
    pub awaited: bool,
}

/// What to enqueue. The policy of its kind fills what is `None`.
#[derive(Debug, Clone, Default)]
pub struct NewJob {
    /// The kind; unknown ones are refused.
    pub kind: String,
    /// For whom.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<AppId>,
    /// What the handler gets.
    pub args: Value,
    /// Not before this instant.
    pub run_at: Option<DateTime<Utc>>,
    /// Higher runs sooner.
    pub priority: Option<i16>,
    /// Attempts before it is dead.
    pub max_attempts: Option<u32>,
    /// While a live job has this key, enqueuing gives back that one.
    pub unique_key: Option<String>,
    /// Makes a repeated request harmless.
    pub idempotency: Option<Idempotency>,
    /// W3C traceparent of the request that asks.
    pub trace_parent: Option<String>,
    /// What asks, in words for the operator.
    pub cause: Option<String>,
    /// Whether somebody is going to wait for the end (`Queue::wait`).
    pub awaited: bool,
}

/// An `Idempotency-Key` with what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, unique per user.
    pub key: String,
    /// SHA-256 of the request. The same key with another hash is refused.
    pub request_hash: [u8; 32],
}

/// What an enqueue came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enqueued {
    /// The new job, or the one that was there.
    pub job_id: JobId,
    /// Whether it is new.
    pub created: bool,
}

/// A job as its owner and the operator see it.
#[derive(Debug, Clone, Serialize)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its lane.
    pub queue: String,
    /// For whom it runs.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Higher runs sooner.
    pub priority: i16,
    /// Attempts begun and not given back.
    pub attempt: u32,
    /// Attempts it may have.
    pub max_attempts: u32,
    /// When it is or was due.
    pub run_at: DateTime<Utc>,
    /// When it was enqueued.
    pub created_at: DateTime<Utc>,
    /// When its latest attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// What it was given.
    pub args: Box<RawValue>,
    /// What it came to, when it is done.
    pub result: Option<Box<RawValue>>,
    /// Why it is dead or cancelled, or how its latest attempt failed.
    pub error: Option<CtxError>,
    /// Why it waits, where that is not only for its time.
    pub parked_reason: Option<String>,
    /// What asked for it.
    pub cause: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::duration::HumanDuration;

    fn after(code: Code, attempt: u32, last_code: Option<Code>) -> Next {
        let second = HumanDuration(Duration::from_secs(1));
        let backoff = Backoff { first: second, factor: 2.0, longest: second, jitter: 0.0 };
        let tries = Tries { attempt, max_attempts: 3, last_code };
        next(Err(Failure::Retry { source: CtxError::new(code, "no"), after: None }), tries, &backoff, 0.5)
    }

    #[test]
    fn the_code_says_whether_to_try_again() {
        assert!(matches!(after(Code::Unavailable, 1, None), Next::Later { spent: true, .. }));
        assert!(matches!(after(Code::Unavailable, 2, Some(Code::Unavailable)), Next::Later { .. }));
        assert!(matches!(after(Code::Unavailable, 3, None), Next::Dead(_)));
        assert!(matches!(after(Code::Refused, 1, None), Next::Dead(_)));
        assert!(matches!(after(Code::Conflict, 1, None), Next::Later { .. }));
        assert!(matches!(after(Code::Conflict, 2, Some(Code::Conflict)), Next::Dead(_)));
        assert!(matches!(after(Code::Conflict, 2, Some(Code::Timeout)), Next::Later { .. }));
    }
}
