//! `krilin app list` and `show`: what is published here, who has it, and what it is made of.

use std::fmt;

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use crate::{
    apps::{self, loaded::Apps},
    cli::{context::Context, table::Table, user},
    model::{id::AppId, manifest::Manifest},
    store::{
        apps::{self as stored, Listed},
        installations::{self, Installation},
    },
};

#[derive(Debug, Serialize)]
struct Published {
    apps: Vec<Listed>,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["id", "version", "users", "published", "name"]);
        for app in &self.apps {
            let published = app.published_at.format("%Y-%m-%d %H:%M").to_string();
            let users = app.installation_count.to_string();
            table.row([app.id.clone(), app.current_version.clone(), users, published, app.name.clone()]);
        }
        table.fmt(f)
    }
}

#[derive(Debug, Serialize)]
struct Installations {
    installations: Vec<Installation>,
}

impl fmt::Display for Installations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["id", "version", "state", "grants"]);
        for Installation { app_id, installed_version, state, grants, .. } in &self.installations {
            table.row([app_id.clone(), installed_version.clone(), state.clone(), grants.join(", ")]);
        }
        table.fmt(f)
    }
}

/// Lists what is published, or what one user has.
pub(super) async fn list(context: &Context, user: Option<String>) -> anyhow::Result<()> {
    let pool = context.database()?;
    let Some(user) = user else {
        let apps = stored::list(&pool).await.context("listing the apps")?;
        return context.answer(&Published { apps });
    };
    let user = user::resolve(&pool, &user).await?;
    let installations = installations::list(&pool, user.id).await.context("listing the installations")?;
    context.answer(&Installations { installations })
}

#[derive(Debug, Serialize)]
struct Shown {
    manifest: Manifest,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Manifest { metadata, database, actions, .. } = &self.manifest;
        writeln!(f, "{} ({} {})\n", metadata.name, metadata.id, metadata.version)?;
        let mut table = Table::new(&["action", "kind", "does"]);
        for action in actions {
            let kind = format!("{:?}", action.kind).to_lowercase();
            table.row([action.id.clone(), kind, action.description.clone().unwrap_or_default()]);
        }
        writeln!(f, "{table}\n")?;
        let mut table = Table::new(&["table", "columns"]);
        for stored in &database.tables {
            let columns: Vec<&str> = stored.columns.keys().map(String::as_str).collect();
            table.row([stored.name.clone(), columns.join(", ")]);
        }
        table.fmt(f)
    }
}

/// Shows the version of an app that is in force.
pub(super) async fn show(context: &Context, app: &AppId) -> anyhow::Result<()> {
    let loaded = Apps::new(context.database()?).current(app).await.map_err(|error| match error {
        apps::Error::NotPublished(_) => anyhow!("{error}; `krilin app list` shows what is"),
        other => anyhow!(other).context(format!("reading `{app}`")),
    })?;
    context.answer(&Shown { manifest: loaded.manifest.clone() })
}
