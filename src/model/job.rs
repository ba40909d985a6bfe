//! A job's life: its states, what it is claimed, enqueued and shown as.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

pub use super::enqueue::{Enqueued, Idempotency, NewJob, OnConflict, Placed, Unique};
use super::{
    error::{Code, CtxError},
    id::{AppId, JobId, LeaseToken, UserId},
};
pub use super::{
    outcome::{Failure, Next, Outcome, Tries, next},
    ties::{Deadline, Stop, StopReason, Ties, When},
};

/// Where a job stands. Scheduled is `Pending` with a future `run_at`; retrying is `Pending` with `attempt > 0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its time or for a worker.
    Pending,
    /// A worker holds its lease.
    Running,
    /// Somebody stopped it, and its worker has not yet said that it is over. Nothing it does is kept.
    Cancelling,
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
            Self::Cancelling => "cancelling",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FromStr for State {
    type Err = CtxError;

    fn from_str(text: &str) -> Result<Self, CtxError> {
        [Self::Pending, Self::Running, Self::Cancelling, Self::Done, Self::Dead, Self::Cancelled]
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

/// The right to finish one job: whoever names the job's present token. Cheap to copy; worthless once the job was claimed
/// again, cancelled or finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub job_id: JobId,
    /// Fresh with each claim; the jobs of one claim share it.
    pub token: LeaseToken,
}

impl From<(JobId, LeaseToken)> for Lease {
    fn from((job_id, token): (JobId, LeaseToken)) -> Self {
        Self { job_id, token }
    }
}

impl Lease {
    /// Random bits that no other attempt has: of the job's id, those of its claim's token.
    pub fn own_bits(&self) -> u64 {
        self.job_id.0.as_u64_pair().1 ^ self.token.0.as_u64_pair().1
    }
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
    /// What binds it beside its kind.
    pub ties: Ties,
}

/// A job as its owner and the operator see it.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its lane.
    pub queue: String,
    /// For whom it runs.
    #[schema(value_type = Option<uuid::Uuid>)]
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
    #[schema(value_type = Object)]
    pub args: Box<RawValue>,
    /// What it came to, when it is done.
    #[schema(value_type = Option<serde_json::Value>)]
    pub result: Option<Box<RawValue>>,
    /// Why it is dead or cancelled, or how its latest attempt failed.
    #[schema(value_type = Option<CtxError>)]
    pub error: Option<CtxError>,
    /// Why it waits, where that is not only for its time.
    pub parked_reason: Option<String>,
    /// What asked for it.
    pub cause: Option<String>,
    /// When it must have ended, while it is live.
    pub deadline: Option<DateTime<Utc>>,
    /// The job that waits for it.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub parent_id: Option<JobId>,
    /// What its handler last said of how far it is.
    #[schema(value_type = Option<Object>)]
    pub progress: Option<Value>,
}
