//! Two test-only kinds whose arguments say how an attempt is to end, and a queue with them.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use krilin::{
    clock::SystemClock,
    model::{
        error::{Code, CtxError},
        host::{LogLevel, LogLine},
        id::JobId,
        job::{Failure, JobView, NewJob, Outcome},
        policy::{Policies, Policy},
    },
    queue::{
        Queue, complete,
        registry::{Attempt, Handler, Registry},
        worker::{self, Lane, Worker, WorkerOptions},
    },
    store,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio::sync::{Notify, mpsc};

use crate::world::World;

/// The longest a test waits for anything. Only a failing test waits that long; a busy machine may need much of it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A kind that ends in batches.
pub const BATCH: &str = "test_batch";
/// A kind that ends in its own transaction.
pub const OWN: &str = "test_own";

/// A queue over a world of its own.
pub struct Kit {
    pub world: World,
    pub queue: Queue,
    pub registry: Registry,
    pub options: WorkerOptions,
    /// Opens the handlers that were told to block.
    pub gate: Arc<Notify>,
    /// The ids of the attempts that began.
    pub began: mpsc::UnboundedReceiver<(JobId, u32)>,
    /// The ids of the jobs whose handlers heard that they were cancelled.
    pub heard: mpsc::UnboundedReceiver<JobId>,
}

struct Scripted {
    own: bool,
    gate: Arc<Notify>,
    began: mpsc::UnboundedSender<(JobId, u32)>,
    heard: mpsc::UnboundedSender<JobId>,
}

impl Handler for Scripted {
    fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async move {
            let _ = self.began.send((attempt.job.id, attempt.job.tries.attempt));
            let args: Value = serde_json::from_str(attempt.job.args.get()).unwrap();
            let millis = Duration::from_millis(args["ms"].as_u64().unwrap_or(0));
            let error = |code| CtxError::new(code, "as told");
            for message in args["log"].as_array().into_iter().flatten() {
                let message = message.as_str().unwrap().to_owned();
                attempt.report.log(&LogLine { level: LogLevel::Info, message, fields: Value::Null });
            }
            if let Some(progress) = args.get("progress") {
                attempt.report.progress(progress, Some("as told")).unwrap();
            }
            match args["do"].as_str().unwrap_or("ok") {
                "block" => self.gate.notified().await,
                "listen" => {
                    attempt.cancelled.wait().await;
                    let _ = self.heard.send(attempt.job.id);
                }
                "sleep" => tokio::time::sleep(millis).await,
                "fail" => return Err(error(Code::Unavailable).into()),
                "once" => return Err(error(Code::Conflict).into()),
                "fatal" => return Err(Failure::fatal(error(Code::Refused))),
                "later" => return Err(Failure::Retry { source: error(Code::RateLimited), after: Some(millis) }),
                "fail_until" if u64::from(attempt.job.tries.attempt) < args["n"].as_u64().unwrap() => {
                    return Err(error(Code::Unavailable).into());
                }
                "snooze" if args["ms"].is_u64() => return Ok(Outcome::Snooze(millis)),
                "cancel" => return Ok(Outcome::Cancel("as told".to_owned())),
                "panic" => panic!("as told"),
                _ => {}
            }
            if args["result_text"] == "nul" {
                return Ok(Outcome::Done(Some(RawValue::from_string("\"\\u0000\"".to_owned()).unwrap())));
            }
            let result = to_raw_value(&args.get("result").cloned().unwrap_or_else(|| json!({"ok": true}))).unwrap();
            if self.own {
                let mut tx = attempt.begin().await?;
                sqlx::query("insert into test_effects (job_id) values ($1)")
                    .bind(attempt.job.id)
                    .execute(&mut *tx)
                    .await
                    .map_err(store::Error::from)?;
                attempt.report.write_with(&mut *tx, &attempt.lease).await?;
                complete::in_transaction(&mut tx, &attempt.lease, Some(&result)).await?;
                tx.commit().await?;
            }
            Ok(Outcome::Done(Some(result)))
        })
    }
}

fn policy(completion: &str) -> Policy {
    let text = format!(
        "description = \"for tests\"\nqueue = \"test\"\npriority = 0\nasked_by = \"user\"\ncompletion = \"{completion}\"\n\
         timeout = \"3s\"\ngrace = \"300ms\"\nmax_attempts = 3\nbackoff = {{ first = \"50ms\", factor = 2.0, longest = \"1s\", jitter = 0.1 }}"
    );
    Policy::parse(BATCH, &text, &[]).unwrap()
}

impl Kit {
    pub async fn new() -> Self {
        Self::over(World::new().await).await
    }

    /// Over a world that the test has made.
    pub async fn over(world: World) -> Self {
        sqlx::raw_sql("create table krilin.test_effects (job_id uuid not null)").execute(&world.owner).await.unwrap();
        let policies = Policies::default().with(BATCH, policy("batch")).with(OWN, policy("transaction"));
        let gate = Arc::new(Notify::new());
        let (sender, began) = mpsc::unbounded_channel();
        let (ears, heard) = mpsc::unbounded_channel();
        let handler = |own| {
            Arc::new(Scripted { own, gate: gate.clone(), began: sender.clone(), heard: ears.clone() })
                as Arc<dyn Handler>
        };
        let registry = Registry::new(&policies, [(BATCH, handler(false)), (OWN, handler(true))]).unwrap();
        let queue = Queue::new(&world.pool, Arc::new(SystemClock), policies);
        let mut options = WorkerOptions::new(vec![Lane::new("test", 4)]);
        options.drain = Duration::from_millis(300);
        Self { world, queue, registry, options, gate, began, heard }
    }

    pub fn worker(&self) -> Worker {
        worker::start(&self.queue, &self.registry, &self.world.pool, &self.options)
    }

    pub async fn enqueue(&self, kind: &str, args: Value) -> JobId {
        self.queue.enqueue(job(kind, args)).await.unwrap().job_id
    }

    pub async fn state(&self, id: JobId) -> JobView {
        self.queue.get(id, None).await.unwrap().unwrap()
    }

    /// The job when it has ended, within [`PATIENCE`].
    pub async fn ended(&self, id: JobId) -> JobView {
        let job = self.queue.wait(id, PATIENCE).await.unwrap().unwrap();
        assert!(job.state.is_final(), "{job:?}");
        job
    }

    /// How often jobs had their effect.
    pub async fn effects(&self) -> i64 {
        self.count("select count(*) from krilin.test_effects").await
    }

    pub async fn count(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement).fetch_one(&self.world.pool).await.unwrap()
    }
}

pub fn job(kind: &str, args: Value) -> NewJob {
    NewJob { kind: kind.to_owned(), args, ..NewJob::default() }
}

/// Asks again and again until there is an answer, within [`PATIENCE`].
pub async fn until<T>(ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("it happens within PATIENCE")
}
