//! What to enqueue, and what that came to. Refuses to decide anything: the queue checks it against the kind's policy.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    error::{Code, CtxError},
    id::{AppId, JobId, UserId},
    job::{Deadline, State, When},
};

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
    /// Not before this long has passed, by the database's clock. Not together with `run_at`.
    pub delay: Option<Duration>,
    /// Higher runs sooner.
    pub priority: Option<i16>,
    /// Attempts before it is dead.
    pub max_attempts: Option<u32>,
    /// When it must have ended: it is not begun after, and stopped where it runs.
    pub deadline: Option<Deadline>,
    /// Jobs that must end before this one begins. They are enqueued with it, all or none, and have no keys.
    pub children: Vec<NewJob>,
    /// What it expects of them.
    pub when: When,
    /// Jobs of a queue with the same key run one at a time, unless the queue is set otherwise; as the policy says where none.
    pub concurrency_key: Option<String>,
    /// What it takes of a rate, in units.
    pub cost: Option<u32>,
    /// Makes it the only one with its key.
    pub unique: Option<Unique>,
    /// Makes a repeated request harmless.
    pub idempotency: Option<Idempotency>,
    /// W3C traceparent of the request that asks.
    pub trace_parent: Option<String>,
    /// What asks, in words for the operator.
    pub cause: Option<String>,
    /// Whether somebody is going to wait for the end (`Queue::wait`).
    pub awaited: bool,
}

/// A key that at most one job has: at most one live job, and with a period at most one that was taken within it and is
/// live or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// The key.
    pub key: String,
    /// The length of the periods, counted from 1970-01-01T00:00Z: a day is a day in UTC.
    pub period: Option<Duration>,
    /// What becomes of a job that finds its key taken.
    pub on_conflict: OnConflict,
}

impl Unique {
    /// Of live jobs only; the one that is there stays as it is.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), period: None, on_conflict: OnConflict::Keep }
    }
}

/// What becomes of a job whose unique key is taken. A job that runs or has ended is never touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    /// Nothing: the one that is there is the answer.
    Keep,
    /// Its arguments, priority and time take the place of those of the one that waits.
    Replace,
    /// Its arguments do, and its delay begins anew, until this long after the one that waits was enqueued.
    Debounce {
        /// The longest that new ones can put the job off.
        max_wait: Duration,
    },
}

impl OnConflict {
    /// The name in JSON, SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Replace => "replace",
            Self::Debounce { .. } => "debounce",
        }
    }
}

/// The name of an [`OnConflict`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConflictName {
    /// The job that is there stays as it is.
    #[default]
    Keep,
    /// The new one takes the place of one that waits.
    Replace,
    /// The same, and its delay begins anew.
    Debounce,
}

impl FromStr for ConflictName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keep" => Ok(Self::Keep),
            "replace" => Ok(Self::Replace),
            "debounce" => Ok(Self::Debounce),
            _ => Err(format!("`{text}` is none of keep, replace, debounce")),
        }
    }
}

/// A unique key as a caller writes it, field by field.
#[derive(Debug, Clone, Default)]
pub struct Keying {
    /// `unique_key`.
    pub key: Option<String>,
    /// `unique_period`.
    pub period: Option<Duration>,
    /// `on_conflict`.
    pub on_conflict: Option<ConflictName>,
    /// `max_wait`.
    pub max_wait: Option<Duration>,
}

impl Keying {
    /// The key of a job with this delay; or the field that does not fit, and why.
    pub fn unique(self, delay: Option<Duration>) -> Result<Option<Unique>, (&'static str, &'static str)> {
        let Self { key, period, on_conflict, max_wait } = self;
        let Some(key) = key else {
            return match (period, on_conflict, max_wait) {
                (Some(_), ..) => Err(("unique_period", "a period needs a `unique_key`")),
                (_, Some(_), _) => Err(("on_conflict", "there is no conflict without a `unique_key`")),
                (.., Some(_)) => Err(("max_wait", "is for `on_conflict` `debounce`")),
                _ => Ok(None),
            };
        };
        let on_conflict = match (on_conflict.unwrap_or_default(), max_wait) {
            (ConflictName::Debounce, _) if delay.is_none() => return Err(("delay", "debounce needs a `delay`")),
            (ConflictName::Debounce, None) => return Err(("max_wait", "debounce needs a `max_wait`")),
            (ConflictName::Debounce, Some(max_wait)) => OnConflict::Debounce { max_wait },
            (_, Some(_)) => return Err(("max_wait", "is for `on_conflict` `debounce`")),
            (ConflictName::Keep, None) => OnConflict::Keep,
            (ConflictName::Replace, None) => OnConflict::Replace,
        };
        Ok(Some(Unique { key, period, on_conflict }))
    }
}

/// An `Idempotency-Key` with what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key, unique per user.
    pub key: String,
    /// SHA-256 of the request. The same key with another hash is refused.
    pub request_hash: [u8; 32],
    /// What a repeated request is to be told beside the job.
    pub told: Option<Value>,
}

/// What an enqueue came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// The new job, or the one that was there.
    pub job_id: JobId,
    /// What became of the request.
    pub outcome: Placed,
    /// Where the job stood then.
    pub state: State,
    /// Whether all this is the answer to an earlier request with the same idempotency key.
    pub replayed: bool,
    /// What that request was told.
    pub told: Option<Value>,
}

impl Enqueued {
    /// A job that is new and waits.
    pub fn new(job_id: JobId) -> Self {
        Self { job_id, outcome: Placed::Created, state: State::Pending, replayed: false, told: None }
    }

    /// Whether this very request made the job.
    pub fn created(&self) -> bool {
        self.outcome == Placed::Created && !self.replayed
    }
}

/// What became of a job that was to be enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placed {
    /// It is there.
    Created,
    /// Its unique key was taken, and the job that has it stays as it was.
    Kept,
    /// It took the place of the waiting job with its unique key, whose id it has.
    Replaced,
    /// The same, and the waiting job's delay began anew.
    Debounced,
}

impl FromStr for Placed {
    type Err = CtxError;

    fn from_str(text: &str) -> Result<Self, CtxError> {
        match text {
            "created" => Ok(Self::Created),
            "kept" => Ok(Self::Kept),
            "replaced" => Ok(Self::Replaced),
            "debounced" => Ok(Self::Debounced),
            _ => Err(CtxError::new(Code::Internal, format!("`{text}` is no outcome of an enqueue"))),
        }
    }
}
