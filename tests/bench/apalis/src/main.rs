//! apalis 1.0 over its own Postgres storage (`apalis-postgres`), woken by `NOTIFY`.

use std::time::Duration;

use adapter::{SEEN, System, payload};
use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage, queries::push_tasks};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;

const QUEUE: &str = "noop";
/// Jobs in one call for many.
const BULK: usize = 10_000;

struct Apalis(PgPool);

fn task() -> apalis_postgres::PgTask {
    TaskBuilder::new(payload().to_string().into_bytes()).build()
}

async fn noop(_: Value) -> Result<(), BoxDynError> {
    SEEN.one();
    Ok(())
}

impl System for Apalis {
    type Worker = std::thread::JoinHandle<()>;

    async fn connect(url: &str) -> Self {
        Self(PgPoolOptions::new().max_connections(20).connect(url).await.expect("it connects"))
    }

    async fn setup(&self) {
        sqlx::raw_sql("create extension if not exists hstore").execute(&self.0).await.expect("Postgres has hstore");
        PostgresStorage::setup(&self.0).await.expect("its migrations apply");
    }

    async fn empty(&self) {
        sqlx::raw_sql("truncate apalis.jobs cascade").execute(&self.0).await.expect("its table");
    }

    async fn enqueue(&self) {
        let mut connection = self.0.acquire().await.expect("a connection");
        push_tasks(&mut *connection, QUEUE, vec![task()]).await.expect("it stores");
    }

    async fn bulk(&self, jobs: usize) {
        let mut connection = self.0.acquire().await.expect("a connection");
        for _ in 0..jobs.div_ceil(BULK) {
            push_tasks(&mut *connection, QUEUE, (0..BULK).map(|_| task()).collect()).await.expect("it stores");
        }
    }

    async fn work(&self, many: bool) -> Self::Worker {
        let config = Config::default()
            .queue(QUEUE)
            .batch_size(if many { 1_000 } else { 100 })
            .lock_tasks(false)
            .heartbeat_interval(Duration::from_secs(1));
        let backend = PostgresStorage::<Value>::new(&self.0).with_config(config).with_pubsub();
        // Its future is tied to a lifetime that `tokio::spawn` does not take; a thread of the same runtime does.
        let runtime = tokio::runtime::Handle::current();
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let name = format!("bench-{}", std::process::id());
                let worker = WorkerBuilder::new(name).backend(backend).parallelize(tokio::spawn).build(noop);
                worker.run().await.expect("the worker runs");
            });
        })
    }

    async fn left(&self) -> i64 {
        let count = "select count(*) from apalis.jobs where status <> 'Done'";
        sqlx::query_scalar(count).fetch_one(&self.0).await.expect("its table")
    }
}

fn main() {
    adapter::main::<Apalis>();
}
