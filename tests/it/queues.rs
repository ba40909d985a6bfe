//! What an operator sets of a queue: it holds for every worker from the next claim on, over HTTP as on the command line.

use std::time::Duration;

use krilin::model::{flow::Change, job::State, token::Scope};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    auth::{add_token, add_user},
    cli::{give_credentials, run, stderr, stdout},
    cluster::Directory,
    kinds::{BATCH, Kit, until},
    server::{Answer, Server, send, somebody},
    world::World,
};

fn change(value: Value) -> Change {
    serde_json::from_value(value).unwrap()
}

async fn patch(server: &Server, path: &str, token: &krilin::model::token::TokenText, body: &Value) -> Answer {
    send(server.request(Method::PATCH, path).bearer_auth(token.reveal().expose()).json(body)).await
}

#[tokio::test]
async fn a_pause_is_obeyed_by_every_worker_and_what_runs_may_end() {
    let mut kit = Kit::new().await;
    let (one, other) = (kit.worker(), kit.worker());
    let running = kit.enqueue(BATCH, json!({"do": "block"})).await;
    kit.began.recv().await.unwrap();
    let queue =
        kit.queue.change_queue("test", &change(json!({"paused": true, "reason": "a move"})), "Ada").await.unwrap();
    let pause = queue.settings.paused.unwrap();
    assert_eq!((pause.by.as_str(), pause.reason.as_deref(), queue.running), ("Ada", Some("a move"), 1));
    let waiting = kit.enqueue(BATCH, json!({})).await;
    kit.gate.notify_one();
    assert_eq!(kit.ended(running).await.state, State::Done);
    // Both workers have looked at least once since: each polls, and the end of a job makes its worker look.
    let seen = kit.queue.wait(waiting, Duration::from_millis(1_500)).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.attempt), (State::Pending, 0));
    assert!(kit.began.try_recv().is_err());
    kit.queue.change_queue("test", &change(json!({"paused": false})), "Ada").await.unwrap();
    assert_eq!(kit.ended(waiting).await.state, State::Done);
    assert!(one.stop().await && other.stop().await);
}

#[tokio::test]
async fn a_pause_of_all_queues_holds_for_each() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    kit.queue.change_queue("all", &change(json!({"paused": true})), "Ada").await.unwrap();
    let waiting = kit.enqueue(BATCH, json!({})).await;
    let seen = kit.queue.wait(waiting, Duration::from_millis(1_200)).await.unwrap().unwrap();
    assert_eq!(seen.state, State::Pending);
    kit.queue.change_queue("all", &change(json!({"paused": false})), "Ada").await.unwrap();
    assert_eq!(kit.ended(waiting).await.state, State::Done);
    assert!(worker.stop().await);
}

#[tokio::test]
async fn a_worker_is_counted_while_it_is_there() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let workers = async || kit.queue.one_queue("test").await.unwrap().workers;
    until(async || (workers().await == 1).then_some(())).await;
    assert!(worker.stop().await);
    assert_eq!(workers().await, 0);
}

#[tokio::test]
async fn an_operator_sees_and_changes_queues_over_http_and_nobody_else() {
    let world = World::new().await;
    let server = Server::start(&world).await;
    let (ada, operator) = somebody(&world).await;
    let program = {
        let bob = add_user(&world, "Bob").await;
        add_token(&world, bob, &[Scope::JobsRead, Scope::JobsWrite]).await
    };
    server.get("/api/v1/queues", &program).await.problem(403, "scope-missing");
    let path = "/api/v1/queues/default";
    patch(&server, path, &program, &json!({"paused": true})).await.problem(403, "scope-missing");

    let set = json!({"max_running": 9, "rate": {"units": 100, "period": "1m"}, "users": {ada.to_string(): {"weight": 3}},
        "keys": {"mail": 2}});
    let answer = patch(&server, path, &operator, &set).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let queue = answer.json()["queue"].clone();
    assert_eq!((&queue["max_running"], &queue["paused"]), (&json!(9), &Value::Null));
    assert_eq!(queue["rate"], json!({"units": 100, "period": "1m", "exact": true}));
    assert_eq!(queue["users"][ada.to_string()], json!({"weight": 3, "max_running": null}));
    assert_eq!(queue["updated_by"], format!("user {ada}"));
    let lifted = patch(&server, path, &operator, &json!({"max_running": null, "keys": {"mail": null}})).await.json();
    assert_eq!((&lifted["queue"]["max_running"], &lifted["queue"]["keys"]), (&Value::Null, &json!({})));
    assert_eq!(lifted["queue"]["rate"]["units"], 100);
    let all = server.get("/api/v1/queues", &operator).await.json();
    let names: Vec<_> = all["queues"].as_array().unwrap().iter().map(|queue| queue["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["all", "default", "system"]);

    let problem = patch(&server, path, &operator, &json!({"max_running": 0})).await.problem(422, "validation-failed");
    assert_eq!(problem["errors"][0]["pointer"], "/max_running");
    patch(&server, path, &operator, &json!({"max_runing": 1})).await.problem(422, "validation-failed");
    let nobody = json!({"users": {uuid::Uuid::nil().to_string(): {"weight": 2}}});
    patch(&server, path, &operator, &nobody).await.problem(422, "validation-failed");
    let unknown = server.get("/api/v1/queues/defualt", &operator).await.problem(404, "not-found");
    assert!(unknown["detail"].as_str().unwrap().contains("did you mean `default`?"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_pauses_resumes_and_limits_from_the_command_line() {
    let world = World::new().await;
    let home = Directory::new("queues");
    give_credentials(&home.0, &world);
    let ada = add_user(&world, "Ada").await;
    let told = |arguments: &[&str]| -> Value {
        let output = run(&home.0, &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let paused = told(&["queue", "pause", "default", "--reason", "a move"]);
    assert_eq!(paused["queue"]["paused"]["reason"], "a move");
    assert!(stdout(&run(&home.0, &["queue", "list"])).contains("paused by command line: a move"));
    assert_eq!(told(&["queue", "resume", "default"])["queue"]["paused"], Value::Null);
    let limit =
        ["queue", "limit", "default", "--max-running", "5", "--rate", "100/1m", "--user", "Ada=3", "--key", "mail=2"];
    let limited = told(&limit)["queue"].clone();
    assert_eq!((&limited["max_running"], &limited["rate"]["period"]), (&json!(5), &json!("1m")));
    assert_eq!(limited["users"][ada.to_string()]["weight"], 3);
    let lifted = told(&["queue", "limit", "default", "--rate", "none", "--user", "Ada=none"])["queue"].clone();
    assert_eq!((&lifted["rate"], &lifted["users"], &lifted["max_running"]), (&Value::Null, &json!({}), &json!(5)));
    assert_eq!(told(&["queue", "show", "all"])["queue"]["name"], "all");
    let unknown = run(&home.0, &["queue", "pause", "defualt"]);
    assert!(stderr(&unknown).contains("krilin queue list"), "{}", stderr(&unknown));
    assert_eq!(run(&home.0, &["queue", "limit", "default", "--rate", "fast"]).status.code(), Some(2));
}
