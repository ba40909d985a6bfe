//! Jobs over HTTP: enqueued, awaited, looked at, listed, cancelled, tried again, and refused whole.

use krilin::model::token::{Scope, TokenText};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    auth::{add_token, add_user},
    kinds::{BATCH, Kit},
    server::{Answer, Server, send, somebody},
    world::World,
};

const JOBS: &str = "/api/v1/jobs";

/// A server over a queue whose kinds do as they are told, and somebody who may use it.
async fn set_up() -> (Kit, Server, TokenText) {
    let kit = Kit::new().await;
    let server = Server::over(&kit.queue, &kit.world.pool).await;
    let (_, token) = somebody(&kit.world).await;
    (kit, server, token)
}

fn post(server: &Server, token: &TokenText, body: &Value) -> RequestBuilder {
    server.request(Method::POST, JOBS).bearer_auth(token.reveal().expose()).json(body)
}

fn raw(server: &Server, token: &TokenText, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let request = server.request(Method::POST, JOBS).bearer_auth(token.reveal().expose());
    request.header("content-type", "application/json").body(body)
}

/// What the errors of a problem point at.
fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect()
}

async fn live_jobs(kit: &Kit) -> i64 {
    kit.count("select count(*) from krilin.jobs").await
}

#[tokio::test]
async fn a_job_is_accepted_with_its_place_and_keeps_the_trace() {
    let (kit, server, token) = set_up().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let order = post(&server, &token, &json!({"kind": BATCH, "args": {"n": 1}, "priority": 5}));
    let answer = send(order.header("traceparent", trace)).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let job = &answer.json()["job"];
    assert_eq!((&job["state"], &job["kind"]), (&json!("pending"), &json!(BATCH)));
    assert_eq!(answer.header("location"), format!("{JOBS}/{}", job["id"].as_str().unwrap()));

    let found = server.get(answer.header("location"), &token).await;
    assert_eq!((found.status.as_u16(), &found.json()["job"]["args"]), (200, &json!({"n": 1})));
    assert_eq!(found.json()["job"]["priority"], 5);
    let kept: String =
        sqlx::query_scalar("select trace_parent from krilin.jobs").fetch_one(&kit.world.pool).await.unwrap();
    assert_eq!(kept, answer.header("traceparent"));
}

#[tokio::test]
async fn a_caller_that_waits_gets_the_result_or_the_problem() {
    let (kit, server, token) = set_up().await;
    let worker = kit.worker();
    let order = |args: Value| post(&server, &token, &json!({"kind": BATCH, "args": args})).header("prefer", "wait=5");
    let answer = send(order(json!({"result": {"streak": 3}}))).await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (200, "wait=5"));
    let job = &answer.json()["job"];
    assert_eq!((&job["state"], &job["result"]), (&json!("done"), &json!({"streak": 3})));

    let failed = send(order(json!({"do": "fatal"}))).await;
    let problem = failed.problem(409, "refused");
    assert_eq!((&problem["code"], &problem["detail"]), (&json!("Refused"), &json!("as told")));
    let job = server.get(&format!("{JOBS}/{}", problem["job_id"].as_str().unwrap()), &token).await.json();
    assert_eq!(job["job"]["state"], "dead");
    assert_eq!(failed.header("preference-applied"), "wait=5");
    assert!(worker.stop().await);
}

#[tokio::test]
async fn a_caller_that_waits_in_vain_is_told_where_to_look() {
    let (_kit, server, token) = set_up().await;
    let answer = send(post(&server, &token, &json!({"kind": BATCH})).header("prefer", "wait=1")).await;
    assert_eq!((answer.status.as_u16(), answer.header("preference-applied")), (202, "wait=1"));
    assert!(answer.header("location").starts_with(JOBS));
}

#[tokio::test]
async fn a_batch_is_accepted_whole_in_its_order() {
    let (kit, server, token) = set_up().await;
    let jobs: Vec<Value> = (0..1_000).map(|n| json!({"kind": BATCH, "args": {"n": n}})).collect();
    let answer = server.post(JOBS, &token, &json!({"jobs": jobs})).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert_eq!(answer.json()["jobs"].as_array().unwrap().len(), 1_000);
    let last = answer.json()["jobs"][999]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("{JOBS}/{last}"), &token).await.json()["job"]["args"]["n"], 999);

    let jobs: Vec<Value> = (0..1_001).map(|_| json!({"kind": BATCH})).collect();
    let problem = server.post(JOBS, &token, &json!({"jobs": jobs})).await.problem(422, "validation-failed");
    assert_eq!(pointers(&problem), ["/jobs"]);
    assert_eq!(live_jobs(&kit).await, 1_000);
}

#[tokio::test]
async fn one_bad_job_refuses_its_batch_and_every_fault_is_named() {
    let (kit, server, token) = set_up().await;
    let batch = json!({"jobs": [
        {"kind": BATCH},
        {"kind": "test_btach"},
        {"kind": BATCH, "priority": 1_000, "unique_key": ""},
        {"kind": BATCH, "colour": "red"},
        {"kind": 7},
        {"kind": BATCH, "run_at": "soon"},
    ]});
    let problem = server.post(JOBS, &token, &batch).await.problem(422, "validation-failed");
    let expected =
        ["/jobs/1/kind", "/jobs/2/priority", "/jobs/2/unique_key", "/jobs/3/colour", "/jobs/4/kind", "/jobs/5/run_at"];
    assert_eq!(pointers(&problem), expected, "{problem:#}");
    assert!(problem["errors"][0]["message"].as_str().unwrap().contains("did you mean `test_batch`?"));
    assert_eq!(live_jobs(&kit).await, 0);

    let beside = json!({"jobs": [{"kind": BATCH}], "kind": BATCH});
    let problem = server.post(JOBS, &token, &beside).await.problem(422, "validation-failed");
    assert_eq!(pointers(&problem), ["/kind"]);
}

#[tokio::test]
async fn a_kind_of_the_system_is_not_for_callers() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    let (_, token) = somebody(&world).await;
    let problem = server.post(JOBS, &token, &json!({"kind": "retention"})).await.problem(422, "validation-failed");
    assert_eq!(pointers(&problem), ["/kind"]);
    assert!(!problem.to_string().contains("did you mean"));
}

#[tokio::test]
async fn malformed_json_is_refused_with_line_and_column() {
    let (kit, server, token) = set_up().await;
    let problem = send(raw(&server, &token, "{\n  \"kind\": oops\n}")).await.problem(400, "malformed-json");
    assert!(problem["detail"].as_str().unwrap().starts_with("line 2, column 1"), "{problem}");
    for text in ["", "{", "{} {}", "\u{0}"] {
        send(raw(&server, &token, text)).await.problem(400, "malformed-json");
    }
    send(raw(&server, &token, vec![b'"', 0xff, b'"'])).await.problem(400, "malformed-json");
    send(raw(&server, &token, "[".repeat(10_000))).await.problem(400, "malformed-json");
    for text in ["[]", "7", "null", "\"kind\""] {
        send(raw(&server, &token, text)).await.problem(422, "validation-failed");
    }
    assert_eq!(live_jobs(&kit).await, 0);
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let (_kit, server, token) = set_up().await;
    let request = || server.request(Method::POST, JOBS).bearer_auth(token.reveal().expose()).body("{}");
    send(request()).await.problem(415, "unsupported-media-type");
    send(request().header("content-type", "text/plain")).await.problem(415, "unsupported-media-type");
    let suffix = request().header("content-type", "application/x+json; charset=utf-8");
    send(suffix).await.problem(422, "validation-failed");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let (kit, server, token) = set_up().await;
    let body = json!({"kind": BATCH, "args": {"text": "x".repeat(1024 * 1024)}});
    send(post(&server, &token, &body)).await.problem(413, "body-too-large");
    let too_large_for_a_job = json!({"kind": BATCH, "args": {"text": "x".repeat(300 * 1024)}});
    send(post(&server, &token, &too_large_for_a_job)).await.problem(422, "validation-failed");
    assert_eq!(live_jobs(&kit).await, 0);
}

#[tokio::test]
async fn an_idempotency_key_makes_a_repeated_request_harmless() {
    let (kit, server, token) = set_up().await;
    let order = |body: &Value| post(&server, &token, body).header("idempotency-key", "k-1");
    let body = json!({"kind": BATCH, "args": {"n": 1}});
    let first = send(order(&body)).await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (202, ""));
    let again = send(order(&body)).await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(again.json(), first.json());
    send(order(&json!({"kind": BATCH, "args": {"n": 2}}))).await.problem(422, "idempotency-key-reused");
    assert_eq!(live_jobs(&kit).await, 1);

    let worker = kit.worker();
    let awaited = send(order(&body).header("prefer", "wait=5")).await;
    assert_eq!((awaited.status.as_u16(), &awaited.json()["job"]["id"]), (200, &first.json()["job"]["id"]));
    assert!(worker.stop().await);

    let (_, another) = somebody(&kit.world).await;
    let theirs = send(post(&server, &another, &body).header("idempotency-key", "k-1")).await;
    assert_ne!(theirs.json()["job"]["id"], first.json()["job"]["id"], "a key is its user's own");
    send(order(&body).header("idempotency-key", "")).await;
    send(post(&server, &token, &body).header("idempotency-key", "x".repeat(256))).await.problem(400, "bad-request");
}

#[tokio::test]
async fn a_batch_with_a_key_is_repeated_whole() {
    let (kit, server, token) = set_up().await;
    let body = json!({"jobs": [{"kind": BATCH, "args": {"n": 1}}, {"kind": BATCH, "args": {"n": 2}}]});
    let order = |body: &Value| post(&server, &token, body).header("idempotency-key", "x".repeat(255));
    let first = send(order(&body)).await;
    let again = send(order(&body)).await;
    assert_eq!(
        (first.status.as_u16(), again.json(), again.header("idempotency-replayed")),
        (202, first.json(), "true")
    );
    let more = json!({"jobs": [{"kind": BATCH, "args": {"n": 1}}, {"kind": BATCH}, {"kind": BATCH}]});
    send(order(&more)).await.problem(422, "idempotency-key-reused");
    assert_eq!(live_jobs(&kit).await, 2);
}

#[tokio::test]
async fn a_unique_key_gives_back_the_live_job_of_the_same_user() {
    let (kit, server, token) = set_up().await;
    let body = json!({"kind": BATCH, "unique_key": "nightly"});
    let post = async |token: &TokenText| server.post(JOBS, token, &body).await.json()["job"].clone();
    let first = post(&token).await;
    let second = post(&token).await;
    assert_eq!((&second["id"], &second["outcome"]), (&first["id"], &json!("kept")));
    let (_, another) = somebody(&kit.world).await;
    assert_ne!(post(&another).await["id"], first["id"]);
    assert_eq!(live_jobs(&kit).await, 2);
}

#[tokio::test]
async fn another_users_job_is_not_found() {
    let (kit, server, token) = set_up().await;
    let id = server.post(JOBS, &token, &json!({"kind": BATCH})).await.json()["job"]["id"].as_str().unwrap().to_owned();
    let (_, another) = somebody(&kit.world).await;
    let theirs = server.get(&format!("{JOBS}/{id}"), &another).await.problem(404, "not-found");
    let nobodys = server.get(&format!("{JOBS}/{}", uuid::Uuid::nil()), &another).await.problem(404, "not-found");
    assert_eq!(theirs["title"], nobodys["title"]);
    for verb in ["cancel", "retry"] {
        server.post(&format!("{JOBS}/{id}/{verb}"), &another, &json!({})).await.problem(404, "not-found");
    }
    server.get(&format!("{JOBS}/nonsense"), &another).await.problem(404, "not-found");
    assert_eq!(server.get(JOBS, &another).await.json()["jobs"], json!([]));
    assert_eq!(server.get(&format!("{JOBS}/{id}"), &token).await.json()["job"]["state"], "pending");
}

#[tokio::test]
async fn a_job_is_cancelled_and_tried_again() {
    let (_kit, server, token) = set_up().await;
    let id = server.post(JOBS, &token, &json!({"kind": BATCH})).await.json()["job"]["id"].as_str().unwrap().to_owned();
    let act = async |verb: &str| -> Answer { server.post(&format!("{JOBS}/{id}/{verb}"), &token, &json!({})).await };
    act("retry").await.problem(409, "conflict");
    assert_eq!(act("cancel").await.json()["job"]["state"], "cancelled");
    act("cancel").await.problem(409, "conflict");
    assert_eq!(act("retry").await.json()["job"]["state"], "pending");
}

#[tokio::test]
async fn a_job_that_has_not_changed_is_not_sent_again() {
    let (_kit, server, token) = set_up().await;
    let place = server.post(JOBS, &token, &json!({"kind": BATCH})).await.header("location").to_owned();
    let first = server.get(&place, &token).await;
    let tag = first.header("etag").to_owned();
    let ask = || server.request(Method::GET, &place).bearer_auth(token.reveal().expose()).header("if-none-match", &tag);
    let same = send(ask()).await;
    assert_eq!((same.status.as_u16(), same.text.as_str(), same.header("etag")), (304, "", tag.as_str()));
    server.post(&format!("{place}/cancel"), &token, &json!({})).await;
    assert_eq!(send(ask()).await.status, 200);
}

#[tokio::test]
async fn jobs_are_listed_newest_first_page_by_page() {
    let (_kit, server, token) = set_up().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        let answer = server.post(JOBS, &token, &json!({"kind": BATCH})).await;
        made.insert(0, answer.json()["job"]["id"].as_str().unwrap().to_owned());
    }
    let (mut listed, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{JOBS}?limit=2&state=pending&kind={BATCH}{cursor}"), &token).await.json();
        listed.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(listed, made);
    assert_eq!(server.get(&format!("{JOBS}?state=done"), &token).await.json()["jobs"], json!([]));
    for bad in ["state=odd", "limit=0", "limit=101", "colour=red", "cursor=7"] {
        server.get(&format!("{JOBS}?{bad}"), &token).await.problem(400, "bad-request");
    }
}

#[tokio::test]
async fn looking_and_enqueuing_need_their_own_scopes() {
    let (kit, server, _) = set_up().await;
    let user = add_user(&kit.world, "Bob").await;
    let (reader, writer) =
        (add_token(&kit.world, user, &[Scope::JobsRead]).await, add_token(&kit.world, user, &[Scope::JobsWrite]).await);
    server.post(JOBS, &reader, &json!({"kind": BATCH})).await.problem(403, "scope-missing");
    server.get(JOBS, &writer).await.problem(403, "scope-missing");
    assert_eq!(server.post(JOBS, &writer, &json!({"kind": BATCH})).await.status, 202);
    assert_eq!(server.get(JOBS, &reader).await.status, 200);
}
