//! Actions as jobs: an app's code, what it writes and the job's end, as one.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use krilin::{
    apps::publish,
    clock::SystemClock,
    jobs::{self, app_action::AppAction},
    model::{
        bundle::Bundle,
        id::{AppId, JobId, LeaseToken, UserId},
        job::{ClaimedJob, JobView, Lease, NewJob, State, Ties, Tries},
        policy::Policy,
    },
    queue::{
        Filter, Queue,
        lease::Cancelled,
        registry::{Attempt, Handler, Registry},
        report::Report,
        worker::{self, Lane, Worker, WorkerOptions},
    },
    sandbox::{Pool, PoolOptions},
    store,
};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    cluster::Directory,
    kinds::{PATIENCE, until},
    kit,
    kit::Kit,
};

const CODE: &str = r#"
export async function increment(ctx) {
  const [counter] = await ctx.storage.query("counters", { limit: 1 });
  if (counter === undefined) return ctx.storage.insert("counters", { count: 1 });
  return ctx.storage.update("counters", counter.id, { count: counter.count + 1 });
}
export async function write_and_throw(ctx) {
  await ctx.storage.insert("counters", { count: 7 });
  throw new TypeError("after the write");
}
export async function write_and_refuse(ctx) {
  await ctx.storage.insert("counters", { count: 7 });
  ctx.fail("Not on a Sunday.", { day: "Sunday" });
}
export async function write_and_spin(ctx) {
  await ctx.storage.insert("counters", { count: 7 });
  for (;;);
}
export async function log_and_throw(ctx) {
  ctx.log("before the fall", { n: 1 });
  await ctx.job.progress(0.25, "a quarter");
  await ctx.storage.insert("counters", { count: 7 });
  throw new Error("fallen");
}
export async function log_and_gather(ctx) {
  ctx.log("gathering");
  return (await ctx.job.children()).map((end) => [end.state, end.result.count]);
}
export async function tell(ctx, input) {
  return { now: ctx.now(), job: ctx.job.id, user: ctx.user.name, input };
}
"#;

/// An app whose actions misbehave, its user, a queue, and no worker yet.
struct Stage {
    kit: Kit,
    user: UserId,
    app: AppId,
    queue: Queue,
    actions: AppAction,
}

impl Stage {
    async fn new() -> Self {
        let kit = Kit::new().await;
        let actions = [
            "log_and_throw",
            "log_and_gather",
            "increment",
            "write_and_throw",
            "write_and_refuse",
            "write_and_spin",
            "tell",
        ];
        let manifest = kit::manifest(&json!({
            "metadata": {"id": "counter", "name": "Counter", "version": "1.0.0", "author": "Test"},
            "permissions": {"data_scopes": ["read:own_data", "write:own_data"]},
            "database": {"tables": [{"name": "counters", "schema": {"count": "integer"}}]},
            "actions": actions.map(|id| json!({"id": id})),
        }));
        let mut owner = kit.world.owner.acquire().await.unwrap();
        let code = Bundle::new("app.js", CODE);
        publish::publish(&mut owner, &manifest, &code, publish::Options::default()).await.unwrap();
        drop(owner);
        let user = kit.user("Europe/Berlin").await;
        kit.install(user, &manifest).await;
        let queue = Queue::new(&kit.world.pool, Arc::new(SystemClock), jobs::policies(None).unwrap());
        let sandbox = Pool::start(PoolOptions::of(env!("CARGO_BIN_EXE_krilin"))).unwrap();
        let actions = AppAction { apps: kit.apps.clone(), sandbox };
        Self { kit, user, app: manifest.metadata.id, queue, actions }
    }

    fn worker(&self) -> Worker {
        let registry = Registry::new(self.queue.policies(), jobs::handlers(self.actions.clone())).unwrap();
        let options = WorkerOptions::new(vec![Lane::new("default", 8)]);
        worker::start(&self.queue, &registry, &self.kit.world.pool, &options)
    }

    async fn enqueue(&self, action: &str) -> JobId {
        self.queue.enqueue(self.job(action)).await.unwrap().job_id
    }

    fn job(&self, action: &str) -> NewJob {
        NewJob {
            kind: "app_action".to_owned(),
            user_id: Some(self.user),
            app_id: Some(self.app.clone()),
            args: json!({"action": action, "input": {"a": 1}}),
            max_attempts: Some(1),
            awaited: true,
            ..NewJob::default()
        }
    }

    /// What the job has logged.
    async fn log(&self, id: JobId) -> Vec<String> {
        let batches = self.queue.log(id, 0, 100).await.unwrap();
        batches.into_iter().flat_map(|batch| batch.lines).map(|line| line.message).collect()
    }

    /// The job when it has ended. A second of CPU time, which one program here spends, takes longer on a busy machine.
    async fn ended(&self, id: JobId) -> JobView {
        let job = self.queue.wait(id, PATIENCE).await.unwrap().unwrap();
        assert!(job.state.is_final(), "{job:?}");
        job
    }

    /// What is in the user's table.
    async fn counts(&self) -> Vec<i64> {
        let pass = self.kit.reading(self.user, &self.app).await;
        let rows = pass.rows("counters", json!({})).await;
        rows.iter().map(|row| row["count"].as_i64().unwrap()).collect()
    }

    /// The attempt of a worker that holds `token` for the job.
    fn attempt(&self, id: JobId, action: &str, token: LeaseToken) -> Attempt {
        let now = kit::now();
        let job = ClaimedJob {
            id,
            kind: "app_action".to_owned(),
            user_id: Some(self.user),
            app_id: Some(self.app.clone()),
            args: to_raw_value(&json!({"action": action, "input": {}})).unwrap(),
            tries: Tries { attempt: 1, max_attempts: 1, last_code: None, snoozes: 0 },
            created_at: now,
            due_at: None,
            trace_parent: None,
            cause: None,
            awaited: false,
            ties: Ties::default(),
        };
        let lease = Lease { job_id: id, token };
        Attempt {
            job: Box::new(job),
            lease,
            stack: self.queue.stack().clone(),
            relaxed: self.queue.stack().clone(),
            cancelled: Cancelled::default(),
            report: Report::default(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_when_it_is_on_the_disk() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    // As in production; the cluster of the tests waits for no disk.
    let pool = store::beside(&stage.kit.world.pool, 4, &[("synchronous_commit", "on")]);
    let teller = Queue::new(&pool, Arc::new(SystemClock), stage.queue.policies().clone());
    for look in ["get", "list", "wait"] {
        let id = stage.enqueue("increment").await;
        stage.ended(id).await;
        let end = sqlx::query_scalar("select pg_current_wal_insert_lsn()::text");
        let end: String = end.fetch_one(&stage.kit.world.pool).await.unwrap();
        let told = match look {
            "get" => teller.get(id, None).await.unwrap(),
            "list" => teller.list(&Filter::default(), None, 1).await.unwrap().pop(),
            _ => teller.wait(id, PATIENCE).await.unwrap(),
        };
        assert_eq!(told.unwrap().state, State::Done);
        let flushed = sqlx::query_scalar("select pg_current_wal_flush_lsn() >= $1::pg_lsn").bind(end);
        let flushed: bool = flushed.fetch_one(&stage.kit.world.pool).await.unwrap();
        assert!(flushed, "{look}");
    }
    assert!(worker.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actions_rows_and_its_jobs_end_come_together() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    let id = stage.enqueue("increment").await;
    let job = stage.ended(id).await;
    assert_eq!(job.state, State::Done, "{job:?}");
    let result: Value = serde_json::from_str(job.result.unwrap().get()).unwrap();
    assert_eq!(result["count"], 1);
    assert!(result.get("user_id").is_none(), "an app never sees who owns a row: {result}");
    assert_eq!(stage.counts().await, [1]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_fails_leaves_nothing_and_says_where() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    let threw = stage.ended(stage.enqueue("write_and_throw").await).await;
    let refused = stage.ended(stage.enqueue("write_and_refuse").await).await;
    let spun = stage.ended(stage.enqueue("write_and_spin").await).await;
    assert_eq!([threw.state, refused.state, spun.state], [State::Dead; 3]);
    let (threw, refused, spun) = (threw.error.unwrap(), refused.error.unwrap(), spun.error.unwrap());
    assert_eq!(threw.code.as_str(), "AppError");
    assert_eq!(threw.message, "TypeError: after the write");
    let at = threw.details.unwrap()["at"].as_str().unwrap().to_owned();
    assert!(at.starts_with("app.js:9:"), "the author's file and line, not {at}");
    assert_eq!((refused.code.as_str(), refused.message.as_str()), ("Refused", "Not on a Sunday."));
    assert_eq!(spun.code.as_str(), "CpuLimit");
    assert_eq!(stage.counts().await, [0_i64; 0]);
    assert_eq!(stage.ended(stage.enqueue("increment").await).await.state, State::Done, "the worker goes on");
    worker.stop().await;
}

/// The children that run `program`, and what each has used of the CPU, in clock ticks (proc_pid_stat(5), utime).
fn children(program: &Path) -> HashMap<u32, u64> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).next() == Some(program.as_os_str().as_encoded_bytes())
    };
    let ticks = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(11)?.parse().ok()?))
    };
    pids.filter(ours).filter_map(ticks).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_child_of_a_cancelled_action_that_does_not_listen_is_killed_after_its_grace() {
    let mut stage = Stage::new().await;
    // Under a name of its own, so that its children are told from those of other tests.
    let directory = Directory::new("grace");
    let program = directory.0.join("krilin");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_krilin"), &program).unwrap();
    stage.actions.sandbox = Pool::start(PoolOptions { size: 2, ..PoolOptions::of(&program) }).unwrap();
    let text = jobs::POLICIES.iter().find(|(kind, _)| *kind == "app_action").unwrap().1;
    let hasty = Policy::parse("app_action", &format!("grace = \"100ms\"\n{text}"), &[]).unwrap();
    let policies = jobs::policies(None).unwrap().with("app_action", hasty);
    stage.queue = Queue::new(&stage.kit.world.pool, Arc::new(SystemClock), policies);
    until(async || (children(&program).len() == 2).then_some(())).await;
    let before = children(&program);
    let worker = stage.worker();
    let id = stage.enqueue("write_and_spin").await;
    let spins = |(pid, ticks): (u32, u64)| (ticks >= before.get(&pid).copied().unwrap_or(0) + 5).then_some(pid);
    let spinning = until(async || children(&program).into_iter().find_map(spins)).await;
    stage.queue.cancel(id, None).await.unwrap();
    assert_eq!(stage.ended(id).await.state, State::Cancelled);
    until(async || (!children(&program).contains_key(&spinning)).then_some(())).await;
    assert_eq!(stage.counts().await, [0_i64; 0], "what it wrote went with it");
    assert_eq!(stage.ended(stage.enqueue("increment").await).await.state, State::Done, "another child is there");
    assert!(worker.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_of_one_installation_never_interleave() {
    let stage = Stage::new().await;
    let mut jobs = Vec::new();
    for _ in 0..24 {
        jobs.push(stage.enqueue("increment").await);
    }
    let (one, two) = (stage.worker(), stage.worker());
    for id in jobs {
        assert_eq!(stage.ended(id).await.state, State::Done);
    }
    assert_eq!(stage.counts().await, [24]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombies_writes_are_refused() {
    let stage = Stage::new().await;
    let id = stage.enqueue("increment").await;
    let zombie = stage.attempt(id, "increment", LeaseToken::new(&SystemClock));
    let ended = stage.actions.run(zombie).await;
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(stage.counts().await, [0_i64; 0], "what was done under a lease that is no more must be gone");
    let job = stage.queue.get(id, Some(stage.user)).await.unwrap().unwrap();
    assert_eq!(job.state, State::Pending, "the job is not the zombie's to end");

    let worker = stage.worker();
    assert_eq!(stage.ended(id).await.state, State::Done);
    assert_eq!(stage.counts().await, [1]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_sees_the_instant_of_the_request_and_its_own_job() {
    let stage = Stage::new().await;
    let id = stage.enqueue("tell").await;
    let asked = stage.queue.get(id, None).await.unwrap().unwrap().created_at;
    let worker = stage.worker();
    let job = stage.ended(id).await;
    let told: Value = serde_json::from_str(job.result.unwrap().get()).unwrap();
    assert_eq!(told["job"], id.to_string());
    assert_eq!(told["user"], "Ada");
    assert_eq!(told["input"], json!({"a": 1}));
    let now: chrono::DateTime<chrono::Utc> = told["now"].as_str().unwrap().parse().unwrap();
    assert_eq!(now.timestamp_millis(), asked.timestamp_millis());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_action_and_an_app_that_is_not_installed_are_final() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    let unknown = stage.ended(stage.enqueue("incremnt").await).await.error.unwrap();
    assert_eq!(unknown.code.as_str(), "NotFound");
    assert!(unknown.message.contains("increment"), "{unknown}");
    let stranger = stage.kit.user("UTC").await;
    let job = NewJob {
        kind: "app_action".to_owned(),
        user_id: Some(stranger),
        app_id: Some(stage.app.clone()),
        args: json!({"action": "increment", "input": {}}),
        awaited: true,
        ..NewJob::default()
    };
    let id = stage.queue.enqueue(job).await.unwrap().job_id;
    let refused = stage.ended(id).await;
    assert_eq!((refused.state, refused.attempt), (State::Dead, 1));
    assert_eq!(refused.error.unwrap().code.as_str(), "NotInstalled");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_action_logged_outlives_its_rollback() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    let id = stage.enqueue("log_and_throw").await;
    let job = stage.ended(id).await;
    assert_eq!((job.state, job.progress), (State::Dead, Some(json!({"value": 0.25, "message": "a quarter"}))));
    assert_eq!(stage.log(id).await, ["before the fall"]);
    assert_eq!(stage.counts().await, Vec::<i64>::new());
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_sees_what_the_jobs_it_waited_for_came_to() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    let children = vec![stage.job("increment"), stage.job("increment")];
    let id = stage.queue.enqueue(NewJob { children, ..stage.job("log_and_gather") }).await.unwrap().job_id;
    let job = stage.ended(id).await;
    assert_eq!(job.state, State::Done, "{job:?}");
    let mut seen: Vec<(String, i64)> = serde_json::from_str(job.result.unwrap().get()).unwrap();
    seen.sort();
    assert_eq!(seen, [("done".to_owned(), 1), ("done".to_owned(), 2)]);
    assert_eq!(stage.log(id).await, ["gathering"], "with the commit, once");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_action_keeps_nothing_and_is_cancelled() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    let id = stage.enqueue("write_and_spin").await;
    let running = async || {
        let job = stage.queue.get(id, None).await.unwrap().unwrap();
        (job.state == State::Running).then_some(())
    };
    crate::kinds::until(running).await;
    assert_eq!(stage.queue.cancel(id, None).await.unwrap(), State::Cancelling);
    assert_eq!(stage.ended(id).await.state, State::Cancelled);
    assert_eq!(stage.counts().await, Vec::<i64>::new());
    worker.stop().await;
}
