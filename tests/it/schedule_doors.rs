//! Schedules over HTTP and on the command line.

use krilin::model::token::Scope;
use serde_json::{Value, json};

use crate::{
    auth::{add_token, add_user},
    cli::{give_credentials, run, stderr, stdout},
    cluster::Directory,
    kit::{Kit, manifest},
    server::{Server, somebody},
    world::World,
};

async fn with_app() -> (Kit, Server, krilin::model::token::TokenText) {
    let (kit, user) = Kit::with(&manifest(&json!({
        "metadata": {"id": "nagger", "name": "Nagger", "version": "1.0.0", "author": "T"},
        "actions": [{"id": "remind", "input_schema": {"type": "object", "required": ["who"], "properties": {"who": {"type": "string"}}}}],
        "schedules": [{"id": "fixed", "action": "remind", "cron": "0 18 * * SUN", "input": {"who": "all"}}],
    })))
    .await;
    let token = add_token(&kit.world, user, Scope::ALL).await;
    let server = Server::start(&kit.world).await;
    (kit, server, token)
}

fn remind() -> Value {
    json!({"kind": "app_action", "app_id": "nagger", "args": {"action": "remind", "input": {"who": "me"}}})
}

#[tokio::test]
async fn a_schedule_is_made_looked_at_and_stepped_into_over_http() {
    let (_kit, server, token) = with_app().await;
    let wanted =
        json!({"name": "daily", "cron": "0 9 * * *", "timezone": "Europe/Berlin", "jitter": "30s", "job": remind()});
    let made = server.post("/api/v1/schedules", &token, &wanted).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let schedule = made.json()["schedule"].clone();
    assert_eq!(
        (&schedule["state"], &schedule["origin"], &schedule["jitter"]),
        (&json!("active"), &json!("user"), &json!("30s"))
    );
    let place = made.header("location").to_owned();
    assert_eq!(place, format!("/api/v1/schedules/{}", schedule["id"].as_str().unwrap()));
    let again = server.post("/api/v1/schedules", &token, &wanted).await.json();
    assert_eq!(again["schedule"]["id"], schedule["id"], "one name is one schedule");

    let list = server.get("/api/v1/schedules?limit=1", &token).await.json();
    assert_eq!(list["schedules"][0]["id"], schedule["id"]);
    let rest =
        server.get(&format!("/api/v1/schedules?cursor={}", list["next_cursor"].as_str().unwrap()), &token).await.json();
    assert_eq!((&rest["schedules"][0]["name"], &rest["next_cursor"]), (&json!("fixed"), &Value::Null));

    let fires = server.get(&format!("{place}/next"), &token).await.json();
    let fires = fires["fires"].as_array().unwrap();
    assert_eq!(fires.len(), 10);
    assert!(fires.iter().all(|fire| fire["local"].as_str().unwrap().contains("T09:00:00+0")), "{fires:?}");

    let triggered = server.post(&format!("{place}/trigger"), &token, &json!({})).await;
    assert_eq!(triggered.status, 202);
    let job = server.get(triggered.header("location"), &token).await.json();
    assert_eq!(
        (&job["job"]["id"], &job["job"]["args"]["schedule"]["id"]),
        (&triggered.json()["job_id"], &json!("daily"))
    );
    let ledger = server.get(&format!("{place}/occurrences"), &token).await.json();
    assert_eq!(ledger["occurrences"][0]["outcome"], "fired");

    let paused = server.post(&format!("{place}/pause"), &token, &json!({})).await.json();
    assert_eq!(
        (&paused["schedule"]["state"], &paused["schedule"]["reason"]),
        (&json!("paused"), &json!("paused by its user"))
    );
    server.post(&format!("{place}/pause"), &token, &json!({})).await.problem(409, "conflict");
    assert_eq!(server.get(&format!("{place}/next"), &token).await.json()["fires"], json!([]));
    assert_eq!(server.post(&format!("{place}/resume"), &token, &json!({})).await.json()["schedule"]["state"], "active");
    assert_eq!(server.post(&format!("{place}/cancel"), &token, &json!({})).await.status, 204);
    server.get(&place, &token).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_wrong_schedule_is_refused_with_pointers_and_anothers_is_not_there() {
    let (kit, server, token) = with_app().await;
    let refused = async |body: Value| {
        let problem = server.post("/api/v1/schedules", &token, &body).await.problem(422, "validation-failed");
        problem["errors"][0]["pointer"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused(json!({"job": remind()})).await, "");
    assert_eq!(refused(json!({"cron": "0 9 * * *", "every": "1h", "job": remind()})).await, "");
    assert_eq!(refused(json!({"cron": "0 25 * * *", "job": remind()})).await, "/cron");
    assert_eq!(refused(json!({"cron": "0 9 * * *", "timezone": "Berlin", "job": remind()})).await, "/timezone");
    assert_eq!(refused(json!({"every": "soon", "job": remind()})).await, "/every");
    assert_eq!(refused(json!({"every": "1h", "job": {"kind": "retention"}})).await, "/job/kind");
    let mut job = remind();
    job["args"]["input"] = json!({});
    assert_eq!(refused(json!({"every": "1h", "job": job})).await, "/job/args/input");
    job["run_at"] = json!("2030-01-01T00:00:00Z");
    assert_eq!(refused(json!({"every": "1h", "job": job})).await, "/job/run_at");
    // The manifest's own cannot be taken over or cancelled, only paused.
    let fixed = json!({"name": "fixed", "every": "1h", "job": remind()});
    server.post("/api/v1/schedules", &token, &fixed).await.problem(409, "conflict");
    let list = server.get("/api/v1/schedules", &token).await.json();
    let fixed = format!("/api/v1/schedules/{}", list["schedules"][0]["id"].as_str().unwrap());
    server.post(&format!("{fixed}/cancel"), &token, &json!({})).await.problem(409, "conflict");
    assert_eq!(server.post(&format!("{fixed}/pause"), &token, &json!({})).await.status, 200);

    let stranger = add_user(&kit.world, "Bob").await;
    let theirs = add_token(&kit.world, stranger, Scope::ALL).await;
    assert_eq!(server.get("/api/v1/schedules", &theirs).await.json()["schedules"], json!([]));
    for path in ["", "/next", "/occurrences"] {
        server.get(&format!("{fixed}{path}"), &theirs).await.problem(404, "not-found");
    }
    for verb in ["pause", "resume", "trigger", "cancel"] {
        server.post(&format!("{fixed}/{verb}"), &theirs, &json!({})).await.problem(404, "not-found");
    }
    let reader = add_token(&kit.world, stranger, &[Scope::JobsRead]).await;
    server
        .post("/api/v1/schedules", &reader, &json!({"every": "1h", "job": remind()}))
        .await
        .problem(403, "scope-missing");
}

#[tokio::test]
async fn nobody_reads_schedules_without_a_scope() {
    let world = World::new().await;
    let (user, _) = somebody(&world).await;
    let token = add_token(&world, user, &[Scope::AppsRead]).await;
    let server = Server::start(&world).await;
    server.get("/api/v1/schedules", &token).await.problem(403, "scope-missing");
}

fn told(directory: &Directory, arguments: &[&str]) -> Value {
    let output = run(&directory.0, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_schedules_looks_and_steps_in() {
    let world = World::new().await;
    let home = Directory::new("verbs-schedule");
    give_credentials(&home.0, &world);
    let refused = |arguments: &[&str]| {
        let output = run(&home.0, arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", stdout(&output));
        stderr(&output)
    };
    assert!(refused(&["schedule", "create", "retentoin", "--every", "1h"]).contains("did you mean `retention`?"));
    assert!(refused(&["schedule", "create", "retention"]).contains("--cron"));
    assert!(refused(&["schedule", "create", "retention", "--cron", "0 0 30 2 *"]).contains("never fires"));
    let line =
        ["schedule", "create", "retention", "--name", "nightly", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin"];
    let made = told(&home, &line);
    let id = made["schedule"]["id"].as_str().unwrap();
    assert_eq!(
        (&made["schedule"]["origin"], &made["schedule"]["timezone"]),
        (&json!("operator"), &json!("Europe/Berlin"))
    );
    assert_eq!(told(&home, &line)["schedule"]["id"], id);
    let once = told(&home, &["schedule", "once", "retention", "--in", "10m"]);
    assert_eq!(told(&home, &["schedule", "list"])["schedules"].as_array().unwrap().len(), 2);
    assert_eq!(told(&home, &["schedule", "next", "nightly"])["fires"].as_array().unwrap().len(), 10);
    assert!(stdout(&run(&home.0, &["schedule", "next", "nightly"])).contains("T03:00:00+0"));
    let fired = told(&home, &["schedule", "trigger", "nightly"]);
    let job = told(&home, &["job", "show", fired["job_id"].as_str().unwrap()]);
    assert_eq!(job["job"]["cause"], "schedule nightly");
    assert_eq!(told(&home, &["schedule", "pause", id])["schedule"]["state"], "paused");
    assert!(stdout(&run(&home.0, &["schedule", "show", id])).contains("paused on the command line"));
    assert_eq!(told(&home, &["schedule", "resume", "nightly"])["schedule"]["state"], "active");
    told(&home, &["schedule", "cancel", once["schedule"]["id"].as_str().unwrap()]);
    assert!(refused(&["schedule", "show", "daily"]).contains("krilin schedule list"));
}
