//! `krilin user`: the people who use this Krilin.

use std::fmt;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use sqlx::PgPool;

use super::{context::Context, table::Table};
use crate::{
    model::{
        id::UserId,
        user::{NewUser, User, WeekStart},
    },
    store::users,
};

/// Verbs of users.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Add a user.
    #[command(after_help = "Example:\n  krilin user add --name Ada --timezone Europe/London --email ada@example.org")]
    Add(Add),
    /// List the users, oldest first.
    List,
}

/// The parts of a user.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// What they are called.
    #[arg(long)]
    name: String,
    /// The IANA time zone in which their days begin and end, such as Europe/Berlin.
    #[arg(long)]
    timezone: String,
    /// Their e-mail address; no two users share one.
    #[arg(long)]
    email: Option<String>,
    /// Their language, as a tag such as `en` or `de-AT`.
    #[arg(long, default_value = "en")]
    locale: String,
    /// The day on which their week begins: monday or sunday.
    #[arg(long, default_value_t = WeekStart::Monday)]
    week_start: WeekStart,
}

impl Verb {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(verb) => add(context, verb).await,
            Self::List => {
                let users = users::list(&context.database()?).await.context("listing the users")?;
                context.answer(&Users { users })
            }
        }
    }
}

/// One user as an answer.
#[derive(Debug, Serialize)]
struct Added {
    user: User,
}

impl fmt::Display for Added {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let User { id, name, timezone, .. } = &self.user;
        write!(
            f,
            "Added {name} ({timezone}) with the id {id}.\nNext: krilin token create --user {id} --scope apps:call"
        )
    }
}

/// All users as an answer.
#[derive(Debug, Serialize)]
struct Users {
    users: Vec<User>,
}

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.users.is_empty() {
            return f.write_str("There are no users. `krilin user add` adds one.");
        }
        let mut table = Table::new(&["ID", "NAME", "TIMEZONE", "EMAIL"]);
        for user in &self.users {
            let email = user.email.clone().unwrap_or_default();
            table.row([user.id.to_string(), user.name.clone(), user.timezone.to_string(), email]);
        }
        table.fmt(f)
    }
}

async fn add(context: &Context, parts: Add) -> anyhow::Result<()> {
    let mut user = NewUser::parse(&parts.name, parts.email.as_deref(), &parts.timezone)
        .context("adding a user: nobody was added")?;
    user.locale = parts.locale;
    user.week_start = parts.week_start;
    let added = users::insert(&context.database()?, UserId::new(&context.clock), &user).await;
    let user = match added {
        Err(error) if error.constraint() == Some("users_email_key") => {
            bail!("adding a user: another user has this e-mail address; `krilin user list` shows who")
        }
        other => other.context("adding a user")?,
    };
    context.answer(&Added { user })
}

/// The one user whom `text` means: an id, an e-mail address or a name that only one has.
pub(super) async fn resolve(pool: &PgPool, text: &str) -> anyhow::Result<User> {
    let mut found = users::search(pool, text).await.with_context(|| format!("looking for the user `{text}`"))?;
    match (found.pop(), found.is_empty()) {
        (Some(user), true) => Ok(user),
        (Some(_), false) => bail!("more than one user is called `{text}`; give the id, which `krilin user list` shows"),
        (None, _) => bail!("there is no user `{text}`; `krilin user list` shows who there is"),
    }
}
