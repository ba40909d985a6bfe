//! `krilin job enqueue`: one job of any kind, also of those that only Krilin and its operator may ask for.

use std::fmt;

use anyhow::{Context as _, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{context::Context, job, user};
use crate::{
    model::{
        duration::HumanDuration,
        enqueue::{ConflictName, Keying},
        id::AppId,
        job::{NewJob, Placed},
        near,
    },
    queue::Queue,
};

/// What asked for a job that was enqueued here.
const CAUSE: &str = "command line";

/// The job to enqueue.
#[derive(Debug, Args)]
pub(super) struct Enqueue {
    /// The kind; `krilin job kinds` lists them.
    kind: String,
    /// What it is given, as JSON.
    #[arg(long, default_value = "{}", value_parser = arguments)]
    args: Value,
    /// For whom: a name, an e-mail address or an id.
    #[arg(long)]
    user: Option<String>,
    /// For which app.
    #[arg(long)]
    app: Option<AppId>,
    /// Not before this long has passed, such as 5m or "1h 30m".
    #[arg(long, value_name = "DURATION", conflicts_with = "run_at")]
    delay: Option<HumanDuration>,
    /// Not before this instant, such as 2027-01-31T09:00:00Z.
    #[arg(long, value_name = "INSTANT")]
    run_at: Option<DateTime<Utc>>,
    /// Higher runs sooner: from -100 to 100; as the kind's policy says unless given.
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i16>,
    /// Attempts before it is dead; as the kind's policy says unless given.
    #[arg(long)]
    max_attempts: Option<u32>,
    /// While a live job has this key, that one is the answer.
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,
    /// Also in the rest of the period in which such a job was enqueued, such as 1d; counted in UTC.
    #[arg(long, value_name = "DURATION", requires = "unique")]
    period: Option<HumanDuration>,
    /// What becomes of this job when its key is taken: keep, replace or debounce.
    #[arg(long, value_name = "RULE", requires = "unique")]
    on_conflict: Option<ConflictName>,
    /// With debounce: the longest that new ones can put the job off.
    #[arg(long, value_name = "DURATION", requires = "on_conflict")]
    max_wait: Option<HumanDuration>,
}

fn arguments(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|cause| format!("this is not JSON: {cause}"))
}

/// What became of it, in front of the job as it stands.
#[derive(Debug, Serialize)]
struct Outcome {
    outcome: Placed,
    #[serde(flatten)]
    shown: job::Shown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.outcome {
            Placed::Created => "Enqueued.",
            Placed::Kept => "Its unique key is taken: this job stays as it is.",
            Placed::Replaced => "Its unique key was taken: it has replaced this job, which waited.",
            Placed::Debounced => "Its unique key was taken: it has replaced this job, whose delay begins anew.",
        };
        write!(f, "{words}\n{}", self.shown)
    }
}

impl Enqueue {
    pub(super) async fn run(self, context: &Context, queue: &Queue) -> anyhow::Result<()> {
        let Self { kind, args, user, app, delay, run_at, priority, max_attempts, .. } = self;
        if queue.policies().get(&kind).is_none() {
            let hint = near::hint(&kind, queue.policies().iter().map(|(kind, _)| kind));
            bail!(
                "there is no kind of job named `{kind}`{hint}; `krilin job kinds` lists them, and nothing was enqueued"
            );
        }
        let user_id = match &user {
            Some(text) => Some(user::resolve(&context.database()?, text).await?.id),
            None => None,
        };
        let keying = Keying {
            key: self.unique,
            period: self.period.map(|period| period.0),
            on_conflict: self.on_conflict,
            max_wait: self.max_wait.map(|wait| wait.0),
        };
        let delay = delay.map(|delay| delay.0);
        let unique = keying
            .unique(delay)
            .map_err(|(field, message)| anyhow::anyhow!("`{field}`: {message}; nothing was enqueued"))?;
        let (app_id, cause) = (app, Some(CAUSE.to_owned()));
        let job = NewJob {
            kind,
            user_id,
            app_id,
            args,
            run_at,
            delay,
            priority,
            max_attempts,
            unique,
            cause,
            ..NewJob::default()
        };
        let placed = queue.enqueue(job).await.context("enqueuing a job: nothing was enqueued")?;
        let shown = job::shown(queue, placed.job_id).await?;
        context.answer(&Outcome { outcome: placed.outcome, shown })
    }
}
