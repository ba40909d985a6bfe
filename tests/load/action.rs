//! `action`: what a person waits for. One action over HTTP with `Prefer: wait`, on an idle machine, among fifty users, and
//! as many as two cores give; the server, a worker, Postgres (durable) and this program share the machine.
//!
//! Fifty users are fifty people in haste: each checks a habit off and looks at the day once a second.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::Days;
use krilin::{clock::SystemClock, model::clock::Clock};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    fleet::{Fleet, User},
    report::{Goal, Report, quantile},
};

/// Users.
const USERS: usize = 50;
/// Habits of each. Many, so that an action finds as little before it on a fast machine as on a slow one: a day is logged
/// that was not logged before, and the app reads a habit's logs.
const HABITS: usize = 10;
/// Actions before anything is measured, so that caches are warm.
const WARM_UP: usize = 50;
/// Actions on the idle machine.
const IDLE_ACTIONS: usize = 300;
/// The pause between two of them.
const IDLE_PAUSE: Duration = Duration::from_millis(10);
/// How often each of the fifty users acts and looks.
const ROUNDS: usize = 15;
/// A user's round.
const ROUND: Duration = Duration::from_secs(1);
/// Connections that are never idle, for the saturated figure.
const CONNECTIONS: usize = 64;
/// How long the machine is saturated each time, and how often: the median is told, so that a moment in which the machine
/// was not ours is none.
const SATURATED: Duration = Duration::from_secs(4);
const STRETCHES: usize = 5;
/// The share of statements whose time Postgres notes.
const SAMPLED: &str = "0.05";
/// Milliseconds of a second.
const MILLIS: f64 = 1_000.0;

/// One user as this bench drives them.
struct Person {
    user: User,
    habits: Vec<String>,
    /// Actions so far: each takes the next habit, and a new day when all had their turn.
    logged: AtomicUsize,
}

/// All of them, and the way to the server.
#[derive(Clone)]
struct Crowd {
    client: Client,
    base: Arc<str>,
    people: Arc<Vec<Person>>,
}

/// Runs it; says whether the goals hold.
pub async fn bench() -> bool {
    let fleet = Fleet::start(1).await;
    let crowd = Crowd::gather(&fleet).await;
    for number in 0..WARM_UP {
        crowd.action(number).await;
        crowd.query(number).await;
    }
    let mut idle = Vec::with_capacity(IDLE_ACTIONS);
    for _ in 0..IDLE_ACTIONS {
        idle.push(crowd.action(0).await);
        sleep(IDLE_PAUSE).await;
    }
    sample_statements(&fleet).await;
    let before = log_length(&fleet);
    let (mut actions, mut queries) = crowd.fifty().await;
    let mut statements = statement_times(&fleet, before);
    stop_sampling(&fleet).await;
    let mut per_second = Vec::with_capacity(STRETCHES);
    for _ in 0..STRETCHES {
        per_second.push(crowd.saturate().await);
    }

    let mut report = Report::new("action");
    report.figure("action_idle_p50_ms", quantile(&mut idle, 0.5), "ms", Goal::AtMost(15.0));
    report.figure("action_idle_p99_ms", quantile(&mut idle, 0.99), "ms", Goal::AtMost(50.0));
    report.figure("action_50_users_p95_ms", quantile(&mut actions, 0.95), "ms", Goal::Below(100.0));
    report.figure("query_50_users_p95_ms", quantile(&mut queries, 0.95), "ms", Goal::Below(50.0));
    report.figure("sql_p95_ms", quantile(&mut statements, 0.95), "ms", Goal::Below(50.0));
    #[expect(clippy::cast_precision_loss, reason = "a count far below 2^52")]
    report.figure("sql_statements_sampled", statements.len() as f64, "", Goal::AtLeast(1.0));
    report.figure("actions_per_s", quantile(&mut per_second, 0.5), "/s", Goal::AtLeast(1_000.0));
    report.figure("actions_per_s_least", per_second[0], "/s", Goal::Told);
    report.finish()
}

impl Crowd {
    /// Users with their habits.
    async fn gather(fleet: &Fleet) -> Self {
        let (client, base) = (Client::new(), Arc::<str>::from(fleet.base.as_str()));
        let mut people = Vec::with_capacity(USERS);
        for user in fleet.users(USERS) {
            let mut habits = Vec::with_capacity(HABITS);
            for number in 0..HABITS {
                let request = client
                    .post(format!("{base}/api/v1/apps/habit-tracker/actions/create_habit"))
                    .bearer_auth(&user.token)
                    .header("prefer", "wait=10");
                let answer = send(request, &json!({ "name": format!("Habit {number}") })).await;
                let habit = answer.pointer("/job/result/habit_id").and_then(Value::as_str);
                habits.push(habit.unwrap_or_else(|| panic!("no habit in {answer}")).to_owned());
            }
            people.push(Person { user, habits, logged: AtomicUsize::new(0) });
        }
        Self { client, base, people: Arc::new(people) }
    }

    /// Checks a habit off, for a day that was not checked before; gives the milliseconds until the result was here.
    async fn action(&self, number: usize) -> f64 {
        let person = &self.people[number % self.people.len()];
        let logged = person.logged.fetch_add(1, Ordering::Relaxed);
        let habit = &person.habits[logged % HABITS];
        let day = SystemClock.now().date_naive() - Days::new(1 + u64::try_from(logged / HABITS).unwrap_or(0));
        let request = self
            .client
            .post(format!("{}/api/v1/apps/habit-tracker/actions/log_habit", self.base))
            .bearer_auth(&person.user.token)
            .header("prefer", "wait=10");
        let begun = Instant::now();
        let answer = send(request, &json!({ "habit_id": habit, "day": day.to_string() })).await;
        let elapsed = begun.elapsed().as_secs_f64() * MILLIS;
        assert_eq!(answer.pointer("/job/state"), Some(&json!("done")), "{answer}");
        elapsed
    }

    /// Looks at the day; gives the milliseconds.
    async fn query(&self, number: usize) -> f64 {
        let person = &self.people[number % self.people.len()];
        let request = self
            .client
            .post(format!("{}/api/v1/apps/habit-tracker/queries/get_today", self.base))
            .bearer_auth(&person.user.token);
        let begun = Instant::now();
        let answer = send(request, &json!({})).await;
        assert!(answer.get("result").is_some(), "{answer}");
        begun.elapsed().as_secs_f64() * MILLIS
    }

    /// All users at once, each an action and a query per round; the times of both.
    async fn fifty(&self) -> (Vec<f64>, Vec<f64>) {
        let mut users = JoinSet::new();
        for number in 0..USERS {
            let crowd = self.clone();
            users.spawn(async move {
                let (mut actions, mut queries) = (Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS));
                // People do not click in step: each begins at a moment of their own.
                sleep(ROUND * u32::try_from(number).unwrap_or(0) / u32::try_from(USERS).unwrap_or(1)).await;
                for _ in 0..ROUNDS {
                    let begun = Instant::now();
                    actions.push(crowd.action(number).await);
                    queries.push(crowd.query(number).await);
                    sleep(ROUND.saturating_sub(begun.elapsed())).await;
                }
                (actions, queries)
            });
        }
        let (mut actions, mut queries) = (Vec::new(), Vec::new());
        while let Some(times) = users.join_next().await {
            let (more_actions, more_queries) = times.expect("a user ends with times");
            actions.extend(more_actions);
            queries.extend(more_queries);
        }
        (actions, queries)
    }

    /// Actions per second when no connection is ever idle.
    async fn saturate(&self) -> f64 {
        let begun = Instant::now();
        let mut connections = JoinSet::new();
        for number in 0..CONNECTIONS {
            let crowd = self.clone();
            connections.spawn(async move {
                let mut done = 0_u32;
                while begun.elapsed() < SATURATED {
                    crowd.action(number).await;
                    done += 1;
                }
                done
            });
        }
        let mut done = 0;
        while let Some(more) = connections.join_next().await {
            done += more.expect("a connection ends with a count");
        }
        f64::from(done) / begun.elapsed().as_secs_f64()
    }
}

async fn send(request: RequestBuilder, body: &Value) -> Value {
    let answer = request.timeout(Duration::from_secs(20)).json(body).send().await.expect("the server answers");
    answer.json().await.expect("every answer is JSON")
}

/// Has Postgres note the time of every so many-th statement in its log.
async fn sample_statements(fleet: &Fleet) {
    set(fleet, "alter system set log_statement_sample_rate = ", SAMPLED).await;
    set(fleet, "alter system set log_min_duration_sample = ", "0").await;
    reload(fleet).await;
}

async fn stop_sampling(fleet: &Fleet) {
    set(fleet, "alter system set log_min_duration_sample = ", "-1").await;
    reload(fleet).await;
}

async fn set(fleet: &Fleet, setting: &str, value: &str) {
    let statement = sqlx::AssertSqlSafe(format!("{setting}{value}"));
    sqlx::raw_sql(statement).execute(&fleet.pool).await.expect("the superuser may set anything");
}

async fn reload(fleet: &Fleet) {
    sqlx::raw_sql("select pg_reload_conf()").execute(&fleet.pool).await.expect("the superuser may reload");
    // The processes take a new setting up at their next statement.
    sleep(Duration::from_millis(200)).await;
}

fn log_length(fleet: &Fleet) -> usize {
    fs::read(fleet.cluster.log()).map_or(0, |log| log.len())
}

/// The milliseconds of the statements noted since the log was `before` bytes long.
fn statement_times(fleet: &Fleet, before: usize) -> Vec<f64> {
    let log = fs::read(fleet.cluster.log()).unwrap_or_default();
    let noted = String::from_utf8_lossy(log.get(before..).unwrap_or_default()).into_owned();
    noted.lines().filter_map(statement_time).collect()
}

/// `…LOG:  duration: 0.123 ms  execute sqlx_s_1: select …`; parsing and binding are lines of their own.
fn statement_time(line: &str) -> Option<f64> {
    let (millis, what) = line.split_once("duration: ")?.1.split_once(" ms  ")?;
    let executed = what.starts_with("execute") || what.starts_with("statement");
    millis.parse().ok().filter(|_| executed)
}
