//! `krilin app install` and `remove`: puts a published app into a user's hands, and takes it out again.

use std::fmt;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    apps::install::{self, Choices},
    cli::{context::Context, user},
    model::id::AppId,
    store::{self, installations::Installation},
};

/// Which app, for whom.
#[derive(Debug, Args)]
pub(in crate::cli) struct Whose {
    /// The app's id.
    #[arg(value_name = "ID")]
    app: AppId,
    /// The user: a name, an e-mail address or an id.
    #[arg(long)]
    user: String,
}

/// How to install.
#[derive(Debug, Args)]
pub(in crate::cli) struct Install {
    #[command(flatten)]
    whose: Whose,
    /// One thing that the app may do; repeat for more. Without any: everything its manifest asks for.
    #[arg(long = "grant", value_name = "GRANT")]
    grants: Vec<String>,
    /// A setting that differs from the manifest's default, its value as JSON or as plain text; repeat for more.
    #[arg(long = "setting", value_name = "KEY=VALUE", value_parser = setting)]
    settings: Vec<(String, Value)>,
}

fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()))))
}

#[derive(Debug, Serialize)]
struct Installed {
    installation: Installation,
    #[serde(skip)]
    user: String,
}

impl fmt::Display for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Installation { app_id, installed_version, grants, .. } = &self.installation;
        let grants = if grants.is_empty() { "nothing".to_owned() } else { grants.join(", ") };
        write!(f, "Installed `{app_id}` {installed_version} for {}; granted: {grants}.", self.user)
    }
}

impl Install {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let pool = context.database()?;
        let user = user::resolve(&pool, &self.whose.user).await?;
        let grants = if self.grants.is_empty() { None } else { Some(self.grants) };
        let choices = Choices { grants, settings: self.settings.into_iter().collect::<Map<_, _>>() };
        let app = &self.whose.app;
        let mut connection = store::within(pool.acquire()).await?;
        let installation = install::install(&mut connection, user.id, app, &choices)
            .await
            .with_context(|| format!("installing `{app}` for {}", user.name))?;
        context.answer(&Installed { installation, user: user.name })
    }
}

#[derive(Debug, Serialize)]
struct Removed {
    app_id: AppId,
    #[serde(skip)]
    user: String,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Removed `{}` from {}; what it stored stays.", self.app_id, self.user)
    }
}

/// Takes an app from a user.
pub(super) async fn remove(context: &Context, whose: Whose) -> anyhow::Result<()> {
    let pool = context.database()?;
    let user = user::resolve(&pool, &whose.user).await?;
    let mut connection = store::within(pool.acquire()).await?;
    let app = &whose.app;
    let removed = install::uninstall(&mut connection, user.id, app).await;
    removed.with_context(|| format!("removing `{app}` from {}", user.name))?;
    context.answer(&Removed { app_id: whose.app, user: user.name })
}
