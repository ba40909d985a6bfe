//! Statements that read jobs wherever they are, live or ended, and that keep the history in bounds.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::value::RawValue;
use sqlx::{
    PgExecutor, Row,
    postgres::{PgRow, types::PgInterval},
};
use uuid::Uuid;

use super::{Error, within};
use crate::model::{
    id::{JobId, UserId},
    job::{JobView, State},
};

/// How far a machine's clock may be ahead of the database's. A job's id bounds from below when it can have ended, and so
/// which partitions can hold it.
const CLOCK_SKEW: TimeDelta = TimeDelta::days(1);

/// No job has ended later than this; it keeps a look out of the partitions that lie ready for the days to come.
const NOT_AFTER: &str = "finished_at < krilin.now() + interval '1 day'";

/// The columns of a live job in the order of [`view`].
const LIVE: &str = "id, kind, queue, user_id, app_id,
    case when state <> 'running' then 'pending' when stop_reason = 'cancelled' then 'cancelling' else 'running' end as state, priority, attempt, max_attempts, run_at, created_at,
    started_at, null::timestamptz as finished_at, args::text as args, null::text as result, last_error as error,
    parked_reason, cause, case stop_reason when 'deadline' then stop_at end as deadline, parent_id, progress";
/// The columns of an ended job in the same order.
pub(super) const ENDED: &str =
    "id, kind, queue, user_id, app_id, state, priority, attempt, max_attempts, run_at, created_at,
    started_at, finished_at, args::text as args, result::text as result, error,
    null::text as parked_reason, cause,
    null::timestamptz as deadline, parent_id, progress";

/// The job `id`, wherever it is; only if it is `user_id`'s, where one is given.
pub async fn find(db: impl PgExecutor<'_>, id: JobId, user_id: Option<UserId>) -> Result<Option<JobView>, Error> {
    let statement = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select {LIVE} from krilin.jobs where id = $1 and ($2::uuid is null or user_id = $2)
         union all
         select {ENDED} from krilin.job_history
         where id = $1 and ($2::uuid is null or user_id = $2) and finished_at >= $3 and {NOT_AFTER}
         limit 1"
    )));
    let row = within(statement.bind(id).bind(user_id).bind(not_before(id)).fetch_optional(db)).await?;
    row.as_ref().map(view).transpose()
}

/// Those of the jobs `ids` that there are, wherever they are, in no order. Rides on `jobs_pkey` and `job_history_id_idx`; the
/// planner takes a list behind a `limit` for one row, and so looks each up by its id.
pub async fn find_many(db: impl PgExecutor<'_>, ids: &[JobId]) -> Result<Vec<JobView>, Error> {
    let statement = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select job.* from (select unnest($1::uuid[]) as id limit cardinality($1)) as wanted
         cross join lateral (
             select {LIVE} from krilin.jobs where id = wanted.id
             union all
             select {ENDED} from krilin.job_history where id = wanted.id and finished_at >= $2 and {NOT_AFTER}
         ) as job"
    )));
    let oldest = ids.iter().map(|id| not_before(*id)).min();
    within(statement.bind(ids).bind(oldest).fetch_all(db)).await?.iter().map(view).collect()
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this user's.
    pub user_id: Option<UserId>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// Only in this state.
    pub state: Option<State>,
    /// Only of this lane.
    pub queue: Option<String>,
    /// Only those for which this job waits.
    pub parent_id: Option<JobId>,
}

/// At most `limit` jobs, newest first, older than `before`. Rides on the primary key and `job_history_id_idx`, or on the
/// two indexes by user; what the other filters leave out is read and skipped.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    before: Option<JobId>,
    limit: i64,
) -> Result<Vec<JobView>, Error> {
    let (live, ended) = match filter.state {
        Some(state) if state.is_final() => ("false", "state = $4"),
        Some(State::Running) => ("state = 'running' and stop_reason is distinct from 'cancelled'", "false"),
        Some(State::Cancelling) => ("state = 'running' and stop_reason = 'cancelled'", "false"),
        Some(_) => ("state <> 'running'", "false"),
        None => ("true", "true"),
    };
    let user = if filter.user_id.is_some() { "user_id = $1" } else { "$1::uuid is null" };
    let rest = format!(
        "{user} and ($2::text is null or kind = $2) and ($3::text is null or queue = $3)
         and ($5::uuid is null or id < $5) and ($7::uuid is null or parent_id = $7) and ($4::text is null or $4 is not null)"
    );
    let statement = sqlx::query(sqlx::AssertSqlSafe(format!(
        "(select {LIVE} from krilin.jobs where {live} and {rest} order by id desc limit $6)
         union all
         (select {ENDED} from krilin.job_history where {ended} and {rest} order by id desc limit $6)
         order by id desc limit $6"
    )));
    let statement = statement
        .bind(filter.user_id)
        .bind(&filter.kind)
        .bind(&filter.queue)
        .bind(filter.state.map(State::as_str))
        .bind(before)
        .bind(limit)
        .bind(filter.parent_id);
    within(statement.fetch_all(db)).await?.iter().map(view).collect()
}

fn not_before(id: JobId) -> DateTime<Utc> {
    let made = id.0.get_timestamp().and_then(|stamp| {
        let (seconds, nanos) = stamp.to_unix();
        DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
    });
    made.and_then(|made| made.checked_sub_signed(CLOCK_SKEW)).unwrap_or(DateTime::UNIX_EPOCH)
}

pub(super) fn view(row: &PgRow) -> Result<JobView, Error> {
    let unfit = |cause: serde_json::Error| Error::Database(sqlx::Error::Decode(cause.into()));
    let json = |text: String| RawValue::from_string(text).map_err(unfit);
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    let state: &str = row.try_get("state")?;
    Ok(JobView {
        id: JobId(row.try_get::<Uuid, _>("id")?),
        kind: row.try_get("kind")?,
        queue: row.try_get("queue")?,
        user_id: row.try_get("user_id")?,
        app_id: row.try_get("app_id")?,
        state: state.parse().map_err(|cause| Error::Database(sqlx::Error::Decode(Box::new(cause))))?,
        priority: row.try_get("priority")?,
        attempt: count(row.try_get("attempt")?),
        max_attempts: count(row.try_get("max_attempts")?),
        run_at: row.try_get("run_at")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
        args: json(row.try_get("args")?)?,
        result: row.try_get::<Option<String>, _>("result")?.map(json).transpose()?,
        error: row
            .try_get::<Option<serde_json::Value>, _>("error")?
            .map(serde_json::from_value)
            .transpose()
            .map_err(unfit)?,
        parked_reason: row.try_get("parked_reason")?,
        cause: row.try_get("cause")?,
        deadline: row.try_get("deadline")?,
        parent_id: row.try_get("parent_id")?,
        progress: row.try_get("progress")?,
    })
}

fn days(age: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(age.as_micros()).unwrap_or(i64::MAX) }
}

/// Creates the partitions of today and the next `ahead` days where they are missing; gives how many.
pub async fn create_partitions(db: impl PgExecutor<'_>, ahead: i32) -> Result<i32, Error> {
    within(sqlx::query_scalar("select krilin.create_history_partitions($1)").bind(ahead).fetch_one(db)).await
}

/// Drops the partitions whose day is older than `keep`; gives how many.
pub async fn drop_partitions(db: impl PgExecutor<'_>, keep: Duration) -> Result<i32, Error> {
    within(sqlx::query_scalar("select krilin.drop_history_partitions($1)").bind(days(keep)).fetch_one(db)).await
}

/// Forgets idempotency keys older than `keep`, at most `limit` at once; gives how many.
pub async fn prune_idempotency_keys(db: impl PgExecutor<'_>, keep: Duration, limit: i64) -> Result<u64, Error> {
    let statement = sqlx::query(
        "delete from krilin.idempotency_keys where ctid = any (array(
             select ctid from krilin.idempotency_keys where created_at < krilin.now() - $1 order by created_at limit $2))",
    );
    Ok(within(statement.bind(days(keep)).bind(limit).execute(db)).await?.rows_affected())
}

/// Forgets attempts older than `keep`, at most `limit` at once; gives how many.
pub async fn prune_attempts(db: impl PgExecutor<'_>, keep: Duration, limit: i64) -> Result<u64, Error> {
    let statement = sqlx::query(
        "delete from krilin.attempts where ctid = any (array(
             select ctid from krilin.attempts where finished_at < krilin.now() - $1 limit $2))",
    );
    Ok(within(statement.bind(days(keep)).bind(limit).execute(db)).await?.rows_affected())
}

/// Lets the planner know what the history holds: the parent of partitions is never analyzed by itself.
pub async fn analyze(db: impl PgExecutor<'_>) -> Result<(), Error> {
    within(sqlx::query("select krilin.analyze_history()").execute(db)).await?;
    Ok(())
}
