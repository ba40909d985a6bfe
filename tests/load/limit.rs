//! What Postgres itself can do: the least that a queue needs, in plain SQL, beside which `queue` measures ours.

use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::{mpsc, oneshot};

/// The least that a queue needs.
const TABLES: &str = "
    create table krilin.limit_jobs (
        id bigint generated always as identity primary key, user_id uuid, kind text not null, state smallint not null,
        priority smallint not null, attempt smallint not null default 0, worker integer, lease_until timestamptz,
        created_at timestamptz not null default now(), payload jsonb not null);
    create index on krilin.limit_jobs (priority, id) where state = 1;
    create table krilin.limit_history (
        id bigint, user_id uuid, kind text, state smallint, attempt smallint, created_at timestamptz, payload jsonb,
        finished_at timestamptz not null default now());
    create table krilin.bench_effects (id bigint generated always as identity, body text not null);
    grant select, insert, delete on krilin.bench_effects to krilin_runtime;";

const INSERT: &str = "insert into krilin.limit_jobs (kind, state, priority, payload) values ('noop', 1, 0, $1::jsonb)";
const INSERT_MANY: &str = "insert into krilin.limit_jobs (kind, state, priority, payload)
    select 'noop', 1, 0, p::jsonb from unnest($1::text[]) as p";

/// Makes the tables, as their owner.
pub async fn prepare(owner: &PgPool) {
    sqlx::raw_sql(TABLES).execute(owner).await.expect("the tables of the plain SQL are created");
}

/// One producer, one row per statement.
pub async fn insert_singly(pool: &PgPool, payload: &str, count: usize) -> Duration {
    let begun = Instant::now();
    for _ in 0..count {
        sqlx::query(INSERT).bind(payload).execute(pool).await.expect("inserting works");
    }
    begun.elapsed()
}

/// `count` rows by `producers`, of which each waits for its row: whoever comes while an insert is under way shares the next.
pub async fn insert_shared(pool: &PgPool, payload: &str, count: usize, producers: usize) -> Duration {
    let (send, mut inbox) = mpsc::channel::<(String, oneshot::Sender<()>)>(producers);
    let writing = async {
        let mut waiting = Vec::new();
        while inbox.recv_many(&mut waiting, producers).await > 0 {
            let (payloads, callers): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
            sqlx::query(INSERT_MANY).bind(payloads).execute(pool).await.expect("inserting works");
            for caller in callers {
                let _ = caller.send(());
            }
        }
    };
    let producer = async |send: mpsc::Sender<(String, oneshot::Sender<()>)>| {
        for _ in 0..count / producers {
            let (done, stored) = oneshot::channel();
            send.send((payload.to_owned(), done)).await.expect("the writer lives");
            stored.await.expect("the writer lives");
        }
    };
    let producing: Vec<_> = (0..producers).map(|_| producer(send.clone())).collect();
    drop(send);
    let begun = Instant::now();
    tokio::join!(writing, join_all(producing));
    begun.elapsed()
}

/// `count` rows, `at_once` per statement.
pub async fn insert_together(pool: &PgPool, payload: &str, count: usize, at_once: usize) -> Duration {
    let begun = Instant::now();
    for _ in 0..count / at_once {
        let payloads = vec![payload.to_owned(); at_once];
        sqlx::query(INSERT_MANY).bind(payloads).execute(pool).await.expect("inserting works");
    }
    begun.elapsed()
}

/// Claims and ends `batch` jobs in one statement on one connection, no worker, until none is left.
pub async fn drain(pool: &PgPool, batch: usize) -> Duration {
    let statement = "with d as (delete from krilin.limit_jobs where id = any($1) returning *),
         h as (insert into krilin.limit_history (id, user_id, kind, state, attempt, created_at, payload)
               select id, user_id, kind, 3, attempt, created_at, payload from d),
         c as materialized (select id from krilin.limit_jobs where state = 1 order by priority, id limit $2
                            for update skip locked)
         update krilin.limit_jobs j
         set state = 2, lease_until = now() + interval '60 s', worker = 1, attempt = attempt + 1
         from c where j.id = c.id returning j.id, j.attempt, j.payload::text";
    let begun = Instant::now();
    let (mut done, limit) = (Vec::new(), i64::try_from(batch).expect("it is small"));
    loop {
        let rows: Vec<(i64, i16, String)> =
            sqlx::query_as(statement).bind(&done).bind(limit).fetch_all(pool).await.expect("claiming works");
        if rows.is_empty() && done.is_empty() {
            return begun.elapsed();
        }
        done = rows.into_iter().map(|(id, ..)| id).collect();
    }
}

/// A job per transaction on each of `connections`: take one, do its insert, move it to the history, commit.
pub async fn drain_singly(pool: &PgPool, connections: usize) -> Duration {
    let worker = async || {
        loop {
            let mut tx = pool.begin().await?;
            let take = "select id, payload::text from krilin.limit_jobs where state = 1 order by priority, id limit 1
                        for update skip locked";
            let Some((id, payload)) = sqlx::query_as::<_, (i64, String)>(take).fetch_optional(&mut *tx).await? else {
                return Ok::<_, sqlx::Error>(());
            };
            let effect = "insert into krilin.bench_effects (body) values ($1)";
            sqlx::query(effect).bind(payload).execute(&mut *tx).await?;
            let end = "with d as (delete from krilin.limit_jobs where id = $1 returning *)
                insert into krilin.limit_history (id, user_id, kind, state, attempt, created_at, payload)
                select id, user_id, kind, 3, attempt, created_at, payload from d";
            sqlx::query(end).bind(id).execute(&mut *tx).await?;
            tx.commit().await?;
        }
    };
    let begun = Instant::now();
    try_join_all((0..connections).map(|_| worker())).await.expect("working works");
    begun.elapsed()
}

/// Insert, notify, hear, claim, each one statement; the milliseconds from the first to the last.
pub async fn pickup(pool: &PgPool, payload: &str, (count, pause): (usize, Duration)) -> Vec<f64> {
    let mut listener = PgListener::connect_with(pool).await.expect("it connects");
    listener.listen("limit").await.expect("it listens");
    let mut waits = Vec::with_capacity(count);
    for _ in 0..count {
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        sqlx::query(INSERT).bind(payload).execute(pool).await.expect("inserting works");
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
