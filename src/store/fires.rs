//! Statements of the scheduler: what is due, the ledger of what became of it, when it is due again. All of one look run in
//! one transaction, which the scheduler opens.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgExecutor, postgres::types::PgInterval};
use uuid::Uuid;

use super::{Error, within};
use crate::model::id::{JobId, ScheduleId, UserId};

/// A schedule that is due, locked, with what its judgement needs to know.
#[derive(Debug, Clone, FromRow)]
pub struct Due {
    /// Its id.
    pub id: ScheduleId,
    /// For whom.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<String>,
    /// What its maker calls it.
    pub name: String,
    /// The kind of its jobs.
    pub kind: String,
    /// What they are given, as JSON text.
    pub args: String,
    /// The cron line.
    pub cron: Option<String>,
    /// The period.
    pub every_ms: Option<i64>,
    /// The one instant.
    pub once_at: Option<DateTime<Utc>>,
    /// `user` or an IANA zone.
    pub timezone: String,
    /// The zone of its user.
    pub user_zone: Option<String>,
    /// From when on periods are counted.
    pub anchor_at: DateTime<Utc>,
    /// No fire before.
    pub starts_at: Option<DateTime<Utc>>,
    /// No fire after.
    pub ends_at: Option<DateTime<Utc>>,
    /// The longest delay.
    pub jitter_ms: i64,
    /// `none`, `one` or `all`.
    pub catch_up: String,
    /// `skip` or `queue`.
    pub overlap: String,
    /// The most jobs.
    pub max_runs: Option<i32>,
    /// Failures in a row that pause it.
    pub pause_after: Option<i32>,
    /// The nominal fire that comes next.
    pub next_at: DateTime<Utc>,
    /// The latest with a row in the ledger.
    pub last_nominal_at: Option<DateTime<Utc>>,
    /// Up to here fires fell into a pause.
    pub skip_until: Option<DateTime<Utc>>,
    /// Missed fires.
    pub missed: i32,
    /// Jobs made.
    pub run_count: i32,
    /// Dead jobs in a row.
    pub failure_count: i32,
    /// Whether the job before waits or runs.
    pub live: bool,
    /// How the job before ended, where that counts and was not counted yet.
    pub ended: Option<String>,
    /// `active`, `paused` or `disabled`, where it works for an installation.
    pub installation: Option<String>,
    /// The database's time.
    pub now: DateTime<Utc>,
}

/// Which schedules to take.
#[derive(Debug, Clone, Copy)]
pub struct Take<'a> {
    /// At most so many.
    pub limit: i64,
    /// Only those that are overdue by this many milliseconds.
    pub overdue_ms: i64,
    /// Only these, due or not, where some are given.
    pub only: Option<&'a [ScheduleId]>,
}

/// Locks schedules that are due and gives them, longest overdue first. What another scheduler holds is passed over.
/// Rides on `schedules_due_idx`.
pub async fn take(db: &mut PgConnection, take: Take<'_>) -> Result<Vec<Due>, Error> {
    let rows = match take.only {
        None => {
            let statement = sqlx::query_as(include_str!("sql/due.sql"));
            within(statement.bind(take.limit).bind(take.overdue_ms).fetch_all(db)).await?
        }
        Some(only) => within(sqlx::query_as(include_str!("sql/due_alone.sql")).bind(only).fetch_all(db)).await?,
    };
    Ok(rows)
}

/// A row of the ledger as it is written.
#[derive(Debug, Clone)]
pub struct NewOccurrence {
    /// Whose fire.
    pub schedule_id: ScheduleId,
    /// When it was meant to be.
    pub nominal_at: DateTime<Utc>,
    /// When it was due.
    pub due_at: DateTime<Utc>,
    /// `fired`, `coalesced` or `skipped`.
    pub outcome: &'static str,
    /// Why it did not fire.
    pub reason: Option<String>,
    /// Fires before it that were missed.
    pub missed: i32,
    /// Its job.
    pub job_id: Option<JobId>,
}

/// Writes ledger rows; gives the jobs of those that were new. A fire that has a row already is not written again, and its
/// job must not be made. Rides on `occurrences_pkey`.
pub async fn record(db: impl PgExecutor<'_>, rows: &[NewOccurrence]) -> Result<Vec<JobId>, Error> {
    fn all<'r, T>(rows: &'r [NewOccurrence], part: impl Fn(&'r NewOccurrence) -> T) -> Vec<T> {
        rows.iter().map(part).collect()
    }
    let statement = sqlx::query_scalar::<_, Option<JobId>>(
        "with clock as materialized (select krilin.now() as now)
         insert into krilin.occurrences
             (schedule_id, nominal_at, due_at, fired_at, outcome, reason, late_ms, missed, job_id)
         select i.schedule_id, i.nominal_at, i.due_at, clock.now, i.outcome, i.reason,
             greatest(0, extract(epoch from clock.now - i.due_at) * 1000)::bigint, i.missed, i.job_id
         from clock,
             unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[], $6::integer[], $7::uuid[])
             as i(schedule_id, nominal_at, due_at, outcome, reason, missed, job_id)
         on conflict (schedule_id, nominal_at) do nothing
         returning job_id",
    );
    let bound = statement
        .bind(all(rows, |row| row.schedule_id))
        .bind(all(rows, |row| row.nominal_at))
        .bind(all(rows, |row| row.due_at))
        .bind(all(rows, |row| row.outcome))
        .bind(all(rows, |row| row.reason.as_deref()))
        .bind(all(rows, |row| row.missed))
        .bind(all(rows, |row| row.job_id));
    Ok(within(bound.fetch_all(db)).await?.into_iter().flatten().collect())
}

/// Where a schedule stands after a look.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Which.
    pub id: ScheduleId,
    /// Its state from now on.
    pub state: &'static str,
    /// Why, where it is not active.
    pub reason: Option<String>,
    /// The nominal fire that comes next.
    pub next_at: Option<DateTime<Utc>>,
    /// When that is due; none unless active.
    pub due_at: Option<DateTime<Utc>>,
    /// Missed fires that the next job is told of.
    pub missed: i32,
    /// Jobs made.
    pub run_count: i32,
    /// Dead jobs in a row.
    pub failure_count: i32,
    /// The latest fire that was judged, where one was.
    pub last_nominal_at: Option<DateTime<Utc>>,
    /// The job that was made last, where one was.
    pub job_id: Option<JobId>,
}

/// Writes where schedules stand; they are locked by [`take`]. Rides on `schedules_pkey`.
pub async fn advance(db: impl PgExecutor<'_>, rows: &[Advance], tzdata: &str) -> Result<(), Error> {
    fn all<'r, T>(rows: &'r [Advance], part: impl Fn(&'r Advance) -> T) -> Vec<T> {
        rows.iter().map(part).collect()
    }
    let statement = sqlx::query(include_str!("sql/advance.sql"))
        .bind(all(rows, |row| row.id))
        .bind(all(rows, |row| row.state))
        .bind(all(rows, |row| row.reason.as_deref()))
        .bind(all(rows, |row| row.next_at))
        .bind(all(rows, |row| row.due_at))
        .bind(all(rows, |row| row.missed))
        .bind(all(rows, |row| row.run_count))
        .bind(all(rows, |row| row.failure_count))
        .bind(all(rows, |row| row.last_nominal_at))
        .bind(all(rows, |row| row.job_id))
        .bind(tzdata);
    within(statement.execute(db)).await?;
    Ok(())
}

/// Puts a schedule aside that cannot be worked out, with the reason. It is looked at again when its zone or the zone data
/// changes, or when somebody resumes it.
pub async fn park(db: impl PgExecutor<'_>, id: ScheduleId, reason: &str) -> Result<(), Error> {
    let statement = sqlx::query(
        "update krilin.schedules set state = 'parked', reason = $2, due_at = null, updated_at = krilin.now()
         where id = $1 and state = 'active'",
    );
    within(statement.bind(id).bind(reason).execute(db)).await?;
    Ok(())
}

/// What lies ahead of the schedulers.
#[derive(Debug, Clone, FromRow)]
pub struct Ahead {
    /// The milliseconds until the earliest schedule is due, rounded up; not above zero when it is due.
    pub next_ms: Option<i64>,
    /// The zone data by which all schedules were reckoned.
    pub tzdata: String,
}

/// Looks when the next schedule is due, and writes nothing. Rides on `schedules_due_idx`.
pub async fn ahead(db: impl PgExecutor<'_>) -> Result<Ahead, Error> {
    let statement = sqlx::query_as(
        "select s.tzdata,
             (select ceil(extract(epoch from d.due_at - krilin.now()) * 1000)::bigint
              from krilin.schedules d where d.state = 'active' order by d.due_at limit 1) as next_ms
         from krilin.scheduler s",
    );
    within(statement.fetch_one(db)).await
}

/// Takes, renews or sees the lease of who fires first; gives whether `holder` has it. A lease that is not old is left as it
/// is. Rides on `scheduler_pkey`.
pub async fn lead(db: impl PgExecutor<'_>, holder: Uuid, length: std::time::Duration) -> Result<bool, Error> {
    let statement = sqlx::query_scalar(
        "with clock as materialized (select krilin.now() as now),
         renewed as (
             update krilin.scheduler s set holder = $1, held_until = clock.now + $2 from clock
             where s.held_until < clock.now or (s.holder = $1 and s.held_until < clock.now + $2 / 2)
             returning s.holder
         )
         select coalesce((select holder from renewed), s.holder) = $1 from krilin.scheduler s",
    );
    let micros = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    let length = PgInterval { months: 0, days: 0, microseconds: micros };
    within(statement.bind(holder).bind(length).fetch_one(db)).await
}

/// Gives the lease back, so that another scheduler need not wait for its end.
pub async fn release(db: impl PgExecutor<'_>, holder: Uuid) -> Result<(), Error> {
    let statement = sqlx::query("update krilin.scheduler set held_until = '-infinity' where holder = $1");
    within(statement.bind(holder).execute(db)).await?;
    Ok(())
}

/// Makes cron schedules that were reckoned by older zone data due for another look, at most `limit`; gives how many. Those
/// that were parked get another chance. Reads all schedules: for a new release of the zone data.
pub async fn reckon_anew(db: impl PgExecutor<'_>, tzdata: &str, limit: i64) -> Result<u64, Error> {
    let statement = sqlx::query(
        "update krilin.schedules
         set due_at = krilin.now(), state = 'active', reason = null, tzdata = $1,
             next_at = coalesce(next_at, krilin.now() + interval '1 day')
         where id = any (array(
             select id from krilin.schedules
             where tzdata < $1 and cron is not null and state in ('active', 'parked') limit $2 for update skip locked))",
    );
    Ok(within(statement.bind(tzdata).bind(limit).execute(db)).await?.rows_affected())
}

/// Remembers that all schedules are reckoned by this zone data.
pub async fn reckoned(db: impl PgExecutor<'_>, tzdata: &str) -> Result<(), Error> {
    let statement = sqlx::query("update krilin.scheduler set tzdata = $1 where tzdata < $1");
    within(statement.bind(tzdata).execute(db)).await?;
    Ok(())
}

/// Forgets ledger rows older than `keep`, at most `limit` at once; gives how many.
pub async fn prune(db: impl PgExecutor<'_>, keep: std::time::Duration, limit: i64) -> Result<u64, Error> {
    let micros = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let keep = PgInterval { months: 0, days: 0, microseconds: micros };
    let statement = sqlx::query(
        "delete from krilin.occurrences where ctid = any (array(
             select ctid from krilin.occurrences where fired_at < krilin.now() - $1 limit $2))",
    );
    Ok(within(statement.bind(keep).bind(limit).execute(db)).await?.rows_affected())
}

/// A row of the ledger.
#[derive(Debug, Clone, FromRow)]
pub struct Occurred {
    /// When it was meant to be.
    pub nominal_at: DateTime<Utc>,
    /// When it was judged.
    pub fired_at: DateTime<Utc>,
    /// `fired`, `coalesced` or `skipped`.
    pub outcome: String,
    /// Why it did not fire, or that a hand did it.
    pub reason: Option<String>,
    /// How long after it was due it was judged.
    pub late_ms: i64,
    /// Fires before it that were missed.
    pub missed: i32,
    /// Its job.
    pub job_id: Option<JobId>,
}

/// The ledger of a schedule, newest first, before the nominal instant `before`. Rides on `occurrences_pkey`.
pub async fn ledger(
    db: impl PgExecutor<'_>,
    id: ScheduleId,
    before: Option<DateTime<Utc>>,
    limit: i64,
) -> Result<Vec<Occurred>, Error> {
    let statement = sqlx::query_as(
        "select nominal_at, fired_at, outcome, reason, late_ms, missed, job_id from krilin.occurrences
         where schedule_id = $1 and nominal_at < coalesce($2, 'infinity')
         order by nominal_at desc limit $3",
    );
    within(statement.bind(id).bind(before).bind(limit).fetch_all(db)).await
}

/// Notes a fire by hand. False: there is no such schedule. Rides on `schedules_pkey`.
pub async fn triggered(db: impl PgExecutor<'_>, id: ScheduleId, job: JobId) -> Result<bool, Error> {
    let statement = sqlx::query(
        "update krilin.schedules
         set run_count = run_count + 1, last_fired_at = krilin.now(), last_job_id = $2, last_job_judged = false
         where id = $1",
    );
    Ok(within(statement.bind(id).bind(job).execute(db)).await?.rows_affected() > 0)
}

/// Forgets schedules that ended longer than `keep` ago, at most `limit` at once; gives how many. Reads all schedules.
pub async fn prune_ended(db: impl PgExecutor<'_>, keep: std::time::Duration, limit: i64) -> Result<u64, Error> {
    let micros = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    let keep = PgInterval { months: 0, days: 0, microseconds: micros };
    let statement = sqlx::query(
        "delete from krilin.schedules where id = any (array(
             select id from krilin.schedules where state = 'ended' and updated_at < krilin.now() - $1 limit $2))",
    );
    Ok(within(statement.bind(keep).bind(limit).execute(db)).await?.rows_affected())
}
