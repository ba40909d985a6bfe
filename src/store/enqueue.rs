//! Statements that make jobs. Refuses nothing about the jobs themselves: the queue has checked them against the policy.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, Row};

use super::{Error, within};
use crate::model::{
    id::{AppId, JobId, UserId},
    job::Idempotency,
};

/// A job as it is inserted, everything decided.
#[derive(Debug, Clone)]
pub struct NewRow {
    /// Its id.
    pub id: JobId,
    /// For whom.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<AppId>,
    /// Its kind.
    pub kind: String,
    /// Its lane.
    pub queue: String,
    /// Its arguments as JSON text.
    pub args: String,
    /// Higher runs sooner.
    pub priority: i16,
    /// Attempts it may have.
    pub max_attempts: i32,
    /// Not before; now where none.
    pub run_at: Option<DateTime<Utc>>,
    /// What asks.
    pub cause: Option<String>,
    /// W3C traceparent.
    pub trace_parent: Option<String>,
    /// Whether somebody waits for its end.
    pub awaited: bool,
    /// See [`crate::model::job::NewJob::unique_key`].
    pub unique_key: Option<String>,
    /// See [`crate::model::job::NewJob::idempotency`].
    pub idempotency: Option<Idempotency>,
}

impl NewRow {
    /// Whether it needs [`insert_keyed`].
    pub fn is_keyed(&self) -> bool {
        self.unique_key.is_some() || self.idempotency.is_some()
    }
}

/// Inserts `rows`, all or none. None of them may have a key.
pub async fn insert(db: impl PgExecutor<'_>, rows: &[&NewRow]) -> Result<(), Error> {
    fn all<'r, T>(rows: &[&'r NewRow], part: impl Fn(&'r NewRow) -> T) -> Vec<T> {
        rows.iter().map(|row| part(row)).collect()
    }
    let statement = sqlx::query(include_str!("sql/enqueue.sql"))
        .bind(all(rows, |row| row.id))
        .bind(all(rows, |row| row.user_id))
        .bind(all(rows, |row| row.app_id.as_ref().map(AppId::as_str)))
        .bind(all(rows, |row| row.kind.as_str()))
        .bind(all(rows, |row| row.queue.as_str()))
        .bind(all(rows, |row| row.args.as_str()))
        .bind(all(rows, |row| row.priority))
        .bind(all(rows, |row| row.max_attempts))
        .bind(all(rows, |row| row.run_at))
        .bind(all(rows, |row| row.cause.as_deref()))
        .bind(all(rows, |row| row.trace_parent.as_deref()))
        .bind(all(rows, |row| row.awaited));
    within(statement.execute(db)).await?;
    Ok(())
}

/// Inserts one job that has a key, with its idempotency record. False when a key is taken; then nothing is inserted but,
/// where only the unique key was taken, the record, which must be pointed elsewhere with [`point_record`].
pub async fn insert_keyed(db: impl PgExecutor<'_>, row: &NewRow) -> Result<bool, Error> {
    let statement = sqlx::query(include_str!("sql/enqueue_keyed.sql"))
        .bind(row.id)
        .bind(row.user_id)
        .bind(row.app_id.as_ref().map(AppId::as_str))
        .bind(&row.kind)
        .bind(&row.queue)
        .bind(&row.args)
        .bind(row.priority)
        .bind(row.max_attempts)
        .bind(row.run_at)
        .bind(&row.cause)
        .bind(&row.trace_parent)
        .bind(row.awaited)
        .bind(&row.unique_key)
        .bind(row.idempotency.as_ref().map(|idempotency| idempotency.key.as_str()))
        .bind(row.idempotency.as_ref().map(|idempotency| idempotency.request_hash.as_slice()));
    Ok(within(statement.fetch_optional(db)).await?.is_some())
}

/// The request hash and job that an idempotency key stands for.
pub async fn find_record(
    db: impl PgExecutor<'_>,
    user_id: Option<UserId>,
    key: &str,
) -> Result<Option<(Vec<u8>, JobId)>, Error> {
    let statement = sqlx::query(
        "select request_hash, job_id from krilin.idempotency_keys where user_id is not distinct from $1 and key = $2",
    );
    let row = within(statement.bind(user_id).bind(key).fetch_optional(db)).await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// Makes an idempotency key stand for `job_id`.
pub async fn point_record(
    db: impl PgExecutor<'_>,
    user_id: Option<UserId>,
    key: &str,
    job_id: JobId,
) -> Result<(), Error> {
    let statement = sqlx::query(
        "update krilin.idempotency_keys set job_id = $3 where user_id is not distinct from $1 and key = $2",
    );
    within(statement.bind(user_id).bind(key).bind(job_id).execute(db)).await?;
    Ok(())
}

/// The live job that has `unique_key`.
pub async fn find_unique(db: impl PgExecutor<'_>, unique_key: &str) -> Result<Option<JobId>, Error> {
    let statement = sqlx::query("select id from krilin.jobs where unique_key = $1");
    let row = within(statement.bind(unique_key).fetch_optional(db)).await?;
    row.map(|row| Ok(row.try_get(0)?)).transpose()
}

/// Takes back an idempotency record of our own whose job was not made.
pub async fn drop_record(
    db: impl PgExecutor<'_>,
    user_id: Option<UserId>,
    key: &str,
    job_id: JobId,
) -> Result<(), Error> {
    let statement = sqlx::query(
        "delete from krilin.idempotency_keys where user_id is not distinct from $1 and key = $2 and job_id = $3",
    );
    within(statement.bind(user_id).bind(key).bind(job_id).execute(db)).await?;
    Ok(())
}
