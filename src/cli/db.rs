//! `krilin db`: the database's own life.

use std::fmt;

use clap::Subcommand;
use serde::Serialize;

use super::context::Context;
use crate::store::schema;

/// Verbs of the database.
#[derive(Debug, Subcommand)]
pub(super) enum Db {
    /// Bring the schema up to this binary's newest migration, as `krilin_owner`.
    ///
    /// Safe to run again, and safe while an older `krilin` still serves: migrations only add.
    #[command(after_help = "Example:\n  krilin db migrate && systemctl restart krilin.target")]
    Migrate,
}

impl Db {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Migrate => migrate(context).await,
        }
    }
}

/// What `db migrate` did.
#[derive(Debug, Serialize)]
struct Migrated {
    version: i64,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The schema is at version {}.", self.version)
    }
}

async fn migrate(context: &Context) -> anyhow::Result<()> {
    let mut owner = context.owner_connection().await?;
    schema::migrate(&mut owner).await?;
    context.answer(&Migrated { version: schema::newest_known() })
}
