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
