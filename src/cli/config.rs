//! `krilin config`: what holds, and who said so. Shows whether a secret is there, never the secret.

use std::fmt;

use clap::Subcommand;
use serde::Serialize;

use super::{context::Context, table::Table};
use crate::config::{self, credentials};

/// Verbs of the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Show every effective value and where it comes from.
    #[command(after_help = "Examples:\n  krilin config show\n  KRILIN_LOG__LEVEL=debug krilin config show --json")]
    Show,
    /// Check the configuration and the credentials; ends with 1 when something does not hold.
    #[command(after_help = "Example:\n  krilin config check --config ./krilin.toml")]
    Check,
}

impl Config {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let shown = Shown::load(context)?;
        match self {
            Self::Show => context.answer(&shown),
            Self::Check => context.answer(&Checked { keys: shown.keys.len(), warnings: warn(context, &shown) }),
        }
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    keys: Vec<config::Entry>,
    credentials: Vec<Credential>,
}

#[derive(Debug, Serialize)]
struct Credential {
    name: &'static str,
    state: &'static str,
    source: String,
    #[serde(skip)]
    world_readable: bool,
}

impl Shown {
    fn load(context: &Context) -> anyhow::Result<Self> {
        let keys = context.loaded()?.entries.clone();
        let directories = context.credential_directories()?;
        let mut credentials = Vec::new();
        for (name, _) in credentials::ALL {
            credentials.push(match credentials::find(name, &directories)? {
                Some(found) => Credential {
                    name,
                    state: "‹set›",
                    source: format!("`{}`", found.path.display()),
                    world_readable: found.world_readable,
                },
                None if context.private_cluster()?.is_some() => {
                    Credential {
                        name, state: "‹set›", source: "the private cluster".to_owned(), world_readable: false
                    }
                }
                None => Credential { name, state: "‹missing›", source: String::new(), world_readable: false },
            });
        }
        Ok(Self { keys, credentials })
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["key", "value", "from"]);
        for entry in &self.keys {
            table.row([entry.key.clone(), entry.value.to_string(), entry.source.clone()]);
        }
        for credential in &self.credentials {
            table.row([credential.name.to_owned(), credential.state.to_owned(), credential.source.clone()]);
        }
        table.fmt(f)
    }
}

#[derive(Debug, Serialize)]
struct Checked {
    keys: usize,
    warnings: usize,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.warnings {
            0 => write!(f, "The configuration holds: {} keys.", self.keys),
            warnings => write!(f, "The configuration holds: {} keys; warnings: {warnings}.", self.keys),
        }
    }
}

fn warn(context: &Context, shown: &Shown) -> usize {
    let open: Vec<_> = shown.credentials.iter().filter(|credential| credential.world_readable).collect();
    for credential in &open {
        context.warn(&format!(
            "everybody on this machine can read the credential {}; chmod 600 ends that",
            credential.source
        ));
    }
    open.len()
}
