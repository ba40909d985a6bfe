//! What binds a job beside its kind: when it must have ended, and the jobs it waits for.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    error::{Code, CtxError},
    id::JobId,
    job::State,
};

/// What binds a job to a time and to other jobs; nothing for most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ties {
    /// When it must end, by cancelling or deadline, counted from the claim.
    pub stop: Option<Stop>,
    /// The job that waits for it.
    pub parent_id: Option<JobId>,
    /// It has waited for jobs of its own, and this is what it expects of them.
    pub children: Option<When>,
}

/// That a job must end, why, and how long that is from the moment of its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub reason: StopReason,
    /// The time left; zero when it is over.
    pub left: Duration,
}

/// Why a job must end that has not come to its end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Its deadline.
    Deadline,
    /// Somebody cancelled it.
    Cancelled,
}

impl StopReason {
    /// The state in which it ends.
    pub fn state(self) -> State {
        match self {
            Self::Deadline => State::Dead,
            Self::Cancelled => State::Cancelled,
        }
    }

    /// What it leaves behind.
    pub fn error(self) -> CtxError {
        match self {
            Self::Deadline => CtxError::new(Code::DeadlineExceeded, "the job's deadline passed before it had ended"),
            Self::Cancelled => CtxError::new(Code::Cancelled, "the job was cancelled"),
        }
    }
}

/// What a job expects of the jobs it waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// That all of them are done; else it is dead with `ChildFailed` and does not run.
    #[default]
    AllDone,
    /// Only that all have ended, well or badly.
    AllEnded,
}

impl When {
    /// The name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllDone => "all_done",
            Self::AllEnded => "all_ended",
        }
    }
}

/// When a job must have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// At this instant.
    At(DateTime<Utc>),
    /// So long after it is due.
    Within(Duration),
}
