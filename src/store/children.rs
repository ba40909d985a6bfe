//! Statements about jobs that wait for others, and about those others. Refuses nothing: who waits is freed by the database
//! itself when the last child leaves `jobs` (`krilin.child_ended`).

use serde_json::Value;
use sqlx::{PgExecutor, types::Json};

use super::{Error, within};
use crate::model::{error::CtxError, id::JobId, job::State};

/// How a child ended.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ChildEnd {
    /// Which.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// One of the final states.
    pub state: State,
    /// What it came to.
    pub result: Option<Value>,
    /// Why it did not.
    pub error: Option<CtxError>,
}

/// At most `limit` ended children of `parent`, in the order of their ids, after the child `after`. Rides on
/// `job_history_parent_idx`.
pub async fn ended(
    db: impl PgExecutor<'_>,
    parent: JobId,
    after: Option<JobId>,
    limit: i64,
) -> Result<Vec<ChildEnd>, Error> {
    let statement = sqlx::query_as::<_, (JobId, String, String, Option<Json<Value>>, Option<Json<CtxError>>)>(
        "select id, kind, state, result, error from krilin.job_history
         where parent_id = $1 and ($2::uuid is null or id > $2)
         order by id
         limit $3",
    );
    let rows = within(statement.bind(parent).bind(after).bind(limit).fetch_all(db)).await?;
    let end = |(id, kind, state, result, error): (_, _, String, Option<Json<_>>, Option<Json<_>>)| {
        let state = state.parse().map_err(|cause| Error::Database(sqlx::Error::Decode(Box::new(cause))))?;
        Ok(ChildEnd { id, kind, state, result: result.map(|json| json.0), error: error.map(|json| json.0) })
    };
    rows.into_iter().map(end).collect()
}

/// How many children of `parent` are dead, and how many cancelled. Rides on `job_history_parent_idx`.
pub async fn failed(db: impl PgExecutor<'_>, parent: JobId) -> Result<(i64, i64), Error> {
    let statement = sqlx::query_as(
        "select count(*) filter (where state = 'dead'), count(*) filter (where state = 'cancelled')
         from krilin.job_history where parent_id = $1",
    );
    within(statement.bind(parent).fetch_one(db)).await
}

/// The lanes of those of `parents` that are ready: the last of their children has ended. Rides on `jobs_pkey`.
pub async fn freed(db: impl PgExecutor<'_>, parents: &[JobId]) -> Result<Vec<String>, Error> {
    let statement = sqlx::query_scalar("select distinct queue from krilin.jobs where id = any($1) and state = 'ready'");
    within(statement.bind(parents).fetch_all(db)).await
}

/// The live children of `parent`, at most `limit`. Rides on `jobs_parent_idx`.
pub async fn live(db: impl PgExecutor<'_>, parent: JobId, limit: i64) -> Result<Vec<JobId>, Error> {
    let statement = sqlx::query_scalar("select id from krilin.jobs where parent_id = $1 order by id limit $2");
    within(statement.bind(parent).bind(limit).fetch_all(db)).await
}
