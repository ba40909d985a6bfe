//! A worker of its own process, with the one kind of the storm: a row is its effect, committed with the job's end.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use krilin::{
    clock::SystemClock,
    model::{
        job::{Failure, Outcome},
        policy::{Policies, Policy},
        secret::Secret,
    },
    queue::{
        Queue, complete,
        registry::{Attempt, Handler, Registry},
        worker::{self, Lane, WorkerOptions},
    },
    store,
};
use serde_json::Value;
use tokio::{io::AsyncBufReadExt, time::sleep};

/// The kind.
pub const KIND: &str = "bench_effect";
/// The name of this bench on the command line.
pub const NAME: &str = "crash-worker";
/// Jobs that one worker runs at once.
const CONCURRENCY: usize = 32;
/// Connections of one worker for its handlers.
const CONNECTIONS: u32 = 16;

const POLICY: &str = r#"
description = "Writes one row."
queue = "bench"
priority = 0
asked_by = "system"
completion = "transaction"
timeout = "2m"
max_attempts = 100
backoff = { first = "100ms", factor = 1.5, longest = "2s", jitter = 0.2 }
"#;

/// The policies of the storm.
pub fn policies() -> Policies {
    Policies::default().with(KIND, Policy::parse(KIND, POLICY, &[]).expect("it is written above"))
}

struct Effect;

impl Handler for Effect {
    fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async move {
            let args: Value = serde_json::from_str(attempt.job.args.get()).expect("of our own making");
            let pause = |key: &str| Duration::from_millis(args[key].as_u64().unwrap_or(0));
            if !pause("before").is_zero() {
                sleep(pause("before")).await;
            }
            let mut tx = attempt.begin().await?;
            let effect = sqlx::query("insert into krilin.bench_effects (job_id) values ($1)").bind(attempt.job.id);
            store::within(effect.execute(&mut *tx)).await?;
            if !pause("after").is_zero() {
                sleep(pause("after")).await;
            }
            complete::in_transaction(&mut tx, &attempt.lease, None).await?;
            tx.commit().await?;
            Ok(Outcome::Done(None))
        })
    }
}

/// The worker process: says its id and works until it is killed.
pub async fn work(url: &str) -> bool {
    let pool = store::pool(&Secret::new(url), "krilin-bench-worker", CONNECTIONS).expect("of our own making");
    let queue = Queue::new(&pool, Arc::new(SystemClock), policies());
    let registry = Registry::new(queue.policies(), [(KIND, Arc::new(Effect) as Arc<dyn Handler>)]).expect("one kind");
    let worker = worker::start(&queue, &registry, &pool, &WorkerOptions::new(vec![Lane::new("bench", CONCURRENCY)]));
    println!("{}", worker.id);
    std::future::pending::<()>().await;
    true
}

/// A worker that was started.
pub struct Process {
    /// Its id in the tables.
    pub id: String,
    /// The process.
    pub child: Child,
}

impl Process {
    /// Starts one on `url` and waits for its id.
    pub async fn start(url: &Secret) -> Self {
        let program = std::env::current_exe().expect("the program is known");
        let mut child = Command::new(program)
            .args([NAME, url.expose()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this very program starts again");
        let stdout = child.stdout.take().expect("it is piped");
        let stdout = tokio::process::ChildStdout::from_std(stdout).expect("on a runtime");
        let mut lines = tokio::io::BufReader::new(stdout).lines();
        let id = lines.next_line().await.expect("it speaks").expect("it says its id first");
        Self { id, child }
    }

    /// Ends it as an operator's `kill -9` or the kernel's lack of memory would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
