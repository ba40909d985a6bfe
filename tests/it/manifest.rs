//! Manifests: the data tests of `tests/manifests` and what normalising promises.
//!
//! Adding a test is adding a file: `valid/NAME.{json,yaml}` must load; `invalid/NAME.{json,yaml}` must give exactly the
//! lines of `invalid/NAME.err`.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use krilin::model::manifest::{self, Cardinality, Format, Loaded, OutputKind, Problem, ScalarType};
use serde_json::{Value, json};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(name)
}

fn load_file(path: &Path) -> Result<Loaded, Vec<Problem>> {
    let format = if path.extension().is_some_and(|e| e == "json") { Format::Json } else { Format::Yaml };
    manifest::load(&fs::read_to_string(path).unwrap(), format)
}

/// The manifests of a directory, in order of their names.
fn manifests(name: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml"))
        .collect();
    paths.sort();
    paths
}

fn lines(problems: &[Problem]) -> String {
    let mut text = String::new();
    for p in problems {
        let _ = writeln!(text, "{} {} {} {}", p.pointer, p.code, p.line, p.message);
    }
    text
}

#[test]
fn every_valid_manifest_loads_and_its_long_form_loads_to_the_same() {
    for path in manifests("valid") {
        let loaded = load_file(&path).unwrap_or_else(|problems| panic!("{}:\n{}", path.display(), lines(&problems)));
        let text = serde_json::to_string_pretty(&loaded.manifest).unwrap();
        let again = manifest::load(&text, Format::Json)
            .unwrap_or_else(|problems| panic!("{} again:\n{}\n{text}", path.display(), lines(&problems)));
        assert_eq!(again.manifest, loaded.manifest, "{}", path.display());
    }
}

#[test]
fn every_broken_manifest_gives_exactly_the_expected_problems() {
    let mut differing = String::new();
    for path in manifests("invalid") {
        let found = match load_file(&path) {
            Ok(_) => String::new(),
            Err(problems) => lines(&problems),
        };
        let expected = fs::read_to_string(path.with_extension("err")).unwrap_or_default();
        if found.is_empty() || found != expected {
            let _ = write!(differing, "=== {}\n--- expected\n{expected}--- found\n{found}", path.display());
        }
    }
    assert!(differing.is_empty(), "\n{differing}");
}

#[test]
fn the_trackers_example_parses_without_change_and_is_written_out() {
    let loaded = load_file(&directory("valid").join("tracker-example.json")).unwrap();
    let manifest = loaded.manifest;
    assert_eq!(manifest.metadata.id.as_str(), "habit-tracker");
    assert_eq!(manifest.database.tables.len(), 1);
    let agent = manifest.agent_config.as_ref().unwrap();
    assert_eq!(agent.tools.iter().map(|t| (&*t.name, &*t.action)).next(), Some(("get_habits", "get_habits")));
    let calendar = &manifest.dependencies.optional_apps[0];
    assert_eq!((calendar.app_id.as_str(), calendar.version.to_string()), ("calendar", "*".to_owned()));
    let columns = &manifest.database.tables[0].columns;
    assert_eq!(columns.keys().collect::<Vec<_>>(), ["frequency", "name"], "the platform's id is no column of the app");
    assert!(columns["name"].kind == ScalarType::String && columns["name"].nullable);
    let OutputKind::Data(streaks) = &manifest.outputs[0].kind else { panic!("a data output") };
    assert_eq!(streaks.cardinality, Cardinality::Many);
    let record: &Value = &streaks.schema["items"];
    assert_eq!(record["properties"]["streak"], json!({"type": ["number", "null"]}));
    let notifications = manifest.permissions.notifications.unwrap();
    assert_eq!((notifications.max_per_day, notifications.channels), (20, vec!["in_app".to_owned()]));
    assert!(manifest.actions.is_empty(), "implicit actions need the bundle");
}
