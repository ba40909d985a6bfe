//! The demo as a person runs it: it proves what it says and leaves nothing behind.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    cli::{give_credentials, krilin, run, stderr, stdout},
    cluster::Directory,
    world::World,
};

#[test]
fn the_demo_loses_nothing_applies_nothing_twice_and_cleans_up() {
    let directory = Directory::new("demo");
    let output = krilin(&directory.0).args(["demo", "--json"]).env("TMPDIR", &directory.0).output().unwrap();
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    let proof: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(proof["jobs_sent"].as_u64().unwrap() > 100, "{proof}");
    assert_eq!(proof["jobs_done"], proof["jobs_sent"]);
    assert_eq!((&proof["jobs_lost"], &proof["jobs_applied_twice"]), (&0.into(), &0.into()));
    assert_eq!(proof["workers_killed"], 1);
    let streaks = proof["streaks"].as_array().unwrap();
    assert!(streaks.iter().any(|line| line["streak"] == 60 && line["days_done"] == 60), "{proof}");
    let left: Vec<_> = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn answer(directory: &Path, arguments: &[&str]) -> Value {
    let output = run(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[tokio::test]
async fn an_app_is_tried_published_installed_shown_and_removed() {
    let directory = Directory::new("apps");
    let world = World::new().await;
    give_credentials(&directory.0, &world);
    let at = directory.0.as_path();
    answer(at, &["user", "add", "--name", "Ada", "--timezone", "Europe/Berlin", "--json"]);

    let tried = answer(at, &["app", "publish", "habit-tracker", "--dry-run", "--json"]);
    assert_eq!(tried["dry_run"], true);
    assert!(!tried["steps"].as_array().unwrap().is_empty());
    let none = answer(at, &["app", "list", "--json"]);
    assert!(none["apps"].as_array().unwrap().is_empty(), "a dry run publishes nothing");
    let early = run(at, &["app", "install", "habit-tracker", "--user", "Ada"]);
    assert!(stderr(&early).contains("is not published"), "{}", stderr(&early));

    answer(at, &["app", "publish", "habit-tracker", "--json"]);
    let again = answer(at, &["app", "publish", "habit-tracker", "--json"]);
    assert_eq!(again["unchanged"], true);
    let shown = stdout(&run(at, &["app", "show", "habit-tracker"]));
    assert!(shown.contains("log_habit") && shown.contains("habit_logs"), "{shown}");

    answer(at, &["app", "install", "habit-tracker", "--user", "Ada", "--json"]);
    let listed = answer(at, &["app", "list", "--user", "Ada", "--json"]);
    assert_eq!(listed["installations"][0]["app_id"], "habit-tracker");
    answer(at, &["app", "remove", "habit-tracker", "--user", "Ada", "--json"]);
    let listed = answer(at, &["app", "list", "--user", "Ada", "--json"]);
    assert!(listed["installations"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn an_app_that_does_not_compile_is_refused_with_file_and_line() {
    let directory = Directory::new("broken-app");
    let world = World::new().await;
    give_credentials(&directory.0, &world);
    let app = directory.0.join("app");
    fs::create_dir(&app).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps/habit-tracker");
    fs::copy(from.join("manifest.json"), app.join("manifest.json")).unwrap();
    fs::write(app.join("app.js"), "// One line of comment.\nexport function log_habit( {\n").unwrap();
    let refused = run(&directory.0, &["app", "publish", app.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("app.js:"), "{}", stderr(&refused));
    let unknown = run(&directory.0, &["app", "publish", "habit-trakcer"]);
    assert!(stderr(&unknown).contains("did you mean `habit-tracker`"), "{}", stderr(&unknown));
    let listed = answer(&directory.0, &["app", "list", "--json"]);
    assert!(listed["apps"].as_array().unwrap().is_empty());
}
