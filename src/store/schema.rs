//! The database's own life: roles, migrations, versions.

use serde::Serialize;
use sqlx::{Connection, PgConnection, migrate::Migrator};

use super::{Error, within};
use crate::model::secret::Secret;

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

/// The statement that gives `role` the right to log in with `password`, quoted by Postgres itself.
async fn password_statement(admin: &mut PgConnection, role: &str, password: &str) -> Result<String, Error> {
    Ok(sqlx::query_scalar("select format('alter role %I login password %L', $1, $2)")
        .bind(role)
        .bind(password)
        .fetch_one(admin)
        .await?)
}

/// Gives `role` a password.
pub async fn set_password(admin: &mut PgConnection, role: &str, password: &Secret) -> Result<(), Error> {
    let statement = password_statement(&mut *admin, role, password.expose()).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(admin).await?;
    Ok(())
}

/// One migration, as this binary and the database know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// Where it stands.
    pub state: MigrationState,
}

/// Where a migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// In the database as this binary knows it.
    Applied,
    /// Known to this binary, not yet in the database.
    Pending,
    /// In the database, but with another text than this binary's.
    Altered,
    /// In the database, unknown to this binary: a newer one was here.
    Unknown,
}

/// Why this binary must not work on this schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// A newer binary has migrated.
    #[error(
        "the schema is at version {found} and this krilin knows {known} at most; run the krilin that made version \
         {found}, or a newer one"
    )]
    Newer {
        /// The schema's version.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// Migrations are missing.
    #[error(
        "the schema lacks {count} of this krilin's migrations, the first is number {first}; run `krilin db migrate`"
    )]
    Behind {
        /// The first that is missing.
        first: i64,
        /// How many are missing.
        count: usize,
    },
    /// A migration was applied with another text.
    #[error(
        "migration {version} was applied with another text than this krilin's; this is the database of a development \
         version, or of a fork"
    )]
    Altered {
        /// The first such migration.
        version: i64,
    },
}

/// All migrations in order, those of the database and those of this binary.
pub async fn status(connection: &mut PgConnection) -> Result<Vec<Migration>, Error> {
    let mut applied = applied(connection).await?;
    let mut all: Vec<Migration> = MIGRATIONS
        .iter()
        .map(|known| {
            let state = match applied.iter().position(|(version, ..)| *version == known.version) {
                None => MigrationState::Pending,
                Some(at) if applied.remove(at).2 == *known.checksum => MigrationState::Applied,
                Some(_) => MigrationState::Altered,
            };
            Migration { version: known.version, description: known.description.to_string(), state }
        })
        .collect();
    let unknown = MigrationState::Unknown;
    all.extend(applied.into_iter().map(|(version, description, _)| Migration { version, description, state: unknown }));
    all.sort_by_key(|migration| migration.version);
    Ok(all)
}

/// The migrations that the database has: version, description, checksum.
async fn applied(connection: &mut PgConnection) -> Result<Vec<(i64, String, Vec<u8>)>, Error> {
    let there: bool = within(
        sqlx::query_scalar("select to_regclass('krilin._sqlx_migrations') is not null").fetch_one(&mut *connection),
    )
    .await?;
    if !there {
        return Ok(Vec::new());
    }
    within(
        sqlx::query_as(
            "select version, description, checksum from krilin._sqlx_migrations where success order by version",
        )
        .fetch_all(connection),
    )
    .await
}

/// Whether this binary may serve and work on a schema of this status.
pub fn check(status: &[Migration]) -> Result<(), Mismatch> {
    let found = status.iter().filter(|m| m.state != MigrationState::Pending).map(|m| m.version).max().unwrap_or(0);
    let known = newest_known();
    if status.iter().any(|m| m.state == MigrationState::Unknown && m.version > known) {
        return Err(Mismatch::Newer { found, known });
    }
    if let Some(altered) = status.iter().find(|m| matches!(m.state, MigrationState::Altered | MigrationState::Unknown))
    {
        return Err(Mismatch::Altered { version: altered.version });
    }
    let missing: Vec<i64> = status.iter().filter(|m| m.state == MigrationState::Pending).map(|m| m.version).collect();
    match missing.first() {
        Some(first) => Err(Mismatch::Behind { first: *first, count: missing.len() }),
        None => Ok(()),
    }
}

/// Brings the schema up to this binary's newest migration. `owner` is a connection as `krilin_owner`; who looked first
/// (see [`check`]) has refused a newer schema in better words than this would.
pub async fn migrate(owner: &mut PgConnection) -> Result<(), Error> {
    sqlx::raw_sql("create schema if not exists krilin; set search_path = krilin, public; set statement_timeout = 0")
        .execute(&mut *owner)
        .await?;
    MIGRATIONS.run(&mut *owner).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(cause) => cause.into(),
        other => Error::Database(sqlx::Error::Migrate(Box::new(other))),
    })?;
    // The runtime role looks at the version before it serves.
    sqlx::raw_sql("grant select on krilin._sqlx_migrations to krilin_runtime").execute(&mut *owner).await?;
    owner.ping().await?;
    Ok(())
}
