//! `krilin schedule create` and `once`: from options to a schedule of any kind of job.

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde_json::Value;

use super::Desk;
use crate::{
    cli::user,
    model::{
        clock::Clock as _,
        duration::HumanDuration,
        id::AppId,
        near,
        schedule::{ACTION_KIND, CatchUp, Clockwork, Origin, Overlap, Wanted},
    },
};

/// The job of a schedule.
#[derive(Debug, Args)]
struct Job {
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
    /// What the schedule is called; one of this name is replaced. Its id unless given.
    #[arg(long)]
    name: Option<String>,
}

/// The schedule to make.
#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    #[command(flatten)]
    job: Job,
    /// Five fields: minute, hour, day of the month, month, day of the week.
    #[arg(long, value_name = "LINE", required_unless_present = "every", conflicts_with = "every")]
    cron: Option<String>,
    /// Every so long, such as 15m.
    #[arg(long, value_name = "TIME")]
    every: Option<HumanDuration>,
    /// The zone whose clock the line means: an IANA name, or `user` for the user's own.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// No fire before this instant.
    #[arg(long, value_name = "INSTANT")]
    starts_at: Option<DateTime<Utc>>,
    /// No fire after this instant.
    #[arg(long, value_name = "INSTANT")]
    ends_at: Option<DateTime<Utc>>,
    /// The longest delay of a fire; always the same one for the same schedule.
    #[arg(long, value_name = "TIME")]
    jitter: Option<HumanDuration>,
    /// What becomes of missed fires: none, one or all (at most 100).
    #[arg(long, default_value = "one", value_parser = |text: &str| text.parse::<CatchUp>())]
    catch_up: CatchUp,
    /// What happens when the job before has not ended: skip or queue.
    #[arg(long, default_value = "skip", value_parser = |text: &str| text.parse::<Overlap>())]
    overlap: Overlap,
    /// The most jobs it makes.
    #[arg(long, value_name = "COUNT")]
    max_runs: Option<u32>,
    /// Pause after so many failed jobs in a row.
    #[arg(long, value_name = "COUNT")]
    pause_after: Option<u32>,
}

/// The one time.
#[derive(Debug, Args)]
pub(in crate::cli) struct Once {
    #[command(flatten)]
    job: Job,
    /// At this instant.
    #[arg(long, value_name = "INSTANT", required_unless_present = "after", conflicts_with = "after")]
    at: Option<DateTime<Utc>>,
    /// After so long, such as 10m.
    #[arg(long = "in", value_name = "TIME")]
    after: Option<HumanDuration>,
}

fn arguments(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|cause| format!("this is not JSON: {cause}"))
}

impl Desk<'_> {
    pub(super) async fn create(&self, create: Create) -> anyhow::Result<()> {
        let clockwork = match (create.cron, create.every) {
            (Some(line), _) => Clockwork::Cron(line),
            (None, Some(every)) => Clockwork::Every(every.0),
            (None, None) => bail!("say when: --cron or --every"),
        };
        let mut wanted = self.wanted(create.job, clockwork).await?;
        if let Some(zone) = create.timezone {
            wanted.timezone = zone;
        }
        wanted.jitter = create.jitter.map_or(std::time::Duration::ZERO, |jitter| jitter.0);
        (wanted.starts_at, wanted.ends_at) = (create.starts_at, create.ends_at);
        (wanted.catch_up, wanted.overlap) = (create.catch_up, create.overlap);
        (wanted.max_runs, wanted.pause_after) = (create.max_runs, create.pause_after);
        self.make(wanted).await
    }

    pub(super) async fn once(&self, once: Once) -> anyhow::Result<()> {
        let now = self.context.clock.now();
        let at = match (once.at, once.after) {
            (Some(at), _) => at,
            (None, Some(after)) => now + TimeDelta::from_std(after.0)?,
            (None, None) => bail!("say when: --at or --in"),
        };
        let wanted = self.wanted(once.job, Clockwork::Once(at)).await?;
        self.make(wanted).await
    }

    async fn make(&self, wanted: Wanted) -> anyhow::Result<()> {
        let row = self.schedules.create(wanted).await.context("making the schedule: nothing was made")?;
        self.answer(&row).await
    }

    async fn wanted(&self, job: Job, clockwork: Clockwork) -> anyhow::Result<Wanted> {
        let kind = job.kind;
        let policies = self.queue.policies();
        if policies.get(&kind).is_none() {
            let hint = near::hint(&kind, policies.iter().map(|(kind, _)| kind));
            bail!("there is no kind of job named `{kind}`{hint}; `krilin job kinds` lists them, and nothing was made");
        }
        if kind == ACTION_KIND && (job.user.is_none() || job.app.is_none()) {
            bail!("an `{ACTION_KIND}` needs --user and --app; nothing was made");
        }
        let mut wanted = Wanted::new(Origin::Operator, &kind, clockwork);
        if let Some(text) = &job.user {
            wanted.user_id = Some(user::resolve(&self.pool, text).await?.id);
        }
        (wanted.app_id, wanted.args, wanted.name) = (job.app, job.args, job.name);
        Ok(wanted)
    }
}
