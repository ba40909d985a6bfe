//! `crash`: actions go on while workers are killed and Postgres is restarted; then the rows are counted.
//!
//! Each action checks a habit off for a day of its own, so the tables know what must be there: one log for each accepted
//! job, written once. A log that was written and written again would have a `version` above 1.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chrono::{DateTime, Days, Utc};
use krilin::{clock::SystemClock, model::clock::Clock};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    fleet::{Fleet, User},
    report::{Goal, Report, quantile},
    storm,
};

/// Actions, unless the command line says otherwise.
const ACTIONS: usize = 2_000;
/// Users who send them, each with one habit.
const USERS: usize = 20;
/// Workers at any time.
const WORKERS: usize = 2;
/// Kills with signal 9, spread over the run.
const KILLS: usize = 20;
/// The pause between two kills.
const KILL_EVERY: Duration = Duration::from_millis(900);
/// After these kills Postgres is stopped as by a crash and started again.
const RESTART_AFTER: [usize; 2] = [6, 13];
/// How long everything may take to end after the last kill.
const SETTLE: Duration = Duration::from_mins(2);
/// How often one request is tried while the server has no database.
const TRIES: usize = 200;

/// A killed worker's jobs are free again within this, in seconds: the lease, a heartbeat and a sweep.
const RESCUE_GOAL_S: f64 = 15.0;

/// Runs it; says whether the goals hold. More jobs than [`ACTIONS`] are cheap ones, in a [`storm`].
pub async fn bench() -> bool {
    let actions = std::env::args()
        .skip_while(|argument| argument != "--jobs")
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(ACTIONS);
    if actions > ACTIONS {
        return storm::bench(actions).await;
    }
    let mut fleet = Fleet::start(WORKERS).await;
    let users = fleet.users(USERS);
    let client = reqwest::Client::new();
    let mut habits = Vec::new();
    for user in &users {
        habits.push(create_habit(&client, &fleet.base, user).await);
    }
    let senders = send_all(&client, &fleet.base, users, habits, actions);
    let kills = disturb(&mut fleet).await;
    let accepted = collect(senders).await;
    let settled = settle(&fleet).await;
    let counted = count(&fleet, &accepted, &kills).await;
    report(actions, &accepted, &counted, settled)
}

async fn create_habit(client: &reqwest::Client, base: &str, user: &User) -> String {
    let answer: Value = client
        .post(format!("{base}/api/v1/apps/habit-tracker/actions/create_habit"))
        .bearer_auth(&user.token)
        .header("prefer", "wait=10")
        .json(&json!({ "name": "Survive" }))
        .send()
        .await
        .expect("nothing is disturbed yet")
        .json()
        .await
        .expect("the answer is JSON");
    let id = answer.pointer("/job/result/habit_id").and_then(Value::as_str);
    id.unwrap_or_else(|| panic!("no habit in {answer}")).to_owned()
}

/// One task a user sends its share, one action after the other, each for a day of its own.
fn send_all(
    client: &reqwest::Client,
    base: &str,
    users: Vec<User>,
    habits: Vec<String>,
    actions: usize,
) -> JoinSet<Vec<String>> {
    let share = actions.div_ceil(users.len());
    let mut senders = JoinSet::new();
    for (user, habit) in users.into_iter().zip(habits) {
        let (client, base) = (client.clone(), base.to_owned());
        senders.spawn(async move {
            let mut accepted = Vec::with_capacity(share);
            for number in 0..share {
                accepted.push(send(&client, &base, &user, &habit, number).await);
                sleep(pace(share)).await;
            }
            accepted
        });
    }
    senders
}

/// The pause after each of a sender's `share` actions, so that sending lasts as long as the disturbance.
fn pace(share: usize) -> Duration {
    KILL_EVERY.mul_f64(0.9) * u32::try_from(KILLS).unwrap_or(1) / u32::try_from(share.max(1)).unwrap_or(1)
}

/// Sends one action until it is accepted. The key makes a repetition harmless, whatever the first try came to.
async fn send(client: &reqwest::Client, base: &str, user: &User, habit: &str, number: usize) -> String {
    let days_ago = Days::new(u64::try_from(number).unwrap_or(0));
    let day = SystemClock.now().date_naive() - Days::new(2) - days_ago;
    for _ in 0..TRIES {
        let sent = client
            .post(format!("{base}/api/v1/apps/habit-tracker/actions/log_habit"))
            .bearer_auth(&user.token)
            .header("idempotency-key", format!("{habit}-{number}"))
            .timeout(Duration::from_secs(10))
            .json(&json!({ "habit_id": habit, "day": day.to_string() }))
            .send()
            .await;
        if let Ok(answer) = sent
            && answer.status().is_success()
            && let Ok(body) = answer.json::<Value>().await
            && let Some(id) = body.pointer("/job/id").and_then(Value::as_str)
        {
            return id.to_owned();
        }
        sleep(Duration::from_millis(250)).await;
    }
    panic!("an action was not accepted in {TRIES} tries");
}

/// Kills a worker and starts another, again and again; restarts Postgres on the way. Gives the instants of the kills.
async fn disturb(fleet: &mut Fleet) -> Vec<DateTime<Utc>> {
    let mut kills = Vec::with_capacity(KILLS);
    for number in 0..KILLS {
        sleep(KILL_EVERY).await;
        let victim = number % fleet.workers.len();
        kills.push(SystemClock.now());
        fleet.workers[victim].kill().expect("the worker is ours");
        fleet.workers[victim].wait().expect("the worker is ours");
        fleet.workers[victim] = fleet.worker();
        if RESTART_AFTER.contains(&number) {
            fleet.cluster.crash().await.expect("the cluster is ours");
            sleep(Duration::from_millis(500)).await;
            fleet.cluster.resume().await.expect("Postgres recovers from a crash");
        }
    }
    kills
}

async fn collect(mut senders: JoinSet<Vec<String>>) -> Vec<String> {
    let mut accepted = Vec::new();
    while let Some(ids) = senders.join_next().await {
        accepted.extend(ids.expect("a sender ends with its ids"));
    }
    accepted
}

/// Waits until no job is left, at most [`SETTLE`].
async fn settle(fleet: &Fleet) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < SETTLE {
        let left = sqlx::query_scalar::<_, i64>("select count(*) from krilin.jobs where kind = 'app_action'");
        if left.fetch_one(&fleet.pool).await.is_ok_and(|left| left == 0) {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    begun.elapsed()
}

/// What the tables say.
struct Counted {
    lost: usize,
    applied_twice: i64,
    stuck: i64,
    rescued: i64,
    rescue_p99_s: f64,
}

async fn count(fleet: &Fleet, accepted: &[String], kills: &[DateTime<Utc>]) -> Counted {
    let done: Vec<String> = sqlx::query_scalar("select id::text from krilin.job_history where state = 'done'")
        .fetch_all(&fleet.pool)
        .await
        .expect("Postgres is back");
    let ended: HashSet<&String> = done.iter().collect();
    let logs: i64 = scalar(fleet, r#"select count(*) from krilin."app_habit-tracker_habit_logs""#).await;
    let lost_jobs = accepted.iter().filter(|id| !ended.contains(id)).count();
    let lost_logs = accepted.len().saturating_sub(usize::try_from(logs).unwrap_or(0));
    let written_again =
        scalar(fleet, r#"select coalesce(sum(version - 1), 0)::bigint from krilin."app_habit-tracker_habit_logs""#)
            .await;
    let ended_twice = i64::try_from(done.len() - ended.len()).unwrap_or(i64::MAX);
    let too_many = (logs - i64::try_from(accepted.len()).unwrap_or(0)).max(0);
    let mut rescues = rescues(fleet, kills).await;
    Counted {
        lost: lost_jobs.max(lost_logs),
        applied_twice: written_again + ended_twice + too_many,
        stuck: scalar(fleet, "select count(*) from krilin.jobs where kind = 'app_action'").await,
        rescued: i64::try_from(rescues.len()).unwrap_or(0),
        rescue_p99_s: quantile(&mut rescues, 0.99),
    }
}

/// For each lost attempt, the seconds from the kill that must have caused it (the last one before its rescue that came
/// after its start) to the rescue.
async fn rescues(fleet: &Fleet, kills: &[DateTime<Utc>]) -> Vec<f64> {
    let lost: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        sqlx::query_as("select started_at, finished_at from krilin.attempts where outcome = 'lost'")
            .fetch_all(&fleet.pool)
            .await
            .expect("Postgres is back");
    let first_after = |started: DateTime<Utc>| kills.iter().find(|kill| **kill >= started);
    let seconds = |(started, freed): (DateTime<Utc>, DateTime<Utc>)| {
        first_after(started).map(|kill| (freed - *kill).as_seconds_f64().max(0.0))
    };
    lost.into_iter().filter_map(seconds).collect()
}

async fn scalar(fleet: &Fleet, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(&fleet.pool).await.expect("Postgres is back")
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn report(actions: usize, accepted: &[String], counted: &Counted, settled: Duration) -> bool {
    let mut report = Report::new("crash");
    report.figure("jobs", accepted.len() as f64, "", Goal::AtLeast(actions as f64));
    report.figure("kills", KILLS as f64, "", Goal::AtLeast(20.0));
    report.figure("postgres_restarts", RESTART_AFTER.len() as f64, "", Goal::AtLeast(2.0));
    report.figure("jobs_lost", counted.lost as f64, "", Goal::Is(0.0));
    report.figure("jobs_applied_twice", counted.applied_twice as f64, "", Goal::Is(0.0));
    report.figure("jobs_stuck", counted.stuck as f64, "", Goal::Is(0.0));
    report.figure("jobs_rescued", counted.rescued as f64, "", Goal::AtLeast(1.0));
    report.figure("rescue_p99_s", counted.rescue_p99_s, "s", Goal::AtMost(RESCUE_GOAL_S));
    report.figure("settled_s", settled.as_secs_f64(), "s", Goal::Told);
    report.finish()
}
