//! Actions and queries over HTTP, with a worker and real app code behind them.

use krilin::{
    apps::publish::{self, Options},
    jobs::{self, app_action::AppAction},
    model::{
        bundle::Bundle,
        id::UserId,
        manifest::Manifest,
        token::{Scope, TokenText},
    },
    queue::{
        Queue,
        registry::Registry,
        worker::{self, Lane, Worker, WorkerOptions},
    },
    sandbox::{Pool, PoolOptions},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    auth::add_token,
    kit::{self, Kit},
    server::{self, Answer, Server, send},
};

const CODE: &str = r#"
export async function add(ctx, { text, stars }) {
  const note = await ctx.storage.insert("notes", { text, stars });
  return { id: note.id, user: ctx.user.id };
}
export async function refuse(ctx) {
  await ctx.storage.insert("notes", { text: "never kept" });
  ctx.fail("Not today.");
}
export async function texts(ctx) {
  return (await ctx.storage.query("notes")).map((note) => note.text);
}
export async function sneak(ctx) {
  await ctx.storage.insert("notes", { text: "through the back door" });
}
"#;

const ADD: &str = "/api/v1/apps/notes/actions/add";
const TEXTS: &str = "/api/v1/apps/notes/queries/texts";

/// An app of notes, published; a server, and one user who has installed it.
struct Stage {
    kit: Kit,
    manifest: Manifest,
    queue: Queue,
    server: Server,
    user: UserId,
    token: TokenText,
}

impl Stage {
    async fn new() -> Self {
        let kit = Kit::new().await;
        let text = json!({"type": "object", "required": ["text"], "additionalProperties": false, "properties": {
            "text": {"type": "string", "maxLength": 20}, "stars": {"type": "integer", "maximum": 5, "default": 3}}});
        let manifest = kit::manifest(&json!({
            "metadata": {"id": "notes", "name": "Notes", "version": "1.0.0", "author": "Test"},
            "permissions": {"data_scopes": ["read:own_data", "write:own_data"]},
            "database": {"tables": [{"name": "notes", "schema": {"text": "string", "stars": "integer"}}]},
            "actions": [{"id": "add", "input_schema": text}, {"id": "refuse"},
                {"id": "texts", "kind": "query"}, {"id": "sneak", "kind": "query"}],
        }));
        let mut owner = kit.world.owner.acquire().await.unwrap();
        publish::publish(&mut owner, &manifest, &Bundle::new("app.js", CODE), Options::default()).await.unwrap();
        drop(owner);
        let queue = server::queue(&kit.world.pool);
        let server = Server::over(&queue, &kit.world.pool).await;
        let user = kit.user("Europe/Berlin").await;
        kit.install(user, &manifest).await;
        let token = add_token(&kit.world, user, Scope::ALL).await;
        Self { kit, manifest, queue, server, user, token }
    }

    fn worker(&self) -> Worker {
        let sandbox = Pool::start(PoolOptions { size: 1, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) }).unwrap();
        let actions = AppAction { apps: self.kit.apps.clone(), sandbox };
        let registry = Registry::new(self.queue.policies(), jobs::handlers(actions)).unwrap();
        worker::start(&self.queue, &registry, &self.kit.world.pool, &WorkerOptions::new(vec![Lane::new("default", 4)]))
    }

    /// Posts `body` and waits for the end.
    async fn call(&self, path: &str, body: &Value) -> Answer {
        let request = self.server.request(Method::POST, path).bearer_auth(self.token.reveal().expose()).json(body);
        send(request.header("prefer", "wait=20")).await
    }

    async fn jobs(&self) -> i64 {
        let count = "select (select count(*) from krilin.jobs) + (select count(*) from krilin.job_history)";
        sqlx::query_scalar(count).fetch_one(&self.kit.world.pool).await.unwrap()
    }
}

fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_action_runs_as_a_job_and_a_query_sees_what_it_wrote() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    let added = stage.call(ADD, &json!({"text": "Read"})).await;
    assert_eq!(added.status, 200, "{}", added.text);
    let job = &added.json()["job"];
    assert_eq!((&job["state"], &job["result"]["user"]), (&json!("done"), &json!(stage.user.to_string())));
    assert_eq!(job["args"]["input"], json!({"text": "Read", "stars": 3}), "defaults are filled in");

    let before = stage.jobs().await;
    let texts = stage.call(TEXTS, &json!({})).await;
    assert_eq!((texts.status.as_u16(), texts.json()), (200, json!({"result": ["Read"]})));
    let empty = stage.server.request(Method::POST, TEXTS).bearer_auth(stage.token.reveal().expose());
    assert_eq!(send(empty).await.json()["result"], json!(["Read"]));
    assert_eq!(stage.jobs().await, before, "a query is no job");
    assert!(worker.stop().await);
}

#[tokio::test]
async fn an_action_that_refuses_is_its_problem_and_keeps_nothing() {
    let stage = Stage::new().await;
    let worker = stage.worker();
    let problem = stage.call("/api/v1/apps/notes/actions/refuse", &json!({})).await.problem(409, "refused");
    assert_eq!((&problem["detail"], &problem["retryable"]), (&json!("Not today."), &json!(false)));
    assert!(problem["job_id"].is_string());
    assert_eq!(stage.call(TEXTS, &json!({})).await.json()["result"], json!([]));
    assert!(worker.stop().await);
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_refused_whole_before_anything_is_enqueued() {
    let stage = Stage::new().await;
    let wrong = json!({"text": "x".repeat(21), "stars": "many", "colour": "red"});
    let problem = stage.call(ADD, &wrong).await.problem(422, "validation-failed");
    let mut places = pointers(&problem);
    places.sort_unstable();
    assert_eq!(places, ["/colour", "/stars", "/text"], "{problem:#}");

    let as_job = json!({"kind": "app_action", "app_id": "notes", "args": {"action": "add", "input": {"text": 7}}});
    let problem = stage.call("/api/v1/jobs", &json!({"jobs": [as_job]})).await.problem(422, "validation-failed");
    assert_eq!(pointers(&problem), ["/jobs/0/args/input/text"]);
    assert_eq!(stage.jobs().await, 0);
}

#[tokio::test]
async fn an_unknown_app_or_action_is_named_with_its_nearest() {
    let stage = Stage::new().await;
    let action = stage.call("/api/v1/apps/notes/actions/ad", &json!({})).await.problem(404, "not-found");
    assert!(action["detail"].as_str().unwrap().contains("did you mean `add`?"), "{action}");
    for app in ["nots", "Not-An-Id", "%00"] {
        stage.call(&format!("/api/v1/apps/{app}/actions/add"), &json!({})).await.problem(404, "not-found");
    }
    stage.call("/api/v1/apps/notes/actions/texts", &json!({})).await.problem(404, "not-found");
    stage.call("/api/v1/apps/notes/queries/add", &json!({"text": "x"})).await.problem(404, "not-found");

    let job = |app: &str, action: &str| json!({"kind": "app_action", "app_id": app, "args": {"action": action}});
    let batch = json!({"jobs": [job("nots", "add"), job("notes", "ad"), {"kind": "app_action"},
        {"kind": "app_action", "app_id": "notes", "args": {"act": "add"}}]});
    let problem = stage.call("/api/v1/jobs", &batch).await.problem(422, "validation-failed");
    let expected = ["/jobs/0/app_id", "/jobs/1/args/action", "/jobs/2/app_id", "/jobs/3/args/act"];
    assert_eq!(pointers(&problem), expected, "{problem:#}");
    assert_eq!(stage.jobs().await, 0);
}

#[tokio::test]
async fn a_user_without_the_app_may_not_call_it() {
    let stage = Stage::new().await;
    let user = stage.kit.user("UTC").await;
    let token = add_token(&stage.kit.world, user, Scope::ALL).await;
    stage.server.post(ADD, &token, &json!({"text": "x"})).await.problem(403, "not-installed");
    stage.server.post(TEXTS, &token, &json!({})).await.problem(403, "not-installed");
    assert_eq!(stage.jobs().await, 0);
    stage.kit.install(user, &stage.manifest).await;
    assert_eq!(stage.server.post(ADD, &token, &json!({"text": "x"})).await.status, 202);
    assert_eq!(stage.server.post(TEXTS, &token, &json!({})).await.json()["result"], json!([]));
}

#[tokio::test]
async fn a_query_cannot_write() {
    let stage = Stage::new().await;
    let answer = stage.call("/api/v1/apps/notes/queries/sneak", &json!({})).await;
    answer.problem(403, "permission-denied");
    assert_eq!(stage.call(TEXTS, &json!({})).await.json()["result"], json!([]));
}

#[tokio::test]
async fn calling_and_reading_need_their_own_scopes() {
    let stage = Stage::new().await;
    let token = async |scope| add_token(&stage.kit.world, stage.user, &[scope]).await;
    let (reader, caller, enqueuer) =
        (token(Scope::AppsRead).await, token(Scope::AppsCall).await, token(Scope::JobsWrite).await);
    stage.server.post(ADD, &reader, &json!({"text": "x"})).await.problem(403, "scope-missing");
    stage.server.post(TEXTS, &caller, &json!({})).await.problem(403, "scope-missing");
    let job = json!({"kind": "app_action", "app_id": "notes", "args": {"action": "add", "input": {"text": "x"}}});
    let problem = stage.server.post("/api/v1/jobs", &enqueuer, &job).await.problem(403, "scope-missing");
    assert!(problem["detail"].as_str().unwrap().contains("apps:call"));
    assert_eq!(stage.jobs().await, 0);
    assert_eq!(stage.server.post(ADD, &caller, &json!({"text": "x"})).await.status, 202);
}

#[tokio::test]
async fn a_new_version_is_served_within_a_second() {
    let stage = Stage::new().await;
    assert_eq!(stage.call(TEXTS, &json!({})).await.json()["result"], json!([]));
    let mut next = serde_json::to_value(&stage.manifest).unwrap();
    next["metadata"]["version"] = json!("1.0.1");
    let code = CODE.replace("return (await ctx.storage.query(\"notes\")).map((note) => note.text);", "return 7;");
    let mut owner = stage.kit.world.owner.acquire().await.unwrap();
    let next = kit::manifest(&next);
    publish::publish(&mut owner, &next, &Bundle::new("app.js", &code), Options::default()).await.unwrap();
    let texts =
        async || Some(stage.call(TEXTS, &json!({})).await.json()["result"].clone()).filter(|result| *result == 7);
    crate::kinds::until(texts).await;
}
