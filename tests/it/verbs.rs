//! The verbs `user`, `token` and `job`, as an operator types them.

use std::path::Path;

use serde_json::Value;

use crate::{
    cli::{give_credentials, run, stderr, stdout},
    cluster::Directory,
    world::World,
};

/// A directory whose binary reaches the database of a world of its own.
async fn set_up(name: &str) -> (World, Directory) {
    let world = World::new().await;
    let directory = Directory::new(name);
    give_credentials(&directory.0, &world);
    (world, directory)
}

/// The answer of a verb that must succeed.
fn told(directory: &Path, arguments: &[&str]) -> Value {
    let output = run(directory, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// The words of a verb that must fail.
fn refused(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stdout(&output));
    stderr(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_added_given_a_token_and_loses_it() {
    let (_world, home) = set_up("verbs-user").await;
    let home = home.0.as_path();
    let words = refused(home, &["user", "add", "--name", "Ada", "--timezone", "Mars/Olympus"]);
    assert!(words.contains("Europe/Berlin") && words.contains("nobody was added"), "{words}");
    let ada = ["user", "add", "--name", "Ada", "--timezone", "Europe/London", "--email", "ada@example.org"];
    let added = told(home, &ada);
    let id = added["user"]["id"].as_str().unwrap();
    assert!(refused(home, &ada).contains("another user has this e-mail address"));
    assert_eq!(told(home, &["user", "list"])["users"].as_array().unwrap().len(), 1);

    let made = told(home, &["token", "create", "--user", "Ada", "--scope", "apps:call", "--expires", "90d"]);
    assert!(made["secret"].as_str().unwrap().starts_with("krl_"));
    assert_eq!(made["token"]["user_id"], id);
    let token = made["token"]["id"].as_str().unwrap();
    let listed = run(home, &["token", "list", "--user", "ada@example.org"]);
    assert!(stdout(&listed).contains(token) && !stdout(&listed).contains("krl_"), "{}", stdout(&listed));
    assert!(told(home, &["token", "revoke", token])["token"]["revoked_at"].is_string());
    assert!(refused(home, &["token", "create", "--user", "Bob", "--scope", "apps:call"]).contains("krilin user list"));
    for wrong in [["--scope", "everything"], ["--expires", "-1d"]] {
        let output = run(home, &[&["token", "create", "--user", "Ada", "--scope", "apps:call"][..], &wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_enqueues_looks_cancels_and_retries() {
    let (_world, home) = set_up("verbs-job").await;
    let home = home.0.as_path();
    assert!(refused(home, &["job", "enqueue", "retentoin"]).contains("did you mean `retention`?"));
    let job = told(home, &["job", "enqueue", "retention"]);
    let id = job["job"]["id"].as_str().unwrap();
    assert_eq!((job["job"]["state"].as_str(), job["job"]["cause"].as_str()), (Some("pending"), Some("command line")));
    assert_eq!(told(home, &["job", "cancel", id])["job"]["state"], "cancelled");
    assert!(refused(home, &["job", "cancel", id]).contains("krilin job show"));
    assert_eq!(told(home, &["job", "list", "--state", "cancelled"])["jobs"][0]["id"], id);
    assert_eq!(told(home, &["job", "retry", id])["job"]["state"], "pending");
    assert_eq!(told(home, &["job", "list", "--state", "cancelled"])["jobs"], serde_json::json!([]));
    assert!(stdout(&run(home, &["job", "show", id])).contains("retention"));
    assert!(refused(home, &["job", "show", &uuid::Uuid::nil().to_string()]).contains("krilin job list"));
    let kinds = told(home, &["job", "kinds"]);
    assert!(kinds["kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] == "app_action"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_delays_orders_and_replaces_a_job() {
    let (world, home) = set_up("verbs-enqueue").await;
    let home = home.0.as_path();
    let enqueue = |more: &[&'static str]| [&["job", "enqueue", "retention", "--unique", "tidy"][..], more].concat();
    let first = told(home, &enqueue(&["--delay", "1h", "--priority", "-5", "--period", "1d", "--args", "{\"n\": 1}"]));
    assert_eq!((&first["outcome"], &first["job"]["priority"]), (&"created".into(), &(-5).into()));
    let id = &first["job"]["id"];
    let kept = told(home, &enqueue(&[]));
    assert_eq!((&kept["outcome"], &kept["job"]["id"], &kept["job"]["args"]["n"]), (&"kept".into(), id, &1.into()));
    let replaced = told(home, &enqueue(&["--on-conflict", "replace", "--args", "{\"n\": 2}", "--max-attempts", "2"]));
    assert_eq!((&replaced["outcome"], &replaced["job"]["args"]["n"]), (&"replaced".into(), &2.into()));
    let words = stdout(&run(home, &enqueue(&["--on-conflict", "debounce", "--delay", "5m", "--max-wait", "1h"])));
    assert!(words.starts_with("Its unique key was taken"), "{words}");
    assert!(refused(home, &enqueue(&["--on-conflict", "debounce"])).contains("nothing was enqueued"));
    for wrong in
        [&["--delay", "soon"][..], &["--on-conflict", "merge"], &["--delay", "1h", "--run-at", "2999-01-01T00:00:00Z"]]
    {
        assert_eq!(run(home, &enqueue(wrong)).status.code(), Some(2), "{wrong:?}");
    }
    let jobs: i64 = sqlx::query_scalar("select count(*) from krilin.jobs").fetch_one(&world.pool).await.unwrap();
    assert_eq!(jobs, 1);
}
