//! What a caller is told at the moment a job is taken: depth, expected start, cost, and what an idempotency key repeats.

use std::num::NonZeroU32;

use krilin::{model::token::TokenText, web::limit::Burst};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::{
    kinds::{BATCH, Kit, until},
    server::{Answer, Server, send, somebody},
};

const JOBS: &str = "/api/v1/jobs";

async fn set_up() -> (Kit, Server, TokenText) {
    let kit = Kit::new().await;
    let server = Server::over(&kit.queue, &kit.world.pool).await;
    let (_, token) = somebody(&kit.world).await;
    (kit, server, token)
}

fn post(server: &Server, token: &TokenText, body: &Value) -> RequestBuilder {
    server.request(Method::POST, JOBS).bearer_auth(token.reveal().expose()).json(body)
}

async fn instant(kit: &Kit, text: &Value) -> f64 {
    let at = chrono::DateTime::parse_from_rfc3339(text.as_str().unwrap()).unwrap();
    let now: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select krilin.now()").fetch_one(&kit.world.pool).await.unwrap();
    (at.to_utc() - now).as_seconds_f64()
}

#[tokio::test]
async fn nobody_pretends_to_know_what_was_not_counted_yet() {
    let (_kit, server, token) = set_up().await;
    let first = server.post(JOBS, &token, &json!({"kind": BATCH})).await.json();
    assert_eq!(first["queue"], json!({"name": "test", "depth": null, "as_of": null}));
    assert_eq!(first["job"]["expected_start_at"], Value::Null);
    assert_eq!((&first["job"]["outcome"], &first["job"]["state"]), (&json!("created"), &json!("pending")));
}

#[tokio::test]
async fn depth_is_counted_beside_and_a_start_is_expected_only_where_somebody_works() {
    let (kit, server, token) = set_up().await;
    let ask = async |body: Value| server.post(JOBS, &token, &body).await.json();
    for _ in 0..5 {
        kit.enqueue(BATCH, json!({"do": "block"})).await;
    }
    let probe = json!({"kind": BATCH, "unique_key": "probe", "run_at": "2999-01-01T00:00:00Z"});
    let told = until(async || Some(ask(probe.clone()).await).filter(|told| told["queue"]["depth"] == 5)).await;
    assert!(instant(&kit, &told["queue"]["as_of"]).await.abs() < 5.0, "{told}");
    assert_eq!(told["job"]["expected_start_at"], Value::Null, "there is no worker");

    let (idle, idle_server, idle_token) = set_up().await;
    let worker = idle.worker();
    let ask = async || idle_server.post(JOBS, &idle_token, &json!({"kind": BATCH})).await.json();
    let told = until(async || Some(ask().await).filter(|told| told["job"]["expected_start_at"].is_string())).await;
    assert!(instant(&idle, &told["job"]["expected_start_at"]).await < 5.0, "{told}");
    let later = json!({"kind": BATCH, "delay": "1h"});
    let told = idle_server.post(JOBS, &idle_token, &later).await.json();
    assert!((3_590.0..3_700.0).contains(&instant(&idle, &told["job"]["expected_start_at"]).await), "{told}");
    worker.stop().await;
}

#[tokio::test]
async fn a_request_costs_one_of_what_its_token_has_left() {
    let kit = Kit::new().await;
    let burst = Burst::new(NonZeroU32::MIN, NonZeroU32::new(10).unwrap());
    let server = Server::with(&kit.world.pool, kit.queue.clone(), burst).await;
    let (_, token) = somebody(&kit.world).await;
    let one = server.post(JOBS, &token, &json!({"kind": BATCH})).await.json();
    assert_eq!(one["budget"], json!({"cost": 1, "remaining": 9}));
    let two = server.post(JOBS, &token, &json!([{"kind": BATCH}, {"kind": BATCH}])).await.json();
    assert_eq!(two["budget"], json!({"cost": 1, "remaining": 8}));
    assert_eq!((two["jobs"].as_array().unwrap().len(), &two["queues"][0]["name"]), (2, &json!("test")));
}

#[tokio::test]
async fn what_became_of_a_taken_key_is_said() {
    let (kit, server, token) = set_up().await;
    let order = async |more: Value| {
        let mut body = json!({"kind": BATCH, "unique_key": "k"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = server.post(JOBS, &token, &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text);
        answer.json()["job"]["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(order(json!({"unique_period": "1d"})).await, "created");
    assert_eq!(order(json!({})).await, "kept");
    assert_eq!(order(json!({"on_conflict": "replace", "args": {"n": 2}})).await, "replaced");
    assert_eq!(order(json!({"on_conflict": "debounce", "delay": "1m", "max_wait": "1h"})).await, "debounced");
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1);
}

#[tokio::test]
async fn fields_that_do_not_go_together_are_pointed_at() {
    let (kit, server, token) = set_up().await;
    let cases = [
        (json!({"delay": "1h", "run_at": "2999-01-01T00:00:00Z"}), "/delay"),
        (json!({"delay": "soon"}), "/delay"),
        (json!({"unique_period": "1d"}), "/unique_period"),
        (json!({"on_conflict": "replace"}), "/on_conflict"),
        (json!({"unique_key": "k", "on_conflict": "merge"}), "/on_conflict"),
        (json!({"unique_key": "k", "max_wait": "1h"}), "/max_wait"),
        (json!({"unique_key": "k", "on_conflict": "debounce", "delay": "1s"}), "/max_wait"),
        (json!({"unique_key": "k", "on_conflict": "debounce", "max_wait": "1s"}), "/delay"),
    ];
    for (fields, pointer) in cases {
        let mut body = json!({"kind": BATCH});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let problem = server.post(JOBS, &token, &body).await.problem(422, "validation-failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
}

#[tokio::test]
async fn a_repeated_request_is_told_what_the_first_was_told_whatever_happened_since() {
    let (kit, server, token) = set_up().await;
    let order = || post(&server, &token, &json!({"kind": BATCH, "args": {"n": 1}})).header("idempotency-key", "k");
    let first = send(order()).await;
    let worker = kit.worker();
    let id = first.json()["job"]["id"].as_str().unwrap().parse().unwrap();
    kit.ended(id).await;
    let again = send(order()).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (first.status, "true"));
    assert_eq!((again.json(), again.header("location")), (first.json(), first.header("location")));
    worker.stop().await;
}

#[tokio::test]
async fn a_key_is_refused_while_its_first_request_is_in_flight() {
    let (kit, server, token) = set_up().await;
    let body = json!({"kind": BATCH, "args": {"do": "block"}});
    let order =
        |wait: &str| post(&server, &token, &body).header("idempotency-key", "k").header("prefer", wait.to_owned());
    let first = tokio::spawn(send(order("wait=20")));
    until(async || (kit.count("select count(*) from krilin.jobs").await == 1).then_some(())).await;
    let second: Answer = send(order("wait=1")).await;
    second.problem(409, "idempotency-key-in-flight");
    assert_eq!(second.header("retry-after"), "1");
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1);
    let (_, another) = somebody(&kit.world).await;
    let theirs = send(post(&server, &another, &body).header("idempotency-key", "k")).await;
    assert_eq!(theirs.status, 202, "a key is its user's own");

    let worker = kit.worker();
    kit.gate.notify_one();
    kit.gate.notify_waiters();
    let kept_opening = async {
        loop {
            kit.gate.notify_waiters();
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let first = tokio::select! {
        first = first => first.unwrap(),
        () = kept_opening => unreachable!("it opens for ever"),
    };
    assert_eq!(first.status, 200, "{}", first.text);
    let again = send(order("wait=1")).await;
    assert_eq!((again.status, &again.json()["job"]["id"]), (first.status, &first.json()["job"]["id"]));
    worker.stop().await;
}

#[tokio::test]
async fn a_key_that_another_process_commits_is_refused_too() {
    let (kit, server, token) = set_up().await;
    let user: uuid::Uuid = sqlx::query_scalar("select id from krilin.users").fetch_one(&kit.world.pool).await.unwrap();
    let mut open = kit.world.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('krilin.idempotency_keys ' || $1::text || ' k', 0))")
        .bind(user)
        .execute(&mut *open)
        .await
        .unwrap();
    let order = || post(&server, &token, &json!({"kind": BATCH})).header("idempotency-key", "k");
    send(order()).await.problem(409, "idempotency-key-in-flight");
    open.rollback().await.unwrap();
    assert_eq!(send(order()).await.status, 202);
}
