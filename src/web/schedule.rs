//! How a schedule and its fires look to its owner and to the operator: the same JSON over HTTP and on the command line.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::{
    model::{
        duration::HumanDuration,
        id::{JobId, ScheduleId, UserId},
    },
    schedule::{Occurred, Row},
};

/// A schedule as its owner sees it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Schedule {
    /// Its id.
    #[schema(value_type = uuid::Uuid)]
    pub id: ScheduleId,
    /// What its maker calls it.
    pub name: String,
    /// Whose it is; none for the operator's own.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub user_id: Option<UserId>,
    /// Who made it: `manifest`, `app`, `user` or `operator`.
    pub origin: String,
    /// The kind of its jobs.
    pub kind: String,
    /// The app they work for.
    pub app_id: Option<String>,
    /// What they are given.
    #[schema(value_type = Object)]
    pub args: Value,
    /// The cron line.
    pub cron: Option<String>,
    /// The period, such as `15m`.
    pub every: Option<String>,
    /// The one instant.
    pub at: Option<DateTime<Utc>>,
    /// `user` or an IANA zone.
    pub timezone: String,
    /// No fire before this.
    pub starts_at: Option<DateTime<Utc>>,
    /// No fire after this.
    pub ends_at: Option<DateTime<Utc>>,
    /// The longest delay of a fire.
    pub jitter: String,
    /// What becomes of missed fires: `none`, `one` or `all`.
    pub catch_up: String,
    /// What happens when the job before has not ended: `skip` or `queue`.
    pub overlap: String,
    /// The most jobs it makes.
    pub max_runs: Option<i32>,
    /// So many failed jobs in a row pause it.
    pub pause_after: Option<i32>,
    /// Where it stands: `active`, `paused`, `parked`, `off` or `ended`.
    pub state: String,
    /// Why, where that is not `active`.
    pub reason: Option<String>,
    /// The nominal fire that comes next.
    pub next_at: Option<DateTime<Utc>>,
    /// Jobs made.
    pub run_count: i32,
    /// Failed jobs in a row.
    pub failure_count: i32,
    /// When it last fired.
    pub last_fired_at: Option<DateTime<Utc>>,
    /// The job of that fire.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub last_job_id: Option<JobId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

impl From<Row> for Schedule {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            name: row.name,
            user_id: row.user_id,
            origin: row.origin,
            kind: row.kind,
            app_id: row.app_id,
            args: row.args,
            cron: row.cron,
            every: row.every_ms.map(length),
            at: row.once_at,
            timezone: row.timezone,
            starts_at: row.starts_at,
            ends_at: row.ends_at,
            jitter: length(row.jitter_ms),
            catch_up: row.catch_up,
            overlap: row.overlap,
            max_runs: row.max_runs,
            pause_after: row.pause_after,
            state: row.state,
            reason: row.reason,
            next_at: row.next_at,
            run_count: row.run_count,
            failure_count: row.failure_count,
            last_fired_at: row.last_fired_at,
            last_job_id: row.last_job_id,
            created_at: row.created_at,
        }
    }
}

fn length(millis: i64) -> String {
    HumanDuration(Duration::from_millis(u64::try_from(millis).unwrap_or(0))).to_string()
}

/// A nominal fire and what it came to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Occurrence {
    /// When it was meant to be.
    pub nominal_at: DateTime<Utc>,
    /// When it was judged.
    pub fired_at: DateTime<Utc>,
    /// `fired`, `coalesced` (a later fire stands for it) or `skipped`.
    pub outcome: String,
    /// Why it did not fire, or that a hand did it.
    pub reason: Option<String>,
    /// How long after it was due, jitter included, it was judged.
    pub late_ms: i64,
    /// Fires before it that were missed.
    pub missed: i32,
    /// Its job.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub job_id: Option<JobId>,
}

impl From<Occurred> for Occurrence {
    fn from(row: Occurred) -> Self {
        let Occurred { nominal_at, fired_at, outcome, reason, late_ms, missed, job_id } = row;
        Self { nominal_at, fired_at, outcome, reason, late_ms, missed, job_id }
    }
}
