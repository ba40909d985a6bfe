//! `krilin db`: the database's own life. Refuses a schema that a newer krilin has made.

use std::{fmt, fs, path::PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde::Serialize;
use sqlx::PgConnection;

use super::{context::Context, table::Table};
use crate::{
    cluster,
    model::secret::Secret,
    queue::kinds,
    store::{self, schema},
};

/// Verbs of the database.
#[derive(Debug, Subcommand)]
pub(super) enum Db {
    /// Bring the schema up to this binary's newest migration, as `krilin_owner`.
    ///
    /// Safe to run again, and safe while an older `krilin` still serves: migrations only add.
    #[command(after_help = "Example:\n  krilin db migrate && systemctl restart krilin.target")]
    Migrate,
    /// Say whether this binary may work on this schema; ends with 1 when it may not.
    #[command(after_help = "Example:\n  krilin db check && krilin serve")]
    Check,
    /// List all migrations, applied and pending.
    Status,
    /// Create the roles `krilin_owner` and `krilin_runtime` and the database on a server of your own.
    ///
    /// Needs a connection string of somebody who may create roles and databases, in a file, because a command line is for
    /// everybody to see. The passwords are those in the credentials `owner_database_url` and `database_url`, where they
    /// are there. Safe to run again. `krilin up` does this by itself for the Postgres it starts.
    #[command(after_help = "Example:\n  krilin db roles --admin-url-file /root/admin_url --database krilin")]
    Roles {
        /// A file with the connection string of an administrator.
        #[arg(long, value_name = "FILE")]
        admin_url_file: PathBuf,
        /// The database to create when it is missing: lowercase letters, digits and underscores.
        #[arg(long, value_name = "NAME", default_value = cluster::DATABASE, value_parser = database_name)]
        database: String,
    },
}

impl Db {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Migrate => migrate(context).await,
            Self::Check => check(context).await,
            Self::Status => status(context).await,
            Self::Roles { admin_url_file, database } => roles(context, admin_url_file, &database).await,
        }
    }
}

/// The longest name of a database, in bytes: Postgres' limit for identifiers.
const DATABASE_NAME_MAX_BYTES: usize = 63;

fn database_name(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= DATABASE_NAME_MAX_BYTES {
        Ok(text.to_owned())
    } else {
        Err("lowercase letters, digits and underscores, beginning with a letter".to_owned())
    }
}

/// What `db migrate` did.
#[derive(Debug, Serialize)]
pub(super) struct Migrated {
    version: i64,
    applied: Vec<i64>,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.applied.len() {
            0 => write!(f, "Nothing to do: the schema is at version {}.", self.version),
            1 => write!(f, "Applied 1 migration; the schema is at version {}.", self.version),
            count => write!(f, "Applied {count} migrations; the schema is at version {}.", self.version),
        }
    }
}

async fn migrate(context: &Context) -> anyhow::Result<()> {
    let policies = context.policies()?;
    let mut owner = context.owner_connection().await?;
    let migrated = bring_up(&mut owner).await?;
    kinds::publish(&mut owner, &policies, true).await.context("writing down the kinds of jobs")?;
    context.answer(&migrated)
}

/// Applies what is pending, unless the schema is newer than this binary.
pub(super) async fn bring_up(owner: &mut PgConnection) -> anyhow::Result<Migrated> {
    let status = schema::status(owner).await.context("reading the schema's version")?;
    match schema::check(&status) {
        Ok(()) | Err(schema::Mismatch::Behind { .. }) => {}
        Err(mismatch) => return Err(mismatch.into()),
    }
    let pending = status.iter().filter(|m| m.state == schema::MigrationState::Pending);
    let applied = pending.map(|m| m.version).collect();
    schema::migrate(owner).await.context("migrating")?;
    Ok(Migrated { version: schema::newest_known(), applied })
}

#[derive(Debug, Serialize)]
struct Checked {
    version: i64,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The schema is at version {}, which this krilin needs.", self.version)
    }
}

async fn check(context: &Context) -> anyhow::Result<()> {
    schema::check(&read_status(context).await?)?;
    context.answer(&Checked { version: schema::newest_known() })
}

#[derive(Debug, Serialize)]
struct Status {
    migrations: Vec<schema::Migration>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["version", "name", "state"]);
        for migration in &self.migrations {
            let state = match migration.state {
                schema::MigrationState::Applied => "applied",
                schema::MigrationState::Pending => "pending",
                schema::MigrationState::Altered => "applied with another text",
                schema::MigrationState::Unknown => "applied by a newer krilin",
            };
            table.row([migration.version.to_string(), migration.description.clone(), state.to_owned()]);
        }
        table.fmt(f)
    }
}

async fn status(context: &Context) -> anyhow::Result<()> {
    context.answer(&Status { migrations: read_status(context).await? })
}

async fn read_status(context: &Context) -> anyhow::Result<Vec<schema::Migration>> {
    let mut connection =
        store::connect(&context.database_url()?, "krilin-cli").await.context("connecting as `krilin_runtime`")?;
    schema::status(&mut connection).await.context("reading the schema's version")
}

#[derive(Debug, Serialize)]
struct Roles {
    database: String,
    with_password: Vec<&'static str>,
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, with_password } = self;
        write!(f, "The roles `krilin_owner` and `krilin_runtime` and the database `{database}` are there; ")?;
        match with_password.as_slice() {
            [] => write!(f, "no credential names a password, so none was set."),
            roles => write!(f, "passwords were set for {}.", roles.join(" and ")),
        }
    }
}

async fn roles(context: &Context, admin_url_file: PathBuf, database: &str) -> anyhow::Result<()> {
    let url = fs::read_to_string(&admin_url_file).with_context(|| format!("reading `{}`", admin_url_file.display()))?;
    let mut admin =
        store::connect(&Secret::new(url.trim()), "krilin-cli").await.context("connecting as administrator")?;
    schema::set_up(&mut admin, database).await.context("creating roles and database")?;
    let mut with_password = Vec::new();
    for (role, url) in [("krilin_owner", context.owner_database_url()), ("krilin_runtime", context.database_url())] {
        if let Some(password) = url.ok().as_ref().and_then(store::password) {
            schema::set_password(&mut admin, role, &password)
                .await
                .with_context(|| format!("setting {role}'s password"))?;
            with_password.push(role);
        }
    }
    context.answer(&Roles { database: database.to_owned(), with_password })
}
