//! `krilin job dead`: the jobs that ended badly and for good, and the verb that takes many of them up again.

use std::fmt;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{context::Context, table::Table, user};
use crate::{
    model::{
        error::Code,
        id::{AppId, JobId},
        job::JobView,
    },
    queue::{PAGE_MAX, Queue, REDRIVE_MAX, Which},
};

/// Who redrives from here.
const BY: &str = "command line";
/// The dead letters a listing shows unless told otherwise.
const LIST_DEFAULT: u32 = 50;

/// Verbs of dead letters.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List dead letters, oldest first.
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// How many at most.
        #[arg(long, default_value_t = LIST_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(PAGE_MAX)))]
        limit: u32,
    },
    /// Take dead letters up again, oldest first: each keeps its id and has all its attempts before it.
    #[command(after_help = "Examples:\n  krilin job dead redrive --code Unavailable --dry-run\n  \
                            krilin job dead redrive --kind app_action --since 2026-11-22T00:00:00Z")]
    Redrive {
        #[command(flatten)]
        chosen: Chosen,
        /// How many at most.
        #[arg(long, default_value_t = REDRIVE_MAX, value_parser = clap::value_parser!(u32).range(1..=i64::from(REDRIVE_MAX)))]
        limit: u32,
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    /// Only of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only of this app.
    #[arg(long)]
    app: Option<AppId>,
    /// Only those that died of an error with this code, such as `Unavailable`.
    #[arg(long, value_parser = code)]
    code: Option<Code>,
    /// Only those that died since then.
    #[arg(long, value_name = "INSTANT")]
    since: Option<DateTime<Utc>>,
    /// Only of this user: a name, an e-mail address or an id.
    #[arg(long)]
    user: Option<String>,
}

fn code(text: &str) -> Result<Code, String> {
    let known = Code::ALL.iter().copied().find(|code| code.as_str() == text);
    known.ok_or_else(|| {
        format!("there is no such code{}", crate::model::near::hint(text, Code::ALL.iter().map(|code| code.as_str())))
    })
}

impl Chosen {
    async fn which(self, context: &Context) -> anyhow::Result<Which> {
        let user_id = match &self.user {
            Some(text) => Some(user::resolve(&context.database()?, text).await?.id),
            None => None,
        };
        let (app_id, code) = (self.app.map(|app| app.to_string()), self.code.map(|code| code.to_string()));
        Ok(Which { user_id, kind: self.kind, app_id, code, since: self.since })
    }
}

impl Verb {
    pub(super) async fn run(self, context: &Context, queue: &Queue) -> anyhow::Result<()> {
        match self {
            Self::List { chosen, limit } => {
                let which = chosen.which(context).await?;
                let count = queue.count_dead(&which).await.context("counting dead letters")?;
                let jobs = queue.dead(&which, limit).await.context("listing dead letters")?;
                context.answer(&Dead { count, jobs })
            }
            Self::Redrive { chosen, limit, dry_run } => {
                let which = chosen.which(context).await?;
                let matched = queue.count_dead(&which).await.context("counting dead letters")?;
                let ids = if dry_run {
                    let jobs = queue.dead(&which, limit.min(PAGE_MAX)).await.context("looking at dead letters")?;
                    jobs.into_iter().map(|job| job.id).collect()
                } else {
                    queue.redrive(&which, limit, BY).await.context("taking dead letters up again: none was")?
                };
                context.answer(&Redriven { dry_run, matched, ids })
            }
        }
    }
}

/// Dead letters as an answer.
#[derive(Debug, Serialize)]
struct Dead {
    count: i64,
    jobs: Vec<JobView>,
}

impl fmt::Display for Dead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.jobs.is_empty() {
            return f.write_str("There are no such dead letters.");
        }
        let mut table = Table::new(&["ID", "KIND", "APP", "DEAD SINCE", "ERROR"]);
        for job in &self.jobs {
            let since = job.finished_at.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
            let error = job.error.as_ref().map(ToString::to_string).unwrap_or_default();
            table.row([job.id.to_string(), job.kind.clone(), job.app_id.clone().unwrap_or_default(), since, error]);
        }
        table.fmt(f)?;
        write!(f, "\n{} of {}", self.jobs.len(), self.count)
    }
}

/// What a redrive did.
#[derive(Debug, Serialize)]
struct Redriven {
    dry_run: bool,
    matched: i64,
    ids: Vec<JobId>,
}

impl fmt::Display for Redriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (done, of) = (self.ids.len(), self.matched);
        if self.dry_run {
            return write!(
                f,
                "{of} dead letters fit. Nothing was done; without --dry-run the oldest are pending again."
            );
        }
        write!(f, "{done} of {of} dead letters are pending again.")
    }
}
