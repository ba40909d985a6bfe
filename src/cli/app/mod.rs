//! `krilin app`: what authors and operators do with apps.

mod attempt;
mod check;
mod install;
mod list;
mod publish;
mod test;
mod types;

use std::path::PathBuf;

use clap::Subcommand;

use super::context::Context;
use crate::model::{id::AppId, manifest};

/// Verbs of apps.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Check a manifest, or a directory with a manifest and its code; ends with 1 when there are errors.
    ///
    /// Every problem comes at once, with its line, a code and a JSON pointer. Of a directory the code is loaded in the
    /// sandbox, too, and has to export what the manifest names. Nothing else runs, and no database is needed.
    #[command(
        after_help = "Examples:\n  krilin app check apps/habit-tracker\n  krilin app check manifest.yaml --json",
        after_long_help = check::codes()
    )]
    Check {
        /// A manifest's file, or an app's directory.
        #[arg(value_name = "FILE|DIR")]
        path: PathBuf,
    },
    /// Print the JSON Schema of manifests, for editors.
    #[command(after_help = "Example:\n  krilin app schema > manifest.schema.json")]
    Schema,
    /// Run one JavaScript file as a handler and say how it ended, in which time and memory.
    ///
    /// It runs in the sandbox with the default limits and without a database.
    Try(attempt::Try),
    /// Run an app's own tests, `test.js`; ends with 1 when one fails.
    ///
    /// Functions `test_…` run in the sandbox; `cases` are actions at named instants, for a new user each, on a Postgres
    /// made for them and gone afterwards.
    #[command(after_help = "Example:\n  krilin app test apps/habit-tracker")]
    Test {
        /// The app's directory.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Write an app's own TypeScript types, `krilin.gen.d.ts`, from its manifest.
    #[command(after_help = "Examples:\n  krilin app types apps/habit-tracker\n  krilin app types . --stdout")]
    Types {
        /// The app's directory.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Print them instead.
        #[arg(long)]
        stdout: bool,
    },
    /// Make a version of an app the one in force for everybody here, with its tables, in one transaction.
    #[command(after_help = "Examples:\n  krilin app publish habit-tracker\n  krilin app publish ./my-app --dry-run")]
    Publish(publish::Publish),
    /// Put a published app into a user's hands, or approve its new version.
    #[command(after_help = "Example:\n  krilin app install habit-tracker --user Ada")]
    Install(install::Install),
    /// Take an app from a user. What it stored stays.
    Remove(install::Whose),
    /// List what is published here, or what one user has.
    List {
        /// The user: a name, an e-mail address or an id.
        #[arg(long)]
        user: Option<String>,
    },
    /// Show the actions and tables of a published app.
    Show {
        /// The app's id.
        #[arg(value_name = "ID")]
        app: AppId,
    },
}

impl Verb {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Check { path } => check::run(context, &path).await,
            Self::Schema => context.print(manifest::schema_text()),
            Self::Try(verb) => verb.run(context).await,
            Self::Test { directory } => test::run(context, &directory).await,
            Self::Types { directory, stdout } => types::run(context, &directory, stdout),
            Self::Publish(verb) => verb.run(context).await,
            Self::Install(verb) => verb.run(context).await,
            Self::Remove(whose) => install::remove(context, whose).await,
            Self::List { user } => list::list(context, user).await,
            Self::Show { app } => list::show(context, &app).await,
        }
    }
}
