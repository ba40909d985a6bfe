//! Statements about jobs that must end before they come to their end by themselves: cancelled, or past their deadline.
//! Refuses to end a running job: that is its worker's, once it knows.

use sqlx::PgExecutor;

use super::{Error, within};
use crate::model::{
    id::{JobId, UserId, WorkerId},
    job::StopReason,
};

/// What asking a job to stop came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It had not begun and has ended.
    Ended {
        /// Whether somebody waits for its end.
        awaited: bool,
    },
    /// It runs, and its worker has been asked.
    Running,
}

/// Cancels a live job: one that has not begun moves to the history, one that runs is marked. None when there is no such
/// job, or when it began or was put back at this very moment: then ask again. Rides on `jobs_pkey`.
pub async fn cancel(db: impl PgExecutor<'_>, id: JobId, user_id: Option<UserId>) -> Result<Option<Asked>, Error> {
    let statement = sqlx::query_as::<_, (bool, bool)>(include_str!("sql/cancel.sql"));
    let error = sqlx::types::Json(StopReason::Cancelled.error());
    let row = within(statement.bind(id).bind(user_id).bind(error).fetch_optional(db)).await?;
    Ok(row.map(|(ended, awaited)| if ended { Asked::Ended { awaited } } else { Asked::Running }))
}

/// Moves at most `limit` jobs whose time is over and that do not run to the history; gives those whose end somebody waits
/// for, and how many there were. Rides on `jobs_stop_idx`.
pub async fn end_pending(db: impl PgExecutor<'_>, limit: i64) -> Result<(Vec<JobId>, usize), Error> {
    let statement = sqlx::query_as::<_, (JobId, bool)>(include_str!("sql/stop.sql"))
        .bind(limit)
        .bind(sqlx::types::Json(StopReason::Deadline.error()))
        .bind(sqlx::types::Json(StopReason::Cancelled.error()));
    let rows = within(statement.fetch_all(db)).await?;
    Ok((rows.iter().filter(|(_, awaited)| *awaited).map(|(id, _)| *id).collect(), rows.len()))
}

/// The jobs that `worker_id` runs though somebody cancelled them, at most `limit`. Rides on `jobs_stop_idx`.
pub async fn cancelled(db: impl PgExecutor<'_>, worker_id: WorkerId, limit: i64) -> Result<Vec<JobId>, Error> {
    let statement = sqlx::query_scalar(
        "select id from krilin.jobs
         where stop_at <= krilin.now() and state = 'running' and stop_reason = 'cancelled' and worker_id = $1
         limit $2",
    );
    within(statement.bind(worker_id).bind(limit).fetch_all(db)).await
}
