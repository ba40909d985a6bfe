//! Statements about dead letters: jobs that ended badly and for good, and how they are taken up again. Refuses to take up the
//! same one for two callers.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, Row};

use super::{Error, history, within};
use crate::model::{
    error::CtxError,
    id::{JobId, UserId},
    job::JobView,
};

/// Which dead letters.
#[derive(Debug, Clone, Default)]
pub struct Which {
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only of this app.
    pub app_id: Option<String>,
    /// Only those that died of an error with this code.
    pub code: Option<String>,
    /// Only those that died since then.
    pub since: Option<DateTime<Utc>>,
}

impl Which {
    fn since(&self) -> DateTime<Utc> {
        self.since.unwrap_or(DateTime::UNIX_EPOCH)
    }
}

/// At most `limit` dead letters, oldest first. Rides on `job_history_dead_idx`.
pub async fn list(db: impl PgExecutor<'_>, which: &Which, limit: i64) -> Result<Vec<JobView>, Error> {
    let statement = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select {} from krilin.job_history
         where state = 'dead' and finished_at >= $1
             and ($2::uuid is null or user_id = $2)
             and ($3::text is null or kind = $3)
             and ($4::text is null or app_id = $4)
             and ($5::text is null or error ->> 'code' = $5)
         order by finished_at
         limit $6",
        history::ENDED
    )));
    let statement = statement
        .bind(which.since())
        .bind(which.user_id)
        .bind(&which.kind)
        .bind(&which.app_id)
        .bind(&which.code)
        .bind(limit);
    within(statement.fetch_all(db)).await?.iter().map(history::view).collect()
}

/// How many there are, up to `most`. Rides on `job_history_dead_idx`.
pub async fn count(db: impl PgExecutor<'_>, which: &Which, most: i64) -> Result<i64, Error> {
    let statement = sqlx::query_scalar(
        "select count(*) from (
             select from krilin.job_history
             where state = 'dead' and finished_at >= $1
                 and ($2::uuid is null or user_id = $2)
                 and ($3::text is null or kind = $3)
                 and ($4::text is null or app_id = $4)
                 and ($5::text is null or error ->> 'code' = $5)
             limit $6) as dead",
    );
    let statement = statement
        .bind(which.since())
        .bind(which.user_id)
        .bind(&which.kind)
        .bind(&which.app_id)
        .bind(&which.code)
        .bind(most);
    within(statement.fetch_one(db)).await
}

/// Takes up at most `limit` of them again, oldest first; gives each with its lane. `by` says who did it.
pub async fn redrive(
    db: impl PgExecutor<'_>,
    which: &Which,
    limit: i64,
    by: &str,
) -> Result<Vec<(JobId, String)>, Error> {
    let statement = sqlx::query_as(include_str!("sql/redrive.sql"))
        .bind(which.since())
        .bind(which.user_id)
        .bind(&which.kind)
        .bind(&which.app_id)
        .bind(&which.code)
        .bind(limit)
        .bind(by);
    within(statement.fetch_all(db)).await
}

/// One time that a job was taken up again.
#[derive(Debug, Clone, serde::Serialize, utoipa::ToSchema)]
pub struct Redrive {
    /// When it had died.
    pub dead_since: DateTime<Utc>,
    /// The attempts it had spent.
    pub attempt: i32,
    /// What it had died of.
    pub error: Option<CtxError>,
    /// When it was taken up again.
    pub redriven_at: DateTime<Utc>,
    /// Who did it: a user's id, or `command line`.
    pub redriven_by: String,
}

/// The times that the job `id` was taken up again, latest first, at most `limit`. Rides on `redrives_job_idx`.
pub async fn redrives(db: impl PgExecutor<'_>, id: JobId, limit: i64) -> Result<Vec<Redrive>, Error> {
    let statement = sqlx::query(
        "select dead_since, attempt, error, redriven_at, redriven_by
         from krilin.redrives where job_id = $1 order by id desc limit $2",
    );
    let rows = within(statement.bind(id).bind(limit).fetch_all(db)).await?;
    let redrive = |row: &sqlx::postgres::PgRow| {
        let error = row.try_get::<Option<sqlx::types::Json<CtxError>>, _>(2)?;
        Ok(Redrive {
            dead_since: row.try_get(0)?,
            attempt: row.try_get(1)?,
            error: error.map(|json| json.0),
            redriven_at: row.try_get(3)?,
            redriven_by: row.try_get(4)?,
        })
    };
    rows.iter().map(redrive).collect()
}
