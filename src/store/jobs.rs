//! Statements over live jobs: those that wait and those that run. Refuses to show one user another's: where a user is
//! given, a job of somebody else is not there.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, types::Json};

use super::{Error, within};
use crate::model::{
    id::{JobId, UserId},
    policy::PRIORITY_MAX,
};

/// Returns when what was committed before, by whomever, is on the disk: a message in Postgres' log that nobody reads, and a
/// commit that waits for it.
pub async fn sync(db: impl PgExecutor<'_>) -> Result<(), Error> {
    within(sqlx::query("select pg_logical_emit_message(true, 'krilin', '')").execute(db)).await?;
    Ok(())
}

/// The same where jobs ended at `finished_at` or before, and quick where that is long ago: Postgres writes what nobody waits
/// for within three times its `wal_writer_delay`, which is ten seconds at most.
pub async fn sync_ends(db: impl PgExecutor<'_>, finished_at: DateTime<Utc>) -> Result<(), Error> {
    let statement =
        sqlx::query("select pg_logical_emit_message(true, 'krilin', '') where $1 > krilin.now() - interval '1 minute'");
    within(statement.bind(finished_at).execute(db)).await?;
    Ok(())
}

/// Makes scheduled jobs whose time has come ready, at most `limit`; gives the queues they wait in, a name per job.
/// Rides on `jobs_scheduled_idx`.
pub async fn promote(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<String>, Error> {
    let statement = sqlx::query_scalar(
        "update krilin.jobs j set state = 'ready'
         where j.ctid = any (array(
             select s.ctid from krilin.jobs s
             where s.state = 'scheduled' and s.run_at <= krilin.now()
             order by s.run_at
             limit $1
             for update skip locked))
         returning j.queue",
    );
    within(statement.bind(limit).fetch_all(db)).await
}

/// The milliseconds until the earliest scheduled job is due, negative when it is overdue. Rides on `jobs_scheduled_idx`.
pub async fn next_due_ms(db: impl PgExecutor<'_>) -> Result<Option<i64>, Error> {
    let statement = sqlx::query_scalar(
        "select (extract(epoch from run_at - krilin.now()) * 1000)::bigint
         from krilin.jobs where state = 'scheduled' order by run_at limit 1",
    );
    within(statement.fetch_optional(db)).await
}

/// Makes a dead or cancelled job ready again, with all its attempts before it; gives its queue. Must run in a
/// transaction. A unique key that another live job has taken is `Error::Constraint("jobs_unique_key")`.
pub async fn revive(db: &mut PgConnection, id: JobId, user_id: Option<UserId>) -> Result<Option<String>, Error> {
    let statement = sqlx::query_scalar(
        "with again as (
             delete from krilin.job_history
             where id = $1 and ($2::uuid is null or user_id = $2) and state in ('dead', 'cancelled')
             returning *
         )
         insert into krilin.jobs
             (id, user_id, app_id, kind, queue, args, state, priority, max_attempts, run_at, due_at, unique_key,
              concurrency_key, cost, parent_id, cause, trace_parent, last_error, created_at)
         select id, user_id, app_id, kind, queue, args, 'ready', priority, max_attempts, krilin.now(), due_at,
             unique_key, concurrency_key,
             (select nullif(k.cost, 1) from krilin.kinds k where k.kind = again.kind), parent_id, cause, trace_parent, error, created_at
         from again
         returning queue",
    );
    within(statement.bind(id).bind(user_id).fetch_optional(db)).await
}

/// How many jobs wait and run in a queue.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    /// The lane.
    pub queue: String,
    /// Jobs whose time has come.
    pub ready: i64,
    /// Jobs whose time has not come, or which wait for their children.
    pub scheduled: i64,
    /// Jobs under a lease.
    pub running: i64,
    /// Since when the longest waiting ready job is due.
    pub oldest_due_at: Option<DateTime<Utc>>,
}

/// The depths of all queues that have live jobs. Reads all live rows: for a page or a scrape, never per job.
pub async fn depths(db: impl PgExecutor<'_>) -> Result<Vec<Depth>, Error> {
    let statement = sqlx::query_as::<_, (String, i64, i64, i64, Option<DateTime<Utc>>)>(
        "select queue,
             count(*) filter (where state = 'ready'),
             count(*) filter (where state in ('scheduled', 'parked')),
             count(*) filter (where state = 'running'),
             min(run_at) filter (where state = 'ready')
         from krilin.jobs
         group by queue
         order by queue",
    );
    let rows = within(statement.fetch_all(db)).await?;
    let depth =
        |(queue, ready, scheduled, running, oldest_due_at)| Depth { queue, ready, scheduled, running, oldest_due_at };
    Ok(rows.into_iter().map(depth).collect())
}

/// How many jobs are due in `queues`, counted up to `limit`. Rides on `jobs_ready_idx` and `jobs_lanes_idx`.
pub async fn count_ready(db: impl PgExecutor<'_>, queues: &[String], limit: i64) -> Result<i64, Error> {
    let statement = sqlx::query_scalar(
        "select count(*) from
             (select from (
                 select from krilin.jobs
                 where state = 'ready' and queue = any($1) and user_id is null and concurrency_key is null
                 union all
                 select from krilin.jobs
                 where state = 'ready' and queue = any($1) and (user_id is not null or concurrency_key is not null)) as all_due
              limit $2) as due",
    );
    within(statement.bind(queues).bind(limit).fetch_one(db)).await
}

/// How many ready jobs stand in a queue, and whether it rests.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Line {
    /// The lane.
    pub queue: String,
    /// Jobs whose time has come, by their place in line: so many at each rank in [`RANK_STEP_MS`], in no order.
    pub ready: Json<Vec<(i64, u64)>>,
    /// Whether it, or all queues, are paused.
    pub paused: bool,
    /// When this was.
    pub as_of: DateTime<Utc>,
}

/// A point of priority in the rank of a job, in milliseconds: migration 0002 says it.
pub const RANK_STEP_MS: i64 = 600_000;

/// The lines of `queues`. Counts all that is ready, on `jobs_ready_idx` and `jobs_lanes_idx`: now and then, never per job.
/// What has waited for so long that no priority overtakes it is counted as one.
pub async fn lines(db: impl PgExecutor<'_>, queues: &[String]) -> Result<Vec<Line>, Error> {
    let statement = sqlx::query_as(
        "select q.name as queue,
             (select coalesce(jsonb_agg(jsonb_build_array(w.step, w.n)), '[]') from (
                 select greatest(r.rank / $2, latest.step - 2 * $3::bigint) as step, count(*) as n
                 from (select (extract(epoch from krilin.now()) * 1000)::bigint / $2 as step offset 0) as latest,
                     (select j.rank from krilin.jobs j
                      where j.state = 'ready' and j.queue = q.name and j.user_id is null and j.concurrency_key is null
                      union all
                      select j.rank from krilin.jobs j
                      where j.state = 'ready' and j.queue = q.name
                          and (j.user_id is not null or j.concurrency_key is not null)) as r
                 group by 1) as w) as ready,
             exists (select from krilin.queues p where p.name in (q.name, 'all') and p.paused_at is not null) as paused,
             krilin.now() as as_of
         from unnest($1::text[]) as q(name)",
    );
    within(statement.bind(queues).bind(RANK_STEP_MS).bind(i64::from(PRIORITY_MAX)).fetch_all(db)).await
}

/// How many live jobs of one kind stand where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// The kind.
    pub kind: String,
    /// The lane.
    pub queue: String,
    /// `ready`, `scheduled` or `running`.
    pub state: String,
    /// How many.
    pub count: i64,
    /// How long ago the earliest of them was due, in milliseconds; negative when none is due yet.
    pub overdue_ms: i64,
}

/// The live jobs by kind, queue and state. Reads all live rows: for a scrape, never per job.
pub async fn tally(db: impl PgExecutor<'_>) -> Result<Vec<Tally>, Error> {
    let statement = sqlx::query_as::<_, (String, String, String, i64, i64)>(
        "select kind, queue, state, count(*), (extract(epoch from krilin.now() - min(run_at)) * 1000)::bigint
         from krilin.jobs
         group by kind, queue, state
         order by kind, queue, state",
    );
    let rows = within(statement.fetch_all(db)).await?;
    let tally = |(kind, queue, state, count, overdue_ms)| Tally { kind, queue, state, count, overdue_ms };
    Ok(rows.into_iter().map(tally).collect())
}
