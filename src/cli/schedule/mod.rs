//! `krilin schedule`: what runs by the clock, what became of it, and the role that fires it.

mod create;
mod run;
mod show;

use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use sqlx::PgPool;

pub(super) use self::run::{Role, bell};
use self::{
    create::{Create, Once},
    show::{Next, Scheduled, Schedules as Listed, Shown},
};
use super::{context::Context, user};
use crate::{
    clock::SystemClock,
    jobs,
    model::{
        id::{AppId, ScheduleId},
        schedule::State,
    },
    queue::Queue,
    schedule::{self, Error, Filter, Row, Schedules},
};

/// The schedules a listing shows unless told otherwise.
const LIST_DEFAULT: u32 = 50;
/// The ledger rows that `show` shows.
const LEDGER_SHOWN: u32 = 10;
/// Why a schedule is paused that was paused here.
const PAUSED_HERE: &str = "paused on the command line";

/// Verbs of schedules.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Fire what is due: the scheduler. Any number may run at once.
    Run(run::Run),
    /// List schedules, newest first.
    #[command(
        after_help = "Examples:\n  krilin schedule list --state parked\n  krilin schedule list --user Ada --app habit-tracker"
    )]
    List(List),
    /// Show one schedule and what its latest fires came to.
    Show(Which),
    /// Show the next ten fires, with the jumps of the schedule's clock marked.
    Next(Which),
    /// Run a kind of job again and again. One of the same user, app and name is replaced.
    #[command(
        after_help = "Examples:\n  krilin schedule create retention --name nightly --cron '0 3 * * *' --timezone Europe/Berlin\n  \
                            krilin schedule create app_action --user Ada --app habit-tracker --every 15m --jitter 30s \\\n    \
                            --args '{\"action\": \"log_by_name\", \"input\": {\"habit\": \"Read\"}}'"
    )]
    Create(Create),
    /// Run a kind of job at one time.
    #[command(
        after_help = "Examples:\n  krilin schedule once retention --in 10m\n  krilin schedule once retention --at 2027-01-01T00:00:00Z"
    )]
    Once(Once),
    /// Forget a schedule. Its jobs stay.
    Cancel(Which),
    /// Let a schedule rest; what falls into the pause is skipped.
    Pause(Which),
    /// Let a paused or parked schedule go on.
    Resume(Which),
    /// Fire now, whatever the clock says.
    Trigger(Which),
}

/// Which schedules to list.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only of this user: a name, an e-mail address or an id.
    #[arg(long)]
    user: Option<String>,
    /// Only of this app.
    #[arg(long)]
    app: Option<AppId>,
    /// Only in this state: active, paused, parked, off or ended.
    #[arg(long, value_parser = |text: &str| text.parse::<State>())]
    state: Option<State>,
    /// Only those made before this one: the `next_cursor` of the page before.
    #[arg(long, value_name = "ID")]
    before: Option<ScheduleId>,
    /// How many at most.
    #[arg(long, default_value_t = LIST_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(schedule::PAGE_MAX)))]
    limit: u32,
}

/// One schedule.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Its id, or its name where only one has it.
    schedule: String,
}

/// What the verbs work on.
struct Desk<'a> {
    context: &'a Context,
    pool: PgPool,
    queue: Queue,
    schedules: Schedules,
}

impl Verb {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if let Self::Run(run) = self {
            return run.run(context).await;
        }
        let directory = context.config()?.policies_directory.as_path();
        let policies = jobs::policies(Some(directory).filter(|directory| directory.is_dir()))?;
        let pool = context.database()?;
        let clock = Arc::new(SystemClock);
        let queue = Queue::new(&pool, clock.clone(), policies.clone());
        let schedules = Schedules::new(&pool, clock, policies, bell(&queue));
        let desk = Desk { context, pool, queue, schedules };
        match self {
            Self::Run(_) => Ok(()),
            Self::List(list) => desk.list(list).await,
            Self::Show(which) => desk.answer(&desk.find(&which).await?).await,
            Self::Next(which) => desk.next(&desk.find(&which).await?).await,
            Self::Create(create) => desk.create(create).await,
            Self::Once(once) => desk.once(once).await,
            Self::Cancel(which) => desk.cancel(&desk.find(&which).await?).await,
            Self::Pause(which) => {
                let row = desk.find(&which).await?;
                desk.schedules.pause(&row, PAUSED_HERE).await.map_err(|error| explained("pausing", &row, error))?;
                desk.again(&row).await
            }
            Self::Resume(which) => {
                let row = desk.find(&which).await?;
                desk.schedules.resume(&row).await.map_err(|error| explained("resuming", &row, error))?;
                desk.again(&row).await
            }
            Self::Trigger(which) => desk.trigger(&desk.find(&which).await?).await,
        }
    }
}

fn explained(attempted: &str, row: &Row, error: Error) -> anyhow::Error {
    anyhow::Error::new(error).context(format!("{attempted} the schedule `{}` ({})", row.name, row.id))
}

impl Desk<'_> {
    async fn find(&self, which: &Which) -> anyhow::Result<Row> {
        if let Ok(id) = which.schedule.parse()
            && let Ok(row) = self.schedules.get(id, None).await
        {
            return Ok(row);
        }
        let filter = Filter { name: Some(which.schedule.clone()), ..Filter::default() };
        let mut named = self.schedules.list(&filter, None, 2).await.context("looking for the schedule")?;
        match (named.pop(), named.is_empty()) {
            (Some(row), true) => Ok(row),
            (Some(_), false) => bail!(
                "more than one schedule is named `{}`; say its id, which `krilin schedule list` shows",
                which.schedule
            ),
            (None, _) => {
                bail!("there is no schedule `{}`; `krilin schedule list` shows which there are", which.schedule)
            }
        }
    }

    async fn list(&self, list: List) -> anyhow::Result<()> {
        let user_id = match &list.user {
            Some(text) => Some(user::resolve(&self.pool, text).await?.id),
            None => None,
        };
        let app_id = list.app.map(|app| app.to_string());
        let filter = Filter { user_id, app_id, state: list.state, name: None };
        let rows = self.schedules.list(&filter, list.before, list.limit).await.context("listing schedules")?;
        let next_cursor = rows.last().filter(|_| rows.len() == list.limit as usize).map(|row| row.id);
        self.context.answer(&Listed { schedules: rows.into_iter().map(Scheduled).collect(), next_cursor })
    }

    async fn again(&self, row: &Row) -> anyhow::Result<()> {
        self.answer(&self.schedules.get(row.id, None).await?).await
    }

    async fn answer(&self, row: &Row) -> anyhow::Result<()> {
        let fires = self.schedules.ledger(row.id, None, LEDGER_SHOWN).await.context("reading the ledger")?;
        self.context.answer(&Shown::new(row.clone(), fires))
    }

    async fn next(&self, row: &Row) -> anyhow::Result<()> {
        let fires = self.schedules.upcoming(row).await.map_err(|error| explained("reckoning", row, error))?;
        let reason = row.reason.clone();
        self.context.answer(&Next { name: row.name.clone(), state: row.state.clone(), reason, fires })
    }

    async fn cancel(&self, row: &Row) -> anyhow::Result<()> {
        self.schedules.cancel(row).await.map_err(|error| explained("cancelling", row, error))?;
        self.context.answer(&show::Cancelled { id: row.id, name: row.name.clone() })
    }

    async fn trigger(&self, row: &Row) -> anyhow::Result<()> {
        let job_id = self.schedules.trigger(row).await.map_err(|error| explained("triggering", row, error))?;
        self.context.answer(&show::Triggered { id: row.id, name: row.name.clone(), job_id })
    }
}
