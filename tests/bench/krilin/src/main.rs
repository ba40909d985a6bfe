//! Krilin itself: its queue as a library, with two kinds that do nothing and one row.

use std::{num::NonZeroU32, sync::Arc, time::Instant};

use adapter::{SEEN, System, payload, rate};
use futures::future::BoxFuture;
use krilin_os::{
    apps::loaded::Apps,
    clock::SystemClock,
    model::{
        id::UserId,
        job::{Failure, NewJob, Outcome},
        policy::{Policies, Policy},
        secret::Secret,
        token::{Scope, TokenText},
    },
    queue::{
        Queue, complete,
        registry::{Attempt, Handler, Registry},
        worker::{self, Lane, Worker, WorkerOptions},
    },
    sandbox::{Pool, PoolOptions},
    store::{self, tokens, users},
    supervisor::Supervisor,
    web::{self, Parts, Web, limit::Burst},
};
use serde_json::{Value, json};
use sqlx::PgPool;

/// Jobs of one call for many.
const BULK: usize = 10_000;
/// Jobs claimed and ended by one statement where a backlog waits.
const BATCH: usize = 1_000;
/// Jobs at once, each in a transaction of its own.
const TRANSACTIONS: usize = 16;

const NOOP: &str = r#"
description = "Nothing."
queue = "noop"
priority = 0
asked_by = "ASKER"
completion = "batch"
timeout = "10s"
max_attempts = 3
backoff = { first = "1s", factor = 2.0, longest = "1m", jitter = 0.2 }
"#;

struct Noop;

impl Handler for Noop {
    fn run(&self, _: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async {
            SEEN.one();
            Ok(Outcome::Done(None))
        })
    }
}

/// One row, and the job's end, in one commit.
struct Insert;

impl Handler for Insert {
    fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async move {
            let mut transaction = attempt.begin().await?;
            store::within(
                sqlx::query("insert into krilin.bench_effects (id, day) values ($1, '2026-01-01')")
                    .bind(attempt.job.id.0)
                    .execute(&mut *transaction),
            )
            .await?;
            complete::in_transaction(&mut transaction, &attempt.lease, None).await?;
            transaction.commit().await?;
            SEEN.one();
            Ok(Outcome::Done(None))
        })
    }
}

struct Krilin {
    pool: PgPool,
    queue: Queue,
    registry: Registry,
}

fn job(kind: &str) -> NewJob {
    NewJob { kind: kind.to_owned(), args: payload(), ..NewJob::default() }
}

impl Krilin {
    fn worker(&self, lane: Lane) -> Worker {
        // A worker is another process than the producer: it has a queue of its own and hears by notice.
        let queue = Queue::new(&self.pool, Arc::new(SystemClock), self.queue.policies().clone());
        worker::start(&queue, &self.registry, &self.pool, &WorkerOptions::new(vec![lane]))
    }

    async fn transactional(&self, jobs: usize) -> Value {
        for _ in 0..jobs.div_ceil(BULK) {
            self.queue.enqueue_many((0..BULK).map(|_| job("insert")).collect()).await.expect("it stores");
        }
        let begun = Instant::now();
        let _worker = self.worker(Lane::new("insert", TRANSACTIONS));
        SEEN.until(jobs).await;
        rate(jobs, begun)
    }

    /// Serves until the process is ended; says where, and with which token.
    async fn serve(&self) -> Value {
        let clock = Arc::new(SystemClock);
        let id = UserId::new(clock.as_ref());
        let new = krilin_os::model::user::NewUser::parse("Bench", None, "UTC").expect("a name and a zone");
        users::insert(&self.pool, id, &new).await.expect("a user");
        let text = TokenText::mint(clock.as_ref()).expect("randomness");
        let token = tokens::NewToken {
            id: text.id,
            user_id: id,
            name: "bench",
            secret_hash: text.hash(),
            scopes: [Scope::JobsWrite, Scope::JobsRead].into_iter().collect(),
            expires_at: None,
        };
        tokens::insert(&self.pool, token).await.expect("a token");
        let program = std::env::current_exe().expect("this program");
        let parts = Parts {
            pool: self.pool.clone(),
            clock,
            queue: self.queue.clone(),
            apps: Apps::new(self.pool.clone()),
            sandbox: Pool::start(PoolOptions { size: 0, ..PoolOptions::of(program) }).expect("a pool of none"),
        };
        // One token stands for many here.
        let plenty = NonZeroU32::new(1_000_000).expect("it is not zero");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = listener.local_addr().expect("an address");
        println!("{}", json!({ "address": base.to_string(), "token": text.reveal().expose() }));
        let web = Web::with_burst(parts, Burst::new(plenty, plenty));
        web::serve(listener, web, &Supervisor::default(), std::future::pending()).await;
        json!({})
    }
}

impl System for Krilin {
    type Worker = Worker;

    async fn connect(url: &str) -> Self {
        let pool = store::pool(&Secret::new(url), "krilin-bench", 20).expect("a connection string");
        drop(pool.acquire().await.expect("it connects"));
        let policies = [("noop", NOOP.replace("ASKER", "user")), ("insert", transactional_policy())];
        let policies = policies.into_iter().fold(Policies::default(), |all, (name, text)| {
            all.with(name, Policy::parse(name, &text, &[]).expect("it is written above"))
        });
        let handlers = [("noop", Arc::new(Noop) as Arc<dyn Handler>), ("insert", Arc::new(Insert) as _)];
        let registry = Registry::new(&policies, handlers).expect("two kinds");
        Self { queue: Queue::new(&pool, Arc::new(SystemClock), policies), registry, pool }
    }

    /// The runner has made the schema, as `krilin db migrate` does.
    async fn setup(&self) {}

    /// As the others are emptied: a delete would leave its dead rows to the vacuum, in the middle of what is measured next.
    async fn empty(&self) {
        sqlx::raw_sql("truncate krilin.jobs, krilin.job_history, krilin.bench_effects")
            .execute(&self.pool)
            .await
            .expect("its tables");
    }

    async fn enqueue(&self) {
        self.queue.enqueue(job("noop")).await.expect("it stores");
    }

    async fn bulk(&self, jobs: usize) {
        for _ in 0..jobs.div_ceil(BULK) {
            self.queue.enqueue_many((0..BULK).map(|_| job("noop")).collect()).await.expect("it stores");
        }
    }

    async fn work(&self, many: bool) -> Self::Worker {
        self.worker(if many {
            Lane { concurrency: BATCH, prefetch: BATCH, batch: BATCH, ..Lane::new("noop", 1) }
        } else {
            Lane::new("noop", 16)
        })
    }

    async fn left(&self) -> i64 {
        sqlx::query_scalar("select count(*) from krilin.jobs").fetch_one(&self.pool).await.expect("its table")
    }

    async fn own(&self, command: &str, numbers: &[usize]) -> Option<Value> {
        match (command, numbers) {
            ("transactional", [jobs]) => Some(self.transactional(*jobs).await),
            ("serve", []) => Some(self.serve().await),
            _ => None,
        }
    }
}

fn transactional_policy() -> String {
    NOOP.replace("ASKER", "system").replace("\"noop\"", "\"insert\"").replace("\"batch\"", "\"transaction\"")
}

fn main() {
    adapter::main::<Krilin>();
}
