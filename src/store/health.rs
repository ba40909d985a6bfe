//! What a doctor asks Postgres: who we are there, how it is set, whether every lock is locked.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};

use super::{Error, within};

/// The server, as one role sees it.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Server {
    /// Such as `15.8`.
    pub version: String,
    /// Whom we are connected as.
    pub role: String,
    /// Whether that role is a superuser, to whom row-level security does not apply.
    pub superuser: bool,
    /// Whether row-level security does not apply to that role for another reason.
    pub bypass_rls: bool,
    /// How often autovacuum looks at each database.
    pub autovacuum_naptime_s: i64,
    /// Its clock.
    pub now: DateTime<Utc>,
}

/// Asks for [`Server`].
pub async fn server(executor: impl PgExecutor<'_>) -> Result<Server, Error> {
    within(
        sqlx::query_as(
            "select current_setting('server_version') as version, \
             rolname::text as role, \
             rolsuper as superuser, \
             rolbypassrls as bypass_rls, \
             extract(epoch from current_setting('autovacuum_naptime')::interval)::bigint as autovacuum_naptime_s, \
             clock_timestamp() as now \
             from pg_roles where rolname = current_user",
        )
        .fetch_one(executor),
    )
    .await
}

/// The tables of apps on which row-level security is not both enabled and forced, or that are missing altogether.
pub async fn open_tables(executor: impl PgExecutor<'_>) -> Result<Vec<String>, Error> {
    within(
        sqlx::query_scalar(
            "select physical_name \
             from krilin.app_tables \
             left join pg_class on relname = physical_name and relnamespace = 'krilin'::regnamespace \
             where not coalesce(relrowsecurity and relforcerowsecurity, false) \
             order by physical_name",
        )
        .fetch_all(executor),
    )
    .await
}

/// How many leases ran out more than `age_s` seconds ago and were not taken back: nobody's reaper is at work.
pub async fn abandoned_leases(connection: &mut PgConnection, age_s: i64) -> Result<i64, Error> {
    within(
        sqlx::query_scalar(
            "select count(*) from krilin.jobs where state = 'running' and lease_until < krilin.now() - make_interval(secs => $1)",
        )
        .bind(age_s)
        .fetch_one(connection),
    )
    .await
}

/// How many leases there are: jobs that a worker has begun or set aside for itself.
pub async fn leases(connection: &mut PgConnection) -> Result<i64, Error> {
    within(sqlx::query_scalar("select count(*) from krilin.jobs where state = 'running'").fetch_one(connection)).await
}

/// A setting on which durability or speed hangs.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Setting {
    /// Its name in `postgresql.conf`.
    pub name: String,
    /// Its value.
    pub setting: String,
}

/// Those of the settings `names` that the server has.
pub async fn settings(db: impl PgExecutor<'_>, names: &[&str]) -> Result<Vec<Setting>, Error> {
    let statement = sqlx::query_as("select name, setting from pg_settings where name = any ($1) order by name");
    within(statement.bind(names).fetch_all(db)).await
}

/// Client sessions of the whole server, those that there may be, and those that only superusers may have.
pub async fn connections(db: impl PgExecutor<'_>) -> Result<(i64, i64, i64), Error> {
    let statement = sqlx::query_as(
        "select count(*), current_setting('max_connections')::bigint,
             current_setting('superuser_reserved_connections')::bigint
         from pg_stat_activity where backend_type = 'client backend'",
    );
    within(statement.fetch_one(db)).await
}

/// A transaction that has been open for long.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct LongTransaction {
    /// Its process.
    pub pid: i32,
    /// Whose it is.
    pub role: String,
    /// What the session calls itself.
    pub name: String,
    /// What it does: `active`, `idle in transaction`, …
    pub state: String,
    /// Since when, in seconds.
    pub age_s: i64,
    /// Whether it holds a snapshot: then no row that died since then can be vacuumed.
    pub pins: bool,
}

/// Transactions of this database that have been open for more than `age_s`, longest first, at most `limit`, and how many
/// sessions hide theirs from this role.
pub async fn long_transactions(
    connection: &mut PgConnection,
    age_s: f64,
    limit: i64,
) -> Result<(Vec<LongTransaction>, i64), Error> {
    let open = sqlx::query_as(
        "select pid, coalesce(usename::text, '') as role, application_name as name, coalesce(state, '') as state,
             extract(epoch from clock_timestamp() - xact_start)::bigint as age_s, backend_xmin is not null as pins
         from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid()
           and xact_start < clock_timestamp() - make_interval(secs => $1)
         order by xact_start limit $2",
    );
    let open = within(open.bind(age_s).bind(limit).fetch_all(&mut *connection)).await?;
    let hidden = sqlx::query_scalar(
        "select count(*) from pg_stat_activity
         where datname = current_database() and backend_type = 'client backend'
           and query = '<insufficient privilege>'",
    );
    Ok((open, within(hidden.fetch_one(connection)).await?))
}

/// How many sessions of this database hear notices.
pub async fn listeners(db: impl PgExecutor<'_>) -> Result<i64, Error> {
    let statement = sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen %'",
    );
    within(statement.fetch_one(db)).await
}

/// How autovacuum deals with a table.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Vacuumed {
    /// The table.
    pub name: String,
    /// Whether autovacuum may look at it at all.
    pub enabled: bool,
    /// Rows that nobody can see any more.
    pub dead: i64,
    /// Dead rows after which autovacuum begins.
    pub threshold: i64,
    /// How long ago it was vacuumed last, in seconds.
    pub vacuumed_s: Option<i64>,
}

/// The queue's own tables, those with settings of their own, as autovacuum sees them.
pub async fn vacuumed(db: impl PgExecutor<'_>) -> Result<Vec<Vacuumed>, Error> {
    let statement = sqlx::query_as(
        "select c.relname::text as name,
             coalesce(o.settings ->> 'autovacuum_enabled', 'on') not in ('off', 'false') as enabled,
             coalesce(s.n_dead_tup, 0) as dead,
             coalesce((o.settings ->> 'autovacuum_vacuum_threshold')::bigint,
                 current_setting('autovacuum_vacuum_threshold')::bigint)
                 + (coalesce((o.settings ->> 'autovacuum_vacuum_scale_factor')::float8,
                     current_setting('autovacuum_vacuum_scale_factor')::float8)
                 * greatest(c.reltuples, 0))::bigint as threshold,
             extract(epoch from clock_timestamp() - greatest(s.last_autovacuum, s.last_vacuum))::bigint as vacuumed_s
         from pg_class c
         left join pg_stat_all_tables s on s.relid = c.oid
         cross join lateral (
             select jsonb_object_agg(option_name, option_value) as settings from pg_options_to_table(c.reloptions)) o
         where c.relnamespace = 'krilin'::regnamespace and c.relkind = 'r' and c.reloptions is not null
         order by c.relname",
    );
    within(statement.fetch_all(db)).await
}

/// How many days from today on have their partition of the history, without a gap.
pub async fn days_ahead(db: impl PgExecutor<'_>) -> Result<i64, Error> {
    let statement = sqlx::query_scalar(
        "select coalesce(min(ahead), 60)::bigint from generate_series(0, 60) as ahead
         where to_regclass('krilin.job_history_'
             || to_char((krilin.now() at time zone 'UTC')::date + ahead, 'YYYYMMDD')) is null",
    );
    within(statement.fetch_one(db)).await
}

/// How many transactions ago the oldest row that is not frozen was written.
pub async fn transaction_age(db: impl PgExecutor<'_>) -> Result<i64, Error> {
    let statement =
        sqlx::query_scalar("select age(datfrozenxid)::bigint from pg_database where datname = current_database()");
    within(statement.fetch_one(db)).await
}
