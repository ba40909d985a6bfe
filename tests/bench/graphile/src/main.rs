//! `graphile_worker`, the Rust port, with its local queue and batched completions where a backlog waits.

use std::time::Duration;

use adapter::{SEEN, System};
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, Worker, WorkerContext, WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::task::JoinHandle;

/// Jobs in one call for many.
const BULK: usize = 10_000;

#[derive(Clone, Serialize, Deserialize)]
struct Noop {
    habit: String,
    day: String,
}

impl Noop {
    fn new() -> Self {
        serde_json::from_value(adapter::payload()).expect("two strings")
    }
}

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {
        SEEN.one();
        Ok::<(), String>(())
    }
}

struct Graphile {
    pool: PgPool,
    utils: WorkerUtils,
}

async fn worker(pool: &PgPool, many: bool) -> Worker {
    let mut options = WorkerOptions::default()
        .pg_pool(pool.clone())
        .listen_os_shutdown_signals(false)
        .poll_interval(Duration::from_secs(1))
        .concurrency(if many { 1_000 } else { 16 })
        .define_job::<Noop>();
    if many {
        options = options
            .local_queue(LocalQueueConfig { size: 4_000, ..LocalQueueConfig::default() })
            .complete_job_batch_delay(Duration::from_millis(2));
    }
    options.init().await.expect("it starts")
}

impl System for Graphile {
    type Worker = JoinHandle<()>;

    async fn connect(url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(20).connect(url).await.expect("it connects");
        let utils = worker(&pool, false).await.create_utils();
        Self { pool, utils }
    }

    /// Making a worker has installed it.
    async fn setup(&self) {}

    async fn empty(&self) {
        sqlx::raw_sql("truncate graphile_worker._private_jobs cascade").execute(&self.pool).await.expect("its table");
    }

    async fn enqueue(&self) {
        self.utils.add_job(Noop::new(), JobSpec::default()).await.expect("it stores");
    }

    async fn bulk(&self, jobs: usize) {
        let spec = JobSpec::default();
        for _ in 0..jobs.div_ceil(BULK) {
            let many: Vec<_> = (0..BULK).map(|_| (Noop::new(), &spec)).collect();
            self.utils.add_jobs::<Noop>(&many).await.expect("it stores");
        }
    }

    async fn work(&self, many: bool) -> Self::Worker {
        let worker = worker(&self.pool, many).await;
        tokio::spawn(async move { worker.run().await.expect("the worker runs") })
    }

    async fn left(&self) -> i64 {
        let count = "select count(*) from graphile_worker._private_jobs";
        sqlx::query_scalar(count).fetch_one(&self.pool).await.expect("its table")
    }
}

fn main() {
    adapter::main::<Graphile>();
}
