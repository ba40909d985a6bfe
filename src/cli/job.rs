//! `krilin job`: what is to be done, what was done, and the verbs by which an operator steps in.

use std::fmt;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::{context::Context, dead, enqueue::Enqueue, table::Table, user};
use crate::{
    clock::SystemClock,
    model::{
        error::CtxError,
        id::JobId,
        job::{JobView, State},
        policy::Policies,
        why::Why,
    },
    queue::{self, Batch, Filter, Queue, Redrive},
};

/// The jobs a listing shows unless told otherwise.
const LIST_DEFAULT: u32 = 50;

/// Verbs of jobs.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List jobs, newest first.
    #[command(after_help = "Examples:\n  krilin job list --state dead\n  krilin job list --user Ada --kind app_action")]
    List(List),
    /// Show one job with everything known of it.
    Show {
        /// The job's id.
        id: JobId,
    },
    /// Show what a job has logged, all its attempts, oldest first.
    Logs {
        /// The job's id.
        id: JobId,
        /// Only what came after this batch: the `next_cursor` of the page before.
        #[arg(long, value_name = "ID", default_value_t = 0)]
        after: i64,
    },
    /// Dead letters: jobs that ended badly and for good.
    #[command(subcommand)]
    Dead(dead::Verb),
    /// Say why a job does not run yet: everything that stands in its way now, and when it should start.
    Why {
        /// The job's id.
        id: JobId,
    },
    /// Enqueue a job of any kind.
    #[command(after_help = "Examples:\n  krilin job enqueue retention\n  \
                            krilin job enqueue retention --delay 5m --unique tidy --on-conflict replace\n  krilin job enqueue app_action --user Ada \
                            --app habit-tracker \\\n    --args '{\"action\": \"log_by_name\", \"input\": {\"habit\": \"Read\"}}'")]
    Enqueue(Box<Enqueue>),
    /// Make a dead or cancelled job pending again, all its attempts before it.
    Retry {
        /// The job's id.
        id: JobId,
    },
    /// Cancel a job that has not ended. One that runs is `cancelling` until its handler has stopped; nothing it did is kept.
    Cancel {
        /// The job's id.
        id: JobId,
    },
    /// List the kinds of jobs and their policies.
    Kinds,
}

/// Which jobs to list.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only in this state: pending, running, cancelling, done, dead or cancelled.
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only in this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only of this user: a name, an e-mail address or an id.
    #[arg(long)]
    user: Option<String>,
    /// Only those made before this one: the `next_cursor` of the page before.
    #[arg(long, value_name = "ID")]
    before: Option<JobId>,
    /// How many at most.
    #[arg(long, default_value_t = LIST_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(queue::PAGE_MAX)))]
    limit: u32,
}

fn state(text: &str) -> Result<State, String> {
    text.parse().map_err(|error: CtxError| error.message)
}

impl Verb {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let policies = context.policies()?;
        if matches!(self, Self::Kinds) {
            return context.answer(&Kinds::of(&policies));
        }
        let pool = context.database()?;
        let queue = Queue::new(&pool, std::sync::Arc::new(SystemClock), policies);
        match self {
            Self::Kinds => Ok(()),
            Self::List(which) => list(context, &queue, which).await,
            Self::Show { id } => answer(context, &queue, id).await,
            Self::Logs { id, after } => logs(context, &queue, id, after).await,
            Self::Dead(verb) => verb.run(context, &queue).await,
            Self::Enqueue(wanted) => wanted.run(context, &queue).await,
            Self::Why { id } => {
                let why = queue.why(id, None).await.map_err(|error| explained("looking at", id, error))?;
                context.answer(&Because { id, why })
            }
            Self::Retry { id } => {
                queue.retry(id, None).await.map_err(|error| explained("trying", id, error))?;
                answer(context, &queue, id).await
            }
            Self::Cancel { id } => {
                queue.cancel(id, None).await.map_err(|error| explained("cancelling", id, error))?;
                answer(context, &queue, id).await
            }
        }
    }
}

fn explained(attempted: &str, id: JobId, error: queue::Error) -> anyhow::Error {
    let next = match &error {
        queue::Error::NotFound => "`krilin job list` shows which there are",
        queue::Error::State(_) => "`krilin job show` says how it stands",
        _ => "`krilin doctor` looks at the database",
    };
    anyhow::Error::new(error).context(format!("{attempted} job {id} ({next})"))
}

async fn list(context: &Context, queue: &Queue, which: List) -> anyhow::Result<()> {
    let user_id = match &which.user {
        Some(text) => Some(user::resolve(&context.database()?, text).await?.id),
        None => None,
    };
    let filter = Filter { user_id, kind: which.kind, state: which.state, queue: which.queue, parent_id: None };
    let jobs = queue.list(&filter, which.before, which.limit).await.context("listing jobs")?;
    let full = jobs.len() == which.limit as usize;
    let next_cursor = jobs.last().filter(|_| full).map(|job| job.id);
    context.answer(&Jobs { jobs, next_cursor })
}

async fn answer(context: &Context, queue: &Queue, id: JobId) -> anyhow::Result<()> {
    context.answer(&shown(queue, id).await?)
}

/// The job `id` as an answer.
pub(super) async fn shown(queue: &Queue, id: JobId) -> anyhow::Result<Shown> {
    match queue.get(id, None).await.with_context(|| format!("reading job {id}"))? {
        Some(job) => {
            let redrives = queue.redrives(id).await.with_context(|| format!("reading job {id}"))?;
            Ok(Shown { job, redrives })
        }
        None => bail!("there is no job {id}; `krilin job list` shows which there are"),
    }
}

async fn logs(context: &Context, queue: &Queue, id: JobId, after: i64) -> anyhow::Result<()> {
    if queue.get(id, None).await.with_context(|| format!("reading job {id}"))?.is_none() {
        bail!("there is no job {id}; `krilin job list` shows which there are");
    }
    let batches =
        queue.log(id, after, queue::PAGE_MAX).await.with_context(|| format!("reading the log of job {id}"))?;
    let full = batches.len() == queue::PAGE_MAX as usize;
    let next_cursor = batches.last().filter(|_| full).map(|batch| batch.id);
    context.answer(&Logged { batches, next_cursor })
}

/// A job's log as an answer.
#[derive(Debug, Serialize)]
struct Logged {
    batches: Vec<Batch>,
    next_cursor: Option<i64>,
}

impl fmt::Display for Logged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.batches.is_empty() {
            return f.write_str("The job has logged nothing.");
        }
        let mut table = Table::new(&["WRITTEN", "ATTEMPT", "LEVEL", "MESSAGE", "FIELDS"]);
        for batch in &self.batches {
            for line in &batch.lines {
                let written = batch.logged_at.format("%Y-%m-%d %H:%M:%S").to_string();
                let fields = if line.fields.is_null() { String::new() } else { line.fields.to_string() };
                let (level, message) = (line.level.as_str().to_owned(), line.message.clone());
                table.row([written, batch.attempt.to_string(), level, message, fields]);
            }
        }
        table.fmt(f)?;
        match self.next_cursor {
            Some(id) => write!(f, "\nMore: --after {id}"),
            None => Ok(()),
        }
    }
}

/// One job as an answer.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    job: JobView,
    /// The times that it was taken up again after it had died.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redrives: Vec<Redrive>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let job = &self.job;
        let mut table = Table::new(&["JOB", ""]);
        table.row(["id".to_owned(), job.id.to_string()]);
        table.row(["kind".to_owned(), job.kind.clone()]);
        table.row(["state".to_owned(), job.state.to_string()]);
        table.row(["attempt".to_owned(), format!("{} of {}", job.attempt, job.max_attempts)]);
        table.row(["queue".to_owned(), format!("{}, priority {}", job.queue, job.priority)]);
        let optional = [
            ("user", job.user_id.map(|user| user.to_string())),
            ("app", job.app_id.clone()),
            ("enqueued", Some(job.created_at.to_rfc3339())),
            ("due", Some(job.run_at.to_rfc3339())),
            ("started", job.started_at.map(|at| at.to_rfc3339())),
            ("ended", job.finished_at.map(|at| at.to_rfc3339())),
            ("cause", job.cause.clone()),
            ("waits for", job.parked_reason.clone()),
            ("deadline", job.deadline.map(|at| at.to_rfc3339())),
            ("parent", job.parent_id.map(|id| id.to_string())),
            ("progress", job.progress.as_ref().map(ToString::to_string)),
            ("arguments", Some(job.args.get().to_owned())),
            ("result", job.result.as_ref().map(|result| result.get().to_owned())),
            ("error", job.error.as_ref().map(ToString::to_string)),
            ("taken up", self.redrives.first().map(|last| taken_up(self.redrives.len(), last))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                table.row([name.to_owned(), value]);
            }
        }
        table.fmt(f)
    }
}

/// How often a dead letter was taken up again, and what it had died of last.
fn taken_up(count: usize, last: &Redrive) -> String {
    let error = last.error.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{count} times, last {} by {}, after {error}", last.redriven_at.to_rfc3339(), last.redriven_by)
}

/// Why a job does not run yet, as an answer.
#[derive(Debug, Serialize)]
struct Because {
    id: JobId,
    why: Why,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job {} is {}.", self.id, self.why.state)?;
        for reason in &self.why.reasons {
            write!(f, "\n- {}", reason.message)?;
        }
        match (self.why.state, self.why.starts_at) {
            (State::Pending, Some(at)) => write!(f, "\nIt should start at {}.", at.to_rfc3339()),
            (State::Pending, None) => f.write_str("\nWhen it starts is not known."),
            _ => Ok(()),
        }
    }
}

/// Jobs as an answer.
#[derive(Debug, Serialize)]
struct Jobs {
    jobs: Vec<JobView>,
    next_cursor: Option<JobId>,
}

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.jobs.is_empty() {
            return f.write_str("There are no such jobs.");
        }
        let mut table = Table::new(&["ID", "KIND", "STATE", "ATTEMPT", "ENQUEUED", "ERROR"]);
        for job in &self.jobs {
            let attempt = format!("{}/{}", job.attempt, job.max_attempts);
            let enqueued = job.created_at.format("%Y-%m-%d %H:%M:%S").to_string();
            let error = job.error.as_ref().map(ToString::to_string).unwrap_or_default();
            table.row([job.id.to_string(), job.kind.clone(), job.state.to_string(), attempt, enqueued, error]);
        }
        table.fmt(f)?;
        match self.next_cursor {
            Some(id) => write!(f, "\nMore: krilin job list --before {id}"),
            None => Ok(()),
        }
    }
}

/// The kinds as an answer.
#[derive(Debug, Serialize)]
struct Kinds {
    kinds: Vec<Value>,
}

impl Kinds {
    fn of(policies: &Policies) -> Self {
        let kind = |(name, policy)| serde_json::json!({ "kind": name, "policy": policy });
        Self { kinds: policies.iter().map(kind).collect() }
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["KIND", "QUEUE", "ASKED BY", "ATTEMPTS", "DESCRIPTION"]);
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        for kind in &self.kinds {
            let of = |field: &str| plain(&kind["policy"][field]);
            let cells = [plain(&kind["kind"]), of("queue"), of("asked_by"), of("max_attempts"), of("description")];
            table.row(cells);
        }
        table.fmt(f)
    }
}
