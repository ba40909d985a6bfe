//! A trace from a request to the job, its handler, the jobs it makes, the log and Postgres.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::Arc,
};

use futures::future::BoxFuture;
use krilin::{
    model::{
        job::{Failure, NewJob, Outcome},
        trace::TraceParent,
    },
    queue::registry::{Attempt, Handler, Registry},
    store::within,
    telemetry,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    cli,
    cluster::Directory,
    kinds::{BATCH, Kit, OWN, job, until},
    kit,
    server::{self, Server, send, somebody},
    world::World,
};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Tells where it is, and makes another job when it is asked to.
struct Told {
    queue: krilin::queue::Queue,
    heard: mpsc::UnboundedSender<Option<TraceParent>>,
}

impl Handler for Told {
    fn run(&self, attempt: Attempt) -> BoxFuture<'_, Result<Outcome, Failure>> {
        Box::pin(async move {
            let _ = self.heard.send(telemetry::trace::current());
            if attempt.job.args.get().contains("again") {
                self.queue.enqueue(job(BATCH, json!({}))).await.unwrap();
            }
            Ok(Outcome::Done(None))
        })
    }
}

async fn trace_parent(kit: &Kit, id: krilin::model::id::JobId) -> Option<TraceParent> {
    let statement = "select trace_parent from krilin.jobs where id = $1
                     union all select trace_parent from krilin.job_history where id = $1";
    let text: Option<String> = sqlx::query_scalar(statement).bind(id).fetch_one(&kit.world.pool).await.unwrap();
    text.map(|text| text.parse().unwrap())
}

#[tokio::test]
async fn a_job_its_handler_and_the_jobs_it_makes_are_in_the_trace_of_who_asked() {
    let mut kit = Kit::new().await;
    let (sender, mut heard) = mpsc::unbounded_channel();
    let handler = || Arc::new(Told { queue: kit.queue.clone(), heard: sender.clone() }) as Arc<dyn Handler>;
    kit.registry = Registry::new(kit.queue.policies(), [(BATCH, handler()), (OWN, handler())]).unwrap();
    let asked: TraceParent = CALLER.parse().unwrap();
    let first = NewJob { trace_parent: Some(CALLER.to_owned()), ..job(BATCH, json!("again")) };
    kit.queue.enqueue(first).await.unwrap();
    let alone = kit.enqueue(OWN, json!({})).await;
    let malformed = NewJob { trace_parent: Some("00-nonsense".to_owned()), ..job(OWN, json!({})) };
    let malformed = kit.queue.enqueue(malformed).await.unwrap().job_id;
    let worker = kit.worker();
    let mut told = Vec::new();
    for _ in 0..4 {
        told.push(heard.recv().await.unwrap().expect("every handler is in a trace"));
    }
    assert!(worker.stop().await);
    let followed: Vec<_> = told.iter().filter(|trace| trace.trace_id() == asked.trace_id()).collect();
    assert_eq!(followed.len(), 2, "the job and the one it made: {told:?}");
    assert_ne!(followed[0].span_id(), followed[1].span_id());
    assert!(followed.iter().all(|trace| trace.span_id() != asked.span_id() && trace.sampled()));
    for id in [alone, malformed] {
        let own = told.iter().find(|trace| trace.trace_id() == id.0.as_u128());
        assert!(own.is_some_and(|trace| !trace.sampled()), "a job that nobody traced has a trace named as it is");
    }
    let made: Vec<String> =
        sqlx::query_scalar("select trace_parent from krilin.job_history where trace_parent like $1")
            .bind(format!("00-{}-%", asked.trace()))
            .fetch_all(&kit.world.pool)
            .await
            .unwrap();
    assert_eq!(made.len(), 2);
    assert!(made.iter().any(|text| *text == followed[0].to_string() || *text == followed[1].to_string()), "{made:?}");
}

#[tokio::test]
async fn a_request_continues_the_callers_trace_and_hands_it_to_its_job() {
    let kit = Kit::new().await;
    let server = Server::over(&kit.queue, &kit.world.pool).await;
    let (_, token) = somebody(&kit.world).await;
    let body = json!({"kind": BATCH});
    let ask = async |header: &str| {
        let request = server.request(Method::POST, "/api/v1/jobs").bearer_auth(token.reveal().expose()).json(&body);
        let answer = send(request.header("traceparent", header)).await;
        let own: TraceParent = answer.header("traceparent").parse().unwrap();
        let id = answer.json()["job"]["id"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).parse().unwrap();
        (own, trace_parent(&kit, id).await.unwrap())
    };
    let asked: TraceParent = CALLER.parse().unwrap();
    let (own, stored) = ask(CALLER).await;
    assert_eq!((own.trace_id(), own.sampled()), (asked.trace_id(), true));
    assert_ne!(own.span_id(), asked.span_id());
    assert_eq!(stored, own, "the job is below the request, not beside it");
    let (own, stored) = ask("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01").await;
    assert_ne!(own.trace_id(), asked.trace_id(), "a malformed header is ignored");
    assert_eq!(stored, own);
}

#[tokio::test]
async fn postgres_sees_the_trace_for_as_long_as_a_transaction_acts_for_somebody() {
    let tables = json!([{"name": "notes", "schema": {"text": {"type": "string"}}}]);
    let manifest = kit::app("notes", "1.0.0", &tables);
    let (kit, user) = kit::Kit::with(&manifest).await;
    let asked: TraceParent = CALLER.parse().unwrap();
    let sessions = async || -> Vec<String> {
        let statement = "select application_name from pg_stat_activity where application_name like '%' || $1";
        sqlx::query_scalar(statement).bind(asked.trace()).fetch_all(&kit.world.pool).await.unwrap()
    };
    let pass = Box::pin(telemetry::trace::scope(asked, kit.open(user, &manifest.metadata.id))).await;
    assert_eq!(sessions().await, [format!("krilin-test {}", asked.trace())]);
    pass.commit().await;
    assert!(sessions().await.is_empty());
    drop(kit.open(user, &manifest.metadata.id).await);
    assert!(sessions().await.is_empty(), "no trace, no name");
    within(sqlx::query("select 1").execute(&kit.world.pool)).await.unwrap();
}

#[tokio::test]
async fn a_workers_log_lines_carry_the_trace_and_its_figures_are_where_it_says() {
    let world = World::new().await;
    let directory = Directory::new("trace");
    cli::give_credentials(&directory.0, &world);
    let asked: TraceParent = CALLER.parse().unwrap();
    let queue = server::queue(&world.pool);
    let daily = NewJob { trace_parent: Some(CALLER.to_owned()), ..job("retention", json!({})) };
    let id = queue.enqueue(daily).await.unwrap().job_id;
    let mut worker = cli::krilin(&directory.0)
        .args(["work", "system", "--json", "--log-format", "json", "--log-level", "info,krilin::queue=debug"])
        .args(["--set", "metrics.listen=127.0.0.1:0", "--set", "sandbox.children=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut first, stdout) = (String::new(), worker.stdout.take().unwrap());
    BufReader::new(stdout).read_line(&mut first).unwrap();
    let working: Value = serde_json::from_str(&first).unwrap();
    until(async || queue.get(id, None).await.unwrap().filter(|job| job.state.is_final())).await;
    let figures = reqwest::get(working["metrics_url"].as_str().unwrap()).await.unwrap().text().await.unwrap();
    assert!(figures.contains("krilin_jobs_claimed_total{queue=\"system\"}"), "{figures}");
    let pid = rustix::process::Pid::from_child(&worker);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let lines: Vec<Value> = BufReader::new(worker.stderr.take().unwrap())
        .lines()
        .map(|line| line.unwrap())
        // What is said before the log is started is no line of it.
        .filter(|line| !line.starts_with("krilin: "))
        .map(|line| serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    assert!(worker.wait().unwrap().success());
    let of_the_job = |line: &&Value| line["span"]["job.id"] == id.to_string();
    let ended = lines.iter().filter(of_the_job).collect::<Vec<_>>();
    assert!(!ended.is_empty(), "{lines:?}");
    assert!(ended.iter().all(|line| line["span"]["trace.id"] == asked.trace()), "{ended:?}");
}
