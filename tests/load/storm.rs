//! `crash --jobs N`: many jobs, each with one row as its effect, while everything that can fail is made to fail, in turn.
//! Then the rows are counted.
//!
//! What was accepted is known exactly: each batch of jobs is enqueued in a transaction that also notes their ids, so a
//! commit whose answer was lost is counted as what it was. Workers are processes of this program ([`worker`]), so that a
//! kill is a kill; each says its worker id, so that a rescue is told from a theft.

mod count;
mod faults;
pub mod worker;

use std::time::{Duration, Instant};

use krilin::{
    clock::SystemClock,
    cluster::{Cluster, DATABASE},
    model::job::NewJob,
    queue::Queue,
    store,
};
use serde_json::json;
use sqlx::PgPool;
use tokio::time::sleep;

use self::{count::Counted, faults::Storm};
use crate::{
    findings, fleet,
    report::{Goal, Report},
};

/// Jobs of one enqueue.
const BATCH: usize = 250;
/// Enqueues a second, where a batch is smaller for it.
const ENQUEUES_PER_S: usize = 5;
/// The most jobs a second that are asked for: below what the workers do on two cores, so that what is made up for after a
/// fault can be seen.
const PACE_MAX: f64 = 1_200.0;
/// Of this many jobs one takes long enough to be caught in the middle of it, once before its effect and once after.
const LONG_EVERY: usize = 20;
/// How long those take.
const LONG_MS: u64 = 300;
/// How long everything may take to end after the last fault.
const SETTLE: Duration = Duration::from_mins(3);

const RESCUE_GOAL_S: f64 = 15.0;
const RECOVERY_GOAL_S: f64 = 30.0;

/// What is counted at the end, beside the queue's own tables. The effects have no key: a second one must be seen.
const TABLES: &str = "
    create table krilin.bench_accepted (job_id uuid not null);
    create table krilin.bench_effects (job_id uuid not null);
    grant select, insert on krilin.bench_accepted, krilin.bench_effects to krilin_runtime;";

/// Runs it with at least `jobs` jobs; says whether the goals hold.
pub async fn bench(jobs: usize) -> bool {
    let begun = Instant::now();
    let cluster = Cluster::throwaway().await.expect("a throwaway cluster starts");
    fleet::prepare(&cluster).await;
    let owner = store::pool(&cluster.url("krilin_owner", DATABASE), "krilin-bench", 1).expect("of our own making");
    sqlx::raw_sql(TABLES).execute(&owner).await.expect("the tables of the bench are created");
    owner.close().await;
    let pool = store::pool(&cluster.url("krilin_runtime", DATABASE), "krilin-bench", 4).expect("of our own making");
    let queue = Queue::new(&pool, std::sync::Arc::new(SystemClock), worker::policies());
    let mut storm = Storm::start(cluster).await;
    let seconds = Storm::seconds().max(seconds_for(jobs));
    let producing = tokio::spawn(produce(queue, pool.clone(), jobs, seconds));
    storm.run(seconds).await;
    let pace = producing.await.expect("the producer ends with its pace");
    let settled = settle(&pool).await;
    let counted = count::count(&pool, &storm, pace).await;
    storm.stop().await;
    report(&counted, settled, begun.elapsed())
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "minutes")]
fn seconds_for(jobs: usize) -> u64 {
    (jobs as f64 / PACE_MAX).ceil() as u64
}

/// Asks for `jobs` jobs over about `seconds`; gives how many a second.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
async fn produce(queue: Queue, pool: PgPool, jobs: usize, seconds: u64) -> f64 {
    let pace = jobs as f64 / seconds as f64;
    let each_second = jobs / usize::try_from(seconds).unwrap_or(1);
    let batch = BATCH.min((each_second / ENQUEUES_PER_S).max(1));
    let begun = Instant::now();
    let mut asked = 0;
    while asked < jobs {
        let due = Duration::from_secs_f64(asked as f64 / pace);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            sleep(early).await;
        }
        let count = batch.min(jobs - asked);
        if accept(&queue, &pool, asked, count).await.is_ok() {
            asked += count;
        } else {
            // Whether it was committed will be seen in the table; the numbers are asked for again, as other jobs.
            sleep(Duration::from_millis(200)).await;
        }
    }
    pace
}

/// Enqueues `count` jobs and notes their ids, all or nothing.
async fn accept(queue: &Queue, pool: &PgPool, first: usize, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let jobs = (first..first + count).map(|number| {
        let (before, after) = match number % LONG_EVERY {
            0 => (LONG_MS, 0),
            1 => (0, LONG_MS),
            _ => (0, 0),
        };
        NewJob { kind: worker::KIND.to_owned(), args: json!({"before": before, "after": after}), ..NewJob::default() }
    });
    let mut tx = store::within(pool.begin()).await?;
    let uncommitted = queue.enqueue_in(&mut tx, jobs.collect()).await?;
    let ids: Vec<uuid::Uuid> = uncommitted.jobs.iter().map(|job| job.job_id.0).collect();
    let noted = sqlx::query("insert into krilin.bench_accepted select unnest($1::uuid[])").bind(ids);
    store::within(noted.execute(&mut *tx)).await?;
    store::within(tx.commit()).await?;
    uncommitted.committed();
    Ok(())
}

/// Waits until no job of the bench is left, at most [`SETTLE`].
async fn settle(pool: &PgPool) -> Duration {
    let begun = Instant::now();
    while begun.elapsed() < SETTLE {
        let left = sqlx::query_scalar::<_, bool>("select exists (select from krilin.jobs where kind = 'bench_effect')");
        if left.fetch_one(pool).await.is_ok_and(|left| !left) {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    begun.elapsed()
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn report(counted: &Counted, settled: Duration, whole: Duration) -> bool {
    let mut report = Report::new("crash");
    report.figure("jobs", counted.accepted as f64, "", Goal::Told);
    report.figure("jobs_lost", counted.lost as f64, "", Goal::Is(0.0));
    report.figure("jobs_applied_twice", counted.applied_twice as f64, "", Goal::Is(0.0));
    report.figure("jobs_stuck", counted.stuck as f64, "", Goal::Is(0.0));
    report.figure("false_rescues", counted.false_rescues as f64, "", Goal::Is(0.0));
    report.figure("jobs_of_unheard_claims", counted.unheard_claims as f64, "", Goal::Told);
    report.figure("jobs_rescued", counted.rescued as f64, "", Goal::AtLeast(1.0));
    report.figure("rescue_p99_s", counted.rescue_p99_s, "s", Goal::AtMost(RESCUE_GOAL_S));
    report.figure("recovered_95_s", counted.recovered_95_s, "s", Goal::AtMost(RECOVERY_GOAL_S));
    findings::tell(&mut report, counted.findings);
    for (name, times) in &counted.faults {
        report.figure(*name, *times as f64, "", Goal::AtLeast(1.0));
    }
    report.figure("jobs_asked_per_s", counted.pace, "", Goal::Told);
    report.figure("settled_s", settled.as_secs_f64(), "s", Goal::Told);
    report.figure("whole_s", whole.as_secs_f64(), "s", Goal::Told);
    report.finish()
}
