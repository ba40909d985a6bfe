//! The apps in `apps/`: each loads without an error, its README mirrors its manifest, and its own tests hold.

use std::{fs, path::Path};

use krilin::{
    apps::{
        publish::{self, Options},
        types::{TYPES_FILE, typescript},
    },
    cli::trial::Trial,
    model::{
        bundle::Bundle,
        manifest::{self, ActionKind, Format, Manifest},
    },
    sandbox::{Pool, PoolOptions},
};

use crate::world::World;

const HABIT_TRACKER: &str = "apps/habit-tracker";

fn read(app: &str, file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(app).join(file)).unwrap()
}

fn manifest_of(app: &str) -> Manifest {
    manifest::load(&read(app, "manifest.json"), Format::Json).unwrap().manifest
}

#[tokio::test]
async fn the_habit_trackers_own_tests_hold() {
    let world = World::new().await;
    let manifest = manifest_of(HABIT_TRACKER);
    let code = Bundle::new("app.js", &read(HABIT_TRACKER, "app.js"));
    let mut owner = world.owner.acquire().await.unwrap();
    publish::publish(&mut owner, &manifest, &code, Options::default()).await.unwrap();
    let sandbox = Pool::start(PoolOptions { size: 1, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) }).unwrap();
    let test = read(HABIT_TRACKER, "test.js");
    let trial = Trial::load(world.pool.clone(), sandbox, manifest.metadata.id, (&code, &test)).await.unwrap();
    let verdicts = trial.run(|_| {}).await;
    assert!(verdicts.len() > 10, "{verdicts:?}");
    let problems: Vec<_> =
        verdicts.iter().filter_map(|v| Some(format!("{}: {}", v.name, v.problem.as_ref()?))).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_readme_of_the_habit_tracker_lists_its_actions() {
    let readme = read(HABIT_TRACKER, "README.md");
    let listed: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `")).collect();
    let manifest = manifest_of(HABIT_TRACKER);
    let rows = manifest.actions.iter().map(|action| {
        let kind = if action.kind == ActionKind::Query { "reads" } else { "changes" };
        format!("| `{}` | {kind} | {} |", action.id, action.description.as_deref().unwrap_or_default())
    });
    assert_eq!(listed, rows.collect::<Vec<_>>());
}

#[test]
fn the_types_beside_the_habit_tracker_are_those_of_its_manifest() {
    assert_eq!(read(HABIT_TRACKER, TYPES_FILE), typescript(&manifest_of(HABIT_TRACKER)));
}
