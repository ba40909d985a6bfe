//! Statements about what handlers report while they run: their progress and their log.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, postgres::types::PgInterval};

use super::{Error, within};
use crate::model::{host::LogLine, id::JobId, job::Lease};

/// What is to be written of one job.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// How far it is, as JSON text, where that changed.
    pub progress: Option<String>,
    /// New lines as the text of a JSON list, where there are any.
    pub lines: Option<String>,
}

/// Writes a report under `lease`; under one that is no longer the job's, nothing. The lines of a job, all attempts
/// together, have at most `bytes_max`.
pub async fn write(db: impl PgExecutor<'_>, lease: &Lease, report: &Report, bytes_max: i64) -> Result<(), Error> {
    let bytes = report.lines.as_ref().map_or(0, String::len);
    let statement = sqlx::query(include_str!("sql/report.sql"))
        .bind(lease.job_id)
        .bind(lease.token)
        .bind(&report.progress)
        .bind(&report.lines)
        .bind(i32::try_from(bytes).unwrap_or(i32::MAX))
        .bind(bytes_max);
    within(statement.execute(db)).await?;
    Ok(())
}

/// A batch of lines as it was written.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct Batch {
    /// Its place: the next page begins after it.
    pub id: i64,
    /// The attempt that logged it.
    pub attempt: i32,
    /// When it was written.
    pub logged_at: DateTime<Utc>,
    /// Its lines.
    pub lines: Vec<LogLine>,
}

/// At most `limit` batches of the job `id`, oldest first, after the batch `after`. Rides on `job_logs_job_idx`.
pub async fn log(db: impl PgExecutor<'_>, id: JobId, after: i64, limit: i64) -> Result<Vec<Batch>, Error> {
    let statement = sqlx::query_as::<_, (i64, i32, DateTime<Utc>, sqlx::types::Json<Vec<LogLine>>)>(
        "select id, attempt, logged_at, lines from krilin.job_logs where job_id = $1 and id > $2 order by id limit $3",
    );
    let rows = within(statement.bind(id).bind(after).bind(limit).fetch_all(db)).await?;
    let batch = |(id, attempt, logged_at, lines): (_, _, _, sqlx::types::Json<_>)| Batch {
        id,
        attempt,
        logged_at,
        lines: lines.0,
    };
    Ok(rows.into_iter().map(batch).collect())
}

/// Forgets lines older than `keep`, at most `limit` batches at once; gives how many. Rides on `job_logs_logged_idx`.
pub async fn prune(db: impl PgExecutor<'_>, keep: Duration, limit: i64) -> Result<u64, Error> {
    let age = PgInterval { months: 0, days: 0, microseconds: i64::try_from(keep.as_micros()).unwrap_or(i64::MAX) };
    let statement = sqlx::query(
        "delete from krilin.job_logs where ctid = any (array(
             select ctid from krilin.job_logs where logged_at < krilin.now() - $1 limit $2))",
    );
    Ok(within(statement.bind(age).bind(limit).execute(db)).await?.rows_affected())
}
