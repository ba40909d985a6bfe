//! What the tables say after the storm.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::faults::{Fault, Storm};
use crate::{findings, report::quantile};

/// Throughput is back when so much of the pace is reached.
const RECOVERED: f64 = 0.95;
/// Over how many seconds throughput is counted.
const WINDOW_S: i64 = 3;
/// The longest recovery that is looked for, in seconds.
const RECOVERY_MAX_S: i64 = 300;
/// How long before its session was cut off a claim may have begun whose answer was lost with it.
const ANSWER: TimeDelta = TimeDelta::seconds(1);

/// The figures.
#[derive(Debug, Default)]
pub struct Counted {
    pub accepted: i64,
    pub lost: i64,
    pub applied_twice: i64,
    pub stuck: i64,
    pub rescued: usize,
    pub false_rescues: usize,
    pub unheard_claims: usize,
    pub rescue_p99_s: f64,
    pub recovered_95_s: f64,
    pub findings: usize,
    pub faults: BTreeMap<&'static str, usize>,
    pub pace: f64,
}

/// Counts.
pub async fn count(pool: &PgPool, storm: &Storm, pace: f64) -> Counted {
    let mut db = pool.acquire().await.expect("Postgres is back").detach();
    sqlx::raw_sql("set statement_timeout = '5min'").execute(&mut db).await.expect("Postgres is back");
    let mut scalar = async |statement: &'static str| -> i64 {
        sqlx::query_scalar(statement).fetch_one(&mut db).await.expect("Postgres is back")
    };
    let mut counted = Counted {
        accepted: scalar("select count(*) from krilin.bench_accepted").await,
        lost: scalar(
            "select count(*) from (
                 select job_id from krilin.bench_accepted
                 except (select id from krilin.job_history where state = 'done'
                         intersect select job_id from krilin.bench_effects)) as lost",
        )
        .await,
        applied_twice: scalar(
            "select (select count(*) - count(distinct job_id) from krilin.bench_effects)
                  + (select count(*) from krilin.bench_effects e
                     where not exists (select from krilin.bench_accepted a where a.job_id = e.job_id))",
        )
        .await,
        stuck: scalar("select count(*) from krilin.jobs where kind = 'bench_effect'").await,
        pace,
        ..Counted::default()
    };
    for (fault, _) in &storm.over {
        *counted.faults.entry(fault.figure()).or_default() += 1;
    }
    let lost: Vec<(String, DateTime<Utc>, DateTime<Utc>)> =
        sqlx::query_as("select worker_id::text, started_at, finished_at from krilin.attempts where outcome = 'lost'")
            .fetch_all(&mut db)
            .await
            .expect("Postgres is back");
    let mut rescues = Vec::new();
    let unheard =
        |claimed: DateTime<Utc>| storm.cuts.iter().any(|(from, to)| claimed >= *from - ANSWER && claimed <= *to);
    for (worker, claimed, freed) in lost {
        match storm.killed.get(&worker) {
            Some(killed) if freed >= *killed => rescues.push((freed - *killed).as_seconds_f64()),
            // The worker lives and does not have these jobs: that they were rescued is right.
            _ if unheard(claimed) => counted.unheard_claims += 1,
            _ => {
                eprintln!("false rescue at {freed}, of a job that worker {worker} claimed at {claimed}");
                counted.false_rescues += 1;
            }
        }
    }
    counted.rescued = rescues.len();
    counted.rescue_p99_s = quantile(&mut rescues, 0.99);
    let ended: Vec<(DateTime<Utc>, i64)> =
        sqlx::query_as("select date_trunc('second', finished_at), count(*) from krilin.job_history group by 1")
            .fetch_all(&mut db)
            .await
            .expect("Postgres is back");
    counted.recovered_95_s = recovered(storm, &per_second(ended), pace);
    counted.findings = findings::count(&mut db).await;
    counted
}

fn per_second(ended: Vec<(DateTime<Utc>, i64)>) -> BTreeMap<i64, i64> {
    ended.into_iter().map(|(at, count)| (at.timestamp(), count)).collect()
}

/// The longest time from the end of a fault to the first seconds in which throughput was back, while jobs were asked for.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn recovered(storm: &Storm, ended: &BTreeMap<i64, i64>, pace: f64) -> f64 {
    let begun = ended.keys().next().copied().unwrap_or(0);
    let calm = storm.calm_until.map_or(begun, |at| at.timestamp());
    let over = |from: i64| ended.range(from..from + WINDOW_S).map(|(_, count)| *count as f64).sum::<f64>();
    // What was reached before the first fault, where that was less than what was asked for.
    let before = (begun + 2..calm - WINDOW_S).map(|from| over(from) / WINDOW_S as f64);
    let mut before: Vec<f64> = before.collect();
    let goal = pace.min(quantile(&mut before, 0.5)) * RECOVERED * WINDOW_S as f64;
    let times = storm.over.iter().map(|(fault, at)| {
        let from = (*at + TimeDelta::milliseconds(500)).timestamp();
        let seconds = (0..RECOVERY_MAX_S).find(|after| over(from + after) >= goal).unwrap_or(RECOVERY_MAX_S);
        eprintln!("{:<22} throughput back after {seconds} s", fault.figure());
        if *fault == Fault::Deafen { 0.0 } else { seconds as f64 }
    });
    times.fold(0.0, f64::max)
}
