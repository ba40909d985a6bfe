//! `queue`: how fast jobs are stored, run and noticed, each beside plain SQL that does the same in the same run. The
//! ratios are printed; nothing is held to a goal yet.

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
        Queue,
        registry::{Attempt, Handler, Registry},
        worker::{self, Lane, Worker, WorkerOptions},
    },
    store,
};
use serde_json::json;
use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::Notify;

use crate::{
    fleet,
    report::{Goal, Report, quantile},
};

/// Jobs stored one by one, by one and by sixteen producers.
const SINGLES: [usize; 2] = [2_000, 16_000];
/// Producers at a time.
const PRODUCERS: usize = 16;
/// Jobs of a bulk insert and of the drain.
const MANY: usize = 60_000;
/// Jobs in one bulk call.
const BULK: usize = 10_000;
/// Jobs claimed and ended by one statement of the drain.
const BATCH: usize = 4_000;
/// Pickups measured, and the pause between two.
const PICKUPS: usize = 300;
const PICKUP_PAUSE: Duration = Duration::from_millis(8);

/// Runs it; says whether the goals hold.
pub async fn bench() -> bool {
    let mut cluster = Cluster::throwaway().await.expect("a throwaway cluster starts");
    fleet::prepare(&cluster).await;
    let url = cluster.url("krilin_runtime", DATABASE);
    let pool = store::pool(&url, "krilin-bench", 20).expect("a connection string of our own making");
    let owner = store::pool(&cluster.url("krilin_owner", DATABASE), "krilin-bench", 1).expect("as above");
    sqlx::raw_sql(LIMIT_TABLES).execute(&owner).await.expect("the tables of the plain SQL are created");
    let mut report = Report::new("queue");
    let ours = Ours::new(&pool);
    enqueue(&mut report, &ours, &pool).await;
    bulk_and_drain(&mut report, &ours, &pool).await;
    pickup(&mut report, &ours, &pool).await;
    let holds = report.finish();
    cluster.stop().await.expect("the cluster is ours");
    holds
}

/// The least that a queue needs, for plain SQL.
const LIMIT_TABLES: &str = "
    create table krilin.limit_jobs (
        id bigint generated always as identity primary key, user_id uuid, kind text not null, state smallint not null,
        priority smallint not null, attempt smallint not null default 0, worker integer, lease_until timestamptz,
        created_at timestamptz not null default now(), payload jsonb not null);
    create index on krilin.limit_jobs (priority, id) where state = 1;
    create table krilin.limit_history (
        id bigint, user_id uuid, kind text, state smallint, attempt smallint, created_at timestamptz, payload jsonb,
        finished_at timestamptz not null default now());";

const LIMIT_INSERT: &str =
    "insert into krilin.limit_jobs (kind, state, priority, payload) values ('noop', 1, 0, $1::jsonb)";

/// A kind that does nothing, and what its handler has seen.
struct Ours {
    queue: Queue,
    registry: Registry,
    pool: PgPool,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    count: AtomicUsize,
    began: Notify,
    latest: Mutex<Option<Instant>>,
}

struct Noop(Arc<Seen>);

impl Handler for Noop {
    fn run(&self, _: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async {
            self.0.count.fetch_add(1, Ordering::Relaxed);
            *self.0.latest.lock().expect("no panic while it is held") = Some(Instant::now());
            self.0.began.notify_one();
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
    fn new(pool: &PgPool) -> Self {
        let policies =
            Policies::default().with("noop", Policy::parse("noop", POLICY, &[]).expect("it is written above"));
        let seen = Arc::new(Seen::default());
        let handlers = [("noop", Arc::new(Noop(seen.clone())) as Arc<dyn Handler>)];
        let registry = Registry::new(&policies, handlers).expect("there is one kind");
        Self { queue: Queue::new(pool, Arc::new(SystemClock), policies), registry, pool: pool.clone(), seen }
    }

    fn worker(&self) -> Worker {
        let lane = Lane { concurrency: BATCH, prefetch: BATCH, batch: BATCH, ..Lane::new("bench", 1) };
        // A worker is another process than the producer: it has a queue of its own and hears by notice.
        let queue = Queue::new(&self.pool, Arc::new(SystemClock), self.queue.policies().clone());
        worker::start(&queue, &self.registry, &self.pool, &WorkerOptions::new(vec![lane]))
    }

    async fn empty(&self) {
        sqlx::raw_sql("delete from krilin.jobs; delete from krilin.job_history; delete from krilin.limit_jobs")
            .execute(&self.pool)
            .await
            .expect("the tables can be emptied");
    }
}

fn noop() -> NewJob {
    NewJob { kind: "noop".to_owned(), args: json!({ "habit": "read", "day": "2026-01-01" }), ..NewJob::default() }
}

/// Rates and their ratio, under three names.
fn compare(report: &mut Report, names: [&'static str; 3], ours: f64, plain: f64) {
    report.figure(names[0], ours.round(), "/s", Goal::Told);
    report.figure(names[1], plain.round(), "/s", Goal::Told);
    report.figure(names[2], ours / plain, "x", Goal::Told);
}

#[expect(clippy::cast_precision_loss, reason = "counts of jobs")]
fn rate(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

async fn enqueue(report: &mut Report, ours: &Ours, pool: &PgPool) {
    let names = [
        ["enqueue_1_per_s", "sql_enqueue_1_per_s", "enqueue_1_ratio"],
        ["enqueue_16_per_s", "sql_enqueue_16_per_s", "enqueue_16_ratio"],
    ];
    let payload = noop().args.to_string();
    for ((count, producers), names) in SINGLES.into_iter().zip([1, PRODUCERS]).zip(names) {
        let share = count / producers;
        let begun = Instant::now();
        let producer = async || {
            for _ in 0..share {
                ours.queue.enqueue(noop()).await?;
            }
            Ok::<_, krilin::queue::Error>(())
        };
        try_join_all((0..producers).map(|_| producer())).await.expect("enqueuing works");
        let rate_ours = rate(count, begun);
        let begun = Instant::now();
        let producer = async || {
            for _ in 0..share {
                sqlx::query(LIMIT_INSERT).bind(&payload).execute(pool).await?;
            }
            Ok::<_, sqlx::Error>(())
        };
        try_join_all((0..producers).map(|_| producer())).await.expect("inserting works");
        compare(report, names, rate_ours, rate(count, begun));
        ours.empty().await;
    }
}

async fn bulk_and_drain(report: &mut Report, ours: &Ours, pool: &PgPool) {
    let begun = Instant::now();
    for _ in 0..MANY / BULK {
        ours.queue.enqueue_many((0..BULK).map(|_| noop()).collect()).await.expect("enqueuing works");
    }
    let rate_ours = rate(MANY, begun);
    let begun = Instant::now();
    for _ in 0..MANY / BULK {
        let payloads: Vec<_> = (0..BULK).map(|_| noop().args.to_string()).collect();
        let statement = "insert into krilin.limit_jobs (kind, state, priority, payload)
                         select 'noop', 1, 0, p::jsonb from unnest($1::text[]) as p";
        sqlx::query(statement).bind(payloads).execute(pool).await.expect("inserting works");
    }
    compare(report, ["bulk_per_s", "sql_bulk_per_s", "bulk_ratio"], rate_ours, rate(MANY, begun));

    let begun = Instant::now();
    let worker = ours.worker();
    let left = async || {
        let count: i64 =
            sqlx::query_scalar("select count(*) from krilin.jobs").fetch_one(pool).await.expect("it counts");
        count
    };
    while ours.seen.count.load(Ordering::Relaxed) < MANY {
        ours.seen.began.notified().await;
    }
    while left().await > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let rate_ours = rate(MANY, begun);
    worker.stop().await;
    let begun = Instant::now();
    limit_drain(pool).await;
    compare(report, ["drain_per_s", "sql_drain_per_s", "drain_ratio"], rate_ours, rate(MANY, begun));
    ours.empty().await;
}

/// Claims and ends in one statement, one connection, no worker: what Postgres itself can do.
async fn limit_drain(pool: &PgPool) {
    let statement = "with d as (delete from krilin.limit_jobs where id = any($1) returning *),
         h as (insert into krilin.limit_history (id, user_id, kind, state, attempt, created_at, payload)
               select id, user_id, kind, 3, attempt, created_at, payload from d),
         c as materialized (select id from krilin.limit_jobs where state = 1 order by priority, id limit $2
                            for update skip locked)
         update krilin.limit_jobs j
         set state = 2, lease_until = now() + interval '60 s', worker = 1, attempt = attempt + 1
         from c where j.id = c.id returning j.id, j.attempt, j.payload::text";
    let (mut done, limit) = (Vec::new(), i64::try_from(BATCH).expect("it is small"));
    loop {
        let rows: Vec<(i64, i16, String)> =
            sqlx::query_as(statement).bind(&done).bind(limit).fetch_all(pool).await.expect("claiming works");
        if rows.is_empty() && done.is_empty() {
            return;
        }
        done = rows.into_iter().map(|(id, ..)| id).collect();
    }
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
    let mut waits = limit_pickup(pool).await;
    report.figure("sql_pickup_p50_ms", quantile(&mut waits, 0.5), "ms", Goal::Told);
    report.figure("sql_pickup_p99_ms", quantile(&mut waits, 0.99), "ms", Goal::Told);
}

/// Insert, notify, hear, claim: each one statement.
async fn limit_pickup(pool: &PgPool) -> Vec<f64> {
    let mut listener = PgListener::connect_with(pool).await.expect("it connects");
    listener.listen("limit").await.expect("it listens");
    let payload = noop().args.to_string();
    let mut waits = Vec::with_capacity(PICKUPS);
    for _ in 0..PICKUPS {
        tokio::time::sleep(PICKUP_PAUSE).await;
        let begun = Instant::now();
        sqlx::query(LIMIT_INSERT).bind(&payload).execute(pool).await.expect("inserting works");
        sqlx::query("select pg_notify('limit', '')").execute(pool).await.expect("notifying works");
        listener.recv().await.expect("it hears");
        let claim = "update krilin.limit_jobs set state = 2 where id = any(array(
                         select id from krilin.limit_jobs where state = 1 order by priority, id limit 10
                         for update skip locked)) returning id";
        sqlx::query(claim).execute(pool).await.expect("claiming works");
        waits.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    waits
}
