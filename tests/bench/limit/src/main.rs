//! The limit: what hand-written SQL gets out of the same Postgres. Not a job system: it has no retries, no leases that
//! run out, no limits, nobody watches it.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, Instant},
};

use adapter::{SEEN, System, payload, rate};
use futures::future::join_all;
use serde_json::Value;
use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

const TABLES: &str = "
    drop table if exists limit_jobs, limit_history, limit_effects;
    create table limit_jobs (
        id bigint generated always as identity primary key, user_id uuid, kind text not null, state smallint not null,
        priority smallint not null, attempt smallint not null default 0, worker integer, lease_until timestamptz,
        created_at timestamptz not null default now(), payload jsonb not null);
    create index on limit_jobs (priority, id) where state = 1;
    create table limit_history (
        id bigint, user_id uuid, kind text, state smallint, attempt smallint, created_at timestamptz, payload jsonb,
        finished_at timestamptz not null default now());
    create table limit_effects (id bigint primary key, day text not null);";

const ONE: &str = "insert into limit_jobs (kind, state, priority, payload) values ('noop', 1, 0, $1::jsonb)";
const MANY: &str = "insert into limit_jobs (kind, state, priority, payload)
                    select 'noop', 1, 0, p::jsonb from unnest($1::text[]) as p";
/// Ends the jobs of the batch before, keeps them as history, takes the next batch: one statement, one commit.
const TURN: &str = "
    with ended as (delete from limit_jobs where id = any($1) returning *),
    history as (insert into limit_history (id, user_id, kind, state, attempt, created_at, payload)
                select id, user_id, kind, 3, attempt, created_at, payload from ended),
    next as materialized (select id from limit_jobs where state = 1 order by priority, id limit $2
                          for update skip locked)
    update limit_jobs j
    set state = 2, lease_until = now() + interval '60 s', worker = 1, attempt = attempt + 1
    from next where j.id = next.id returning j.id, j.attempt, j.payload::text";

/// Rows of one statement for many.
const BULK: usize = 10_000;
/// Rows of one turn of the drain.
const BATCH: i64 = 4_000;
/// Connections that each run one job per transaction.
const TRANSACTIONS: usize = 16;

struct Limit {
    pool: PgPool,
    left: AtomicI64,
}

impl System for Limit {
    type Worker = JoinHandle<()>;

    async fn connect(url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(20).connect(url).await.expect("it connects");
        Self { pool, left: AtomicI64::new(0) }
    }

    async fn setup(&self) {
        sqlx::raw_sql(TABLES).execute(&self.pool).await.expect("its tables");
    }

    async fn empty(&self) {
        sqlx::raw_sql("truncate limit_jobs, limit_history, limit_effects").execute(&self.pool).await.expect("tables");
    }

    async fn enqueue(&self) {
        sqlx::query(ONE).bind(payload().to_string()).execute(&self.pool).await.expect("it stores");
        if SEEN_BY_NOTICE.load(Ordering::Relaxed) {
            sqlx::query("select pg_notify('limit', '')").execute(&self.pool).await.expect("it notifies");
        }
    }

    async fn bulk(&self, jobs: usize) {
        for _ in 0..jobs.div_ceil(BULK) {
            let payloads: Vec<_> = (0..BULK).map(|_| payload().to_string()).collect();
            sqlx::query(MANY).bind(payloads).execute(&self.pool).await.expect("it stores");
        }
    }

    /// With a backlog: turns until nothing is left, here and now. Without: listens and claims.
    async fn work(&self, many: bool) -> Self::Worker {
        let pool = self.pool.clone();
        if many {
            turns(&pool).await;
            return tokio::spawn(async {});
        }
        SEEN_BY_NOTICE.store(true, Ordering::Relaxed);
        let mut listener = PgListener::connect_with(&pool).await.expect("it connects");
        listener.listen("limit").await.expect("it listens");
        tokio::spawn(async move {
            let mut done: Vec<i64> = Vec::new();
            loop {
                let rows: Vec<(i64, i16, String)> =
                    sqlx::query_as(TURN).bind(&done).bind(100_i64).fetch_all(&pool).await.expect("it claims");
                done = rows.iter().map(|row| row.0).collect();
                done.iter().for_each(|_| SEEN.one());
                if done.is_empty() {
                    let _ = tokio::time::timeout(Duration::from_secs(1), listener.recv()).await;
                }
            }
        })
    }

    async fn left(&self) -> i64 {
        self.left.load(Ordering::Relaxed)
    }

    async fn own(&self, command: &str, numbers: &[usize]) -> Option<Value> {
        match (command, numbers) {
            ("coalesced", [jobs, producers]) => Some(coalesced(&self.pool, *jobs, *producers).await),
            ("transactional", [jobs]) => Some(transactional(&self.pool, *jobs).await),
            _ => None,
        }
    }
}

/// Whether an enqueuing tells the worker; a plain one is one statement.
static SEEN_BY_NOTICE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

async fn turns(pool: &PgPool) {
    let mut done: Vec<i64> = Vec::new();
    loop {
        let rows: Vec<(i64, i16, String)> =
            sqlx::query_as(TURN).bind(&done).bind(BATCH).fetch_all(pool).await.expect("it claims");
        if rows.is_empty() && done.is_empty() {
            return;
        }
        rows.iter().for_each(|_| SEEN.one());
        done = rows.into_iter().map(|row| row.0).collect();
    }
}

/// Producers whose rows travel together: whoever waits while an insert is under way shares the next one.
async fn coalesced(pool: &PgPool, jobs: usize, producers: usize) -> Value {
    let (send, mut inbox) = mpsc::channel::<(String, oneshot::Sender<()>)>(1_024);
    let writer = pool.clone();
    tokio::spawn(async move {
        let mut waiting = Vec::new();
        while inbox.recv_many(&mut waiting, 1_024).await > 0 {
            let (payloads, callers): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
            sqlx::query(MANY).bind(payloads).execute(&writer).await.expect("it stores");
            callers.into_iter().for_each(|caller| _ = caller.send(()));
        }
    });
    let share = jobs / producers;
    let begun = Instant::now();
    join_all((0..producers).map(|_| async {
        for _ in 0..share {
            let (done, stored) = oneshot::channel();
            send.send((payload().to_string(), done)).await.expect("the writer lives");
            stored.await.expect("the writer lives");
        }
    }))
    .await;
    rate(share * producers, begun)
}

/// One job a transaction: its one row of effect and its end are one commit. Claims come in batches of their own.
async fn transactional(pool: &PgPool, jobs: usize) -> Value {
    let ids: Vec<i64> = sqlx::query_scalar("select id from limit_jobs where state = 1 order by priority, id limit $1")
        .bind(jobs as i64)
        .fetch_all(pool)
        .await
        .expect("its table");
    let begun = Instant::now();
    join_all((0..TRANSACTIONS).map(|lane| {
        let ids = &ids;
        async move {
            for batch in ids
                .chunks(TRANSACTIONS * 16)
                .map(|chunk| chunk.iter().copied().skip(lane).step_by(TRANSACTIONS).collect::<Vec<_>>())
            {
                let claim = "update limit_jobs set state = 2, lease_until = now() + interval '60 s', worker = 1,
                             attempt = attempt + 1 where id = any($1)";
                sqlx::query(claim).bind(&batch).execute(pool).await.expect("it claims");
                for id in batch {
                    one_transaction(pool, id).await;
                }
            }
        }
    }))
    .await;
    rate(jobs, begun)
}

async fn one_transaction(pool: &PgPool, id: i64) {
    let mut transaction = pool.begin().await.expect("it begins");
    sqlx::query("insert into limit_effects (id, day) values ($1, '2026-01-01')")
        .bind(id)
        .execute(&mut *transaction)
        .await
        .expect("it inserts");
    let end = "with ended as (delete from limit_jobs where id = $1 and state = 2 returning *)
               insert into limit_history (id, user_id, kind, state, attempt, created_at, payload)
               select id, user_id, kind, 3, attempt, created_at, payload from ended";
    sqlx::query(end).bind(id).execute(&mut *transaction).await.expect("it ends");
    transaction.commit().await.expect("it commits");
}

fn main() {
    adapter::main::<Limit>();
}
