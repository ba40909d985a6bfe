//! `krilin token`: what programs show to act for a user. The text is shown once, when the token is made.

use std::fmt;

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;
use sqlx::PgPool;

use super::{context::Context, table::Table, user};
use crate::{
    model::{
        clock::Clock,
        id::{TokenId, UserId},
        secret::Secret,
        token::{Scope, Scopes, Token, TokenText},
        user::NAME_MAX_LENGTH,
    },
    store::{Error, tokens},
};

/// The longest a token may live when it is to expire at all, in days.
const DAYS_MAX: i64 = 3_650;

/// Verbs of tokens.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a token and show it, once.
    #[command(after_help = scopes_and_example())]
    Create(Create),
    /// List tokens, newest first; never their secrets.
    List {
        /// Only those of this user: a name, an e-mail address or an id.
        #[arg(long)]
        user: Option<String>,
    },
    /// Revoke a token for good. Servers notice within a second.
    Revoke {
        /// The token's id, as `krilin token list` shows it.
        id: TokenId,
    },
}

fn scopes_and_example() -> String {
    let scopes: Vec<_> =
        Scope::ALL.iter().map(|scope| format!("  {:<13} {}", scope.as_str(), scope.meaning())).collect();
    let scopes = scopes.join("\n");
    format!(
        "Scopes:\n{scopes}\nExample:\n  krilin token create --user Ada --scope apps:call --scope apps:read --expires 90d"
    )
}

/// The parts of a token.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// For whom it speaks: a name, an e-mail address or an id.
    #[arg(long)]
    user: String,
    /// What it may do; repeat for more.
    #[arg(long = "scope", required = true, value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// What its owner calls it.
    #[arg(long, default_value = "a program")]
    name: String,
    /// How long it is valid: `12h`, `90d`. Without this, until it is revoked.
    #[arg(long, value_name = "DURATION", value_parser = life)]
    expires: Option<TimeDelta>,
}

/// Reads `90d` or `12h`.
fn life(text: &str) -> Result<TimeDelta, String> {
    let days = |count: i64| TimeDelta::try_days(count);
    let hours = |count: i64| TimeDelta::try_hours(count);
    let parsed = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(count), _) => count.parse().ok().and_then(days),
        (_, Some(count)) => count.parse().ok().and_then(hours),
        _ => None,
    };
    parsed
        .filter(|life| *life > TimeDelta::zero() && life.num_days() <= DAYS_MAX)
        .ok_or_else(|| format!("write hours or days up to {DAYS_MAX}d, as in `12h` or `90d`"))
}

impl Verb {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let pool = context.database()?;
        match self {
            Self::Create(parts) => {
                let user = user::resolve(&pool, &parts.user).await?;
                let expires_at = parts.expires.map(|life| context.clock.now() + life);
                let scopes = parts.scopes.into_iter().collect();
                let wish = Wish { user_id: user.id, name: &parts.name, scopes, expires_at };
                let (token, text) = create(&pool, &context.clock, wish).await?;
                context.answer(&Created { token, secret: text.expose().to_owned() })
            }
            Self::List { user: None } => list(context, &pool, None).await,
            Self::List { user: Some(text) } => {
                let user = user::resolve(&pool, &text).await?;
                list(context, &pool, Some(user.id)).await
            }
            Self::Revoke { id } => match tokens::revoke(&pool, id).await {
                Ok(token) => context.answer(&Revoked { token }),
                Err(Error::NotFound) => bail!("there is no token `{id}`; `krilin token list` shows which there are"),
                Err(error) => Err(error).with_context(|| format!("revoking the token `{id}`")),
            },
        }
    }
}

/// What a token is to be.
#[derive(Debug)]
pub struct Wish<'a> {
    /// For whom it speaks.
    pub user_id: UserId,
    /// What its owner calls it.
    pub name: &'a str,
    /// What it may do; at least one.
    pub scopes: Scopes,
    /// From when on it is refused.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Makes and stores a token; the text is nowhere else.
pub async fn create(pool: &PgPool, clock: &dyn Clock, wish: Wish<'_>) -> anyhow::Result<(Token, Secret)> {
    let name = wish.name.trim();
    if name.is_empty() || name.chars().count() > NAME_MAX_LENGTH {
        bail!("creating a token: a name has 1 to {NAME_MAX_LENGTH} characters");
    }
    let text = TokenText::mint(clock).context("creating a token: the system gives no randomness")?;
    let Wish { user_id, scopes, expires_at, .. } = wish;
    let new = tokens::NewToken { id: text.id, user_id, name, secret_hash: text.hash(), scopes, expires_at };
    let token = tokens::insert(pool, new).await.context("storing the token")?;
    Ok((token, text.reveal()))
}

/// A new token as an answer: the only place where its text is shown.
#[derive(Serialize)]
struct Created {
    token: Token,
    secret: String,
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = self.token.expires_at.map_or("it is revoked".to_owned(), |end| end.to_rfc3339());
        write!(f, "{}\n\nThis is shown once. It is valid until {until}; it may {}.", self.secret, names(&self.token))
    }
}

/// A revoked token as an answer.
#[derive(Debug, Serialize)]
struct Revoked {
    token: Token,
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "The token {} ({}) is revoked.", self.token.id, self.token.name)
    }
}

/// Tokens as an answer.
#[derive(Debug, Serialize)]
struct Tokens {
    tokens: Vec<Token>,
    #[serde(skip)]
    now: DateTime<Utc>,
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tokens.is_empty() {
            return f.write_str("There are no tokens. `krilin token create` makes one.");
        }
        let mut table = Table::new(&["ID", "NAME", "STATE", "LAST USED", "SCOPES"]);
        for token in &self.tokens {
            let state = match (token.revoked_at, token.expires_at) {
                (Some(_), _) => "revoked".to_owned(),
                (None, Some(end)) if end <= self.now => "expired".to_owned(),
                (None, Some(end)) => format!("until {}", end.format("%Y-%m-%d")),
                (None, None) => "valid".to_owned(),
            };
            let used = token.last_used_at.map_or("never".to_owned(), |at| at.format("%Y-%m-%d %H:%M").to_string());
            table.row([token.id.to_string(), token.name.clone(), state, used, names(token)]);
        }
        table.fmt(f)
    }
}

fn names(token: &Token) -> String {
    token.scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
}

async fn list(context: &Context, pool: &PgPool, user: Option<UserId>) -> anyhow::Result<()> {
    let tokens = tokens::list(pool, user).await.context("listing the tokens")?;
    context.answer(&Tokens { tokens, now: context.clock.now() })
}
