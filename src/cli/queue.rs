//! `krilin queue`: what waits and runs in each queue, and the verbs by which an operator pauses, resumes and limits them,
//! for all workers at once.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{context::Context, fsck, table::Table, user};
use crate::{
    clock::SystemClock,
    jobs,
    model::{
        duration::HumanDuration,
        flow::{Change, Rate, Share},
    },
    queue::{self, Queue, QueueView},
};

/// Who set what is set here.
const BY: &str = "command line";

/// Verbs of queues.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the queues: what waits, what runs, what is set, which workers are there.
    List,
    /// Show one queue with everything set for it.
    Show {
        /// The queue, or `all`.
        queue: String,
    },
    /// Let a queue rest: no worker claims from it any more; what runs may end.
    #[command(after_help = "Examples:\n  krilin queue pause default --reason 'the mail server moves'\n  \
                            krilin queue pause all\n  krilin queue resume default")]
    Pause {
        /// The queue, or `all`.
        queue: String,
        /// Why; whoever looks is told.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Let a queue that rests go on.
    Resume {
        /// The queue, or `all`.
        queue: String,
    },
    /// Limit a queue, on all workers together and from now on. What is not named stays; `none` lifts a limit.
    #[command(after_help = "Examples:\n  krilin queue limit default --max-running 50 --per-user 4\n  \
                            krilin queue limit default --rate 100/1m         at most 100 starts in any minute\n  \
                            krilin queue limit default --user Ada=3          three places for each one of another user\n  \
                            krilin queue limit default --key mail=2          two at once with the concurrency key `mail`\n  \
                            krilin queue limit all --max-running 200\n  krilin queue limit default --rate none")]
    Limit(Limit),
    /// Look whether the queue's invariants hold, on a live database; ends with 1 when one does not.
    #[command(
        after_help = "Examples:\n  krilin queue fsck\n  krilin queue fsck --json | jq '.findings[] | select(.count != 0)'"
    )]
    Fsck(fsck::Fsck),
}

/// What to set.
#[derive(Debug, Args)]
pub(super) struct Limit {
    /// The queue, or `all`.
    queue: String,
    /// Jobs that run at once.
    #[arg(long, value_name = "COUNT", value_parser = limit)]
    max_running: Option<Lift<u32>>,
    /// Jobs of one user that run at once.
    #[arg(long, value_name = "COUNT", value_parser = limit)]
    per_user: Option<Lift<u32>>,
    /// Jobs with the same concurrency key that run at once; one unless set.
    #[arg(long, value_name = "COUNT", value_parser = limit)]
    per_key: Option<Lift<u32>>,
    /// Units that may start in any window, as in `100/1m`; a job costs one unit unless its kind says otherwise.
    #[arg(long, value_name = "UNITS/PERIOD", value_parser = rate)]
    rate: Option<Lift<Rate>>,
    /// Keep each worker to its share of the rate, instead of counting all starts in Postgres.
    #[arg(long, requires = "rate")]
    approximate: bool,
    /// The same for what one user starts.
    #[arg(long, value_name = "UNITS/PERIOD", value_parser = rate)]
    rate_per_user: Option<Lift<Rate>>,
    /// The same for what starts with the same concurrency key.
    #[arg(long, value_name = "UNITS/PERIOD", value_parser = rate)]
    rate_per_key: Option<Lift<Rate>>,
    /// A user's weight, as in `Ada=3`; `Ada=none` makes them like the others. May be repeated.
    #[arg(long, value_name = "USER=WEIGHT", value_parser = named)]
    user: Vec<(String, Lift<u32>)>,
    /// Jobs with this concurrency key that run at once, as in `mail=2`. May be repeated.
    #[arg(long, value_name = "KEY=COUNT", value_parser = named)]
    key: Vec<(String, Lift<u32>)>,
}

/// A value, or none to lift what was set.
type Lift<T> = Box<Option<T>>;

fn limit(text: &str) -> Result<Lift<u32>, String> {
    if text == "none" {
        return Ok(Box::new(None));
    }
    let unfit = |_| format!("`{text}` is neither a whole number nor `none`");
    text.parse().map(|limit| Box::new(Some(limit))).map_err(unfit)
}

fn rate(text: &str) -> Result<Lift<Rate>, String> {
    if text == "none" {
        return Ok(Box::new(None));
    }
    let unfit = || format!("`{text}` is not a rate: write units and a period, such as `100/1m`, or `none`");
    let (units, period) = text.split_once('/').ok_or_else(unfit)?;
    let units = units.trim().parse().map_err(|_| unfit())?;
    let period: HumanDuration = period.parse().map_err(|_| unfit())?;
    Ok(Box::new(Some(Rate { units, period, exact: true })))
}

fn named(text: &str) -> Result<(String, Lift<u32>), String> {
    let (name, value) = text.rsplit_once('=').ok_or_else(|| format!("`{text}` has no `=`: write NAME=NUMBER"))?;
    Ok((name.to_owned(), limit(value)?))
}

impl Verb {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        if let Self::Fsck(verb) = self {
            return verb.run(context).await;
        }
        let directory = context.config()?.policies_directory.as_path();
        let policies = jobs::policies(Some(directory).filter(|directory: &&Path| directory.is_dir()))?;
        let queue = Queue::new(&context.database()?, Arc::new(SystemClock), policies);
        match self {
            Self::Fsck(_) => Ok(()),
            Self::List => context.answer(&Queues { queues: queue.queues().await.context("listing the queues")? }),
            Self::Show { queue: name } => {
                let found = queue.one_queue(&name).await.map_err(|error| explained("showing", &name, error))?;
                context.answer(&Shown { queue: found })
            }
            Self::Pause { queue: name, reason } => {
                change(context, &queue, &name, Change { paused: Some(true), reason, ..Change::default() }).await
            }
            Self::Resume { queue: name } => {
                change(context, &queue, &name, Change { paused: Some(false), ..Change::default() }).await
            }
            Self::Limit(wanted) => {
                let name = wanted.queue.clone();
                let wanted = wanted.change(context).await?;
                change(context, &queue, &name, wanted).await
            }
        }
    }
}

impl Limit {
    async fn change(self, context: &Context) -> anyhow::Result<Change> {
        let mut users = BTreeMap::new();
        for (name, weight) in self.user {
            let id = user::resolve(&context.database()?, &name).await?.id;
            users.insert(id, weight.map(|weight| Share { weight, max_running: None }));
        }
        let exact = !self.approximate;
        Ok(Change {
            max_running: self.max_running.map(|limit| *limit),
            max_running_per_user: self.per_user.map(|limit| *limit),
            max_running_per_key: self.per_key.map(|limit| *limit),
            rate: self.rate.map(|rate| rate.map(|rate| Rate { exact, ..rate })),
            rate_per_user: self.rate_per_user.map(|rate| *rate),
            rate_per_key: self.rate_per_key.map(|rate| *rate),
            users,
            keys: self.key.into_iter().map(|(key, limit)| (key, *limit)).collect(),
            ..Change::default()
        })
    }
}

async fn change(context: &Context, queue: &Queue, name: &str, change: Change) -> anyhow::Result<()> {
    let changed = queue.change_queue(name, &change, BY).await.map_err(|error| explained("changing", name, error))?;
    context.answer(&Shown { queue: changed })
}

fn explained(attempted: &str, name: &str, error: queue::Error) -> anyhow::Error {
    let next = match &error {
        queue::Error::UnknownQueue(_) => "`krilin queue list` shows which there are",
        queue::Error::Unfit(_) => "`krilin queue limit --help` says what may be set",
        _ => "`krilin doctor` looks at the database",
    };
    anyhow::Error::new(error).context(format!("{attempted} the queue `{name}` ({next})"))
}

/// What is set for a queue, in one line.
fn words(queue: &QueueView) -> String {
    let limits = &queue.settings.limits;
    let rate = |rate: Rate| format!("{}/{}", rate.units, rate.period);
    let parts = [
        queue.settings.paused.as_ref().map(|pause| match &pause.reason {
            Some(reason) => format!("paused by {}: {reason}", pause.by),
            None => format!("paused by {}", pause.by),
        }),
        limits.max_running.map(|limit| format!("{limit} at once")),
        limits.max_running_per_user.map(|limit| format!("{limit} per user")),
        limits.max_running_per_key.map(|limit| format!("{limit} per key")),
        limits.rate.map(rate),
        limits.rate_per_user.map(|of| format!("{} per user", rate(of))),
        limits.rate_per_key.map(|of| format!("{} per key", rate(of))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// One queue as an answer.
#[derive(Debug, Serialize)]
struct Shown {
    queue: QueueView,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = &self.queue;
        let mut table = Table::new(&["QUEUE", ""]);
        table.row(["name".to_owned(), queue.settings.name.clone()]);
        table.row(["waiting".to_owned(), queue.ready.to_string()]);
        table.row(["scheduled".to_owned(), queue.scheduled.to_string()]);
        table.row(["running".to_owned(), queue.running.to_string()]);
        table.row(["workers".to_owned(), queue.workers.to_string()]);
        let set = words(queue);
        table.row(["set".to_owned(), if set.is_empty() { "nothing".to_owned() } else { set }]);
        for (user, share) in &queue.settings.users {
            let limit = share.max_running.map(|limit| format!(", {limit} at once")).unwrap_or_default();
            table.row([format!("user {user}"), format!("weight {}{limit}", share.weight)]);
        }
        for (key, limit) in &queue.settings.keys {
            table.row([format!("key {key}"), format!("{limit} at once")]);
        }
        if let (Some(at), Some(by)) = (&queue.settings.updated_at, &queue.settings.updated_by) {
            table.row(["changed".to_owned(), format!("{} by {by}", at.to_rfc3339())]);
        }
        table.fmt(f)
    }
}

/// Queues as an answer.
#[derive(Debug, Serialize)]
struct Queues {
    queues: Vec<QueueView>,
}

impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["QUEUE", "WAITING", "SCHEDULED", "RUNNING", "WORKERS", "SET"]);
        for queue in &self.queues {
            let counts = [queue.ready, queue.scheduled, queue.running].map(|count| count.to_string());
            let [ready, scheduled, running] = counts;
            let name = queue.settings.name.clone();
            table.row([name, ready, scheduled, running, queue.workers.to_string(), words(queue)]);
        }
        table.fmt(f)
    }
}
