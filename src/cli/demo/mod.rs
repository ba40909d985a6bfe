//! `krilin demo`: the whole path once, on a Postgres that is thrown away: sixty days of habits as durable jobs over HTTP,
//! run by a worker that is killed on the way.

mod fleet;
mod habits;

use std::{fmt, time::Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use self::{
    fleet::Fleet,
    habits::{Habits, Sent},
};
use super::{context::Context, table::Table};
use crate::{cluster::Cluster, http::Client};

/// Log sixty days of habits over HTTP as jobs, kill the worker on the way, and show what came of it.
///
/// Everything happens on a Postgres of its own in a temporary directory, which is gone afterwards.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  krilin demo\n  krilin demo --json")]
pub(super) struct Demo {}

/// What the demo proved.
#[derive(Debug, Serialize)]
struct Proof {
    timezone: &'static str,
    jobs_sent: usize,
    jobs_done: usize,
    jobs_lost: usize,
    jobs_applied_twice: usize,
    jobs_in_hand: usize,
    workers_killed: usize,
    rescue_s: f64,
    elapsed_s: f64,
    streaks: Vec<Line>,
}

/// A habit's line in the table.
#[derive(Debug, Serialize)]
struct Line {
    habit: String,
    streak: i64,
    best_streak: i64,
    days_done: i64,
}

impl Proof {
    fn holds(&self) -> bool {
        let stored: i64 = self.streaks.iter().map(|streak| streak.days_done).sum();
        let every_job_is_a_day = usize::try_from(stored) == Ok(self.jobs_sent) && self.jobs_done == self.jobs_sent;
        self.jobs_sent > 0 && self.jobs_lost == 0 && self.jobs_applied_twice == 0 && every_job_is_a_day
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["habit", "streak", "best", "days done"]);
        for Line { habit, streak, best_streak, days_done } in &self.streaks {
            table.row([habit.clone(), streak.to_string(), best_streak.to_string(), days_done.to_string()]);
        }
        writeln!(f, "\n{table}\n")?;
        let Self { jobs_sent, jobs_done, jobs_lost, jobs_applied_twice, jobs_in_hand, .. } = self;
        writeln!(
            f,
            "{jobs_sent} jobs sent over HTTP, {jobs_done} done, {jobs_lost} lost, {jobs_applied_twice} applied twice."
        )?;
        let (jobs, them) = if *jobs_in_hand == 1 { ("job", "it") } else { ("jobs", "them") };
        writeln!(
            f,
            "The worker was killed with {jobs_in_hand} {jobs} in hand; another ended {them} {:.1} s later.",
            self.rescue_s
        )?;
        write!(f, "All of it in {:.1} s.", self.elapsed_s)
    }
}

impl Demo {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let begun = Instant::now();
        say(context, "Starting a Postgres that will be thrown away …");
        let cluster = Cluster::throwaway().await?;
        let shown = show(context, &cluster, begun).await;
        // Dropping it waits for Postgres to end.
        tokio::task::spawn_blocking(move || drop(cluster)).await.context("removing the Postgres")?;
        let proof = shown?;
        context.answer(&proof)?;
        if !proof.holds() {
            bail!("the demo did not hold: see the figures above");
        }
        Ok(())
    }
}

async fn show(context: &Context, cluster: &Cluster, begun: Instant) -> anyhow::Result<Proof> {
    let mut fleet = Fleet::prepare(cluster).await?;
    say(context, "Publishing and installing the habit tracker, starting a server and a worker …");
    let token = fleet.introduce_user().await?;
    let url = fleet.start_server().await?;
    fleet.start_worker().await?;
    let client = Client::new(&url, token).context("making an HTTP client")?;

    let mut habits = Habits::create(&client).await?;
    let sent = habits.log_sixty_days().await?;
    say(context, &format!("{} jobs are on their way; killing the worker …", sent.len()));
    habits.wait_for_share(&sent).await?;
    let in_hand = fleet.kill_worker().await?;
    let killed = Instant::now();
    fleet.start_worker().await?;
    let endings = habits.wait_for_all(&sent).await?;
    let rescue_s = killed.elapsed().as_secs_f64();

    let streaks = habits.streaks().await?;
    fleet.stop().await?;
    Ok(Proof {
        timezone: fleet::TIMEZONE,
        jobs_sent: sent.len(),
        jobs_done: endings.iter().filter(|ending| ending.done).count(),
        jobs_lost: sent.len() - endings.len(),
        jobs_applied_twice: endings.iter().filter(|ending| ending.done && !ending.changed).count(),
        jobs_in_hand: in_hand,
        workers_killed: 1,
        rescue_s,
        elapsed_s: begun.elapsed().as_secs_f64(),
        streaks,
    })
}

/// Says what is going on, to a person who waits.
fn say(context: &Context, words: &str) {
    if !context.global.json {
        context.warn(words);
    }
}

/// The jobs that were sent, by id.
type Jobs = Vec<Sent>;
