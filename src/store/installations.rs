//! Statements over `app_installations`: who has which app, with which settings and grants.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgExecutor, Row, postgres::PgRow, types::Json};

use super::{Error, within};
use crate::{
    model::{
        id::{AppId, UserId},
        trace::TraceParent,
    },
    telemetry,
};

/// The most installations one listing returns.
pub const LIST_MAX: i64 = 1_000;

/// What a pass needs to know before its first call.
#[derive(Debug, Clone)]
pub struct Opened {
    /// `active`, `paused` or `disabled`.
    pub state: String,
    /// What the user granted.
    pub grants: Vec<String>,
    /// The user's settings as JSON text.
    pub settings: String,
    /// Tables that must be counted before an insert.
    pub near_limit: Vec<String>,
    /// The app's revision in force.
    pub revision: i64,
    /// The user, as the parts that app code sees, in the order name, e-mail address, zone, language, first day of the week.
    pub user: (String, Option<String>, String, String, String),
}

/// Says on whose behalf and for which app the transaction acts, locks the installation, and gives what is known about it:
/// one statement, since it begins every action. Until the transaction ends, the session's name in `pg_stat_activity` and
/// in Postgres' log has the trace id behind it.
pub async fn open_locked(db: impl PgExecutor<'_>, user: UserId, app: &AppId) -> Result<Option<Opened>, Error> {
    let statement = sqlx::query(
        "select i.state, i.grants, i.config::text, i.near_limit, a.revision,
                u.name, u.email, u.timezone, u.locale, u.week_start,
                set_config('krilin.user_id', $1::text, true), set_config('krilin.app_id', $2, true),
                set_config('application_name',
                    concat_ws(' ', split_part(current_setting('application_name'), ' ', 1), $3::text), true)
         from app_installations i join apps a on a.id = i.app_id join users u on u.id = i.user_id
         where i.user_id = $1 and i.app_id = $2
         for update of i",
    );
    let trace = telemetry::trace::current().map(TraceParent::trace);
    within(statement.bind(user).bind(app.as_str()).bind(trace).fetch_optional(db))
        .await?
        .as_ref()
        .map(opened)
        .transpose()
}

/// The same without the lock, for passes that only read.
pub async fn open(db: impl PgExecutor<'_>, user: UserId, app: &AppId) -> Result<Option<Opened>, Error> {
    let statement = sqlx::query(
        "select i.state, i.grants, i.config::text, i.near_limit, a.revision,
                u.name, u.email, u.timezone, u.locale, u.week_start,
                set_config('krilin.user_id', $1::text, true), set_config('krilin.app_id', $2, true),
                set_config('application_name',
                    concat_ws(' ', split_part(current_setting('application_name'), ' ', 1), $3::text), true)
         from app_installations i join apps a on a.id = i.app_id join users u on u.id = i.user_id
         where i.user_id = $1 and i.app_id = $2",
    );
    let trace = telemetry::trace::current().map(TraceParent::trace);
    within(statement.bind(user).bind(app.as_str()).bind(trace).fetch_optional(db))
        .await?
        .as_ref()
        .map(opened)
        .transpose()
}

fn opened(row: &PgRow) -> Result<Opened, Error> {
    Ok(Opened {
        state: row.try_get(0)?,
        grants: row.try_get(1)?,
        settings: row.try_get(2)?,
        near_limit: row.try_get(3)?,
        revision: row.try_get(4)?,
        user: (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?, row.try_get(8)?, row.try_get(9)?),
    })
}

/// An installation as it is listed.
#[derive(Debug, Clone, serde::Serialize, sqlx::FromRow)]
pub struct Installation {
    /// Whose.
    pub user_id: UserId,
    /// Of which app.
    pub app_id: String,
    /// What the user approved.
    pub installed_version: String,
    /// `active`, `paused` or `disabled`.
    pub state: String,
    /// The user's settings.
    pub config: Value,
    /// What the user granted.
    pub grants: Vec<String>,
    /// When.
    pub installed_at: DateTime<Utc>,
}

/// A user's installations by app, at most [`LIST_MAX`].
pub async fn list(db: impl PgExecutor<'_>, user: UserId) -> Result<Vec<Installation>, Error> {
    let statement = sqlx::query_as(
        "select user_id, app_id, installed_version, state, config, grants, installed_at
         from app_installations where user_id = $1 order by app_id limit $2",
    );
    within(statement.bind(user).bind(LIST_MAX).fetch_all(db)).await
}

/// A user's installation of an app.
pub async fn find(db: impl PgExecutor<'_>, user: UserId, app: &AppId) -> Result<Option<Installation>, Error> {
    let statement = sqlx::query_as(
        "select user_id, app_id, installed_version, state, config, grants, installed_at
         from app_installations where user_id = $1 and app_id = $2",
    );
    within(statement.bind(user).bind(app.as_str()).fetch_optional(db)).await
}

/// Which of `apps` the user has, with the version in force of each.
pub async fn present(db: impl PgExecutor<'_>, user: UserId, apps: &[String]) -> Result<Vec<(String, String)>, Error> {
    let statement = sqlx::query_as(
        "select i.app_id, a.current_version
         from app_installations i join apps a on a.id = i.app_id
         where i.user_id = $1 and i.app_id = any($2)",
    );
    within(statement.bind(user).bind(apps).fetch_all(db)).await
}

/// Puts an app into a user's hands. One that is there already keeps its settings and gets the version and the grants.
pub async fn upsert(db: impl PgExecutor<'_>, user: UserId, app: &AppId, approved: &Approved<'_>) -> Result<(), Error> {
    let statement = sqlx::query(
        "insert into app_installations (user_id, app_id, installed_version, config, grants)
         values ($1, $2, $3, $4, $5)
         on conflict (user_id, app_id) do update
            set installed_version = $3, config = $4 || app_installations.config, grants = $5, state = 'active',
                updated_at = krilin.now()",
    );
    let bound = statement
        .bind(user)
        .bind(app.as_str())
        .bind(approved.version)
        .bind(Json(approved.settings))
        .bind(approved.grants);
    within(bound.execute(db)).await?;
    Ok(())
}

/// What a user says yes to when they install.
#[derive(Debug, Clone, Copy)]
pub struct Approved<'a> {
    /// The version they saw.
    pub version: &'a str,
    /// Their settings; defaults where they said nothing.
    pub settings: &'a Value,
    /// What the app may do.
    pub grants: &'a [String],
}

/// Sets what the app may do from its next call on. `false`: not installed.
pub async fn set_grants(db: impl PgExecutor<'_>, user: UserId, app: &AppId, grants: &[String]) -> Result<bool, Error> {
    let statement = sqlx::query(
        "update app_installations set grants = $3, updated_at = krilin.now() where user_id = $1 and app_id = $2",
    );
    Ok(within(statement.bind(user).bind(app.as_str()).bind(grants).execute(db)).await?.rows_affected() > 0)
}

/// Switches an installation on or off. `false`: not installed.
pub async fn set_state(db: impl PgExecutor<'_>, user: UserId, app: &AppId, state: &str) -> Result<bool, Error> {
    let statement = sqlx::query(
        "update app_installations set state = $3, updated_at = krilin.now() where user_id = $1 and app_id = $2",
    );
    Ok(within(statement.bind(user).bind(app.as_str()).bind(state).execute(db)).await?.rows_affected() > 0)
}

/// Remembers which tables are near their limit.
pub async fn set_near_limit(
    db: impl PgExecutor<'_>,
    user: UserId,
    app: &AppId,
    tables: &[String],
) -> Result<(), Error> {
    let statement = sqlx::query("update app_installations set near_limit = $3 where user_id = $1 and app_id = $2");
    within(statement.bind(user).bind(app.as_str()).bind(tables).execute(db)).await?;
    Ok(())
}

/// Takes an app out of a user's hands. Its rows stay. `false`: not installed.
pub async fn delete(db: impl PgExecutor<'_>, user: UserId, app: &AppId) -> Result<bool, Error> {
    let statement = sqlx::query("delete from app_installations where user_id = $1 and app_id = $2");
    Ok(within(statement.bind(user).bind(app.as_str()).execute(db)).await?.rows_affected() > 0)
}

/// Of `user`'s installed apps, those whose current version cannot do without `app`.
pub async fn dependants(db: impl PgExecutor<'_>, user: UserId, app: &AppId) -> Result<Vec<String>, Error> {
    let statement = sqlx::query_scalar(
        "select d.app_id from app_dependencies d join app_installations i on i.app_id = d.app_id
         where i.user_id = $1 and d.depends_on_app_id = $2 and d.required
         order by d.app_id",
    );
    within(statement.bind(user).bind(app.as_str()).fetch_all(db)).await
}
