//! Statements over `schedules` as their makers see them. What fires them is in [`super::fires`].

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, PgExecutor, types::Json};

use super::{Error, within};
use crate::model::{
    id::{AppId, JobId, ScheduleId, UserId},
    schedule::{Decided, State},
};

/// A schedule as its owner and the operator see it.
#[derive(Debug, Clone, FromRow)]
pub struct Row {
    /// Its id.
    pub id: ScheduleId,
    /// For whom.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<String>,
    /// What its maker calls it.
    pub name: String,
    /// Who made it.
    pub origin: String,
    /// The kind of its jobs.
    pub kind: String,
    /// What they are given.
    pub args: Value,
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
    /// Where it stands.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
    /// The nominal fire that comes next.
    pub next_at: Option<DateTime<Utc>>,
    /// Jobs made.
    pub run_count: i32,
    /// Dead jobs in a row.
    pub failure_count: i32,
    /// When it last fired.
    pub last_fired_at: Option<DateTime<Utc>>,
    /// The job of that fire.
    pub last_job_id: Option<JobId>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Writes schedules. One of the same user, app and name is replaced under its own id and jitter; where its clockwork is the
/// same it keeps its next fire and its count of periods, and a pause of it stays. Gives each with its next nominal fire.
/// Rides on `schedules_name_key`.
pub async fn upsert(
    db: impl PgExecutor<'_>,
    rows: &[Decided],
) -> Result<Vec<(ScheduleId, Option<DateTime<Utc>>)>, Error> {
    fn all<'r, T>(rows: &'r [Decided], part: impl Fn(&'r Decided) -> T) -> Vec<T> {
        rows.iter().map(part).collect()
    }
    let statement = sqlx::query_as(include_str!("sql/schedule.sql"))
        .bind(all(rows, |row| row.id))
        .bind(all(rows, |row| row.user_id))
        .bind(all(rows, |row| row.app_id.as_ref().map(AppId::as_str)))
        .bind(all(rows, |row| row.name.as_str()))
        .bind(all(rows, |row| row.origin.as_str()))
        .bind(all(rows, |row| row.kind.as_str()))
        .bind(all(rows, |row| Json(&row.args)))
        .bind(all(rows, |row| row.cron.as_deref()))
        .bind(all(rows, |row| row.every_ms))
        .bind(all(rows, |row| row.once_at))
        .bind(all(rows, |row| row.timezone.as_str()))
        .bind(all(rows, |row| row.anchor_at))
        .bind(all(rows, |row| row.starts_at))
        .bind(all(rows, |row| row.ends_at))
        .bind(all(rows, |row| row.jitter_ms))
        .bind(all(rows, |row| row.catch_up.as_str()))
        .bind(all(rows, |row| row.overlap.as_str()))
        .bind(all(rows, |row| row.max_runs))
        .bind(all(rows, |row| row.pause_after))
        .bind(all(rows, |row| row.state.as_str()))
        .bind(all(rows, |row| row.reason.as_deref()))
        .bind(all(rows, |row| row.next_at))
        .bind(all(rows, |row| row.due_at))
        .bind(all(rows, |row| row.tzdata.as_str()));
    within(statement.fetch_all(db)).await
}

/// What every listing and look gives.
const COLUMNS: &str = "s.id, s.user_id, s.app_id, s.name, s.origin, s.kind, s.args, s.cron, s.every_ms, s.once_at,
    s.timezone, u.timezone as user_zone, s.anchor_at, s.starts_at, s.ends_at, s.jitter_ms, s.catch_up, s.overlap,
    s.max_runs, s.pause_after, s.state, s.reason, s.next_at, s.run_count, s.failure_count, s.last_fired_at,
    s.last_job_id, s.created_at";

/// A schedule by its id; only if it is `user`'s, where one is given. Rides on `schedules_pkey`.
pub async fn find(db: impl PgExecutor<'_>, id: ScheduleId, user: Option<UserId>) -> Result<Option<Row>, Error> {
    let text = sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from krilin.schedules s left join krilin.users u on u.id = s.user_id
         where s.id = $1 and ($2::uuid is null or s.user_id = $2)"
    ));
    within(sqlx::query_as(text).bind(id).bind(user).fetch_optional(db)).await
}

/// Which schedules to list. What is `None` does not narrow.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this user.
    pub user_id: Option<UserId>,
    /// Of this app.
    pub app_id: Option<String>,
    /// Of this name.
    pub name: Option<String>,
    /// In this state.
    pub state: Option<State>,
}

/// Schedules, newest first, before the id `before`. Rides on `schedules_name_key` for one user, else on the key.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    before: Option<ScheduleId>,
    limit: i64,
) -> Result<Vec<Row>, Error> {
    let text = sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from krilin.schedules s left join krilin.users u on u.id = s.user_id
         where ($1::uuid is null or s.user_id = $1) and ($2::text is null or s.app_id = $2)
           and ($3::text is null or s.name = $3) and ($4::text is null or s.state = $4)
           and ($5::uuid is null or s.id < $5)
         order by s.id desc limit $6"
    ));
    let statement = sqlx::query_as(text)
        .bind(filter.user_id)
        .bind(filter.app_id.as_deref())
        .bind(filter.name.as_deref())
        .bind(filter.state.map(State::as_str))
        .bind(before)
        .bind(limit);
    within(statement.fetch_all(db)).await
}

/// The schedules of one installation by name, the ended ones left out. Rides on `schedules_name_key`.
pub async fn of_installation(db: impl PgExecutor<'_>, user: UserId, app: &AppId) -> Result<Vec<Row>, Error> {
    let text = sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from krilin.schedules s left join krilin.users u on u.id = s.user_id
         where s.user_id = $1 and s.app_id = $2 and s.state <> 'ended' order by s.name"
    ));
    within(sqlx::query_as(text).bind(user).bind(app.as_str()).fetch_all(db)).await
}

/// How many schedules `user` has, the ended ones left out. Rides on `schedules_name_key`.
pub async fn count(db: impl PgExecutor<'_>, user: UserId) -> Result<i64, Error> {
    let statement = sqlx::query_scalar("select count(*) from krilin.schedules where user_id = $1 and state <> 'ended'");
    within(statement.bind(user).fetch_one(db)).await
}

/// Moves a schedule to a state for `reason`. For `active`, its next look is at once: that reckons the next fire, and what
/// fell into a pause is skipped as paused. False: there is none, or it is not in one of the states `from`.
pub async fn turn(
    db: impl PgExecutor<'_>,
    id: ScheduleId,
    (from, to): (&[State], State),
    reason: Option<&str>,
) -> Result<bool, Error> {
    let statement = sqlx::query(
        "update krilin.schedules
         set state = $3, reason = $4, updated_at = krilin.now(),
             due_at = case when $3 = 'active' then krilin.now() end,
             skip_until = case when $3 = 'active' and state = 'paused' then krilin.now() else skip_until end,
             next_at = case when $3 = 'active' then coalesce(next_at, krilin.now() + interval '1 day') else next_at end,
             failure_count = case when $3 = 'active' then 0 else failure_count end,
             last_job_judged = last_job_judged or $3 = 'active'
         where id = $1 and state = any($2)",
    );
    let from: Vec<&str> = from.iter().map(|state| state.as_str()).collect();
    let bound = statement.bind(id).bind(from).bind(to.as_str()).bind(reason);
    Ok(within(bound.execute(db)).await?.rows_affected() > 0)
}

/// Forgets a schedule; its ledger stays for its time. False: there is none.
pub async fn delete(db: impl PgExecutor<'_>, id: ScheduleId) -> Result<bool, Error> {
    let statement = sqlx::query("delete from krilin.schedules where id = $1");
    Ok(within(statement.bind(id).execute(db)).await?.rows_affected() > 0)
}

/// Forgets those that the manifest of `app` once made for `users` and that are not among `names`; all of them where there
/// are no names. Rides on `schedules_name_key`.
pub async fn delete_undeclared(
    db: impl PgExecutor<'_>,
    app: &AppId,
    users: &[UserId],
    names: &[String],
) -> Result<(), Error> {
    let statement = sqlx::query(
        "delete from krilin.schedules
         where user_id = any($1) and app_id = $2 and origin = 'manifest' and name <> all ($3)",
    );
    within(statement.bind(users).bind(app.as_str()).bind(names).execute(db)).await?;
    Ok(())
}

/// Forgets everything scheduled for one installation.
pub async fn delete_installation(db: impl PgExecutor<'_>, user: UserId, app: &AppId) -> Result<(), Error> {
    let statement = sqlx::query("delete from krilin.schedules where user_id = $1 and app_id = $2");
    within(statement.bind(user).bind(app.as_str()).execute(db)).await?;
    Ok(())
}

/// An installation as its schedules depend on it.
#[derive(Debug, Clone, FromRow)]
pub struct Installed {
    /// Whose.
    pub user_id: UserId,
    /// Their zone.
    pub timezone: String,
    /// Their settings.
    pub config: Value,
}

/// The installations of `app` after the user `after`, at most `limit`; only that of `only`, where it is given.
/// Rides on `app_installations_app_id_idx`.
pub async fn installed(
    db: impl PgExecutor<'_>,
    app: &AppId,
    (after, only): (Option<UserId>, Option<UserId>),
    limit: i64,
) -> Result<Vec<Installed>, Error> {
    let statement = sqlx::query_as(
        "select i.user_id, u.timezone, i.config from krilin.app_installations i join krilin.users u on u.id = i.user_id
         where i.app_id = $1 and ($2::uuid is null or i.user_id > $2) and ($3::uuid is null or i.user_id = $3)
         order by i.user_id limit $4",
    );
    within(statement.bind(app.as_str()).bind(after).bind(only).bind(limit).fetch_all(db)).await
}

/// The time by which schedules are judged, and the zone of `user` where one is given and known.
pub async fn here(db: impl PgExecutor<'_>, user: Option<UserId>) -> Result<(DateTime<Utc>, Option<String>), Error> {
    let statement = sqlx::query_as("select krilin.now(), (select timezone from krilin.users where id = $1)");
    within(statement.bind(user).fetch_one(db)).await
}
