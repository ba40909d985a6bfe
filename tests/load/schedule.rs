//! `schedule`: what a million idle schedules cost, how late ten thousand are that are due at the same instant, and what is
//! left of fires while two schedulers are killed in turn.
//!
//! The schedulers are processes (`krilin schedule run`), Postgres is durable, and no worker runs: what is timed is the
//! firing. Lateness is counted to the commit, as another connection sees it.

use std::{
    fs,
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use krilin::cluster::{Cluster, DATABASE};
use sqlx::PgPool;
use tokio::time::sleep;

use crate::{
    findings, fleet,
    report::{Goal, Report},
};

/// Schedules that are not due.
const IDLE: i64 = 1_000_000;
/// How long their cost is measured, after what has just been inserted has settled.
const IDLE_FOR: Duration = Duration::from_secs(30);
const IDLE_SETTLES: Duration = Duration::from_secs(5);
/// Schedules that are due at one instant.
const DUE: i64 = 10_000;
/// How far ahead that instant is.
const DUE_IN: TimeDelta = TimeDelta::seconds(4);
/// How often it is looked how many have fired.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Schedules that fire under kills, how often, and how many times each.
const KILLED: i64 = 2_000;
const KILLED_EVERY_MS: i64 = 2_000;
const KILLED_FIRES: i64 = 10;
/// The pause between two kills. Each scheduler is killed in turn, and another takes its place.
const KILL_EVERY: Duration = Duration::from_millis(1_300);
/// How long anything may take to end.
const SETTLE: Duration = Duration::from_mins(2);
/// Clock ticks of `/proc/PID/stat` in a second: USER_HZ, which Linux fixes at 100 for programs.
const TICKS: f64 = 100.0;

/// Runs it; says whether the goals hold.
pub async fn bench() -> bool {
    let mut cluster = Cluster::throwaway().await.expect("a throwaway cluster starts");
    fleet::prepare(&cluster).await;
    let credentials = fleet::write_credentials(&cluster);
    // Not the product's pool: a million rows take longer than a statement of ours may.
    let pool = PgPool::connect(cluster.url("postgres", DATABASE).expose()).await.expect("the cluster is ready");
    let mut report = Report::new("schedule");
    idle(&mut report, &cluster, &pool, &credentials).await;
    due(&mut report, &pool, &credentials).await;
    killed(&mut report, &pool, &credentials).await;
    let mut db = pool.acquire().await.expect("the cluster is there").detach();
    findings::tell(&mut report, findings::count(&mut db).await);
    let _ = fs::remove_dir_all(&credentials);
    cluster.stop().await.expect("the cluster is ours");
    report.finish()
}

/// Inserts `count` schedules named `name…`, of a period, the first due after `$3` milliseconds and again `$4` times.
async fn insert(pool: &PgPool, name: &str, count: i64, (first_ms, every_ms, fires): (i64, i64, i64)) -> DateTime<Utc> {
    let statement = sqlx::query_scalar(
        "with clock as materialized (select krilin.now() as now),
         made as (
             insert into krilin.schedules (id, name, origin, kind, args, every_ms, timezone, anchor_at, ends_at, catch_up,
                 overlap, next_at, due_at, tzdata, created_at, updated_at)
             select gen_random_uuid(), $1 || n, 'operator', 'retention', '{}', $4, 'user', at - $4 * interval '1 ms',
                 at + ($5 - 1) * $4 * interval '1 ms', 'all', 'queue', at, at, $6, now, now
             from clock, generate_series(1, $2) as n, lateral (select now + $3 * interval '1 ms' as at) as first
         )
         select now + $3 * interval '1 ms' from clock",
    );
    let bound = statement.bind(name).bind(count).bind(first_ms).bind(every_ms).bind(fires);
    bound.bind(chrono_tz::IANA_TZDB_VERSION).fetch_one(pool).await.expect("the schedules are inserted")
}

async fn maintain(pool: &PgPool) {
    for statement in ["vacuum (analyze) krilin.schedules", "checkpoint"] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.expect("the superuser may");
    }
}

fn scheduler(credentials: &PathBuf) -> Child {
    fleet::spawn(credentials, &["schedule", "run"])
}

fn end(mut process: Child) {
    process.kill().expect("it is ours");
    process.wait().expect("it is ours");
}

async fn idle(report: &mut Report, cluster: &Cluster, pool: &PgPool, credentials: &PathBuf) {
    const DAYS_30_MS: i64 = 30 * 24 * 3_600_000;
    insert(pool, "idle", IDLE, (DAYS_30_MS, DAYS_30_MS, 10)).await;
    maintain(pool).await;
    sleep(IDLE_SETTLES).await;
    let alone = percent_of_a_cpu(|| Used::now(cluster, 0)).await;
    let process = scheduler(credentials);
    sleep(IDLE_SETTLES).await;
    let (sessions_before, swept_before) = (sessions(pool).await, swept(pool).await);
    let used = percent_of_a_cpu(|| Used::now(cluster, process.id())).await;
    // Else there would be work that is counted nowhere: of a session that ended, or of a vacuum that schedules made due.
    assert_eq!(sessions(pool).await, sessions_before, "the scheduler keeps its sessions");
    assert_eq!(swept(pool).await, swept_before, "nothing is vacuumed or analyzed");
    report.figure("idle_schedules", precise(IDLE), "", Goal::Told);
    report.figure("idle_cpu_percent", used.scheduler + used.postgres, "%", Goal::AtMost(1.0));
    report.figure("idle_scheduler_percent", used.scheduler, "%", Goal::Told);
    report.figure("idle_postgres_percent", used.postgres, "%", Goal::Told);
    report.figure("idle_rounds_percent", used.rounds, "%", Goal::Told);
    report.figure("alone_postgres_percent", alone.postgres, "%", Goal::Told);
    report.figure("alone_rounds_percent", alone.rounds, "%", Goal::Told);
    end(process);
}

/// The sessions of the scheduler.
async fn sessions(pool: &PgPool) -> Vec<i32> {
    let statement = "select pid from pg_stat_activity where application_name = 'krilin-schedule' order by pid";
    sqlx::query_scalar(statement).fetch_all(pool).await.expect("Postgres is there")
}

/// How often tables were vacuumed or analyzed.
async fn swept(pool: &PgPool) -> i64 {
    let statement = "select sum(vacuum_count + autovacuum_count + analyze_count + autoanalyze_count)::bigint
        from pg_stat_all_tables";
    count(pool, statement).await
}

/// CPU time so far, or of a time the percentage of one CPU.
struct Used {
    /// By the scheduler.
    scheduler: f64,
    /// By Postgres: its sessions and everything in the background, but for the rounds.
    postgres: f64,
    /// By the rounds that autovacuum makes through every database of a cluster, by the clock, whether or not there is a
    /// schedule in it: the launcher, the workers that it had started, and the postmaster who starts them.
    rounds: f64,
}

impl Used {
    /// In seconds.
    fn now(cluster: &Cluster, scheduler: u32) -> Self {
        let pid_file = fs::read_to_string(cluster.directory().join("data/postmaster.pid")).expect("Postgres runs");
        let postmaster: u32 = pid_file.lines().next().and_then(|pid| pid.trim().parse().ok()).expect("a process id");
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.expect("its children are known");
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        let (of_rounds, others): (Vec<u32>, Vec<u32>) = children.partition(|&pid| is_autovacuum(pid));
        let seconds = |pids: Vec<u32>| pids.into_iter().map(cpu_seconds).sum::<f64>();
        Self {
            scheduler: cpu_seconds(scheduler),
            postgres: seconds(others),
            rounds: seconds(of_rounds) + cpu_seconds(postmaster),
        }
    }
}

/// What is used while nothing happens.
async fn percent_of_a_cpu(used: impl Fn() -> Used) -> Used {
    let (before, begun) = (used(), Instant::now());
    sleep(IDLE_FOR).await;
    let (after, passed) = (used(), begun.elapsed().as_secs_f64());
    let percent = |before: f64, after: f64| (after - before) / passed * 100.0;
    Used {
        scheduler: percent(before.scheduler, after.scheduler),
        postgres: percent(before.postgres, after.postgres),
        rounds: percent(before.rounds, after.rounds),
    }
}

/// By the title that Postgres gives its processes.
fn is_autovacuum(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|title| title.starts_with("postgres: autovacuum"))
}

/// CPU time of a process and of its children that have ended, in seconds. Fields 14 to 17 of proc_pid_stat(5).
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let ticks = after_name.split(' ').skip(11).take(4).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

async fn due(report: &mut Report, pool: &PgPool, credentials: &PathBuf) {
    let at = insert(pool, "due", DUE, (DUE_IN.num_milliseconds(), 3_600_000, 1)).await;
    let process = scheduler(credentials);
    let fired = "select count(*), clock_timestamp() from krilin.occurrences where due_at = $1 and outcome = 'fired'";
    let (mut p50, mut p99, mut all) = (None, None, None);
    let begun = Instant::now();
    while all.is_none() {
        assert!(begun.elapsed() < SETTLE, "not all that was due has fired");
        sleep(LOOK_EVERY).await;
        let (count, now): (i64, DateTime<Utc>) =
            sqlx::query_as(fired).bind(at).fetch_one(pool).await.expect("Postgres is there");
        let late = || Some(precise((now - at).num_milliseconds()));
        p50 = p50.or_else(|| late().filter(|_| count * 2 >= DUE));
        p99 = p99.or_else(|| late().filter(|_| count * 100 >= DUE * 99));
        all = late().filter(|_| count >= DUE);
    }
    report.figure("due_10k_p50_late_ms", p50.unwrap_or(0.0), "ms", Goal::Told);
    report.figure("due_10k_p99_late_ms", p99.unwrap_or(0.0), "ms", Goal::AtMost(1_000.0));
    report.figure("due_10k_last_late_ms", all.unwrap_or(0.0), "ms", Goal::Told);
    let jobs = count(pool, "select count(*) from krilin.jobs").await;
    assert_eq!(jobs, DUE, "each has one job");
    end(process);
}

async fn killed(report: &mut Report, pool: &PgPool, credentials: &PathBuf) {
    let others = count(pool, "select count(*) from krilin.jobs").await;
    let mut processes = [scheduler(credentials), scheduler(credentials)];
    insert(pool, "killed", KILLED, (1_000, KILLED_EVERY_MS, KILLED_FIRES)).await;
    let lasts = Duration::from_millis(u64::try_from(KILLED_EVERY_MS * KILLED_FIRES + 1_000).unwrap_or(0));
    let begun = Instant::now();
    let mut kills = 0;
    while begun.elapsed() < lasts {
        sleep(KILL_EVERY).await;
        end(std::mem::replace(&mut processes[kills % 2], scheduler(credentials)));
        kills += 1;
    }
    let left = "select count(*) from krilin.schedules where name like 'killed%' and state <> 'ended'";
    let settling = Instant::now();
    while count(pool, left).await > 0 {
        assert!(settling.elapsed() < SETTLE, "not all that was owed has fired");
        sleep(LOOK_EVERY * 10).await;
    }
    let nominal = count(
        pool,
        "select count(*) from krilin.occurrences o join krilin.jobs j on j.id = o.job_id
         join krilin.schedules s on s.id = o.schedule_id where s.name like 'killed%'",
    )
    .await;
    let jobs = count(pool, "select count(*) from krilin.jobs").await - others;
    let expected = KILLED * KILLED_FIRES;
    report.figure("fires", precise(jobs), "", Goal::AtLeast(precise(expected)));
    report.figure("schedulers_killed", precise(i64::try_from(kills).unwrap_or(0)), "", Goal::AtLeast(10.0));
    report.figure("fires_lost", precise(expected - nominal), "", Goal::Is(0.0));
    report.figure("fires_doubled", precise(jobs - nominal + (nominal - expected).max(0)), "", Goal::Is(0.0));
    processes.into_iter().for_each(end);
}

async fn count(pool: &PgPool, statement: &'static str) -> i64 {
    sqlx::query_scalar(statement).fetch_one(pool).await.expect("Postgres is there")
}

#[expect(clippy::cast_precision_loss, reason = "counts and milliseconds far below 2^52")]
fn precise(count: i64) -> f64 {
    count as f64
}
