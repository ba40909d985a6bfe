//! `krilin app publish`: makes a version of an app the one in force for everybody here. Code that does not load, or does
//! not export what its manifest names, is refused before the database is asked.

use std::{fmt, path::Path};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use super::check;
use crate::{
    apps::{
        bundle::{self, AppBundle},
        publish::{Options, Report, publish},
    },
    cli::context::Context,
    model::near,
};

/// What to publish, and how.
#[derive(Debug, Args)]
pub(in crate::cli) struct Publish {
    /// An app's directory, or the id of an app that is part of this binary.
    #[arg(value_name = "DIR|ID")]
    app: String,
    /// Do it all, say what it came to, and roll it back.
    #[arg(long)]
    dry_run: bool,
    /// Publish although a newer version is in force.
    #[arg(long)]
    allow_older: bool,
}

/// A report as an answer.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Answer(Report);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        for done in &report.steps {
            let rows = done.rows.map(|rows| format!(" ({rows} rows)")).unwrap_or_default();
            writeln!(f, "{}{rows}", done.step)?;
        }
        let Report { app_id, version, elapsed_ms, .. } = report;
        match (report.unchanged, report.dry_run) {
            (true, _) => write!(f, "Nothing to do: `{app_id}` {version} is in force already."),
            (false, true) => write!(f, "`{app_id}` {version} can be published ({elapsed_ms} ms); nothing was changed."),
            (false, false) => write!(f, "Published `{app_id}` {version} ({elapsed_ms} ms)."),
        }
    }
}

impl Publish {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let app = find(&self.app).await?;
        let options = Options { dry_run: self.dry_run, allow_older: self.allow_older };
        let mut owner = context.owner_connection().await?;
        let report = publish(&mut owner, &app.manifest, &app.code, options)
            .await
            .with_context(|| format!("publishing `{}`", app.manifest.metadata.id))?;
        context.answer(&Answer(report))
    }
}

/// The app in the directory `app`, checked; else the one of that id in this binary.
async fn find(app: &str) -> anyhow::Result<AppBundle> {
    let directory = Path::new(app);
    if directory.is_dir() {
        check::demand(directory).await?;
        return Ok(bundle::read_dir(directory)?);
    }
    match bundle::embedded(app)? {
        Some(embedded) => Ok(embedded),
        None => {
            bail!("`{app}` is neither a directory nor an app of this binary{}", near::hint(app, bundle::embedded_ids()))
        }
    }
}
