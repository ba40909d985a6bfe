//! The database's own life: roles, migrations, versions.

use sqlx::{Connection, PgConnection, migrate::Migrator};

use super::Error;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The newest migration this binary knows.
pub fn newest_known() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Creates the roles `krilin_owner` and `krilin_runtime` where they are missing. Needs a role that may create roles.
pub async fn create_roles(admin: &mut PgConnection) -> Result<(), Error> {
    for role in ["krilin_owner", "krilin_runtime"] {
        let statement = format!(
            "do $$ begin create role {role} login nosuperuser nobypassrls nocreaterole; \
             exception when duplicate_object then null; end $$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *admin).await?;
    }
    Ok(())
}

/// Creates a database that `krilin_owner` owns. `name` must be a plain lowercase identifier.
pub async fn create_database(admin: &mut PgConnection, name: &str, template: Option<&str>) -> Result<(), Error> {
    let from = template.map(|template| format!(" template {template}")).unwrap_or_default();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("create database {name} owner krilin_owner{from}")))
        .execute(admin)
        .await?;
    Ok(())
}

/// Whether the server has a database of this name.
pub async fn database_exists(admin: &mut PgConnection, name: &str) -> Result<bool, Error> {
    Ok(sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(admin)
        .await?)
}

/// Creates the roles and the database `name` where they are missing. `admin` may create both: in a private cluster the
/// superuser, elsewhere whoever runs `krilin db setup`. Safe to run again.
pub async fn set_up(admin: &mut PgConnection, name: &str) -> Result<(), Error> {
    create_roles(admin).await?;
    if !database_exists(admin, name).await? {
        create_database(admin, name, None).await?;
    }
    Ok(())
}

/// Brings the schema up to this binary's newest migration. `owner` is a connection as `krilin_owner`.
pub async fn migrate(owner: &mut PgConnection) -> Result<(), Error> {
    sqlx::raw_sql("create schema if not exists krilin; set search_path = krilin, public; set statement_timeout = 0")
        .execute(&mut *owner)
        .await?;
    MIGRATIONS.run(&mut *owner).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(cause) => cause.into(),
        other => Error::Database(sqlx::Error::Migrate(Box::new(other))),
    })?;
    owner.ping().await?;
    Ok(())
}
