//! Statements over `app_tables`, and the one that changes tables of apps. Runs as `krilin_owner` only.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, types::Json};

use super::{Error, within};
use crate::model::id::AppId;

/// The longest a migration waits for a table that is in use, in Postgres' words. Waiting longer would make every user of
/// the app wait behind it.
pub const LOCK_TIMEOUT: &str = "5s";
/// The longest one step of a migration may run, in Postgres' words.
pub const STEP_TIMEOUT: &str = "10min";

/// Prepares the transaction for changing tables: other deadlines than those of a request.
pub async fn prepare(db: impl PgExecutor<'_>) -> Result<(), Error> {
    let statement =
        sqlx::query("select set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true)");
    within(statement.bind(LOCK_TIMEOUT).bind(STEP_TIMEOUT).execute(db)).await?;
    Ok(())
}

/// The app's tables as the version in force declared them, in the manifest's long form.
pub async fn declared(db: impl PgExecutor<'_>, app: &AppId) -> Result<Vec<Value>, Error> {
    let statement = sqlx::query_scalar("select schema from app_tables where app_id = $1 order by table_name");
    within(statement.bind(app.as_str()).fetch_all(db)).await
}

/// Replaces the app's list of tables: manifest name, name in Postgres, long form.
pub async fn replace(db: &mut PgConnection, app: &AppId, tables: &[(String, String, Value)]) -> Result<(), Error> {
    within(sqlx::query("delete from app_tables where app_id = $1").bind(app.as_str()).execute(&mut *db)).await?;
    for (name, physical, schema) in tables {
        let statement =
            sqlx::query("insert into app_tables (app_id, table_name, physical_name, schema) values ($1, $2, $3, $4)");
        within(statement.bind(app.as_str()).bind(name).bind(physical).bind(Json(schema)).execute(&mut *db)).await?;
    }
    Ok(())
}

/// Runs statements of a migration. Not under [`within`]: a large table may take its time, which [`STEP_TIMEOUT`] bounds.
pub async fn change(db: &mut PgConnection, sql: &str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(db).await?;
    Ok(())
}

/// Runs a `select count(*)`. As [`change`], it may take its time.
pub async fn count(db: &mut PgConnection, sql: &str) -> Result<i64, Error> {
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(db).await?)
}
