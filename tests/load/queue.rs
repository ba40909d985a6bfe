//! `queue`: how fast jobs are stored, run and noticed, each beside plain SQL that does the same in the same run, in
//! interleaved rounds; a ratio is of the medians.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, try_join_all};
use krilin::{
    clock::SystemClock,
    cluster::{Cluster, DATABASE},
    model::{
        job::{Failure, NewJob, Outcome},
        policy::{Policies, Policy},
    },
    queue::{
        Queue, complete,
        registry::{Attempt, Handler, Registry},
        worker::{self, Lane, Worker, WorkerOptions},
    },
    store,
};
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::Notify;

use crate::{
    beside, churn, findings, fleet, flow, limit,
    report::{Goal, Report, quantile},
    wanted,
};

/// Rounds; each runs ours and the plain SQL in turn.
const ROUNDS: usize = 3;
/// Jobs stored one by one by one producer, and by [`PRODUCERS`].
const SINGLES: usize = 1_000;
const SHARED: usize = 16_000;
/// Producers at a time, and connections that each work a job per transaction.
const PRODUCERS: usize = 16;
/// Jobs of a bulk insert and of the drain.
pub const MANY: usize = 60_000;
/// Jobs in one bulk call.
const BULK: usize = 10_000;
/// Jobs claimed and ended by one statement of our drain, and of the plain one, which does best with more.
const BATCH: usize = 1_000;
const BATCH_PLAIN: usize = 4_000;
/// Jobs that each have a transaction of their own.
const TRANSACTIONS: usize = 6_000;
/// Pickups measured, and the pause between two.
const PICKUPS: usize = 300;
const PICKUP_PAUSE: Duration = Duration::from_millis(8);

/// What it measures, each by a name of its own: `queue churn --minutes 1` measures one of them, in less time.
const PARTS: [&str; 7] = ["rates", "beside", "pickup", "limits", "neighbour", "churn", "pinned"];

/// Runs the parts that the command line names, or all; says whether the goals hold.
pub async fn bench() -> bool {
    let (wanted, minutes) = wanted::parts("queue", &PARTS);
    let begun = Instant::now();
    let mut cluster = Cluster::throwaway().await.expect("a throwaway cluster starts");
    fleet::prepare(&cluster).await;
    let url = cluster.url("krilin_runtime", DATABASE);
    let pool = store::pool(&url, "krilin-bench", 40).expect("a connection string of our own making");
    let owner = store::pool(&cluster.url("krilin_owner", DATABASE), "krilin-bench", 1).expect("as above");
    limit::prepare(&owner).await;
    let mut report = Report::new("queue");
    let ours = Ours::new(&pool);
    let mut broken = 0;
    let wants = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    if wants("rates") {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            rounds.run(&ours, &pool).await;
        }
        rounds.tell(&mut report);
    }
    if wants("beside") {
        broken += beside::beside(&mut report, &cluster).await;
    }
    if wants("pickup") {
        pickup(&mut report, &ours, &pool).await;
    }
    if wants("limits") {
        flow::limits(&mut report, &ours).await;
    }
    if wants("neighbour") {
        Box::pin(flow::neighbour(&mut report, &ours, &cluster.url("postgres", DATABASE))).await;
    }
    if wants("churn") || wants("pinned") {
        broken += churn::churn(&mut report, &ours, &cluster, (minutes, wants("pinned"))).await;
    }
    broken += findings::count_at(&cluster.url("postgres", DATABASE)).await;
    findings::tell(&mut report, broken);
    report.figure("whole_s", begun.elapsed().as_secs_f64().round(), "s", Goal::Told);
    let holds = report.finish();
    cluster.stop().await.expect("the cluster is ours");
    holds
}

/// Rates of all rounds: ours and the plain SQL's.
type Rates = (Vec<f64>, Vec<f64>);

#[derive(Default)]
struct Rounds {
    enqueue_1: Rates,
    enqueue_16: Rates,
    bulk: Rates,
    drain: Rates,
    transactional: Rates,
}

impl Rounds {
    async fn run(&mut self, ours: &Ours, pool: &PgPool) {
        let payload = noop().args.to_string();
        self.enqueue_1.0.push(rate(SINGLES, ours.enqueue(SINGLES, 1).await));
        self.enqueue_1.1.push(rate(SINGLES, limit::insert_singly(pool, &payload, SINGLES).await));
        self.enqueue_16.0.push(rate(SHARED, ours.enqueue(SHARED, PRODUCERS).await));
        self.enqueue_16.1.push(rate(SHARED, limit::insert_shared(pool, &payload, SHARED, PRODUCERS).await));
        ours.empty().await;
        self.bulk.0.push(rate(MANY, ours.bulk("noop", MANY).await));
        self.bulk.1.push(rate(MANY, limit::insert_together(pool, &payload, MANY, BULK).await));
        self.drain.0.push(rate(MANY, ours.drain(MANY).await));
        self.drain.1.push(rate(MANY, limit::drain(pool, BATCH_PLAIN).await));
        ours.empty().await;
        ours.bulk("own", TRANSACTIONS).await;
        limit::insert_together(pool, &payload, TRANSACTIONS, BULK.min(TRANSACTIONS)).await;
        self.transactional.0.push(rate(TRANSACTIONS, ours.drain(TRANSACTIONS).await));
        self.transactional.1.push(rate(TRANSACTIONS, limit::drain_singly(pool, PRODUCERS).await));
        ours.empty().await;
    }

    /// What these must be is measured beside other systems: by `./dev bench peers`.
    fn tell(self, report: &mut Report) {
        let names = ["enqueue1_per_s", "sql_enqueue1_per_s", "enqueue1_vs_limit"];
        compare(report, names, self.enqueue_1);
        let names = ["enqueue16_per_s", "sql_enqueue16_per_s", "enqueue16_vs_limit"];
        compare(report, names, self.enqueue_16);
        compare(report, ["bulk_per_s", "sql_bulk_per_s", "bulk_vs_unnest"], self.bulk);
        compare(report, ["drain_per_s", "sql_drain_per_s", "drain_vs_limit"], self.drain);
        let names = ["transactional_per_s", "sql_transactional_per_s", "transactional_vs_limit"];
        compare(report, names, self.transactional);
    }
}

/// The medians of the rates and their ratio, under three names.
fn compare(report: &mut Report, names: [&'static str; 3], (mut ours, mut plain): Rates) {
    let (ours, plain) = (quantile(&mut ours, 0.5), quantile(&mut plain, 0.5));
    report.figure(names[0], ours.round(), "/s", Goal::Told);
    report.figure(names[1], plain.round(), "/s", Goal::Told);
    report.figure(names[2], ours / plain, "x", Goal::Told);
}

/// Kinds that do nothing, and what their handlers have seen.
pub struct Ours {
    pub queue: Queue,
    registry: Registry,
    pool: PgPool,
    /// Of the kinds `noop` and `own`.
    pub seen: Arc<Seen>,
    /// Of the kind `timed`, on the same queue as `noop`.
    pub timed: Arc<Seen>,
}

#[derive(Default)]
pub struct Seen {
    pub count: AtomicUsize,
    pub began: Notify,
    pub latest: Mutex<Option<Instant>>,
}

impl Seen {
    fn ran(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        *self.latest.lock().expect("no panic while it is held") = Some(Instant::now());
        self.began.notify_one();
    }
}

struct Noop(Arc<Seen>);

impl Handler for Noop {
    fn run(&self, _: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async {
            self.0.ran();
            Ok(Outcome::Done(None))
        })
    }
}

/// A kind with a transaction of its own and one insert in it.
struct Own(Arc<Seen>);

impl Handler for Own {
    fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async move {
            let unavailable = |error: sqlx::Error| Failure::from(store::Error::from(error));
            let mut tx = attempt.begin().await?;
            let effect =
                sqlx::query("insert into krilin.bench_effects (body) values ($1)").bind(attempt.job.args.get());
            effect.execute(&mut *tx).await.map_err(unavailable)?;
            complete::in_transaction(&mut tx, &attempt.lease, None).await?;
            tx.commit().await?;
            self.0.ran();
            Ok(Outcome::Done(None))
        })
    }
}

const POLICY: &str = r#"
description = "Nothing."
queue = "bench"
priority = 0
asked_by = "system"
completion = "batch"
timeout = "10s"
max_attempts = 3
backoff = { first = "1s", factor = 2.0, longest = "1m", jitter = 0.2 }
"#;

impl Ours {
    pub fn new(pool: &PgPool) -> Self {
        let own = POLICY.replace("\"bench\"", "\"own\"").replace("\"batch\"", "\"transaction\"");
        let policy = |kind: &str, text: &str| Policy::parse(kind, text, &[]).expect("it is written above");
        let policies = Policies::default()
            .with("noop", policy("noop", POLICY))
            .with("timed", policy("timed", POLICY))
            .with("own", policy("own", &own));
        let (seen, timed) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let handlers = [
            ("noop", Arc::new(Noop(seen.clone())) as Arc<dyn Handler>),
            ("timed", Arc::new(Noop(timed.clone())) as Arc<dyn Handler>),
            ("own", Arc::new(Own(seen.clone())) as Arc<dyn Handler>),
        ];
        let registry = Registry::new(&policies, handlers).expect("these are the kinds");
        Self { queue: Queue::new(pool, Arc::new(SystemClock), policies), registry, pool: pool.clone(), seen, timed }
    }

    pub fn worker(&self) -> Worker {
        self.worker_of(Lane { concurrency: BATCH, prefetch: BATCH, batch: BATCH, ..Lane::new("bench", 1) })
    }

    /// A worker that takes on of the queue `bench` what `lane` says.
    pub fn worker_of(&self, lane: Lane) -> Worker {
        // A worker is another process than the producer: it has a queue of its own and hears by notice.
        let queue = Queue::new(&self.pool, Arc::new(SystemClock), self.queue.policies().clone());
        worker::start(&queue, &self.registry, &self.pool, &WorkerOptions::new(vec![lane, Lane::new("own", PRODUCERS)]))
    }

    /// `count` jobs one by one, by `producers`.
    async fn enqueue(&self, count: usize, producers: usize) -> Duration {
        let producer = async || {
            for _ in 0..count / producers {
                self.queue.enqueue(noop()).await?;
            }
            Ok::<_, krilin::queue::Error>(())
        };
        let begun = Instant::now();
        try_join_all((0..producers).map(|_| producer())).await.expect("enqueuing works");
        begun.elapsed()
    }

    /// `count` jobs of `kind`, [`BULK`] per call.
    pub async fn bulk(&self, kind: &str, count: usize) -> Duration {
        self.bulk_of(count, |_| NewJob { kind: kind.to_owned(), ..noop() }).await
    }

    /// The jobs 0 to `count`, [`BULK`] per call.
    pub async fn bulk_of(&self, count: usize, job: impl Fn(usize) -> NewJob) -> Duration {
        let begun = Instant::now();
        enqueue_all(self.queue.clone(), count, job).await;
        begun.elapsed()
    }

    /// Runs the `count` jobs that are ready, from the worker's start until the last one's end is committed.
    pub async fn drain(&self, count: usize) -> Duration {
        let until = self.seen.count.load(Ordering::Relaxed) + count;
        let begun = Instant::now();
        let worker = self.worker();
        while self.seen.count.load(Ordering::Relaxed) < until {
            let _ = tokio::time::timeout(Duration::from_millis(50), self.seen.began.notified()).await;
        }
        while self.left().await > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let taken = begun.elapsed();
        worker.stop().await;
        taken
    }

    async fn left(&self) -> i64 {
        // Each count is on an index of its own: none looks at the scheduled rows that lie beside. (No index has all that are
        // ready: asked for them, Postgres reads the table.)
        let statement = "select (select count(*) from krilin.jobs where state = 'running')
            + (select count(*) from krilin.jobs
               where state = 'ready' and user_id is null and concurrency_key is null)
            + (select count(*) from krilin.jobs
               where state = 'ready' and (user_id is not null or concurrency_key is not null))";
        sqlx::query_scalar(statement).fetch_one(&self.pool).await.expect("it counts")
    }

    pub async fn empty(&self) {
        sqlx::raw_sql("delete from krilin.jobs; delete from krilin.job_history; delete from krilin.limit_jobs")
            .execute(&self.pool)
            .await
            .expect("the tables can be emptied");
    }
}

/// Enqueues the jobs 0 to `count`, [`BULK`] per call.
pub async fn enqueue_all(queue: Queue, count: usize, job: impl Fn(usize) -> NewJob) {
    for start in (0..count).step_by(BULK) {
        let jobs = (start..count.min(start + BULK)).map(&job);
        queue.enqueue_many(jobs.collect()).await.expect("enqueuing works");
    }
}

pub fn noop() -> NewJob {
    NewJob { kind: "noop".to_owned(), args: json!({ "habit": "read", "day": "2026-01-01" }), ..NewJob::default() }
}

#[expect(clippy::cast_precision_loss, reason = "counts of jobs")]
pub fn rate(count: usize, taken: Duration) -> f64 {
    count as f64 / taken.as_secs_f64()
}

async fn pickup(report: &mut Report, ours: &Ours, pool: &PgPool) {
    let worker = ours.worker();
    let mut waits = Vec::with_capacity(PICKUPS);
    for number in 0..PICKUPS + 20 {
        tokio::time::sleep(PICKUP_PAUSE).await;
        let count = ours.seen.count.load(Ordering::Relaxed);
        let begun = Instant::now();
        ours.queue.enqueue(noop()).await.expect("enqueuing works");
        while ours.seen.count.load(Ordering::Relaxed) == count {
            let _ = tokio::time::timeout(Duration::from_millis(50), ours.seen.began.notified()).await;
        }
        let latest = ours.seen.latest.lock().expect("no panic while it is held").expect("it has begun");
        // The first ones find connections closed and plans unmade.
        if number >= 20 {
            waits.push((latest - begun).as_secs_f64() * 1_000.0);
        }
    }
    worker.stop().await;
    report.figure("idle_pickup_p50_ms", quantile(&mut waits, 0.5), "ms", Goal::Told);
    report.figure("idle_pickup_p99_ms", quantile(&mut waits, 0.99), "ms", Goal::Told);
    let payload = noop().args.to_string();
    let mut waits = limit::pickup(pool, &payload, (PICKUPS, PICKUP_PAUSE)).await;
    report.figure("sql_pickup_p50_ms", quantile(&mut waits, 0.5), "ms", Goal::Told);
    report.figure("sql_pickup_p99_ms", quantile(&mut waits, 0.99), "ms", Goal::Told);
}
