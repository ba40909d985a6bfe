//! The binary as a person or a script meets it: a child process with arguments, files and an exit code.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{cluster::Directory, world::World};

/// The binary under test, in a directory of its own and with nothing of this process' environment that could reach it.
pub fn krilin(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_krilin"));
    command.current_dir(directory).env_remove("CREDENTIALS_DIRECTORY").env("STATE_DIRECTORY", directory.join("state"));
    command
}

/// Runs the binary to its end.
pub fn run(directory: &Path, arguments: &[&str]) -> Output {
    krilin(directory).args(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Lays the credentials of `world` where the binary in `directory` looks for them.
pub fn give_credentials(directory: &Path, world: &World) {
    let credentials = directory.join("config/credentials");
    fs::create_dir_all(&credentials).unwrap();
    fs::write(credentials.join("database_url"), &world.url).unwrap();
    fs::write(credentials.join("owner_database_url"), &world.owner_url).unwrap();
}

#[test]
fn what_is_not_understood_ends_with_two_and_what_fails_with_one() {
    let directory = Directory::new("codes");
    let misunderstood = run(&directory.0, &["db", "migrat"]);
    assert_eq!(misunderstood.status.code(), Some(2));
    assert!(stderr(&misunderstood).contains("migrate"), "the nearest verb is offered");

    let failed = run(&directory.0, &["db", "status"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("krilin up"), "{}", stderr(&failed));
    assert!(stdout(&failed).is_empty());

    let for_programs = run(&directory.0, &["db", "status", "--json"]);
    let error: Value = serde_json::from_str(&stderr(&for_programs)).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("database_url"));
}

/// The verbs of `krilin PATH… --help`, without `help` itself.
fn verbs(directory: &Path, path: &[String]) -> Vec<String> {
    let mut arguments: Vec<&str> = path.iter().map(String::as_str).collect();
    arguments.push("--help");
    let output = run(directory, &arguments);
    assert!(output.status.success(), "{path:?}");
    let help = stdout(&output);
    assert!(help.contains("Usage: "), "{path:?}");
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let named = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    named.map(|line| line.split_whitespace().next().unwrap().to_owned()).filter(|verb| verb != "help").collect()
}

#[test]
fn every_verb_has_a_help_text() {
    let directory = Directory::new("help");
    let mut open = vec![Vec::new()];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        seen += 1;
        for verb in verbs(&directory.0, &path) {
            open.push(path.iter().cloned().chain([verb]).collect());
        }
    }
    assert!(seen > 5, "the walk found {seen} pages only");
}

#[tokio::test]
async fn a_schema_is_migrated_checked_and_listed() {
    let directory = Directory::new("migrate");
    let world = World::new().await;
    give_credentials(&directory.0, &world);
    let migrated = run(&directory.0, &["db", "migrate", "--json"]);
    let answer: Value = serde_json::from_str(&stdout(&migrated)).unwrap();
    assert_eq!(answer["applied"].as_array().unwrap().len(), 0, "the world's database is a copy of a migrated one");
    assert!(run(&directory.0, &["db", "check"]).status.success());
    let status: Value = serde_json::from_str(&stdout(&run(&directory.0, &["db", "status", "--json"]))).unwrap();
    let migrations = status["migrations"].as_array().unwrap();
    assert!(!migrations.is_empty());
    assert!(migrations.iter().all(|migration| migration["state"] == "applied"));
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_every_verb_that_would_work_on_it() {
    let directory = Directory::new("newer");
    let world = World::new().await;
    give_credentials(&directory.0, &world);
    sqlx::raw_sql(
        "insert into krilin._sqlx_migrations (version, description, success, checksum, execution_time) \
         values (9999, 'from the future', true, 'x', 1)",
    )
    .execute(&world.owner)
    .await
    .unwrap();
    for verb in [["db", "check"], ["db", "migrate"]] {
        let refused = run(&directory.0, &verb);
        assert_eq!(refused.status.code(), Some(1), "{verb:?}");
        assert!(stderr(&refused).contains("the schema is at version 9999"), "{}", stderr(&refused));
    }
    let status = stdout(&run(&directory.0, &["db", "status"]));
    assert!(status.contains("applied by a newer krilin"), "{status}");
}

#[tokio::test]
async fn a_migration_with_another_text_is_refused() {
    let directory = Directory::new("altered");
    let world = World::new().await;
    give_credentials(&directory.0, &world);
    sqlx::raw_sql("update krilin._sqlx_migrations set checksum = 'x' where version = 1")
        .execute(&world.owner)
        .await
        .unwrap();
    let refused = run(&directory.0, &["db", "check"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("migration 1 was applied with another text"), "{}", stderr(&refused));
}

#[tokio::test]
async fn an_empty_database_says_what_to_run() {
    let directory = Directory::new("behind");
    let world = World::new().await;
    give_credentials(&directory.0, &world);
    sqlx::raw_sql("drop table krilin._sqlx_migrations").execute(&world.owner).await.unwrap();
    let refused = run(&directory.0, &["db", "check"]);
    assert!(stderr(&refused).contains("run `krilin db migrate`"), "{}", stderr(&refused));
}

#[test]
fn the_configuration_is_shown_with_its_sources_and_without_its_secrets() {
    let directory = Directory::new("show");
    let credentials = directory.0.join("config/credentials");
    fs::create_dir_all(&credentials).unwrap();
    fs::write(credentials.join("database_url"), "postgres://krilin_runtime:hunter2@localhost/krilin").unwrap();
    let shown = krilin(&directory.0).args(["config", "show"]).env("KRILIN_LOG__LEVEL", "debug").output().unwrap();
    let text = stdout(&shown);
    assert!(text.contains("the environment"), "{text}");
    assert!(text.contains("‹set›") && text.contains("‹missing›"), "{text}");
    assert!(!text.contains("hunter2"));

    let checked = run(&directory.0, &["config", "check"]);
    assert!(stderr(&checked).contains("everybody on this machine can read"), "{}", stderr(&checked));
}
